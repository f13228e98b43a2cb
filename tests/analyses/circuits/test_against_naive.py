"""The package's numbers are those of a second implementation that shares no code with it (`naive.py`).

Nodes are matched by name, so their order and naming are compared too. Raw bases have no error node in the naive code;
the package's must score exactly 0 there.
"""

import math
from collections.abc import Callable, Sequence
from functools import cache, partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import naive
import pytest
import torch
import toys
from sae_lens import SAE

import neuron_vs_sae as nvs
from neuron_vs_sae.catalog.ablation.resample import donor_rows

EXACT = 1e-9  # float64, a few hundred terms per sum
LAYERS = range(2)
FEW = toys.pairs(2, 4)  # to discover on
PAIRS = toys.pairs(3, 5)  # to judge on
BATCH = 2  # of three pairs two batches, of which the last is not full


class Case(NamedTuple):
    """A basis, and the naive sites that must give its numbers."""

    name: str
    basis: Callable[[Any], nvs.Basis]
    sites: Callable[[Any], list[naive.Site]]


def _raw(name: str, site: str) -> Case:
    return Case(
        name,
        cache(lambda model: getattr(nvs.bases, name)(model)),
        lambda model: [naive.raw_site(f"blocks.{layer}.{site}") for layer in range(model.cfg.n_layers)],
    )


def _trained(name: str, make: Callable[[], list[Any]], basis: str = "sae") -> Case:
    """SAEs or transcoders; made twice, so that nothing is shared, and in the order in which the model reaches them."""
    return Case(
        name,
        cache(lambda model: getattr(nvs.bases, basis)(model, source=make()[::-1])),
        lambda model: [naive.sae_site(model, one) for one in make()],
    )


def _three_kinds() -> list[Any]:
    return [
        toys.sae(f"blocks.{layer}.{kind}", width=6, seed=layer, architecture="jumprelu")
        for layer in LAYERS
        for kind in ("hook_attn_out", "hook_mlp_out", "hook_resid_post")
    ]


CASES = {
    case.name: case
    for case in [
        _raw("mlp_neurons", "mlp.hook_post"),
        _raw("mlp_outputs", "hook_mlp_out"),
        _raw("residual", "hook_resid_post"),
        _raw("attention", "attn.hook_z"),
        _trained("sae standard", toys.saes),
        _trained("sae jumprelu", partial(toys.saes, architecture="jumprelu")),
        _trained("sae topk", partial(toys.saes, architecture="topk", k=3)),
        _trained("sae of neurons", partial(toys.saes, "mlp.hook_post", d=toys.D_MLP, width=20)),
        _trained("sae hook_z", partial(toys.saes, "attn.hook_z", reshape_activations="hook_z")),
        _trained("sae three kinds", _three_kinds),
        _trained("transcoder", toys.transcoders, basis="transcoder"),
    ]
}
# Every basis on the Llama toy; on the others neurons, and SAEs at several kinds of site at once.
MODEL_AND_CASE = [("llama", name) for name in CASES] + [
    (model, name) for model in ("gpt2", "neox", "gemma2") for name in ("mlp_neurons", "sae three kinds")
]


class Method(NamedTuple):
    name: str
    options: dict[str, Any]
    naive: Callable[..., naive.Scores]
    unpaired: bool = True

    @property
    def id(self) -> str:
        return " ".join([self.name, *(f"{k}={v}" for k, v in self.options.items())])


def _delta(model: Any, sites: Any, pairs: Any, metric: str, paired: bool) -> naive.Scores:
    return naive.delta(model, sites, pairs, paired=paired)


def _path(method: str, steps: int, schedule: str) -> Method:
    options = {"steps": steps, "schedule": schedule}
    return Method(method, options, partial(getattr(naive, method), n=steps, schedule=schedule))


METHODS = [
    Method("attribution_patching", {}, naive.attribution_patching),
    Method("attribution_patching", {"grad_at": "corrupt"}, partial(naive.attribution_patching, at="corrupt"), False),
    _path("integrated_gradients", 2, "left"),
    _path("integrated_gradients_inputs", 2, "left"),
    Method("conductance", {"steps": 2}, partial(naive.conductance, n=2)),
    # The package's chord act(g) / g is exact, without Jafari's stabiliser.
    *(
        Method(preset.replace("-", "_"), {}, partial(naive.relp, rules=rules._replace(stabiliser=0.0)))
        for preset, rules in naive.RELP.items()
    ),
    Method("delta", {}, _delta),
]
BY_ID = {method.id: method for method in METHODS}
# The same on other grids: where a point lies depends on the method, not on the basis, so one basis is enough.
GRIDS = [
    *(
        _path(method, steps, schedule)
        for method in ("integrated_gradients", "integrated_gradients_inputs")
        for steps, schedule in ((1, "left"), (5, "left"), (3, "right"), (3, "midpoint"))
    ),
    *(Method("conductance", {"steps": n}, partial(naive.conductance, n=n)) for n in (1, 5)),
]
methods = pytest.mark.parametrize("method", METHODS, ids=lambda method: method.id)
PAIRINGS = {"paired": "logit_difference", "unpaired": "answer_logit"}  # methods.md 1: the unpaired metric


