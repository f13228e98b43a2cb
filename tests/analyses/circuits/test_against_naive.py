"""The package's circuits and curves are those of a second implementation that shares no code with it (`naive.py`)."""

import math
from functools import partial
from itertools import pairwise
from typing import Any

import naive
import pytest
import torch
import toys
from naive_cases import (
    BATCH,
    CASES,
    EXACT,
    METHODS,
    PAIRS,
    as_naive,
    discover,
    eligible,
    name_of_node,
    one_by_one,
    runs_of,
)

import neuron_vs_sae as nvs
from neuron_vs_sae.catalog.ablation.resample import donor_rows


@pytest.mark.parametrize("rank_by", ["absolute", "signed"])
@pytest.mark.parametrize("positions", ["separate", "pooled"])
def test_the_k_best_nodes_are_the_naive_ones_under_ties(rank_by: Any, positions: Any, llama: Any) -> None:
    """Scores of a few distinct values only, so that nearly every cut goes through a tie."""
    case = CASES["sae three kinds"]
    sites = case.sites(llama)
    random = nvs.attribution.random(llama, case.basis(llama), PAIRS, positions=positions)
    scores = nvs.NodeScores(random.index, random.values.round())
    nodes = naive.all_nodes(llama, sites, PAIRS.clean[:1])
    nodes = list(dict.fromkeys((s, None if positions == "pooled" else p, u) for s, p, u in nodes))
    expected = as_naive(scores, sites, nodes)
    assert len(nodes) == len(scores.index)
    scored = {node: score for node, score in expected.items() if score != 0}  # no ranking adds the others
    assert 0 < len(scored) < len(nodes)
    for k in [*range(0, len(scored), 7), len(scored)]:
        theirs = {name_of_node(sites, node) for node in naive.top_k(scored, k, rank_by)}
        assert set(scores.top(k, rank_by=rank_by).names) == theirs, k


ERRORS = ["nodes", "keep", "ablate", "resid_only"]

ABLATIONS = ["mean", "mean_global", "counterfactual", "resample", "zero_units", "zero_site"]


# Every ablation x policy where all sorts of site meet; on other bases and models each ablation, and each policy where
# it meets what is special there (zero_site takes out a bias after the site).
EVALUATED = [
    *(("llama", "sae three kinds", ablation, errors) for ablation in ABLATIONS for errors in ERRORS),
    *(("llama", name, ablation, "nodes") for name in CASES for ablation in ("mean", "zero_site") if "three" not in name),
    *(("gpt2", "mlp_neurons", ablation, "nodes") for ablation in ABLATIONS),
    *(("gpt2", name, "zero_site", errors) for name in ("mlp_neurons", "attention", "sae of neurons") for errors in ERRORS[1:]),
    ("gpt2", "attention", "zero_site", "nodes"),
    *(("neox", "transcoder", ablation, "ablate") for ablation in ("mean_global", "counterfactual", "zero_units")),
    *(("neox", name, "zero_site", "nodes") for name in ("sae hook_z", "mlp_neurons")),
    *(("gemma2", "sae three kinds", "mean", errors) for errors in ("nodes", "resid_only")),
    *(("gemma2", "mlp_neurons", ablation, "nodes") for ablation in ("resample", "zero_site")),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "name", "ablation", "errors"), EVALUATED)
def test_every_run_gives_the_naive_metric_per_prompt(kind: str, name: str, ablation: str, errors: Any) -> None:
    """F(M), F(empty), F(C), F(complement) of a third of the nodes, under every ablation and error policy."""
    model, basis, sites = toys.model(kind), CASES[name].basis(toys.model(kind)), CASES[name].sites(toys.model(kind))
    scores = nvs.attribution.random(model, basis, PAIRS, seed=1)
    nodes = eligible(sites, as_naive(scores, sites, naive.all_nodes(model, sites, PAIRS.clean[:1])), errors)
    k = len(nodes) // 3
    donors = donor_rows(PAIRS, seed=3)
    assert bool((donors != torch.arange(len(PAIRS))).all())
    values = naive.ablation_values(model, sites, one_by_one(PAIRS), ablation, rows=donors.tolist())
    expected = naive.evaluate(model, sites, one_by_one(PAIRS), naive.top_k(nodes, k), values, errors)
    curve = nvs.evaluate(
        model, basis, scores, PAIRS, sizes=[k, len(nodes)], ablation=ablation, errors=errors, seed=3, batch_size=BATCH
    )
    assert curve.n_total == len(nodes)
    for ours, theirs in zip(runs_of(curve), expected.values(), strict=True):
        assert ours.tolist() == pytest.approx(theirs, abs=EXACT, rel=EXACT)


