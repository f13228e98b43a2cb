"""Bases and methods in the package's words and in those of `naive.py`, and how their numbers are compared.

Nodes are matched by name, so their order and naming are compared too. Raw bases have no error node in the naive code;
the package's must score exactly 0 there.
"""

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any, NamedTuple

import naive
import torch
import toys

import neuron_vs_sae as nvs

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
        lambda model: [naive.sae_site(model, sae) for sae in make()],
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


def on_path(method: str, steps: int, schedule: str) -> Method:
    options = {"steps": steps, "schedule": schedule}
    return Method(method, options, partial(getattr(naive, method), n=steps, schedule=schedule))


METHODS = [
    Method("attribution_patching", {}, naive.attribution_patching),
    Method("attribution_patching", {"grad_at": "corrupt"}, partial(naive.attribution_patching, at="corrupt"), False),
    on_path("integrated_gradients", 2, "left"),
    on_path("integrated_gradients_inputs", 2, "left"),
    Method("conductance", {"steps": 2}, partial(naive.conductance, n=2)),
    # The package's chord act(g) / g is exact, without Jafari's stabiliser.
    *(
        Method(preset.replace("-", "_"), {}, partial(naive.relp, rules=rules._replace(stabiliser=0.0)))
        for preset, rules in naive.RELP.items()
    ),
    Method("delta", {}, _delta),
]

BY_ID = {method.id: method for method in METHODS}

PAIRINGS = {"paired": "logit_difference", "unpaired": "answer_logit"}  # methods.md 1: the unpaired metric


def one_by_one(pairs: nvs.PromptPairs) -> list[naive.Pair]:
    """The pairs as the naive code takes them: one prompt at a time, at its own length."""
    return [
        naive.Pair(pairs.clean[[i], :n], pairs.corrupt[[i], :n], int(pairs.answer[i]), int(pairs.foil[i]))
        for i, n in enumerate(pairs.length.tolist())
    ]


def named(sites: Sequence[naive.Site], scores: naive.Scores) -> dict[str, float]:
    return {name_of_node(sites, node): value for node, value in scores.items()}


def name_of_node(sites: Sequence[naive.Site], node: naive.Node) -> str:
    s, position, unit = node
    return f"{sites[s].write}/{unit}" + ("" if position is None else f"@{position}")


def assert_same_scores(
    scores: nvs.NodeScores, sites: Sequence[naive.Site], expected: naive.Scores, tolerance: float = EXACT
) -> None:
    """Every node has the naive score, within `tolerance` of the largest; nodes that it has not score 0."""
    ours = {scores.index.name(i): value for i, value in enumerate(scores.values.tolist())}
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


def eligible(sites: Sequence[naive.Site], scores: naive.Scores, errors: str) -> naive.Scores:
    """The nodes that a circuit may hold (methods.md 7): error nodes only where the policy counts them."""
    counted = {"nodes": lambda site: True, "resid_only": lambda site: "hook_resid" in site.write}
    return {
        node: score
        for node, score in scores.items()
        if node[2] != "error" or counted.get(errors, lambda site: False)(sites[node[0]])
    }


def as_naive(scores: nvs.NodeScores, sites: Sequence[naive.Site], nodes: Sequence[naive.Node]) -> naive.Scores:
    """The package's scores under the naive code's nodes."""
    ours = {scores.index.name(i): value for i, value in enumerate(scores.values.tolist())}
    return {node: ours[name_of_node(sites, node)] for node in nodes}


def runs_of(curve: nvs.Curve, size: int = 0) -> list[torch.Tensor]:
    return [curve.whole, curve.empty, curve.circuit[size], curve.complement[size]]
