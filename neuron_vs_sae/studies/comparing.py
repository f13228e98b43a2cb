"""Two bases on the prompts of one task, under every convention that both were run with: their areas, prompt by prompt."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from neuron_vs_sae.core.curve import Curve
from neuron_vs_sae.statistics.bootstrap import Estimate, ratio
from neuron_vs_sae.statistics.estimates import SCORES, bottom, tops
from neuron_vs_sae.statistics.permutation import contrast
from neuron_vs_sae.statistics.resampling import Clusters, Draws, draw
from neuron_vs_sae.statistics.size_measures import MEASURES, area_weights, common_range
from neuron_vs_sae.studies.result import Result
from neuron_vs_sae.studies.rows import CURVE, each_curve, to_clusters, to_curve

CASE = ("seed", "method", "ablation", "errors", "metric")
"""What bases are compared under, beside the measure of size."""
SPECIFICATION = (*CASE, "size_measure", "score")

Case = tuple[Any, ...]


@dataclass(frozen=True, eq=False)
class TaskCurves:
    """All curves of one task, by basis and case (`CASE`), and how its prompts are drawn: the same draws for every basis and case."""

    task: str
    curves: dict[str, dict[Case, Curve]]
    draws: Draws

    @property
    def clusters(self) -> Clusters:
        return self.draws.clusters


@dataclass(frozen=True, eq=False)
class Stretch:
    """The sizes from `low` to `high` by a measure, in one case."""

    case: Case
    measure: str
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Areas:
    """One basis' areas over k stretches, for both scores, prompt by prompt: `top / bottom[:, bottom_of]`, each a mean over prompts."""

    top: Float[np.ndarray, "batch k"]
    bottom: Float[np.ndarray, "batch cases"]
    bottom_of: Int[np.ndarray, " k"]

    def estimate(self, draws: Draws) -> Estimate:
        return ratio(self.top, self.bottom, draws, self.bottom_of)

    def less(self, other: "Areas") -> Float[np.ndarray, "batch k"]:
        """`permutation.contrast` with another basis on the same stretches."""
        return contrast(self.top, self.bottom[:, self.bottom_of], other.top, other.bottom[:, other.bottom_of])


@dataclass(frozen=True, eq=False)
class Control:
    """What a basis of a pair must beat where it wins: `contrasts` are the basis less its control, on the pair's stretches."""

    basis: str
    of: str
    contrasts: Float[np.ndarray, "batch k"]


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two bases under k specifications. `labels` has a row for each (`SPECIFICATION`, `range_low`, `range_high`); `contrasts` are a
    less b per prompt, with the difference of areas as their mean up to the ratio's own slope; `a` and `b` are the areas."""

    task: str
    basis_a: str
    basis_b: str
    labels: pd.DataFrame
    a: Float[np.ndarray, " k"]
    b: Float[np.ndarray, " k"]
    difference: Estimate
    contrasts: Float[np.ndarray, "batch k"]
    clusters: Clusters
    controls: tuple[Control, ...] = ()


def by_task(result: Result, resamples: int) -> list[TaskCurves]:
    """The study's curves, task by task. Tasks are drawn independently of each other, each by the study's first seed."""
    return curves_by_task(result.curves, resamples)


def curves_by_task(curves: pd.DataFrame, resamples: int) -> list[TaskCurves]:
    """`by_task` from rows: those of all the study's curves, or of some."""
    # Labels that are the same for all of a curve's rows cost much to carry along, and nothing here reads them.
    kept = [c for c in curves.columns if c in {*CURVE, *CASE, "run"} or pd.api.types.is_numeric_dtype(curves[c])]
    tasks: dict[str, dict[str, dict[Case, Curve]]] = {}
    clusters: dict[str, Clusters] = {}
    for identity, rows in each_curve(curves.loc[:, kept]):
        task, basis = str(identity["task"]), str(identity["basis"])
        case = tuple(rows[c].iloc[0] if c in rows.columns else "" for c in CASE)
        tasks.setdefault(task, {}).setdefault(basis, {})[case] = to_curve(rows)
        if task not in clusters:
            clusters[task] = to_clusters(rows)
    seed = int(curves["seed"].iloc[0])
    return [TaskCurves(task, tasks[task], draw(clusters[task], resamples, (seed, i))) for i, task in enumerate(tasks)]


