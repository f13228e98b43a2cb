"""Whether units of one task can be taken out without hurting another: recall against reasoning, told causally.

Source: the question is Fartale et al. 2025 (arXiv 2510.03366). There units are told apart by statistics on two templates, which tells the
templates apart (`templates.py`); here they are ablated, and both tasks are measured.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from neuron_vs_sae.analyses.interventions.doses import written_norms
from neuron_vs_sae.analyses.interventions.outcomes import outcomes
from neuron_vs_sae.analyses.interventions.subjects import Subject, places, subject
from neuron_vs_sae.catalog.attribution.attribution_patching import attribution_patching
from neuron_vs_sae.core.basis import Basis
from neuron_vs_sae.core.conventions import Engine
from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.core.nodes import NodeIndex
from neuron_vs_sae.core.pairs import PromptPairs
from neuron_vs_sae.execution.changes import Change, Changes
from neuron_vs_sae.execution.splice import home, precision, read
from neuron_vs_sae.statistics.bootstrap import Estimate, ratio
from neuron_vs_sae.statistics.resampling import draw, independent

Matched = Literal["k", "norm"]
"""Bases are compared at as many units, or at as large an ablated norm."""


@dataclass(frozen=True, eq=False)
class Halves:
    """A task's two sets of pairs: units are ranked on discovery, and ablated in evaluation."""

    discovery: PromptPairs
    evaluation: PromptPairs


@dataclass(frozen=True)
class Ablating:
    """`budgets`: relative norms at which bases are compared where the norm is matched; `trials` of the random control."""

    metric: str = "logit_difference"
    budgets: tuple[float, ...] = (0.1, 0.2, 0.4, 0.8)
    trials: int = 5
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Effect:
    """What ablating some units of `own` did: per prompt the fall of the metric in the own task and in the other.

    `size` is what was matched: units, or the relative norm; `k` how many units, `norm` the relative norm that they wrote, less the mean, in the own
    task. `control`: "" or "random" (a mean over trials).
    """

    own: str
    matched: Matched
    size: float
    k: int
    norm: float
    control: str
    fall_own: Float[Tensor, " batch"]
    fall_other: Float[Tensor, " other"]
    plain_own: Float[Tensor, " batch"]
    plain_other: Float[Tensor, " other"]


def selectivity(
    model: Any,
    basis: Basis,
    tasks: Mapping[str, Halves],
    *,
    k: Sequence[int] = (1, 2, 5, 10, 20, 50),
    options: Ablating | None = None,
    engine: Engine = "fast",
) -> list[Effect]:
    """The first k units of each of two tasks ablated, and what that does to both.

    Units are ranked by attribution patching on the task's discovery pairs, summed over positions, those that help first. Ablated units take
    their mean over both tasks' discovery prompts, at every token but BOS. The random control ablates as many units that have a score.
    Raises `InputError` where there are not two tasks, for sizes below 1, and where fewer units help than are asked for.
    """
    options = options or Ablating()
    if len(tasks) != 2:
        raise InputError(f"{len(tasks)} tasks: selectivity compares two (--task-a, --task-b)")
    if not k or min(k) < 1:
        raise InputError(f"k of {list(k)}: give numbers of units, 1 or more (--k)")
    mean = mean_values(model, basis, [half.discovery for half in tasks.values()])
    a, b = (_Task(name, halves, _subject(model, basis, halves.evaluation)) for name, halves in tasks.items())
    return [
        effect
        for own, other in ((a, b), (b, a))
        for effect in _of_own(_Ablated(model, basis, mean, options, engine), own, other, k)
    ]


@dataclass(frozen=True, eq=False)
class _Task:
    name: str
    halves: Halves
    of: Subject


@dataclass(frozen=True, eq=False)
class _Ablated:
    """What ablations of both tasks have in common."""

    model: Any
    basis: Basis
    mean: Sequence[Float[Tensor, " _"]]
    options: Ablating
    engine: Engine

    def changes(self, index: NodeIndex, nodes: Int[Tensor, " k"], of: Subject) -> Changes:
        return set_to(index, nodes, self.mean, of)

    def norm(self, index: NodeIndex, nodes: Int[Tensor, " k"], of: Subject) -> float:
        """The relative norm that these ablations write, mean over prompts."""
        return float(written_norms(self.model, self.basis, self.changes(index, nodes, of), of).mean())

    def falls(
        self, index: NodeIndex, sets: Sequence[Int[Tensor, " _"]], task: _Task
    ) -> tuple[Float[Tensor, "runs batch"], Float[Tensor, " batch"]]:
        """By how much the metric falls in every run and prompt of a task, and what it is."""
        runs: list[Changes] = [(None,) * len(self.basis.sites), *(self.changes(index, s, task.of) for s in sets)]
        values = outcomes(
            self.model, self.basis, task.halves.evaluation, runs, self.options.metric, engine=self.engine
        )["metric"]
        return values[0] - values[1:], values[0]

    def prefix(self, index: NodeIndex, ranked: Int[Tensor, " n"], of: Subject, budget: float) -> int | None:
        """The fewest first units whose ablation writes at least that relative norm, by bisection, as more units write more; None where all do not."""
        low, high = 0, len(ranked)
        if self.norm(index, ranked, of) < budget:
            return None
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self.norm(index, ranked[:middle], of) >= budget else (middle, high)
        return high