def one_by_one(pairs: nvs.PromptPairs) -> list[naive.Pair]:
    """The pairs as the naive code takes them: one prompt at a time, at its own length."""
    return [
        naive.Pair(pairs.clean[[i], :n], pairs.corrupt[[i], :n], int(pairs.answer[i]), int(pairs.foil[i]))
        for i, n in enumerate(pairs.length.tolist())
    ]


def named(sites: Sequence[naive.Site], scores: naive.Scores) -> dict[str, float]:
    return {_name(sites, node): value for node, value in scores.items()}


def _name(sites: Sequence[naive.Site], node: naive.Node) -> str:
    s, position, unit = node
    return f"{sites[s].write}/{unit}" + ("" if position is None else f"@{position}")


def assert_same_scores(
    found: nvs.NodeScores, sites: Sequence[naive.Site], expected: naive.Scores, tolerance: float = EXACT
) -> None:
    """Every node has the naive score, within `tolerance` of the largest; nodes that it has not score 0."""
    ours = {found.index.name(i): value for i, value in enumerate(found.values.tolist())}
    theirs = named(sites, expected)
    assert set(theirs) <= set(ours)
    absent = set(ours) - set(theirs)
    assert all("/error" in name and ours[name] == 0 for name in absent)
    largest = max(abs(value) for value in theirs.values())
    assert largest > 1e-3, "nothing to compare"
    torch.testing.assert_close(
        torch.tensor([ours[name] for name in theirs], dtype=torch.float64),
        torch.tensor(list(theirs.values()), dtype=torch.float64),
        rtol=0,
        atol=tolerance * largest,
    )


def discover(
    method: Method,
    model: Any,
    basis: nvs.Basis,
    pairs: nvs.PromptPairs = FEW,
    metric: Any = "logit_difference",
    **more: Any,
) -> nvs.NodeScores:
    return getattr(nvs.attribution, method.name)(
        model, basis, pairs, metric, batch_size=BATCH, **method.options, **more
    )


def assert_naive(
    method: Method, model: Any, case: Case, pairing: Any = "paired", metric: str = "logit_difference"
) -> None:
    """The method's scores on `FEW` are the naive ones of `metric`."""
    sites = case.sites(model)
    given = (
        {"minus_kl": "kl"}.get(metric, metric) if pairing == "paired" else None
    )  # unpaired, the default is the logit
    expected = method.naive(model, sites, one_by_one(FEW), metric=metric, paired=pairing == "paired")
    assert_same_scores(discover(method, model, case.basis(model), metric=given, pairing=pairing), sites, expected)


# --- attribution


@methods
@pytest.mark.parametrize(("kind", "name"), MODEL_AND_CASE)
def test_paired_scores_are_the_naive_ones(kind: str, name: str, method: Method) -> None:
    if kind == "gemma2" and method.name.startswith("relp"):
        pytest.skip("naive.replacement_logits has no soft-caps and no norms after a block's parts")
    assert_naive(method, toys.model(kind), CASES[name])


@pytest.mark.parametrize("method", GRIDS, ids=lambda method: method.id)
def test_points_on_paths_are_the_naive_ones(method: Method, llama: Any) -> None:
    assert_naive(method, llama, CASES["sae standard"])


@pytest.mark.parametrize("method", [m for m in METHODS if m.unpaired], ids=lambda method: method.id)
@pytest.mark.parametrize(
    ("kind", "name"), [("llama", "sae standard"), ("llama", "transcoder"), ("gpt2", "mlp_neurons"), ("neox", "sae three kinds")]
)  # fmt: skip
def test_unpaired_scores_are_the_naive_ones_of_the_answer_logit(kind: str, name: str, method: Method) -> None:
    assert_naive(method, toys.model(kind), CASES[name], "unpaired", PAIRINGS["unpaired"])


