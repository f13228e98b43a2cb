"""Which units to patch: the change that a donor would make times the metric's gradient, per prompt and position."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from neuron_vs_sae.catalog.attribution.integrated_gradients import integrated_gradients
from neuron_vs_sae.core.basis import Basis
from neuron_vs_sae.core.conventions import PatchSign
from neuron_vs_sae.core.errors import InputError, check_choice
from neuron_vs_sae.core.metric import Metric, Target, resolve
from neuron_vs_sae.core.nodes import NodeIndex
from neuron_vs_sae.core.pairs import PromptPairs
from neuron_vs_sae.execution.changes import Changes, edits_of
from neuron_vs_sae.execution.splice import Edit, gradients, run


def delta_gradient(
    model: Any,
    basis: Basis,
    pairs: PromptPairs,
    donor: Sequence[Float[Tensor, "batch pos _"]],
    metric: str | Metric = "logit_difference",
    changes: Changes | None = None,
) -> Float[Tensor, "batch nodes"]:
    """`(value - donor's value) . gradient of the metric` of every unit at every position of each clean prompt.

    In units of the metric; > 0: the donor's value is predicted to lower it, which is towards the donor's answer. Values and gradient
    are those of the run with `changes` (before they are made at the unit's own site). Error nodes and padding are 0. Nodes are those
    of `basis.index(pairs.positions)`. Cost: a forward and a backward pass.
    Source: attribution patching (Nanda 2023) with the donor's value for the corrupt one.
    """
    measure = resolve(metric)
    target = Target(pairs.answer, pairs.foil, cache(lambda: run(model, pairs.clean, pairs.length)))
    live: dict[str, Tensor] = {}
    edits: list[Edit] = [(hook, _recorder(hook, live)) for hook in basis.hooks]
    edits += edits_of(model, basis, changes) if changes else []
    values, slopes = gradients(
        model, pairs.clean, pairs.length, basis.hooks, lambda logits: measure(logits, target), edits
    )
    real = pairs.real.to(next(iter(values.values())).device)
    parts = []
    for site, dictionary, theirs in zip(basis.sites, basis.dictionaries, donor, strict=True):
        with torch.no_grad():
            units = dictionary.encode(site.view(live[site.reads]).to(theirs))
            scores = (units - theirs) * dictionary.pull_back(site.view(slopes[site.writes]))
        scores = torch.where(real[..., None], scores, 0.0).double().cpu()
        parts.append(torch.nn.functional.pad(scores, (0, 1)).flatten(1))  # the error node comes last
    return torch.cat(parts, 1)


def _recorder(hook: str, into: dict[str, Tensor]) -> Any:
    def record(x: Tensor) -> None:
        into[hook] = x.detach().clone()

    return record


def integrated(
    model: Any, basis: Basis, pairs: PromptPairs, metric: str | Metric = "logit_difference", steps: int = 10
) -> Float[Tensor, "batch nodes"]:
    """The same with the gradient averaged on each site's own path to the donor, the corrupt prompt (midpoints of `steps`)."""
    alone = replace(pairs, groups=torch.eye(len(pairs), dtype=torch.bool))
    scores = integrated_gradients(model, basis, alone, metric, steps=steps, schedule="midpoint").by_group
    assert scores is not None  # every pair is a group of its own
    index = basis.index(pairs.positions)
    return torch.where(index.is_error, 0.0, scores.double())


def order(scores: Float[Tensor, " nodes"], sign: PatchSign) -> Int[Tensor, " k"]:
    """The nodes of that sign, those of largest effect first; ties go to the earlier node."""
    check_choice("sign", sign, PatchSign)
    keys = {"positive": scores, "negative": -scores, "absolute": scores.abs()}[sign]
    wanted = (keys > 0).nonzero().flatten()
    return wanted[torch.sort(keys[wanted], descending=True, stable=True).indices]


def per_layer(scores: Float[Tensor, " nodes"], index: NodeIndex, k: int, sign: PatchSign) -> Int[Tensor, " m"]:
    """The first k nodes of every site, as one set in the order of their scores."""
    ranked = order(scores, sign)
    sizes = [blocks * columns for blocks, columns in index.shapes]
    site = torch.bucketize(ranked, torch.tensor(sizes).cumsum(0), right=True)
    within = torch.stack([(site == s).cumsum(0) for s in range(len(sizes))]).gather(0, site[None])[0]
    return ranked[within <= k]


def mass(scores: Float[Tensor, " nodes"], share: float, sign: PatchSign) -> Int[Tensor, " m"]:
    """The shortest beginning of the ranking that holds this share of the |score| of all that is ranked."""
    if not 0 < share <= 1:
        raise InputError(f"a share of {share:g} of the score: give one above 0, and at most 1 (--mass)")
    ranked = order(scores, sign)
    held = scores[ranked].abs().cumsum(0)
    if not len(held):
        return ranked
    short = held < share * held[-1] * (1 - 1e-12)
    return ranked[: int(short.sum()) + 1]
