"""Dictionaries are abstract or final, and how each unit reads a token is a law of all of them."""

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tables
import torch
import toys
from mutants import ROOT
from sae_lens import StandardSAE

import neuron_vs_sae as nvs
from neuron_vs_sae.catalog.dictionaries.streaming import Shelf, Streamed
from neuron_vs_sae.core.dictionary import Affine, Coordinates, Dictionary, Some
from neuron_vs_sae.execution.neurons import Neurons

HOOK = "blocks.0.hook_mlp_out"
CLASSES = {
    node.name: node
    for file in sorted((ROOT / "neuron_vs_sae").rglob("*.py"))
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
    if isinstance(node, ast.ClassDef)
}


def methods(node: ast.ClassDef, *, abstract: bool) -> set[str]:
    """Its methods without a body of their own (abstract), or those with one."""
    defined = [part for part in node.body if isinstance(part, ast.FunctionDef)]
    return {part.name for part in defined if ("abstractmethod" in map(ast.unparse, part.decorator_list)) == abstract}


def test_nothing_that_is_implemented_is_overridden() -> None:
    overridden = [
        f"{name}.{method}"
        for name, node in CLASSES.items()
        for base in (CLASSES.get(ast.unparse(written)) for written in node.bases)
        if base is not None
        for method in methods(base, abstract=False) & methods(node, abstract=False)
    ]
    assert not overridden


@pytest.mark.parametrize("kind", [Affine, Coordinates, Some, Streamed, Neurons])
def test_a_dictionary_is_final_and_an_interface_without_defaults(kind: type) -> None:
    assert getattr(kind, "__final__", False)
    assert {name for name, value in vars(Dictionary).items() if callable(value)} == Dictionary.__abstractmethods__


def test_every_dictionary_is_among_these() -> None:
    kinds = {name for name, node in CLASSES.items() if "Dictionary" in map(ast.unparse, node.bases)}
    assert kinds == {"Affine", "Coordinates", "Some", "Streamed", "Neurons"}


def of_every_kind(model: Any, folder: Path) -> dict[str, Dictionary]:
    sae = toys.sae(HOOK, model_name="toy-llama")
    sae.save_model(folder)
    (affine,) = nvs.bases.sae(model, [sae]).dictionaries
    (streamed,) = nvs.bases.sae(model, folder, shelf=Shelf(1.0)).dictionaries
    return {
        "Affine": affine,
        "Coordinates": Coordinates(toys.D_MODEL, torch.float64),
        "Some": Some(affine, torch.tensor([7, 2, 9]), token(toys.D_MODEL)),
        "Streamed": streamed,
        "Neurons": Neurons(model.blocks[0].mlp, torch.float64),
    }


@pytest.mark.checked
@pytest.mark.parametrize("kind", ["Affine", "Coordinates", "Some", "Streamed", "Neurons"])
def test_some_of_a_dictionary_is_part_of_all_of_it(kind: str, llama: Any, tmp_path: Path) -> None:
    """Every method for some units gives what the one for all gives there, and `decode` is affine in rows of its matrix."""
    dictionary = of_every_kind(llama, tmp_path)[kind]
    assert type(dictionary).__name__ == kind
    y, units = torch.stack([token(toys.D_MODEL, seed) for seed in range(6)]).unflatten(0, (2, 3)), torch.tensor([2, 0])
    values, every = dictionary.encode(y), torch.arange(dictionary.width)
    assert torch.allclose(dictionary.encode_some(y, units), values[..., units], atol=1e-12)
    matrix = dictionary.directions(every)
    assert torch.equal(dictionary.directions(units), matrix[units])
    offset = dictionary.at_zero(y)
    assert torch.allclose(dictionary.decode(torch.zeros_like(values)), offset.expand(2, 3, -1), atol=1e-12)
    assert torch.allclose(dictionary.decode(values), values @ matrix + offset, atol=1e-12)
    assert torch.allclose(dictionary.written(values[..., units], units), values[..., units] @ matrix[units], atol=1e-12)
    gradient, row, unit = y[0], torch.tensor([1, 2, 0, 1]), torch.tensor([0, 2, 2, 1])
    assert torch.allclose(dictionary.pull_back(gradient), gradient @ matrix.T, atol=1e-12)
    entries = dictionary.pull_back_some(gradient, row, unit)
    assert torch.allclose(entries, (gradient @ matrix.T)[row, unit], atol=1e-12)
    rows, constant = dictionary.reading(y[0, 0], units)
    assert torch.allclose(rows @ y[0, 0] + constant, values[0, 0, units], atol=1e-12)


# How units read a token.


