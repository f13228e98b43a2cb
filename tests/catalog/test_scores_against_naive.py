"""The package's scores are those of a second implementation that shares no code with it (`naive.py`)."""

from functools import partial
from typing import Any

import naive
import pytest
import toys
from covering import covering
from naive_cases import (
    BY_ID,
    CASES,
    EXACT,
    FEW,
    METHODS,
    PAIRINGS,
    Case,
    Method,
    assert_same_scores,
    discover,
    named,
    on_path,
    one_by_one,
)

import neuron_vs_sae as nvs

# Every method with every basis, on architectures that hold every pair with both; but for the bias-free one, on neurons and on
# SAEs at several kinds of site at once.
KIND_CASE_METHOD = covering(
    tuple(toys.MODELS),
    tuple(CASES),
    METHODS,
    allowed=lambda kind, name, method: (
        (kind == "llama" or name in ("mlp_neurons", "sae three kinds"))
        # naive.replacement_logits has no soft-caps and no norms after a block's parts
        and not (kind == "gemma2" and method.name.startswith("relp"))
    ),
)


# The same on other grids: where a point lies depends on the method, not on the basis, so one basis is enough.
GRIDS = [
    *(
        on_path(method, steps, schedule)
        for method in ("integrated_gradients", "integrated_gradients_inputs")
        for steps, schedule in ((1, "left"), (5, "left"), (3, "right"), (3, "midpoint"))
    ),
    *(Method("conductance", {"steps": n}, partial(naive.conductance, n=n)) for n in (1, 5)),
]


methods = pytest.mark.parametrize("method", METHODS, ids=lambda method: method.id)


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


@pytest.mark.parametrize(
    ("kind", "name", "method"), KIND_CASE_METHOD, ids=lambda value: value if isinstance(value, str) else value.id
)
def test_paired_scores_are_the_naive_ones(kind: str, name: str, method: Method) -> None:
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
