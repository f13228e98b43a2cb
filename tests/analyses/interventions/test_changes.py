"""Interventions against plain hooks, and the laws that hold in every basis."""

from typing import Any

import naive
import pytest
import tables
import torch
import toys
from torch import Tensor

from neuron_vs_sae.core.basis import Basis
from neuron_vs_sae.execution.changes import Change, Changes, edits_of, unit_values
from neuron_vs_sae.execution.grids import evaluate_changes
from neuron_vs_sae.execution.splice import read, run

PAIRS = toys.pairs(4, lengths=[6, 5, 6, 6])
CASES = [(kind, case) for kind in toys.MODELS for case in tables.BASES]


def everything(logits: Tensor, plain: Tensor, rows: Tensor) -> Tensor:
    """The run's logits, and the plain model's."""
    del rows
    return torch.cat([logits, plain], 1)


def some_changes(basis: Basis, draw: torch.Generator) -> Changes:
    """Random offsets and slopes of some units at some positions of some sites."""
    changes: list[Change | None] = []
    for dictionary in basis.dictionaries:
        k = int(torch.randint(1, 4, (1,), generator=draw))
        units = torch.randperm(dictionary.width, generator=draw)[:k].sort().values
        where = torch.rand(4, 6, k, generator=draw) < 0.3
        offset, slope = (torch.randn(4, 6, k, generator=draw, dtype=torch.float64) * where for _ in range(2))
        changes.append(None if torch.rand(1, generator=draw) < 0.2 else Change(units, offset, slope))
    return tuple(changes)


def by_plain_hooks(model: Any, basis: Basis, changes: Changes, row: int) -> Tensor:
    """One prompt's last logits: decode(encode + change) - decode(encode), added where a site writes, by transformer-lens' own hooks."""
    tokens = PAIRS.clean[row : row + 1, : int(PAIRS.length[row])]
    hooks = []
    for site, dictionary, change in zip(basis.sites, basis.dictionaries, changes, strict=True):
        if change is None:
            continue
        seen: list[Tensor] = []

        def remember(x: Tensor, hook: Any, seen: list = seen) -> None:
            seen.append(x.detach().clone())

        def add(
            x: Tensor, hook: Any, seen: list = seen, site: Any = site, d: Any = dictionary, c: Any = change
        ) -> Tensor:
            y = seen[-1]
            heads = slice(None) if site.head is None else site.head
            view = y.flatten(2) if site.head is None else y[:, :, site.head]
            units = d.encode(view)
            moved = units.clone()
            n = units.shape[1]
            moved[0][:, c.units] += c.offset[row, :n] + c.slope[row, :n] * units[0][:, c.units]
            out = x.clone()
            if site.head is None:
                return (out.flatten(2) + d.decode(moved) - d.decode(units)).reshape(x.shape)
            out[:, :, heads] += d.decode(moved) - d.decode(units)
            return out

        hooks += [(site.reads, remember), (site.writes, add)]
    return naive.last_logits(model, tokens, hooks)


def test_random_interventions_are_those_of_plain_hooks() -> None:
    """More than 200 of them: every basis, every architecture, both executions."""
    draw = torch.Generator().manual_seed(0)
    worst, n = 0.0, 0
    with torch.no_grad():
        for kind, case in CASES:
            model = toys.model(kind)
            basis = tables.make(case, model)
            runs = [some_changes(basis, draw) for _ in range(2)]
            for engine in ("fast", "exact"):
                found = evaluate_changes(model, basis, PAIRS.clean, PAIRS.length, runs, everything, engine=engine)
                for r, changes in enumerate(runs):
                    row = (n + r) % len(PAIRS)
                    plain = by_plain_hooks(model, basis, changes, row)
                    worst = max(worst, float((found[r, row, : toys.VOCAB] - plain).abs().max()))
            n += len(runs)
    assert n >= 200
    assert worst < 1e-10  # float64; the promise is 1e-5


