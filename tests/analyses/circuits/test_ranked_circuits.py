"""Circuits end where the ranking does: ties, MIB's sizes, constants, several metrics, and the numbers that nodes carry."""

import logging
from dataclasses import replace
from typing import Any

import pytest
import torch
import toys

import neuron_vs_sae as nvs
from neuron_vs_sae.analyses.circuits.options import EvaluationChoices, EvaluationOptions
from neuron_vs_sae.analyses.circuits.roles import values_carried

PAIRS = toys.pairs()


def few_scored(basis: nvs.Basis, n: int, seed: int = 0, positions: int | None = PAIRS.positions) -> nvs.NodeScores:
    """Scores of `n` nodes that exist, and exactly 0 for all others."""
    index = basis.index(positions)
    generator = torch.Generator().manual_seed(seed)
    nodes = index.exists.nonzero().flatten()
    chosen = nodes[torch.randperm(len(nodes), generator=generator)[:n]]
    values = torch.zeros(len(index), dtype=torch.float64)
    values[chosen] = torch.randn(n, generator=generator, dtype=torch.float64)
    return nvs.NodeScores(index, values)


def test_a_curve_does_not_depend_on_how_ties_are_stored(gpt2: Any) -> None:
    """Most nodes of score 0, as in paired attribution: with an SAE's units stored in another order, the same curve."""
    plain = toys.saes(width=40)
    shuffle = torch.randperm(40, generator=torch.Generator().manual_seed(1))
    turned = toys.saes(width=40)
    for sae in turned:
        for name in ("W_enc", "W_dec", "b_enc"):
            value = getattr(sae, name).data
            getattr(sae, name).data = value[:, shuffle] if name == "W_enc" else value[shuffle]
    basis, other = (nvs.bases.sae(gpt2, source=saes) for saes in (plain, turned))
    scores = few_scored(basis, 30)
    index = other.index(PAIRS.positions)
    moved = [(units[:, shuffle], errors) for units, errors in scores.by_site()]
    theirs = nvs.NodeScores(index, index.flatten([u for u, _ in moved], [e for _, e in moved]))
    a, b = nvs.evaluate(gpt2, basis, scores, PAIRS), nvs.evaluate(gpt2, other, theirs, PAIRS)
    assert a.sizes == b.sizes == (0, 1, 2, 5, 10, 20, 30)
    assert (a.n_scored, a.n_total) == (30, len(index))
    for name in ("circuit", "complement", "all_nodes"):
        torch.testing.assert_close(getattr(a, name), getattr(b, name), rtol=0, atol=1e-10)
    for level in (0.05, 0.1, 0.5):
        assert a.size_at(level) == pytest.approx(b.size_at(level))


def test_sizes_no_ranking_reaches_are_left_out_with_a_line_and_impossible_ones_refused(
    llama: Any, caplog: pytest.LogCaptureFixture
) -> None:
    basis = nvs.bases.mlp_outputs(llama)
    scores = few_scored(basis, 8)
    with caplog.at_level(logging.WARNING):
        curve = nvs.evaluate(llama, basis, scores, PAIRS, sizes=[2, 9, 20])
    assert curve.sizes == (2, 8)
    assert caplog.messages == [
        f"basis 'mlp_outputs': no circuit of 9, 20 nodes is run, because only 8 of its {curve.n_total} nodes have a score"
    ]
    caplog.clear()
    nvs.evaluate(llama, basis, scores, PAIRS, sizes=["log", curve.n_total])
    assert not caplog.messages, "sizes by name, and the whole circuit, are not dropped"
    with pytest.raises(nvs.InputError, match="a circuit of 99999 nodes is asked for"):
        nvs.evaluate(llama, basis, scores, PAIRS, sizes=[99_999])


def test_mibs_sizes_go_on_with_tied_nodes_in_node_order(llama: Any) -> None:
    basis = nvs.bases.mlp_outputs(llama)
    scores = few_scored(basis, 8)
    curve = nvs.evaluate(llama, basis, scores, PAIRS, sizes=["log", "mib"])
    assert curve.tied is not None
    assert curve.n_scored == 8
    assert min(curve.tied.sizes) > 8
    assert curve.tied.sizes[-1] == curve.n_total
    k = curve.tied.sizes[0]
    filled = torch.cat([scores.order(), scores.unscored(scores.index.exists)])[:k]
    values = torch.zeros(len(scores.index), dtype=torch.float64)
    values[filled] = torch.arange(k, 0, -1, dtype=torch.float64)
    expected = nvs.evaluate(llama, basis, nvs.NodeScores(scores.index, values), PAIRS, sizes=lambda _: [k])
    torch.testing.assert_close(curve.tied.circuit[0], expected.circuit[0], rtol=0, atol=1e-10)
    torch.testing.assert_close(curve.tied.circuit[-1], curve.whole, rtol=0, atol=1e-10)
    assert curve.cpr() != 0
    with pytest.raises(nvs.InputError, match="CPR and CMD need the sizes"):
        replace(curve, tied=None).cpr()


@pytest.mark.parametrize("rank_by", ["absolute", "signed"])
def test_signed_circuits_hold_what_helps_and_then_what_hurts(rank_by: Any, llama: Any) -> None:
    scores = few_scored(nvs.bases.mlp_neurons(llama), 20)
    ranked = scores.values[scores.order(rank_by=rank_by)]
    assert len(ranked) == 20
    if rank_by == "signed":
        assert ranked.tolist() == sorted(scores.values[scores.values != 0].tolist(), reverse=True)
    else:
        assert ranked.abs().tolist() == sorted(scores.values[scores.values != 0].abs().tolist(), reverse=True)


