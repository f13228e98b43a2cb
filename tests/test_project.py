"""What the project says of itself: README's snippet runs, its names exist, planted bugs are planted where they say."""

import re
from pathlib import Path
from typing import Any

import mutants
import pytest
import toys

import neuron_vs_sae as nvs
from neuron_vs_sae.lookup import known

README = (mutants.ROOT / "README.md").read_text(encoding="utf-8")


def test_every_public_name_is_there() -> None:
    for name in nvs.__all__:
        assert getattr(nvs, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonesuch'"):
        _ = nvs.nonesuch


def test_the_readmes_snippet_runs(
    llama: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a toy in place of GPT-2, its SAEs in place of the release, and pairs in place of the file."""
    (snippet,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    sae, from_file = nvs.bases.sae, nvs.tasks.from_file
    monkeypatch.setattr("neuron_vs_sae.models.load_model", lambda name: llama)
    monkeypatch.setattr(nvs.bases, "sae", lambda model, source: sae(model, source=toys.saes()))
    monkeypatch.setattr(nvs.tasks, "from_file", lambda model, path: toys.pairs(400))
    exec(snippet, {})
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["mlp_neurons", "sae"]
    assert from_file is not nvs.tasks.from_file


@pytest.mark.parametrize("folder", ["bases", "attribution", "ablation"])
def test_the_readme_names_all_that_there_is(folder: str) -> None:
    for name in known(folder):
        assert re.search(rf"`{name}[`:]", README), name


def test_the_readmes_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (mutants.ROOT / target).exists(), target


@pytest.mark.parametrize("mutant", mutants.MUTANTS, ids=lambda m: m.bug)
def test_every_planted_bug_has_its_place(mutant: mutants.Mutant) -> None:
    text = (mutants.ROOT / "neuron_vs_sae" / mutant.file).read_text(encoding="utf-8")
    assert text.count(mutant.old) == 1
    assert (mutants.ROOT / Path(mutant.tests.split()[0])).exists()