def first_crossing(sizes: list[int], scores: list[float], level: float) -> float:
    """The size at which a line through the scores over log size first reaches the level, by bisection; infinity: it does not."""
    points = [(math.log(k), score) for k, score in zip(sizes, scores, strict=True) if k >= 1]
    if points[0][1] >= level:
        return math.exp(points[0][0])
    for (low, below), (high, above) in pairwise(points):
        if above >= level:
            start, step = low, high - low
            for _ in range(60):
                middle = (low + high) / 2
                reached = below + (above - below) * (middle - start) / step >= level
                low, high = (low, middle) if reached else (middle, high)
            return math.exp(high)
    return math.inf


def _runs(curve: nvs.Curve, size: int = 0) -> list[torch.Tensor]:
    return [curve.whole, curve.empty, curve.circuit[size], curve.complement[size]]


@pytest.mark.parametrize("metric", naive.METRICS)
def test_every_metric_of_a_circuit_is_the_naive_one(metric: str, llama: Any) -> None:
    case = CASES["sae jumprelu"]
    basis, sites = case.basis(llama), case.sites(llama)
    scores = nvs.attribution.random(llama, basis, PAIRS, seed=1)
    circuit = naive.top_k(as_naive(scores, sites, naive.all_nodes(llama, sites, PAIRS.clean[:1])), 40)
    values = naive.ablation_values(llama, sites, one_by_one(PAIRS))
    expected = naive.evaluate(llama, sites, one_by_one(PAIRS), circuit, values, metric=metric)
    curve = nvs.evaluate(llama, basis, scores, PAIRS, sizes=[40], metric={"minus_kl": "kl"}.get(metric, metric))
    for ours, theirs in zip(runs_of(curve), expected.values(), strict=True):
        assert ours.tolist() == pytest.approx(theirs, abs=EXACT)


@pytest.mark.parametrize("ablation", ["mean", "mean_global"])
def test_means_of_discovery_prompts_are_the_naive_ones(ablation: str, gpt2: Any) -> None:
    case, discovery = CASES["sae standard"], toys.pairs(4, 5, seed=9)
    basis, sites = case.basis(gpt2), case.sites(gpt2)
    scores = nvs.attribution.random(gpt2, basis, PAIRS, seed=1)
    circuit = naive.top_k(as_naive(scores, sites, naive.all_nodes(gpt2, sites, PAIRS.clean[:1])), 30)
    reference = [pair.corrupt for pair in one_by_one(discovery)]
    values = naive.ablation_values(gpt2, sites, one_by_one(PAIRS), ablation, reference=reference)
    expected = naive.evaluate(gpt2, sites, one_by_one(PAIRS), circuit, values)
    curve = nvs.evaluate(gpt2, basis, scores, PAIRS, sizes=[30], ablation=ablation, source=discovery, batch_size=BATCH)
    for ours, theirs in zip(runs_of(curve), expected.values(), strict=True):
        assert ours.tolist() == pytest.approx(theirs, abs=EXACT)


@pytest.mark.parametrize(("ablation", "errors"), [*((name, "nodes") for name in ABLATIONS), ("mean", "resid_only")])
def test_pooled_circuits_of_prompts_of_two_lengths_give_the_naive_metric(ablation: str, errors: Any, gpt2: Any) -> None:
    case, pairs = CASES["sae three kinds"], toys.pairs(4, 5, lengths=[5, 4, 5, 4])
    basis, sites = case.basis(gpt2), case.sites(gpt2)
    scores = nvs.attribution.random(gpt2, basis, pairs, positions="pooled", seed=1)
    nodes = {(s, None, u) for s, _, u in naive.all_nodes(gpt2, sites, pairs.clean[:1])}
    chosen = eligible(sites, as_naive(scores, sites, sorted(nodes, key=naive.order)), errors)
    k = len(chosen) // 3
    values = _values_of_two_lengths(gpt2, sites, pairs, ablation)
    expected = naive.evaluate(gpt2, sites, one_by_one(pairs), naive.top_k(chosen, k), values, errors)
    curve = nvs.evaluate(
        gpt2, basis, scores, pairs, sizes=[k], ablation=ablation, errors=errors, seed=3, batch_size=BATCH
    )
    assert curve.n_total == len(chosen)
    for ours, theirs in zip(runs_of(curve), expected.values(), strict=True):
        assert ours.tolist() == pytest.approx(theirs, abs=EXACT)


