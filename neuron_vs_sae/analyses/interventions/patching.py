"""How many units must take a donor's values for the answer to flip, and whether the gradient foretells what they do."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from neuron_vs_sae.analyses.interventions import ranking
from neuron_vs_sae.analyses.interventions.controls import DRAWN, PatchControl, one_earlier, randomised
from neuron_vs_sae.analyses.interventions.outcomes import outcomes
from neuron_vs_sae.analyses.interventions.sets import at_nodes, moved, towards, written_norm
from neuron_vs_sae.analyses.interventions.subjects import Subject, check_finite, landed, places, site_norms, subject
from neuron_vs_sae.core.basis import Basis
from neuron_vs_sae.core.conventions import Engine, PatchSelect, PatchSign, SteerAt
from neuron_vs_sae.core.errors import InputError, check_choice
from neuron_vs_sae.core.nodes import NodeIndex
from neuron_vs_sae.core.pairs import PromptPairs
from neuron_vs_sae.execution.changes import Changes
from neuron_vs_sae.execution.splice import home, read

KS = (1, 2, 5, 10, 20, 50, 100, 200, 500)


@dataclass(frozen=True)
class Patching:
    """How units are chosen and patched.

    `sign`: of the predicted effect, towards the donor's answer where positive. `mass`: shares of the whole |score| (`select="mass"`);
    `every`: units between two gradients (`iterative`); `steps` of the path (`ig`); `trials` of each drawn control; `at`: tokens
    whose units are candidates.
    """

    metric: str = "logit_difference"
    sign: PatchSign = "positive"
    mass: tuple[float, ...] = (0.2, 0.5, 0.8, 0.95)
    every: int = 20
    steps: int = 10
    trials: int = 5
    at: SteerAt = "all"
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Patches:
    """What patching gave: a row of `values` per prompt, size, alpha, control and trial (`COLUMNS`)."""

    basis: str
    select: str
    values: pd.DataFrame

    def units_to_flip(self) -> pd.Series:
        """Per prompt the fewest units of the grid that put the donor's answer above the recipient's, at the first alpha; NaN where none do."""
        main = self.values.loc[(self.values["control"] == "") & (self.values["alpha"] == self.values["alpha"].iloc[0])]
        flips = main.loc[main["flipped"]].groupby("prompt")["units"].min()
        return flips.reindex(sorted(main["prompt"].unique()))


COLUMNS = (
    "prompt", "k", "units", "alpha", "control", "trial", "predicted", "before", "after", "kl", "rank", "probability", "flipped",
    "first", "norm",
)  # fmt: skip
"""`k`: units asked for, or the share of the score; `units`: how many were patched. `predicted`: by how much the metric was to fall;
`before` and `after`: the metric. `rank`, `probability`: the donor's answer's. `flipped`: it is above the recipient's answer; `first`:
above every token. `norm`: what was written, relative to what was there. `control`: "" for the patch itself, "all_units" for all there are."""


def patch(
    model: Any,
    basis: Basis,
    pairs: PromptPairs,
    *,
    select: PatchSelect = "global",
    k: Sequence[int] = KS,
    alpha: Sequence[float] = (1.0,),
    control: Sequence[PatchControl] = (),
    options: Patching | None = None,
    engine: Engine = "fast",
) -> Patches:
    """Units of each clean prompt (the recipient) set to their values in the corrupt one (the donor), at the same positions.

    Every prompt's units are ranked by its own `(value - donor's) . gradient` (`ranking.delta_gradient`), one backward pass; a unit counts
    once per position. A patched unit takes `v + alpha (donor's - v)`, v being live: at 1 the donor's value, whatever was patched
    before it. The error stays the recipient's. Effects count towards the donor's answer: they are falls of the metric. Nothing is held out:
    the same prompt ranks and judges, so read it beside the controls, which move as much elsewhere.
    Cost: per prompt two backward passes at most (iterative: one per `every` units), and a run per row.
    Raises `InputError` for sizes, alphas or shares that are none, and where recipient and donor differ in length (as `PromptPairs` does).
    Source: Birardi 2025 (LessWrong); there deltas are taken from the clean runs and added, so that patches of several layers add up.
    """
    options = options or Patching()
    check_patching(select, k, alpha, options)
    rows: list[dict[str, Any]] = []
    for i in range(len(pairs)):
        case = _Case.of(model, basis, pairs, i, options)
        plans = list(_plans(case, select, k, alpha, control, options))
        measured = outcomes(model, basis, case.pair, [plan.changes for plan in plans], options.metric, engine=engine)
        plain = outcomes(model, basis, case.pair, [(None,) * len(basis.sites)], options.metric, engine=engine)
        before = float(plain["metric"][0, 0])
        for r, plan in enumerate(plans):
            rows.append({
                "prompt": i, **plan.labels, "before": before, "after": float(measured["metric"][r, 0]), "kl": float(measured["kl"][r, 0]),
                "rank": int(measured["foil_rank"][r, 0]), "probability": float(measured["foil_probability"][r, 0]),
                "flipped": bool(measured["foil_wins"][r, 0]), "first": bool(measured["foil_first"][r, 0]),
            })  # fmt: skip
    return Patches(basis.name, select, pd.DataFrame(rows, columns=list(COLUMNS)))


def check_patching(select: PatchSelect, k: Sequence[int], alpha: Sequence[float], options: Patching) -> None:
    """Raises `InputError` for a selection that is not there, and for sizes, alphas and shares that are none."""
    check_choice("selection", select, PatchSelect)
    check_choice("sign", options.sign, PatchSign)
    check_finite("alpha", tuple(alpha))
    if not k or min(k) < 1:
        raise InputError(f"k of {list(k)}: give numbers of units, 1 or more (--k)")
    if options.every < 1 or options.trials < 1 or options.steps < 1:
        raise InputError(f"every={options.every}, trials={options.trials}, steps={options.steps}: each is 1 or more")
    check_finite("share of the score", options.mass)


@dataclass(frozen=True, eq=False)
class _Plan:
    """One run of one prompt, and the columns that say which."""

    labels: dict[str, Any]
    changes: Changes


@dataclass(frozen=True, eq=False)
class _Case:
    """A recipient and its donor: values of all units in both, and what is needed to rank and to measure."""

    model: Any
    basis: Basis
    pair: PromptPairs
    other: PromptPairs
    index: NodeIndex
    recipient: Subject
    donor: list[Float[Tensor, "pos _"]]
    values: list[Float[Tensor, "pos _"]]
    norms: list[Float[Tensor, " pos"]]
    directions: list[Float[Tensor, "_ _"]]
    generator: torch.Generator = field(default_factory=torch.Generator)

    @staticmethod
    def of(model: Any, basis: Basis, pairs: PromptPairs, i: int, options: Patching) -> "_Case":
        pair = pairs.take([i])
        same = [j for j in range(len(pairs)) if int(pairs.length[j]) == int(pairs.length[i])]
        other = pairs.take([same[(same.index(i) + 1) % len(same)]])
        recipient = subject(model, basis, pair.clean, pair.length, places(pair, options.at))
        with torch.no_grad():
            values = [units[0] for units in basis.features(recipient.activations).units]
            every = [torch.arange(d.width, device=home(model)) for d in basis.dictionaries]
            directions = [
                landed(model, site, d.directions(units))
                for site, d, units in zip(basis.sites, basis.dictionaries, every, strict=True)
            ]
        return _Case(
            model, basis, pair, other, basis.index(pair.positions), recipient, donor_values(model, basis, pair), values,
            [norm[0] for norm in site_norms(model, basis, recipient)], directions,
            torch.Generator().manual_seed(options.seed + i),
        )  # fmt: skip

    def scores(
        self, donor: Sequence[Float[Tensor, "pos _"]], options: Patching, changes: Changes | None = None
    ) -> Float[Tensor, " nodes"]:
        theirs = [values[None] for values in donor]
        scores = ranking.delta_gradient(self.model, self.basis, self.pair, theirs, options.metric, changes)[0]
        return self.allowed(scores)

    def allowed(self, scores: Float[Tensor, " nodes"]) -> Float[Tensor, " nodes"]:
        """The scores at the tokens whose units are candidates, 0 elsewhere."""
        units = [self.recipient.where[0].cpu()[:, None].expand(-1, width) for width in self.index.widths]
        at = self.index.flatten(units, [torch.zeros(self.index.blocks, dtype=torch.bool) for _ in units])
        return torch.where(at, scores, 0.0)

    def amounts(self, nodes: Int[Tensor, " k"], alpha: float) -> Float[Tensor, " k"]:
        """By how much the donor's values differ from the recipient's."""
        return alpha * (at_nodes(self.index, self.donor) - at_nodes(self.index, self.values))[nodes].double()

    def norm(self, nodes: Int[Tensor, " k"], amounts: Float[Tensor, " k"]) -> float:
        return written_norm(self.index, nodes, amounts, self.norms, self.directions)


def donor_values(model: Any, basis: Basis, pair: PromptPairs) -> list[Float[Tensor, "pos _"]]:
    """Per site the values of all units in the corrupt prompt of one pair."""
    tokens, length = pair.corrupt.to(home(model)), pair.length.to(home(model))
    with torch.no_grad():
        return [units[0] for units in basis.features(read(model, tokens, length, basis.hooks)).units]


Sets = list[tuple[float, Int[Tensor, " _"], float]]
"""(size asked for, its nodes, the effect that is predicted of them at alpha = 1)."""


def _plans(
    case: _Case, select: PatchSelect, k: Sequence[int], alpha: Sequence[float], control: Sequence[PatchControl], options: Patching
) -> Iterator[_Plan]:  # fmt: skip
    sets = chosen(case, select, k, options)
    for size, nodes, predicted in sets:
        for a in alpha:
            labels = _labels(size, nodes, a, "", 0, a * predicted, case.norm(nodes, case.amounts(nodes, a)))
            yield _Plan(labels, towards(case.index, nodes, case.donor, a))
    everything = case.allowed((~case.index.is_error).double()).nonzero().flatten()
    norm = case.norm(everything, case.amounts(everything, 1.0))
    labels = _labels(float("nan"), everything, 1.0, "all_units", 0, float("nan"), norm)
    yield _Plan(labels, towards(case.index, everything, case.donor, 1.0))
    for name in control:
        yield from _controls(case, name, sets, select, options)


def chosen(case: _Case, select: PatchSelect, k: Sequence[int], options: Patching) -> Sets:
    """The sets of units of one prompt; where fewer have the sign, all that have it."""
    index, sign = case.index, options.sign
    if select == "iterative":
        return _iterative(case, sorted(k), options)
    if select == "ig":
        integrated = ranking.integrated(case.model, case.basis, case.pair, options.metric, options.steps)[0]
        scores = case.allowed(integrated)
    else:
        scores = case.scores(case.donor, options)
    if select == "mass":
        sets = [(share, ranking.mass(scores, share, sign)) for share in options.mass]
    elif select == "per_layer":
        sets = [(float(size), ranking.per_layer(scores, index, size, sign)) for size in k]
    else:
        ranked = ranking.order(scores, sign)
        sets = [(float(size), ranked[:size]) for size in k]
    return [(size, nodes, float(scores[nodes].sum())) for size, nodes in sets]


def _iterative(case: _Case, k: Sequence[int], options: Patching) -> Sets:
    """Gradients are taken again with what is patched so far; each unit is predicted by the gradient that chose it."""
    nodes, predicted = torch.zeros(0, dtype=torch.long), torch.zeros(0, dtype=torch.float64)
    while len(nodes) < k[-1]:
        so_far = towards(case.index, nodes, case.donor, 1.0) if len(nodes) else None
        scores = case.scores(case.donor, options, so_far)
        scores[nodes] = 0.0
        step = min([options.every, *(size - len(nodes) for size in k if size > len(nodes))])
        more = ranking.order(scores, options.sign)[:step]
        if not len(more):
            break
        nodes, predicted = torch.cat([nodes, more]), torch.cat([predicted, scores[more]])
    return [(float(size), nodes[:size], float(predicted[:size].sum())) for size in k]


def _controls(case: _Case, name: PatchControl, sets: Sets, select: PatchSelect, options: Patching) -> Iterator[_Plan]:
    check_choice("control", name, PatchControl)
    theirs = donor_values(case.model, case.basis, case.other) if name == "wrong_source" else case.donor
    if name == "wrong_source":
        ranked = ranking.order(case.scores(theirs, options), options.sign)
        sets = [(size, ranked[: len(nodes)], predicted) for size, nodes, predicted in sets]
    for size, nodes, _ in sets:
        amounts = case.amounts(nodes, 1.0)
        for trial in range(options.trials if name in DRAWN else 1):
            if name in ("negated", "wrong_source"):
                alpha = -1.0 if name == "negated" else 1.0
                changes, at, by = towards(case.index, nodes, theirs, alpha), nodes, alpha * amounts
            elif name == "wrong_position":
                at, by = one_earlier(case.index, nodes, amounts)
                changes = moved(case.index, at, by, case.values)
            else:
                at, by = randomised(name, case.index, nodes, amounts, case.generator)
                changes = moved(case.index, at, by, case.values)
            labels = _labels(size, at, 1.0, name, trial, float("nan"), case.norm(at, by))
            yield _Plan(labels, changes)


def _labels(
    size: float, nodes: Int[Tensor, " k"], alpha: float, control: str, trial: int, predicted: float, norm: float
) -> dict[str, Any]:
    return {
        "k": size, "units": len(nodes), "alpha": alpha, "control": control, "trial": trial, "predicted": predicted, "norm": norm,
    }  # fmt: skip