@pytest.mark.parametrize("metric", naive.METRICS)
@pytest.mark.parametrize("method", ["attribution_patching grad_at=corrupt", "relp"])
def test_scores_of_every_metric_are_the_naive_ones(method: str, metric: str, llama: Any) -> None:
    if metric == "minus_kl" and method == "relp":
        pytest.skip("the gradient of KL vanishes at the clean prompt: compared at the corrupt one")
    assert_naive(BY_ID[method], llama, CASES["sae jumprelu"], metric=metric)


@pytest.mark.parametrize(
    ("direction", "pairing"), [("noising", "paired"), ("noising", "unpaired"), ("denoising", "paired")]
)
@pytest.mark.parametrize(
    ("kind", "name"), [("llama", "sae three kinds"), ("llama", "transcoder"), ("gpt2", "mlp_neurons"), ("gemma2", "attention")]
)  # fmt: skip
@pytest.mark.parametrize("positions", ["separate", "pooled"])
def test_exact_patching_is_the_naive_one(kind: str, name: str, direction: Any, pairing: Any, positions: Any) -> None:
    model, case, pairs = toys.model(kind), CASES[name], FEW
    sites = case.sites(model)
    nodes = naive.all_nodes(model, sites, pairs.clean[:1])
    nodes = list(dict.fromkeys((s, None if positions == "pooled" else p, u) for s, p, u in nodes))
    chosen = nodes[:: max(1, len(nodes) // 5)] + [node for node in nodes if node[2] == "error"][:1]
    expected = naive.activation_patching(
        model, sites, one_by_one(pairs), chosen, PAIRINGS[pairing], direction, pairing == "paired"
    )
    found = nvs.attribution.activation_patching(
        model, case.basis(model), pairs, direction=direction, pairing=pairing, positions=positions, batch_size=7
    )
    ours = {found.index.name(i): value for i, value in enumerate(found.values.tolist())}
    for name, value in named(sites, expected).items():
        assert ours[name] == pytest.approx(value, abs=EXACT), name


@methods
def test_pooled_scores_are_the_naive_sums_over_positions(method: Method, llama: Any) -> None:
    """Also where prompts differ in length: each is summed over its own tokens."""
    case, pairs = CASES["sae three kinds"], toys.pairs(3, 5, lengths=[5, 4, 5])
    sites = case.sites(llama)
    per_pair = [
        naive.pooled(method.naive(llama, sites, [pair], metric="logit_difference", paired=True))
        for pair in one_by_one(pairs)
    ]
    expected = {node: naive.mean([scores[node] for scores in per_pair]) for node in per_pair[0]}
    assert_same_scores(discover(method, llama, case.basis(llama), pairs, positions="pooled"), sites, expected)


# --- circuits


def eligible(sites: Sequence[naive.Site], scores: naive.Scores, errors: str) -> naive.Scores:
    """The nodes that a circuit may hold (methods.md 7): error nodes only where the policy counts them."""
    counted = {"nodes": lambda site: True, "resid_only": lambda site: "hook_resid" in site.write}
    return {
        node: score
        for node, score in scores.items()
        if node[2] != "error" or counted.get(errors, lambda site: False)(sites[node[0]])
    }


def as_naive(found: nvs.NodeScores, sites: Sequence[naive.Site], nodes: Sequence[naive.Node]) -> naive.Scores:
    """The package's scores under the naive code's nodes."""
    ours = {found.index.name(i): value for i, value in enumerate(found.values.tolist())}
    return {node: ours[_name(sites, node)] for node in nodes}


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
    for k in [*range(0, len(nodes), 7), len(nodes)]:
        theirs = {_name(sites, node) for node in naive.top_k(expected, k, rank_by)}
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
    for ours, theirs in zip(_runs(curve), expected.values(), strict=True):
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
    for ours, theirs in zip(_runs(curve), expected.values(), strict=True):
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
    for ours, theirs in zip(_runs(curve), expected.values(), strict=True):
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
    for ours, theirs in zip(_runs(curve), expected.values(), strict=True):
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


# --- scores of curves


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


# --- the trained model

# Two layers of SAEs: the naive code takes its time over 512 units at every position.
SAES = {
    "sae": ("sae", "jumprelu", ["blocks.1.hook_mlp_out", "blocks.2.hook_mlp_out"]),
    "transcoder": ("transcoder", "transcoder", ["blocks.2.hook_mlp_out"]),
}


@pytest.fixture(scope="module")
def exact_stories(assets: Path) -> Any:
    """stories260K in float64, where rounding cannot hide a difference or push a unit over its threshold."""
    return nvs.load_model(assets / "models" / "stories260K", dtype="float64")


def trained_case(assets: Path, name: str, dtype: str) -> Case:
    folder = assets / "saes" / "stories260K"
    if name == "mlp_neurons":
        return CASES[name]
    basis, kind, files = SAES[name]
    ours = [SAE.load_from_disk(folder / kind / file, dtype=dtype) for file in files]
    theirs = [SAE.load_from_disk(folder / kind / file, dtype=dtype) for file in files]
    return Case(
        name,
        lambda model: getattr(nvs.bases, basis)(model, source=ours),
        lambda model: [naive.sae_site(model, one) for one in theirs],
    )


def some_pairs(model: Any, assets: Path, task: str, n: int = 2) -> nvs.PromptPairs:
    return nvs.tasks.from_file(model, path=assets / "tasks" / "stories260K" / f"{task}_train.jsonl").sample(n, seed=0)


TRAINED_METHODS = ["attribution_patching", "integrated_gradients steps=2 schedule=left", "relp"]
trained = pytest.mark.parametrize(
    ("task", "name"), [("gender_pronoun", "mlp_neurons"), ("number_pronoun", "transcoder"), ("number_pronoun", "sae")]
)


@pytest.mark.assets
@trained
def test_scores_on_the_trained_model_are_the_naive_ones(task: str, name: str, exact_stories: Any, assets: Path) -> None:
    assert_same_trained_scores(
        exact_stories, trained_case(assets, name, "float64"), some_pairs(exact_stories, assets, task)
    )


def assert_same_trained_scores(model: Any, case: Case, pairs: nvs.PromptPairs, tolerance: float = EXACT) -> None:
    sites = case.sites(model)
    for method in TRAINED_METHODS:
        expected = BY_ID[method].naive(model, sites, one_by_one(pairs))
        assert_same_scores(discover(BY_ID[method], model, case.basis(model), pairs), sites, expected, tolerance)


@pytest.mark.assets
@pytest.mark.parametrize("errors", ["nodes", "ablate"])
@trained
def test_curves_on_the_trained_model_are_the_naive_ones(
    task: str, name: str, errors: Any, exact_stories: Any, assets: Path
) -> None:
    if name == "mlp_neurons" and errors == "ablate":
        pytest.skip("neurons have no error: the same as errors='nodes'")
    model, case, pairs = exact_stories, trained_case(assets, name, "float64"), some_pairs(exact_stories, assets, task)
    assert_same_curve(model, case, pairs, errors, EXACT)


def assert_same_curve(model: Any, case: Case, pairs: nvs.PromptPairs, errors: Any, tolerance: float) -> None:
    """Every run of the circuits of RelP's scores, and what is made of them, at sizes from 0 to all."""
    basis, sites = case.basis(model), case.sites(model)
    scores = discover(BY_ID["relp"], model, basis, pairs)
    nodes = eligible(sites, as_naive(scores, sites, naive.all_nodes(model, sites, pairs.clean[:1])), errors)
    grid = [20, 500, sum(score != 0 for score in nodes.values())]
    curve = nvs.evaluate(model, basis, scores, pairs, sizes=grid, errors=errors)
    values = naive.ablation_values(model, sites, one_by_one(pairs))
    runs = [naive.evaluate(model, sites, one_by_one(pairs), naive.top_k(nodes, k), values, errors) for k in grid]
    close = partial(pytest.approx, abs=tolerance)
    for size, run in enumerate(runs):
        for ours, theirs in zip(_runs(curve, size), run.values(), strict=True):
            assert ours.tolist() == close(theirs)
    assert curve.faithfulness.tolist() == close([naive.faithfulness(run) for run in runs])
    assert curve.completeness.tolist() == close([naive.completeness(run) for run in runs])


@pytest.mark.assets
def test_float32_scores_and_curves_are_the_naive_ones_within_rounding(stories: Any, assets: Path) -> None:
    """One prompt at a time or a batch, the sums run in another order: within 1e-4 of the largest score, and 1e-4 logits.

    Measured: 5e-7 and 6e-6. The rest is room for other machines; a unit pushed over its threshold would move more.
    """
    case, pairs = trained_case(assets, "sae", "float32"), some_pairs(stories, assets, "gender_pronoun")
    assert_same_trained_scores(stories, case, pairs, 1e-4)
    assert_same_curve(stories, case, pairs, "nodes", 1e-4)
