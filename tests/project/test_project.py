"""What the project says of itself: README's snippet runs, its names exist, planted bugs are planted where they say."""

import re
from pathlib import Path
from types import ModuleType

import mutants
import pytest

import neuron_vs_sae as nvs
from neuron_vs_sae.core.lookup import known

README = (mutants.ROOT / "README.md").read_text(encoding="utf-8")
LISTED = (mutants.ROOT / "docs" / "guide" / "what_there_is.md").read_text(encoding="utf-8")


def test_every_public_name_is_there() -> None:
    for name in nvs.__all__:
        assert getattr(nvs, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonesuch'"):
        _ = nvs.nonesuch


def test_a_public_name_is_what_it_says_and_not_the_module_that_it_is_in() -> None:
    modules = {name for name in nvs.__all__ if isinstance(getattr(nvs, name), ModuleType)}
    assert modules == {"ablation", "attribution", "bases", "metrics", "plots", "tables", "tasks"}


def test_the_readmes_snippet_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (snippet,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    exec(snippet, {})
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["mlp_neurons", "sae"]
    assert all(re.fullmatch(r"\d+ nodes \[.*\]", line.split(maxsplit=1)[1]) for line in lines)


@pytest.mark.parametrize("folder", ["bases", "attribution", "ablation"])
def test_the_guide_names_all_that_there_is(folder: str) -> None:
    for name in known(folder):
        assert re.search(rf"`{name}[`:]", LISTED), name


def test_the_readme_is_read_in_five_minutes() -> None:
    assert len(README.split()) < 1200


def test_the_readmes_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (mutants.ROOT / target).exists(), target


def test_the_guides_links_lead_somewhere() -> None:
    for page in (mutants.ROOT / "docs" / "guide").glob("*.md"):
        for target in re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), (page.name, target)


@pytest.mark.parametrize("mutant", mutants.MUTANTS, ids=lambda m: m.bug)
def test_every_planted_bug_has_its_place(mutant: mutants.Mutant) -> None:
    text = (mutants.ROOT / "neuron_vs_sae" / mutant.file).read_text(encoding="utf-8")
    assert text.count(mutant.old) == 1
    assert (mutants.ROOT / Path(mutant.tests.split()[0])).exists()
