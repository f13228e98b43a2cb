"""Dictionaries that do not all fit in memory: the same numbers, read when they are used, never more held than allowed."""

import gc
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
import toys
from sae_lens import SAE

import neuron_vs_sae as nvs
from neuron_vs_sae.catalog.dictionaries.streaming import Shelf
from neuron_vs_sae.core.dictionary import Affine
from neuron_vs_sae.core.errors import InputError

ONE = 10 * (toys.D_MODEL + toys.D_MODEL) * 8 / 2**30
"""GiB of one toy SAE in float64."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for layer, made in enumerate(toys.saes(model_name="toy-llama")):
        made.save_model(tmp_path / "saes" / str(layer))
    return tmp_path / "saes"


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the folders whose weights were read."""
    names: list[str] = []
    load = SAE.load_from_disk
    monkeypatch.setattr(SAE, "load_from_disk", lambda folder: names.append(Path(folder).name) or load(folder))
    return names


@pytest.mark.checked
@pytest.mark.parametrize("kind", ["sae", "random_sae"])
@pytest.mark.parametrize("room", [1.5, 10])
def test_scores_and_curves_are_the_same_with_and_without_a_shelf(
    kind: str, room: float, llama: Any, folder: Path
) -> None:
    pairs = toys.pairs()
    options: dict[str, Any] = {"source": folder} | ({"prompts": pairs} if kind == "random_sae" else {})
    make = getattr(nvs.bases, kind)
    plain, streamed = make(llama, **options), make(llama, **options, shelf=Shelf(room * ONE))
    assert plain.provenance == streamed.provenance
    for method in (nvs.attribution.integrated_gradients, nvs.attribution.activation_patching, nvs.attribution.relp):
        scores, others = (method(llama, basis, pairs) for basis in (plain, streamed))
        assert torch.equal(scores.values, others.values)
        assert scores.index == others.index
    for engine in ("fast", "exact"):
        one, other = (
            nvs.evaluate(llama, basis, scores, pairs, sizes=[0, 3, 20], engine=engine) for basis in (plain, streamed)
        )
        assert torch.equal(one.circuit, other.circuit)
        assert torch.equal(one.complement, other.complement)


def test_few_changing_units_take_few_entries_of_the_gradient_with_a_shelf_too(
    llama: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for layer, made in enumerate(toys.saes(model_name="toy-llama", width=300, architecture="topk", k=3)):
        made.save_model(tmp_path / "wide" / str(layer))
    basis = nvs.bases.sae(llama, tmp_path / "wide", shelf=Shelf(100 * ONE))

    def whole(*args: Any) -> Any:
        raise AssertionError("the gradient of all units was taken")

    monkeypatch.setattr(Affine, "pull_back", whole)
    assert bool(nvs.attribution.relp(llama, basis, toys.pairs()).values.any())


@pytest.mark.checked
def test_what_fits_is_read_once_and_what_does_not_when_it_is_used(llama: Any, folder: Path, read: list[str]) -> None:
    pairs = toys.pairs()
    enough, short = Shelf(2.5 * ONE), Shelf(1.5 * ONE)
    for _ in range(2):  # two bases of one study
        nvs.attribution.relp(llama, nvs.bases.sae(llama, source=folder, shelf=enough), pairs)
    assert read == ["0", "1"]
    read.clear()
    nvs.attribution.relp(llama, nvs.bases.sae(llama, source=folder, shelf=short), pairs)
    assert read.count("0") >= 2
    assert short.held == ONE * 2**30


def test_what_is_given_up_is_out_of_memory_at_once(llama: Any, folder: Path) -> None:
    """Without the collector of cycles, which runs when it likes."""
    shelf = Shelf()
    gc.disable()
    try:
        basis = nvs.bases.sae(llama, folder, shelf=shelf)
        kept = weakref.ref(basis.dictionaries[0])
        assert nvs.bases.sae(llama, folder, shelf=shelf).dictionaries[0] is kept()
        del basis
        assert kept() is None
    finally:
        gc.enable()


def test_a_dictionary_larger_than_the_shelf_is_refused_before_it_is_read(
    llama: Any, folder: Path, read: list[str]
) -> None:
    with pytest.raises(InputError, match=r"a dictionary of 1.2e-06 GiB does not fit in the .* GiB .*\(--max-memory\)"):
        nvs.bases.sae(llama, source=folder, shelf=Shelf(0.5 * ONE))
    assert read == []
    with pytest.raises(InputError, match=r"max_memory=0\.0: dictionaries need room"):
        Shelf(0.0)


def test_an_sae_that_changes_while_it_is_in_use_is_refused(llama: Any, folder: Path) -> None:
    basis = nvs.bases.sae(llama, source=folder, shelf=Shelf(1.5 * ONE))
    for layer, made in enumerate(toys.saes(model_name="toy-llama")):
        made.b_dec.data += 1
        made.save_model(folder / str(layer))
    with pytest.raises(InputError, match="SAE 0 has changed while it was in use"):
        nvs.attribution.relp(llama, basis, toys.pairs())