def _values_of_two_lengths(
    model: Any, sites: list[naive.Site], pairs: nvs.PromptPairs, ablation: str
) -> list[list[naive.Ablated]]:
    """`naive.ablation_values` where prompts differ in length: a position's mean is over the prompts that reach it."""
    alone = one_by_one(pairs)
    if ablation not in ("mean", "mean_global"):
        return naive.ablation_values(model, sites, alone, ablation, rows=donor_rows(pairs, seed=3).tolist())
    seen = [naive.features(model, sites, pair.corrupt) for pair in alone]

    def averaged(part: list[torch.Tensor], n: int) -> torch.Tensor:
        if ablation == "mean_global":
            return torch.cat(part).mean(0, keepdim=True).expand(n, -1)
        return torch.stack([torch.stack([x[p] for x in part if len(x) > p]).mean(0) for p in range(n)])

    return [
        [
            naive.Ablated(
                naive.Features(
                    averaged([found[s].units for found in seen], n), averaged([found[s].error for found in seen], n)
                )
            )
            for s in range(len(sites))
        ]
        for n in pairs.length.tolist()
    ]


@pytest.mark.parametrize(
    ("kind", "name", "errors"),
    [("llama", "sae standard", "nodes"), ("gpt2", "sae three kinds", "ablate"), ("neox", "mlp_neurons", "nodes")],
)
def test_scores_of_a_curve_are_the_naive_ones(kind: str, name: str, errors: Any) -> None:
    model, case, method = toys.model(kind), CASES[name], METHODS[0]
    basis, sites = case.basis(model), case.sites(model)
    scores = discover(method, model, basis, PAIRS)
    nodes = eligible(sites, method.naive(model, sites, one_by_one(PAIRS), paired=True), errors)
    fractions = [int(share * len(nodes)) for share in naive.FRACTIONS]
    n_scored = sum(score != 0 for score in nodes.values())
    whole_grid = sorted({0, 1, 2, 5, 10, 20, 50, n_scored, *fractions})
    grid = [k for k in whole_grid if k <= n_scored]
    curve = nvs.evaluate(model, basis, scores, PAIRS, sizes=("mib", *grid), errors=errors)
    assert curve.sizes == tuple(grid)
    values = naive.ablation_values(model, sites, one_by_one(PAIRS))
    runs = [naive.evaluate(model, sites, one_by_one(PAIRS), naive.top_k(nodes, k), values, errors) for k in whole_grid]
    faithful, complete = [naive.faithfulness(run) for run in runs], [naive.completeness(run) for run in runs]
    at = dict(zip(whole_grid, faithful, strict=True))
    faithful, complete = faithful[: len(grid)], complete[: len(grid)]
    close = partial(pytest.approx, rel=EXACT, abs=EXACT)
    assert curve.faithfulness.tolist() == close(faithful)
    assert curve.completeness.tolist() == close(complete)
    assert curve.bits == close([naive.bits(len(nodes), k) for k in grid])
    assert curve.fraction == close([k / len(nodes) for k in grid])
    assert curve.area() == close(naive.auc_logk(grid, faithful))
    assert curve.area("unfaithfulness") == close(naive.auc_logk(grid, [abs(1 - f) for f in faithful]))
    assert curve.area("completeness") == close(naive.auc_logk(grid, complete))
    assert curve.area(up_to=20) == close(naive.auc_logk(grid[: grid.index(20) + 1], faithful[: grid.index(20) + 1]))
    assert curve.cpr() == close(naive.cpr([at[k] for k in fractions]))
    assert curve.cmd() == close(naive.cmd([at[k] for k in fractions]))
    assert (curve.size_at(0.8) or math.inf) == close(first_crossing(grid, faithful, 0.8))
    errors_kept = [sum(node[2] == "error" for node in naive.top_k(nodes, k)) for k in grid]
    assert list(curve.n_error_nodes) == errors_kept