@pytest.mark.parametrize("engine", ["fast", "exact"])
@pytest.mark.parametrize("errors", ["nodes", "ablate"])
@pytest.mark.parametrize("name", ["mlp_neurons", "mlp_outputs", "sae", "pca of some components"])
def test_zero_sites_constants_are_in_every_circuit_of_a_node_in_every_basis(
    name: str, errors: Any, engine: Any, gpt2: Any
) -> None:
    """A circuit of one node that writes nothing but constants: what `zero_units` leaves, where the empty run has nothing."""
    basis = {
        "mlp_neurons": lambda: nvs.bases.mlp_neurons(gpt2),
        "mlp_outputs": lambda: nvs.bases.mlp_outputs(gpt2),
        "sae": lambda: nvs.bases.sae(gpt2, source=toys.saes()),
        "pca of some components": lambda: nvs.bases.pca(gpt2, prompts=PAIRS, components=3),
    }[name]()
    scores = few_scored(basis, 3, seed=2)
    zero, kept = (
        nvs.evaluate(gpt2, basis, scores, PAIRS, ablation=ablation, errors=errors, engine=engine, sizes=[1, 2])
        for ablation in ("zero_site", "zero_units")
    )
    torch.testing.assert_close(zero.circuit, kept.circuit, rtol=0, atol=1e-10)
    torch.testing.assert_close(zero.complement, kept.complement, rtol=0, atol=1e-10)
    assert zero.n_total == kept.n_total
    if name != "mlp_outputs":
        assert (zero.empty - kept.empty).abs().max() > 1e-6
    nothing = nvs.evaluate(gpt2, basis, scores, PAIRS, ablation="zero_site", errors=errors, engine=engine, sizes=[0])
    torch.testing.assert_close(nothing.circuit[0], nothing.empty, rtol=0, atol=1e-10)


def test_all_nodes_are_the_model_or_the_reconstruction(llama: Any) -> None:
    basis = nvs.bases.sae(llama, source=toys.saes())
    scores = few_scored(basis, 10)
    curves = {errors: nvs.evaluate(llama, basis, scores, PAIRS, errors=errors) for errors in ("nodes", "ablate")}
    assert curves["nodes"].all_nodes is not None
    assert curves["ablate"].all_nodes is not None
    torch.testing.assert_close(curves["nodes"].all_nodes, curves["nodes"].whole, rtol=0, atol=1e-10)
    assert (curves["ablate"].all_nodes - curves["ablate"].whole).abs().max() > 1e-3


@pytest.mark.parametrize("engine", ["fast", "exact"])
def test_several_metrics_are_read_from_the_same_passes(engine: Any, gpt2: Any) -> None:
    basis = nvs.bases.sae(gpt2, source=toys.saes())
    scores = few_scored(basis, 12)
    metrics = ("logit_difference", "kl", "probability")
    options = EvaluationOptions(sizes=(0, 3), metrics=metrics, measure_change=True)
    together = nvs.evaluate_metrics(gpt2, basis, scores, PAIRS, options, engine=engine)
    for metric, curve in zip(metrics, together, strict=True):
        alone = nvs.evaluate(
            gpt2, basis, scores, PAIRS, sizes=(0, 3), metric=metric, measure_change=True, engine=engine
        )
        assert (curve.sizes, curve.values) == (alone.sizes, alone.values)
        for name in ("whole", "empty", "circuit", "complement", "change", "all_nodes"):
            torch.testing.assert_close(getattr(curve, name), getattr(alone, name), rtol=0, atol=1e-12)
    with pytest.raises(nvs.InputError, match="3 are given: use evaluate_metrics"):
        nvs.evaluate(gpt2, basis, scores, PAIRS, options)


def test_every_choice_is_an_option_and_a_keyword() -> None:
    keywords = set(EvaluationChoices.__annotations__) - {"metric"} | {"metrics"}
    assert keywords == set(EvaluationOptions.__dataclass_fields__)


def test_an_error_node_carries_as_many_numbers_as_its_site_has_dimensions(llama: Any) -> None:
    basis = nvs.bases.sae(llama, source=toys.saes())
    index = basis.index(PAIRS.positions)
    units, errors = (~index.is_error).nonzero().flatten(), index.is_error.nonzero().flatten()
    order = torch.tensor([int(units[0]), int(errors[0]), int(units[1]), int(errors[1])])
    d = float(toys.D_MODEL)
    assert values_carried(basis, index, order, (0, 1, 2, 3, 4), 6.0) == (0, 1, 1 + d, 2 + d, 2 + 2 * d)


def test_a_pooled_node_counts_once_per_token_of_the_prompts(llama: Any) -> None:
    pairs = toys.pairs(4, 6, lengths=[6, 4, 6, 4])
    basis = nvs.bases.sae(llama, source=toys.saes())
    scores = few_scored(basis, 10, positions=None)
    curve = nvs.evaluate(llama, basis, scores, pairs, errors="nodes", sizes=[1, 5])
    expected = [5.0 * (k - e + e * toys.D_MODEL) for k, e in zip(curve.sizes, curve.n_error_nodes, strict=True)]
    assert list(curve.values or ()) == pytest.approx(expected)


@pytest.mark.parametrize("errors", ["keep", "ablate"])
def test_errors_that_are_no_nodes_carry_nothing(errors: Any, llama: Any) -> None:
    basis = nvs.bases.sae(llama, source=toys.saes())
    curve = nvs.evaluate(llama, basis, few_scored(basis, 25), PAIRS, errors=errors)
    assert curve.values == tuple(map(float, curve.sizes))
    assert set(curve.n_error_nodes) == {0}
