"""Everything that has a source is cited by it, and every citation is BibTeX."""

import inspect
import re
from fnmatch import fnmatchcase
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import neuron_vs_sae as nvs
from neuron_vs_sae.core.lookup import find, known
from neuron_vs_sae.default.families import FAMILIES
from neuron_vs_sae.models.presets import presets
from neuron_vs_sae.report.citation import bibtex, cited_works

ARXIV = re.compile(r"\b\d{4}\.\d{5}\b")
NAMES = [
    f"{folder}/{name}" for folder in ("attribution", "ablation", "bases", "tasks", "metrics") for name in known(folder)
]


@pytest.mark.parametrize("name", NAMES)
def test_what_a_docstring_cites_is_cited_by_a_result_that_uses_it(name: str) -> None:
    folder, _, one = name.partition("/")
    function = find(folder, one)
    module = import_module(function.__module__)
    said = set(ARXIV.findall(f"{inspect.getdoc(function)}\n{inspect.getdoc(module)}"))
    cited = {work.arxiv for work in cited_works().values() if name in work.names or work.always}
    assert said <= cited


@pytest.mark.parametrize("name", presets())
def test_what_a_preset_cites_is_cited_by_a_result_that_uses_it(name: str) -> None:
    preset = presets()[name]
    sources = [s.split("/")[0] for kinds in (preset.saes, preset.transcoders) for many in kinds.values() for s in many]
    cited = {
        r.arxiv
        for r in cited_works().values()
        if name in r.models or any(fnmatchcase(source, pattern) for source in sources for pattern in r.releases)
    }
    assert set(ARXIV.findall(preset.paper)) <= cited


def test_references_are_for_names_that_there_are() -> None:
    there = {*NAMES, *(f"world/{name}" for name in FAMILIES), "sizes/mib", "formats/mib"}
    releases = {
        s.split("/")[0] for p in presets().values() for k in (p.saes, p.transcoders) for m in k.values() for s in m
    }
    for key, reference in cited_works().items():
        assert set(reference.names) <= there, key
        assert set(reference.models) <= set(presets()), key
        for pattern in reference.releases:
            assert any(fnmatchcase(release, pattern) for release in releases), (key, pattern)
        assert reference.names or reference.models or reference.releases or reference.always, key


def entries(text: str) -> list[str]:
    return re.findall(r"^@\w+\{([^,\s]+),$", text, re.MULTILINE)


def test_a_result_cites_this_tool_its_data_and_its_methods_and_no_others(evident: Any) -> None:
    text = bibtex(evident)
    keys = entries(text)
    assert len(keys) == len(set(keys))
    assert keys[0] == "neuron_vs_sae"
    assert {"jafari2025relp", "arora2026language", "vig2020causal", "marks2024sparse", "bloom2024saelens"} <= set(keys)
    assert not {"hanna2024faith", "dhamdhere2018how", "radford2019language", "korznikov2026sanity"} & set(keys)
    assert sum(key.startswith("data_") for key in keys) == 2
    assert sum(key.startswith("model_") for key in keys) == 1


def test_entries_are_balanced_whatever_names_hold(evident: Any) -> None:
    for entry in bibtex(evident).split("\n\n"):
        plain = re.sub(r"\\[{}]", "", entry)
        depth = 0
        for character in plain:
            depth += (character == "{") - (character == "}")
            assert depth >= 0, entry
        assert depth == 0, entry
        assert plain.isascii()


def test_a_release_without_a_paper_is_cited_by_its_repository(evident: Any) -> None:
    saes = {"saes": [{"release": "some-release", "repo": "someone/some-saes"}]}
    record = {**evident.record, "bases": {"saw": {evident.study.basis[1]: saes}}}
    found = nvs.Result(Path(), record, evident.curves, evident.summary)
    assert (
        "@misc{saes_some_release,\n  title = {{SAEs some{-}release}},\n  howpublished = {\\url{https://huggingface.co/someone/some-saes}}"
        in bibtex(found)
    )
