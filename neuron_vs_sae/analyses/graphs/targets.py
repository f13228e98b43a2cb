"""What a graph explains: a metric, the salient logits, a unit, or a direction; each as a linear reading of one run."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from neuron_vs_sae.analyses.graphs.prompt import Prompt, token_text
from neuron_vs_sae.core.basis import Basis
from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.core.metric import Metric, Target as MetricTarget, resolve
from neuron_vs_sae.execution.cut import Cut

MOST_LOGITS, LOGIT_MASS = 10, 0.95
"""Salient logits: as many as hold this probability together, and no more than these."""

_UNIT = re.compile(r"(?P<site>.+)/(?P<unit>\d+)(@(?P<position>\d+))?")


@dataclass(frozen=True, eq=False)
class Direction:
    """The component along `vector` of the activation at `hook` and `position`, as a target."""

    hook: str
    position: int
    vector: Float[Tensor, " d"]


@dataclass(frozen=True, eq=False)
class Target:
    """A quantity that a graph explains: `<cotangent, quantity(run)> + offset`, which is `value` at this prompt.

    `weight` is its share in the influence of nodes; `token` the vocabulary entry of a logit.
    """

    name: str
    weight: float
    value: float
    quantity: Callable[[Cut], Float[Tensor, "1 ..."]]
    cotangent: Float[Tensor, "1 ..."]
    offset: float = 0.0
    token: int | None = None


def watched(asked: str | Direction) -> tuple[str, ...]:
    """The hooks beside the basis's own that a run must keep for this target."""
    return (asked.hook,) if isinstance(asked, Direction) else ()


def targets_of(
    model: Any, basis: Basis, prompt: Prompt, asked: str | Direction, metric: str | Metric | None, run: Cut
) -> tuple[Target, ...]:
    """The targets asked for: `metric`, `logits`, a unit `SITE/NUMBER[@POSITION]` (default: the last), or a direction.

    Raises `InputError` for a target that is not there, and for the metric of a text, which has no answer.
    """
    if isinstance(asked, Direction):
        return (_direction(asked, run),)
    if asked == "metric":
        return (_metric(prompt, metric, run),)
    if asked == "logits":
        return _logits(model, run)
    return (_unit(basis, prompt, asked, run),)


def _metric(prompt: Prompt, metric: str | Metric | None, run: Cut) -> Target:
    if prompt.pair is None:
        raise InputError(
            "a text has no answer, so there is no metric of it: explain its logits (--targets logits), or give a pair of a task "
            "(--task, --index)"
        )
    name = metric or "logit_difference"
    logits = run.logits.detach().requires_grad_()
    pair = prompt.pair
    score = resolve(name)(logits, MetricTarget(pair.answer, pair.foil, lambda: run.logits.detach()))
    (slope,) = torch.autograd.grad(score.sum(), logits)
    return Target(str(name), 1.0, float(score[0].detach()), lambda cut: cut.logits, slope)


def _logits(model: Any, run: Cut) -> tuple[Target, ...]:
    """The most probable tokens, each as its logit's distance from the mean of all."""
    logits = run.logits.detach()[0]
    probability, order = logits.softmax(0).sort(descending=True, stable=True)
    n = min(MOST_LOGITS, 1 + int((probability.cumsum(0) < LOGIT_MASS).sum()), len(logits))
    targets = []
    for p, token in zip(probability[:n].tolist(), order[:n].tolist(), strict=True):
        slope = torch.full_like(logits, -1 / len(logits))
        slope[token] += 1
        value = float(slope @ logits)
        targets.append(Target(token_text(model, token), p, value, lambda run: run.logits, slope[None], token=token))
    return tuple(targets)


def _unit(basis: Basis, prompt: Prompt, name: str, run: Cut) -> Target:
    site, unit, position = parse_unit(basis, name, prompt.tokens.shape[1])
    y = run.read[site].detach()
    rows, offset = basis.dictionaries[site].reading(y[0, position], torch.tensor([unit], device=y.device))
    cotangent = torch.zeros_like(y)
    cotangent[0, position] = rows[0]
    value = float(rows[0] @ y[0, position] + offset[0])
    return Target(
        f"{basis.sites[site].name}/{unit}@{position}", 1.0, value, lambda cut: cut.read[site], cotangent, float(offset[0])
    )  # fmt: skip


def _direction(asked: Direction, run: Cut) -> Target:
    at = run.seen[asked.hook].detach()
    if not 0 <= asked.position < at.shape[1] or at[0, 0].shape != asked.vector.shape:
        raise InputError(
            f"no direction of {tuple(asked.vector.shape)} at position {asked.position} of {asked.hook}: it holds {at.shape[1]} "
            f"positions of {tuple(at.shape[2:])}"
        )
    cotangent = torch.zeros_like(at)
    cotangent[0, asked.position] = asked.vector.to(at)
    name = f"direction at {asked.hook}@{asked.position}"
    return Target(name, 1.0, float((cotangent * at).sum()), lambda cut: cut.seen[asked.hook], cotangent)


def parse_unit(basis: Basis, name: str, positions: int) -> tuple[int, int, int]:
    """(site, unit, position) of `SITE/NUMBER[@POSITION]`, by default at the last position. Raises `InputError` where it is not there."""
    match, sites = _UNIT.fullmatch(name), [site.name for site in basis.sites]
    if match is None:
        raise InputError(
            f"no target {name!r}; there are: metric, logits, or a unit SITE/NUMBER[@POSITION], as {sites[0]}/0@{positions - 1} "
            "(--targets)"
        )
    if match["site"] not in sites:
        raise InputError(
            f"no target {name!r}: basis '{basis.name}' has no site {match['site']!r}; it has: {', '.join(sites)}"
        )
    site, unit = sites.index(match["site"]), int(match["unit"])
    position = positions - 1 if match["position"] is None else int(match["position"])
    width = basis.dictionaries[site].width
    if unit >= width or position >= positions:
        raise InputError(
            f"no target {name!r}: {match['site']} has units 0 to {width - 1}, and the prompt positions 0 to {positions - 1}"
        )
    return site, unit, position