@pytest.mark.parametrize("engine", ["fast", "exact"])
def test_a_run_in_which_nothing_changes_has_the_plain_bits(engine: Any) -> None:
    model = toys.model("llama")
    basis = tables.make(tables.BASES[4], model)
    zero = torch.zeros(4, 6, 2, dtype=torch.float64)
    runs: list[Changes] = [(None, None), (Change(torch.tensor([0, 3]), zero, zero), None)]
    found = evaluate_changes(model, basis, PAIRS.clean, PAIRS.length, runs, everything, engine=engine)
    assert torch.equal(found[..., : toys.VOCAB], found[..., toys.VOCAB :])


@pytest.mark.parametrize(
    ("kind", "name"),
    [("llama", "mlp_neurons"), ("gpt2", "sae"), ("gemma2", "transcoder"), ("neox", "sae hook_z per head")],
)
def test_a_clamp_at_the_current_value_changes_nothing_bit_for_bit(kind: str, name: str) -> None:
    model = toys.model(kind)
    basis = tables.make(next(c for c in tables.BASES if c.name == name), model)
    pairs = toys.pairs(4)
    units = [torch.tensor([1, 2, 4])] * len(basis.sites)
    values = unit_values(basis, read(model, pairs.clean, pairs.length, basis.hooks), units)
    clamped = tuple(Change(at, value, -torch.ones_like(value)) for at, value in zip(units, values, strict=True))
    plain = run(model, pairs.clean, pairs.length)
    assert torch.equal(run(model, pairs.clean, pairs.length, edits_of(model, basis, clamped)), plain)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "neox"])
def test_adding_to_a_neuron_is_adding_its_write_vector_to_what_the_mlp_writes(kind: str) -> None:
    model = toys.model(kind)
    neurons, outputs = (
        tables.make(next(c for c in tables.BASES if c.name == n), model) for n in ("mlp_neurons", "mlp_outputs")
    )
    pairs, by = toys.pairs(4), 0.7
    amount = torch.full((1, 1, 1), by, dtype=torch.float64)
    vector = by * model.blocks[0].mlp.W_out[5].detach()
    at_neuron: Changes = (Change(torch.tensor([5]), amount, 0 * amount), None)
    at_output: Changes = (Change(torch.arange(toys.D_MODEL), vector[None, None], 0 * vector[None, None]), None)
    for engine in ("fast", "exact"):
        found = [
            evaluate_changes(model, basis, pairs.clean, pairs.length, [changes], everything, engine=engine)
            for basis, changes in ((neurons, at_neuron), (outputs, at_output))
        ]
        torch.testing.assert_close(found[0], found[1], rtol=0, atol=1e-12)
        assert float((found[0][0, :, : toys.VOCAB] - found[0][0, :, toys.VOCAB :]).abs().max()) > 1e-3


@pytest.mark.parametrize("kind", list(toys.MODELS))
def test_last_layer_units_at_other_positions_have_exactly_no_effect(kind: str) -> None:
    model = toys.model(kind)
    basis = tables.make(tables.BASES[0], model)
    pairs = toys.pairs(4)
    offset = torch.randn(1, 6, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    offset[:, -1] = 0
    last: Changes = (None, Change(torch.tensor([0, 4, 7]), offset, torch.zeros_like(offset)))
    plain = run(model, pairs.clean, pairs.length)
    assert torch.equal(run(model, pairs.clean, pairs.length, edits_of(model, basis, last)), plain)


@pytest.mark.checked
def test_changes_are_checked() -> None:
    model = toys.model("gpt2")
    basis = tables.make(tables.BASES[4], model)
    changes = some_changes(basis, torch.Generator().manual_seed(2))
    found = evaluate_changes(model, basis, PAIRS.clean, PAIRS.length, [changes], everything)
    exact = evaluate_changes(model, basis, PAIRS.clean, PAIRS.length, [changes], everything, engine="exact")
    torch.testing.assert_close(found, exact, rtol=0, atol=1e-10)
