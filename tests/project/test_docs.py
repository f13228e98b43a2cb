"""The documentation: its reference is complete, its example works, its pages are short, docstrings come through as they read."""

import re
import sys
from pathlib import Path
from types import ModuleType

import mutants
import pytest
import torch
import toys

import neuron_vs_sae as nvs
from neuron_vs_sae.core.lookup import known
from neuron_vs_sae.running.machine import Machine
from neuron_vs_sae.studies import result
from neuron_vs_sae.studies.study import Study
from neuron_vs_sae.studies.summary import SUMMARY

DOCS = mutants.ROOT / "docs"
sys.path.insert(0, str(DOCS))

import docstrings  # noqa: E402
import generate  # noqa: E402

PAGES = [file for folder in (DOCS, DOCS / "api", DOCS / "concepts") for file in sorted(folder.glob("*.md"))]


def test_every_public_name_is_in_the_reference() -> None:
    text = "\n".join(file.read_text(encoding="utf-8") for file in (DOCS / "api").glob("*.md"))
    for name in nvs.__all__:
        thing = getattr(nvs, name)
        if not isinstance(thing, ModuleType):
            assert re.search(rf":: {re.escape(thing.__module__)}\.{name}\n", text), name


def test_the_example_of_a_basis_is_one() -> None:
    page = (DOCS / "extending.md").read_text(encoding="utf-8")
    (snippet,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    made: dict = {}
    exec(snippet, made)
    model = toys.model("llama")
    basis = made["hadamard"](model)
    assert [site.name for site in basis.sites] == ["blocks.0.hook_mlp_out", "blocks.1.hook_mlp_out"]
    x = torch.randn(2, 3, toys.D_MODEL)
    units = basis.dictionaries[0].encode(x)
    torch.testing.assert_close(basis.dictionaries[0].decode(units), x)
    assert not torch.allclose(units, x)


def test_every_file_and_column_of_a_result_is_described() -> None:
    page = (DOCS / "concepts" / "formats.md").read_text(encoding="utf-8")
    for name in (*result.FILES, "study.json"):
        assert f"`{name}`" in page, name
    for column in SUMMARY:
        stem = re.sub(r"^(faithfulness|completeness)_", "...", column)
        assert f"`{column}`" in page or f"`{stem.replace('...', '..._')}`" in page, column


@pytest.mark.parametrize("folder", ["bases", "attribution", "ablation", "metrics", "tasks"])
def test_the_reference_lists_all_that_there_is(folder: str) -> None:
    text = generate.functions(folder)
    assert re.findall(r"^## `(.*)`$", text, re.MULTILINE) == list(known(folder))


def test_the_page_of_settings_has_a_row_for_every_one() -> None:
    text = generate.settings()
    for name in (*Study.model_fields, *Machine.__dataclass_fields__):
        assert text.count(f"| `{name}` |") == 1, name
    assert "float32, float64, bfloat16, float16" in text


@pytest.mark.parametrize("file", PAGES, ids=lambda file: str(file.relative_to(DOCS)))
def test_a_page_is_short(file: Path) -> None:
    assert len(file.read_text(encoding="utf-8").splitlines()) <= 200


def test_every_page_is_reached_from_the_first() -> None:
    index = (DOCS / "index.md").read_text(encoding="utf-8")
    for file in PAGES:
        name = str(file.relative_to(DOCS).with_suffix(""))
        assert name == "index" or re.search(rf"^{name}$", index, re.MULTILINE), name


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("the largest |score| of `top(k)`", r"the largest \|score\| of ``top(k)``"),
        ("`a *\n    b` * c", r"``a * b`` \* c"),
        ("names_ and n_layers", r"names\_ and n_layers"),
    ],
)
def test_docstrings_are_read_as_they_are_written(written: str, shown: str) -> None:
    assert docstrings.to_rst(written) == shown


def test_annotations_are_shown_without_the_modules_of_their_names() -> None:
    given = (
        "(x: ~jaxtyping.Float[Tensor, 'batch pos'], y: neuron_vs_sae.core.basis.Basis) -> jaxtyping.Int[ndarray, 'n']"
    )
    assert docstrings.readable(given) == "(x: Float[Tensor, 'batch pos'], y: Basis) -> Int[ndarray, 'n']"