def token(d: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def width_read(dictionary: Dictionary) -> int:
    """Dimensions of what it reads."""
    if isinstance(dictionary, Coordinates):
        return dictionary.d
    for d in (toys.D_MODEL, toys.D_MLP, 4):
        try:
            dictionary.encode(token(d))
        except RuntimeError:
            continue
        return d
    raise AssertionError("it reads none of the toys' widths")


@pytest.mark.parametrize("case", tables.BASES, ids=lambda case: case.name)
def test_a_unit_is_its_row_times_the_token_plus_its_offset(case: tables.BasisCase, llama: Any) -> None:
    """And the row is its slope, in every direction that changes no normalisation's scale."""
    for dictionary in tables.make(case, llama).dictionaries:
        y = token(width_read(dictionary))
        units = torch.arange(dictionary.width).flip(0)
        rows, offset = dictionary.reading(y, units)
        values = dictionary.encode(y)[units]
        assert torch.allclose(rows @ y + offset, values, atol=1e-12)
        still = values == 0
        if not dictionary.lossless and isinstance(dictionary, Affine) and bool(still.any()):
            assert not bool(rows[still].any())
            assert not bool(offset[still].any())
        away = torch.linalg.qr(torch.stack([y, torch.ones_like(y), token(len(y), 1)], 1)).Q[:, 2]
        step = 1e-6
        slope = (dictionary.encode(y + step * away) - dictionary.encode(y - step * away))[units] / (2 * step)
        assert torch.allclose(rows @ away, slope, atol=1e-7)
        some = units[::3]
        for one, all_ in zip(dictionary.reading(y, some), (rows, offset), strict=True):
            assert torch.allclose(one, all_[::3], atol=1e-12)


EXPECTED: dict[str, tuple[dict[str, Any], Callable[[Any, torch.Tensor], torch.Tensor]]] = {
    "gated": ({"architecture": "gated"}, lambda sae, y: sae.W_enc.T * sae.r_mag.exp()[:, None]),
    "topk, rescaled": (
        {"architecture": "topk", "k": 4, "rescale_acts_by_decoder_norm": True},
        lambda sae, y: sae.W_enc.T * sae.W_dec.norm(dim=1, keepdim=True),
    ),
    "a norm of sqrt(d) per token": ({"normalize_activations": "constant_norm_rescale"}, lambda sae, y: sae.W_enc.T),
    "layer norm": (
        {"normalize_activations": "layer_norm"},
        lambda sae, y: (sae.W_enc.T - sae.W_enc.T.mean(1, keepdim=True)) * y.std() / (y.std() + 1e-5),
    ),
}


@pytest.mark.parametrize("kind", EXPECTED)
def test_the_rows_of_an_sae_by_hand(kind: str, llama: Any) -> None:
    config, expected = EXPECTED[kind]
    sae = toys.sae(HOOK, **config)
    (dictionary,) = nvs.bases.sae(llama, [sae]).dictionaries
    y, units = token(toys.D_MODEL), torch.arange(10)
    rows, _ = dictionary.reading(y, units)
    active = dictionary.encode(y) != 0
    assert 0 < int(active.sum()) < 10
    assert torch.allclose(rows, active[:, None] * expected(sae, y), atol=1e-12)


class _Doubled(StandardSAE):
    def encode(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().encode(x)


@pytest.mark.checked
@pytest.mark.parametrize("normalisation", ["none", "layer_norm", "constant_norm_rescale"])
@pytest.mark.parametrize("kind", ["matching_pursuit", "a class of the caller's"])
def test_where_there_is_no_matrix_the_gradient_is_taken_at_a_constant_scale(
    kind: str, normalisation: str, llama: Any
) -> None:
    if kind == "matching_pursuit":
        sae = toys.sae(HOOK, architecture=kind, max_iterations=3, normalize_activations=normalisation)
        sae.W_dec.data = sae.W_dec / sae.W_dec.norm(dim=1, keepdim=True)
    else:
        theirs = toys.sae(HOOK, normalize_activations=normalisation)
        sae = _Doubled(theirs.cfg)
        sae.load_state_dict(theirs.state_dict())
        plain = nvs.bases.sae(llama, [theirs]).dictionaries[0].reading(token(toys.D_MODEL), torch.arange(10))[0]
    (dictionary,) = nvs.bases.sae(llama, [sae]).dictionaries
    y, step = token(toys.D_MODEL), 1e-6
    away = torch.linalg.qr(torch.stack([y, torch.ones_like(y), token(len(y), 1)], 1)).Q[:, 2]
    rows, offset = dictionary.reading(y, torch.arange(10))
    plus, minus, here = dictionary.encode(torch.stack([y + step * away, y - step * away, y]))
    assert torch.allclose(rows @ away, (plus - minus) / (2 * step), atol=1e-7)
    assert torch.allclose(rows @ y + offset, here, atol=1e-12)
    if kind != "matching_pursuit":
        assert torch.allclose(rows, 2 * plain, atol=1e-12)


def test_a_neuron_reads_by_its_chord_and_each_branch_by_half(model: Any) -> None:
    """Of an MLP with a gate: silu(g) u, half of it through g and half through u; without one, act(pre) / pre."""
    mlp = model.blocks[0].mlp
    neurons, y, units = Neurons(mlp, torch.float64), token(toys.D_MODEL), torch.tensor([5, 0, 7])
    rows, offset = neurons.reading(y, units)
    post = neurons.encode(y)[units]
    assert torch.allclose(rows @ y + offset, post, atol=1e-12)
    up = y @ mlp.W_in[:, units]
    if neurons.gated:
        gate = y @ mlp.W_gate[:, units]
        half = 0.5 * (post - mlp.b_in[units])
        expected = (half / gate)[:, None] * mlp.W_gate[:, units].T + (half / up)[:, None] * mlp.W_in[:, units].T
    else:
        expected = (post / (up + mlp.b_in[units]))[:, None] * mlp.W_in[:, units].T
    assert torch.allclose(rows, expected, atol=1e-12)


def test_some_units_read_as_they_do_among_all(llama: Any) -> None:
    whole = nvs.bases.sae(llama, toys.saes()).dictionaries[0]
    chosen, y = torch.tensor([7, 2, 9]), token(toys.D_MODEL)
    some = Some(whole, chosen, y)
    for mine, theirs in zip(some.reading(y, torch.tensor([2, 0])), whole.reading(y, chosen[[2, 0]]), strict=True):
        assert torch.equal(mine, theirs)
    assert torch.equal(some.encode_some(y, torch.tensor([1])), whole.encode(y)[[2]])
    gradient, row, unit = torch.randn(4, toys.D_MODEL, dtype=torch.float64), torch.tensor([0, 3]), torch.tensor([1, 2])
    assert torch.allclose(some.pull_back_some(gradient, row, unit), some.pull_back(gradient)[row, unit])