def _of_own(job: _Ablated, own: _Task, other: _Task, k: Sequence[int]) -> list[Effect]:
    """The first units of one task ablated in both, and the random control."""
    scores = attribution_patching(job.model, job.basis, own.halves.discovery, job.options.metric, positions="pooled")
    index = scores.index
    scored = scores.order(rank_by="signed", among=~index.is_error & index.exists)
    ranked = scored[scores.values[scored] > 0]
    if len(ranked) < max(k):
        raise InputError(
            f"{max(k)} units are asked for, and {len(ranked)} of basis '{job.basis.name}' help in task '{own.name}' (--k)"
        )
    sets = _sets(job, index, scored, ranked, own.of, k)
    nodes = [chosen for *_, chosen in sets]
    (fall_own, plain_own), (fall_other, plain_other) = (job.falls(index, nodes, task) for task in (own, other))
    return _averaged(
        [
            Effect(
                own=own.name, matched=matched, size=size, k=len(chosen), norm=job.norm(index, chosen, own.of), control=control,
                fall_own=fall_own[r], fall_other=fall_other[r], plain_own=plain_own, plain_other=plain_other,
            )
            for r, (matched, size, control, chosen) in enumerate(sets)
        ]
    )  # fmt: skip


def _sets(
    job: _Ablated,
    index: NodeIndex,
    scored: Int[Tensor, " n"],
    ranked: Int[Tensor, " m"],
    of: Subject,
    k: Sequence[int],
) -> list[tuple[Matched, float, str, Int[Tensor, " _"]]]:
    """(what is matched, at what, control, units), the random ones last."""
    sizes: list[tuple[Matched, float, int]] = [("k", float(size), size) for size in k]
    for budget in job.options.budgets:
        n = job.prefix(index, ranked, of, budget)
        if n is not None:
            sizes.append(("norm", budget, n))
    sets: list[tuple[Matched, float, str, Tensor]] = []
    for matched, size, n in sizes:
        sets.append((matched, size, "", ranked[:n]))
    generator = torch.Generator().manual_seed(job.options.seed)
    for matched, size, n in sizes:
        drawn = [scored[torch.randperm(len(scored), generator=generator)[:n]] for _ in range(job.options.trials)]
        for nodes in drawn:
            sets.append((matched, size, "random", nodes))
    return sets


def estimate(effect: Effect, resamples: int = 2000, seed: int = 0) -> Estimate:
    """`(|fall_own| - |fall_other|) / (|fall_own| + |fall_other|)`, each fall a share of the task's plain metric: 1 where the other task
    is untouched, 0 where both fall alike, -1 where only the other does. Both tasks' prompts are drawn again, each by itself."""
    parts = [
        ratio(fall.numpy()[:, None], plain.numpy()[:, None], draw(independent(len(fall)), resamples, (seed, i)))
        for i, (fall, plain) in enumerate(
            ((effect.fall_own, effect.plain_own), (effect.fall_other, effect.plain_other))
        )
    ]
    own, other = parts
    left_out = np.concatenate([selective(own.left_out, other.value), selective(own.value, other.left_out)])
    strata = (np.arange(len(own.left_out)), len(own.left_out) + np.arange(len(other.left_out)))
    return Estimate(selective(own.value, other.value), selective(own.replicates, other.replicates), left_out, strata)


def selective(own: Float[np.ndarray, "*n 1"], other: Float[np.ndarray, "*m 1"]) -> Any:
    """The contrast of two falls; 0 where neither falls."""
    total = np.abs(own) + np.abs(other)
    return np.divide(np.abs(own) - np.abs(other), total, out=np.zeros_like(total), where=total > 0)


def mean_values(model: Any, basis: Basis, several: Sequence[PromptPairs]) -> list[Float[Tensor, " _"]]:
    """Per site every unit's mean over the clean prompts' tokens but BOS, each set of pairs weighing the same."""
    means: list[Tensor] = []
    for pairs in several:
        totals, tokens = [], 0
        for batch in pairs.batches(32):
            where = places(batch, "all").to(home(model))
            seen = read(model, batch.clean.to(home(model)), batch.length.to(home(model)), basis.hooks)
            with torch.no_grad():
                sums = [units[where].double().sum(0) for units in basis.features(seen).units]
            totals = [a + b for a, b in zip(totals, sums, strict=True)] if totals else sums
            tokens += int(where.sum())
        own = [total / tokens / len(several) for total in totals]
        means = [a + b for a, b in zip(means, own, strict=True)] if means else own
    return [mean.to(precision(model)) for mean in means]


def set_to(index: NodeIndex, nodes: Int[Tensor, " k"], values: Sequence[Float[Tensor, " _"]], of: Subject) -> Changes:
    """Units (pooled nodes) set to a value each, wherever the subject is changed."""
    changes: list[Change | None] = []
    for here, value in zip(index.at_sites(nodes), values, strict=True):
        if not here or not len(here[0][1]):
            changes.append(None)
            continue
        units = here[0][1]
        like = of.where[..., None].to(value)
        target = like * value[units.to(value.device)]
        changes.append(Change(units, target, (-like).expand_as(target).clone()))
    return tuple(changes)


def _subject(model: Any, basis: Basis, pairs: PromptPairs) -> Subject:
    return subject(model, basis, pairs.clean, pairs.length, places(pairs, "all"))


def _averaged(effects: list[Effect]) -> list[Effect]:
    """The trials of a control as one."""
    groups: dict[tuple[Any, ...], list[Effect]] = {}
    for effect in effects:
        groups.setdefault((effect.matched, effect.size, effect.control), []).append(effect)

    def mean(members: list[Effect], name: str) -> Tensor:
        return torch.stack([getattr(member, name) for member in members]).mean(0)

    return [
        replace(
            members[0],
            norm=float(np.mean([member.norm for member in members])),
            fall_own=mean(members, "fall_own"),
            fall_other=mean(members, "fall_other"),
        )
        for members in groups.values()
    ]