def compare(curves: TaskCurves, a: str, b: str, controls: Sequence[tuple[str, str]] = ()) -> Comparison | None:
    """Bases a and b on this task under every case that both have, by every measure of size and score; None where they share nothing.

    Areas are over the pair's own stretch of sizes. `controls` are pairs (basis, its control); a control is measured on the same
    stretch, held at its last value where it ends, so that it changes no estimate.
    """
    of_a, of_b = curves.curves.get(a, {}), curves.curves.get(b, {})
    cases = [case for case in dict.fromkeys([*of_a, *of_b]) if _curve(of_a, case) and _curve(of_b, case)]
    stretches = [s for case in cases for s in _stretches(case, [_has(of_a, case), _has(of_b, case)])]
    if not stretches or curves.clusters.n_clusters < 2:
        return None
    sides = {a: _areas(of_a, stretches), b: _areas(of_b, stretches)}
    mine, theirs = sides[a].estimate(curves.draws), sides[b].estimate(curves.draws)
    return Comparison(
        task=curves.task,
        basis_a=a,
        basis_b=b,
        labels=_labels(stretches),
        a=mine.value,
        b=theirs.value,
        difference=mine - theirs,
        contrasts=sides[a].less(sides[b]),
        clusters=curves.clusters,
        controls=tuple(
            Control(control, basis, sides[basis].less(_areas(curves.curves[control], stretches)))
            for basis, control in controls
            if basis in sides and all(_curve(curves.curves.get(control, {}), s.case) for s in stretches)
        ),
    )


def pairs(bases: Sequence[str], first: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Every pair of bases once: those in `first` before others, else in the order given."""
    ordered = [*(b for b in bases if b in first), *(b for b in bases if b not in first)]
    for i, a in enumerate(ordered):
        for b in ordered[i + 1 :]:
            yield a, b


def _curve(curves: dict[Case, Curve], case: Case) -> Curve | None:
    """The basis' curve in the case. A basis that loses nothing has one curve whatever the error policy, and may be stored under one."""
    if case in curves:
        return curves[case]
    errors = CASE.index("errors")
    if len({own[errors] for own in curves}) > 1:
        return None
    rest = [i for i in range(len(CASE)) if i != errors]
    return next((curve for own, curve in curves.items() if all(own[i] == case[i] for i in rest)), None)


def _has(curves: dict[Case, Curve], case: Case) -> Curve:
    curve = _curve(curves, case)
    assert curve is not None
    return curve


def _stretches(case: Case, both: Sequence[Curve]) -> Iterator[Stretch]:
    for measure in MEASURES:
        # A curve made by hand may go without some measures.
        if any(getattr(curve, measure, True) is None for curve in both):
            continue
        reach = common_range(both, measure)
        if reach is not None:
            yield Stretch(case, measure, *reach)


def _areas(curves: dict[Case, Curve], stretches: Sequence[Stretch]) -> Areas:
    """In the order of `_labels`: case by case, score by score, measure by measure."""
    top, of = [], []
    cases = list(dict.fromkeys(s.case for s in stretches))
    for i, case in enumerate(cases):
        curve, own = _has(curves, case), [s for s in stretches if s.case == case]
        weights = np.stack([area_weights(curve, s.measure, s.low, s.high) for s in own], 1)
        by_score = tops(curve)
        top += [by_score[score] @ weights for score in SCORES]
        of += [i] * len(SCORES) * len(own)
    return Areas(np.concatenate(top, 1), np.concatenate([bottom(_has(curves, c)) for c in cases], 1), np.array(of))


def _labels(stretches: Sequence[Stretch]) -> pd.DataFrame:
    cases = dict.fromkeys(s.case for s in stretches)
    rows = [
        (*s.case, s.measure, score, s.low, s.high)
        for case in cases
        for score in SCORES
        for s in stretches
        if s.case == case
    ]
    return pd.DataFrame(rows, columns=[*SPECIFICATION, "range_low", "range_high"])
