"""What removing a circuit changes: against whole vectors built prompt by prompt, by hand, and by its laws."""

from typing import Any

import pytest
import torch
import toys
from tables import BASES, BasisCase

import neuron_vs_sae as nvs
from neuron_vs_sae.analyses.circuits.roles import candidates
from neuron_vs_sae.core.basis import Basis, Site
from neuron_vs_sae.core.dictionary import Affine, Coordinates, Dictionary
from neuron_vs_sae.core.lookup import find
from neuron_vs_sae.execution.splice import read


def by_vectors(
    model: Any, basis: Basis, scores: nvs.NodeScores, pairs: Any, sizes: Any, ablation: str, errors: Any
) -> torch.Tensor:
    """The same shares, slowly: per prompt and circuit, every site is written with and without the circuit, in full."""
    index = scores.index
    order = scores.order(among=candidates(basis, index, errors))
    made = torch.zeros(len(sizes), len(pairs), dtype=torch.float64)
    reference = find("ablation", ablation)(model, basis, pairs, pairs, 0, 64)
    for i in range(len(pairs)):
        one = pairs.batch([i])
        features = basis.features(read(model, one.clean, one.length, basis.hooks))
        values = reference(torch.tensor([i]))

        def norm(k: int, one: Any = one, features: Any = features, values: Any = values) -> float:
            gone = torch.zeros(len(index), dtype=torch.bool)
            gone[order[:k]] = True
            total = 0.0
            for s, (units, error) in enumerate(index.unflatten(gone)):
                dictionary = basis.dictionaries[s]
                live, left = features.units[s][0], features.errors[s][0]
                their_units = values.features.units[s].expand(1, *live.shape)[0]
                their_error = values.features.errors[s].expand(1, *left.shape)[0]
                before = dictionary.decode(live) + left
                now = dictionary.decode(torch.where(units, their_units, live)) + torch.where(
                    error[:, None], their_error, left
                )
                for p in range(int(one.length[0])):
                    total += float(((before - now)[p] ** 2).sum())
            return total**0.5

        whole = norm(len(order))
        made[:, i] = torch.tensor([norm(k) / whole for k in sizes], dtype=torch.float64)
    return made


def random_scores(basis: Basis, positions: int | None) -> nvs.NodeScores:
    index = basis.index(positions)
    return nvs.NodeScores(
        index, torch.randn(len(index), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    )


@pytest.mark.parametrize("case", BASES, ids=lambda case: case.name)
def test_it_is_what_whole_vectors_differ_by_in_every_basis(case: BasisCase, llama: Any) -> None:
    pairs = toys.pairs(2)
    basis = case.make(llama, pairs)
    scores = random_scores(basis, pairs.positions)
    curve = nvs.evaluate(llama, basis, scores, pairs, sizes=(1, 30), measure_change=True)
    expected = by_vectors(llama, basis, scores, pairs, curve.sizes, "mean", "nodes")
    torch.testing.assert_close(curve.change, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("ablation", ["counterfactual", "mean_global", "zero_site"])
@pytest.mark.parametrize("errors", ["nodes", "ablate"])
@pytest.mark.parametrize("pooled", [False, True])
def test_it_is_so_under_every_ablation_policy_and_kind_of_positions(
    ablation: str, errors: Any, pooled: bool, gpt2: Any
) -> None:
    pairs = toys.pairs(3, lengths=[6, 4, 6])
    for basis in (nvs.bases.mlp_neurons(gpt2), nvs.bases.sae(gpt2, source=toys.saes())):
        scores = random_scores(basis, None if pooled else pairs.positions)
        curve = nvs.evaluate(
            gpt2, basis, scores, pairs, sizes=(2, 20), ablation=ablation, errors=errors, measure_change=True
        )
        expected = by_vectors(gpt2, basis, scores, pairs, curve.sizes, ablation, errors)
        torch.testing.assert_close(curve.change, expected, rtol=1e-9, atol=1e-9)


def test_of_no_node_it_is_0_and_of_all_it_is_1(model: Any) -> None:
    pairs = toys.pairs(3)
    basis = nvs.bases.sae(model, source=toys.saes())
    total = len(basis.index(pairs.positions))
    change = nvs.evaluate(
        model, basis, random_scores(basis, pairs.positions), pairs, sizes=(0, total), measure_change=True
    ).change
    assert change is not None
    torch.testing.assert_close(change, torch.tensor([[0.0] * 3, [1.0] * 3]).double(), rtol=0, atol=1e-12)


def test_nothing_depends_on_batches_padding_or_the_other_sizes(llama: Any) -> None:
    pairs = toys.pairs(5, lengths=[6, 4, 6, 4, 4])
    basis = nvs.bases.sae(llama, source=toys.saes())
    scores = random_scores(basis, None)

    def change(chosen: Any, **options: Any) -> torch.Tensor:
        found = nvs.evaluate(
            llama, basis, scores, chosen, ablation="counterfactual", **options, measure_change=True
        ).change
        assert found is not None
        return found

    at_once = change(pairs, sizes=(1, 3, 9))
    torch.testing.assert_close(change(pairs, sizes=(1, 3, 9), batch_size=2), at_once, rtol=1e-12, atol=0)
    torch.testing.assert_close(change(pairs, sizes=(3,))[:1], at_once[1:2], rtol=1e-12, atol=0)
    torch.testing.assert_close(change(pairs.take([1]), sizes=(1, 3, 9)), at_once[:, 1:2], rtol=1e-12, atol=0)


@pytest.mark.checked
def test_two_units_by_hand(llama: Any) -> None:
    """At one position two units of 3 and 4 along orthogonal directions: the first is 3 / 5 of what both change."""
    pairs = toys.pairs(1)
    site = Site(0, "blocks.0.hook_mlp_out", "blocks.0.hook_mlp_out")

    class Fixed(Affine):
        def encode(self, y: torch.Tensor) -> torch.Tensor:
            here = torch.arange(y.shape[1])[:, None] == 2
            return torch.where(here, torch.tensor([3.0, 4.0]).double(), 0.0).expand(*y.shape[:-1], 2)

    dictionary = Fixed(lambda y: y, torch.eye(2, toys.D_MODEL).double(), torch.zeros(toys.D_MODEL).double())
    basis = Basis("by hand", (site,), (dictionary,))
    index = basis.index(None)
    scores = nvs.NodeScores(index, torch.tensor([3.0, 2.0, 1.0]).double())
    change = nvs.evaluate(
        llama, basis, scores, pairs, sizes=(0, 1, 2), ablation="zero_units", errors="keep", measure_change=True
    ).change
    assert change is not None
    assert change[:, 0].tolist() == pytest.approx([0, 0.6, 1])


@pytest.mark.checked
@pytest.mark.parametrize(
    "dictionary",
    [Coordinates(5, torch.float64), Affine(lambda y: y, torch.randn(7, 5).double(), torch.randn(5).double())],
)
def test_what_units_write_is_their_values_along_their_directions(dictionary: Dictionary) -> None:
    units = torch.tensor([4, 0, 2])
    values = torch.randn(2, 3, 3).double()
    expected = torch.einsum("bpk,kd->bpd", values, dictionary.directions(units))
    torch.testing.assert_close(dictionary.written(values, units), expected)
