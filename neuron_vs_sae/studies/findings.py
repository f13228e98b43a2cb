"""What each comparison of a study shows, specification by specification: computed once, for verdicts, specifications and robustness."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.statistics.bootstrap import Estimate, interval, minimum_detectable, tail
from neuron_vs_sae.statistics.permutation import sign_flip
from neuron_vs_sae.statistics.resampling import Groups
from neuron_vs_sae.studies import result
from neuron_vs_sae.studies.comparing import Comparison, Control, by_task, compare, pairs
from neuron_vs_sae.studies.families import controls_of, neurons
from neuron_vs_sae.studies.study import Study

MORE_IS_BETTER = {"faithfulness": 1.0, "completeness": -1.0}
"""Per score 1 where more of it is better, -1 where less is."""


@dataclass(frozen=True, eq=False)
class Finding:
    """A comparison and its numbers: a row per specification, without adjusted p-values and verdicts."""

    comparison: Comparison
    rows: pd.DataFrame


def findings(found: "result.Result", against: str | None = None) -> Iterator[list[Finding]]:
    """Pair by pair, a finding per task that compares the two: every pair of bases once, or `against` with every other.

    `a` is the neuron basis where one of the two is, else the one that the study names first. A list is empty where two bases have
    no prompts, cases or sizes in common. Raises `InputError` where the study has no basis `against`.
    """
    study = found.study
    if against is not None and against not in study.basis:
        raise InputError(f"no basis {against!r} in this study; there are: {', '.join(study.basis)}")
    tasks = by_task(found, study.resamples)
    controls = {task.task: controls_of(study, found.record, task.task) for task in tasks}
    for a, b in pairs(study.basis, [against] if against else neurons(study)):
        if against in (None, a):
            comparisons = [compare(task, a, b, controls[task.task]) for task in tasks]
            yield [Finding(one, numbers(one, study)) for one in comparisons if one is not None]


def numbers(one: Comparison, study: Study) -> pd.DataFrame:
    """A row per specification: labels, `a`, `b`, their difference with interval and p-values (see `verdict.verdicts`)."""
    columns: dict[str, Any] = {
        "a": one.a,
        "b": one.b,
        **differ(one.difference, study.confidence, study.margin),
        "p": sign_flip(one.contrasts, one.groups, flips=study.sign_flips, seed=study.seed[0]),
        "margin": study.margin,
        "n": len(one.groups.cluster),
        "n_clusters": one.groups.n_clusters,
    }
    named = {"task": one.task, "basis_a": one.basis_a, "basis_b": one.basis_b}
    return one.labels.assign(**named, **columns)


def differ(difference: Estimate, confidence: float, margin: float) -> dict[str, Float[np.ndarray, " k"]]:
    """`difference`, its interval `low` to `high`, `p_equivalence` and `minimum_detectable` (see `verdict.verdicts`)."""
    ends = interval(difference, confidence)
    return {
        "difference": difference.value,
        "low": ends.low,
        "high": ends.high,
        "p_equivalence": np.maximum(tail(difference, -margin), 1 - tail(difference, margin)),
        "minimum_detectable": minimum_detectable(difference, 1 - confidence),
    }


def decide(rows: pd.DataFrame, p: str, alpha: float) -> list[str]:
    """The verdict of every row: `equivalent`, `a better`, `b better` or `undecided`, by the column `p` of p-values.

    Equivalent where `p_equivalence` < alpha; else better where the interval excludes 0 and p < alpha.
    """
    sign = rows["score"].map(MORE_IS_BETTER)
    above, below = rows["low"] > 0, rows["high"] < 0
    better = np.where(above == (sign > 0), "a better", "b better")
    real = (above | below) & (rows[p] < alpha)
    return np.where(rows["p_equivalence"] < alpha, "equivalent", np.where(real, better, "undecided")).tolist()


def unbeaten(
    control: Control,
    wins: Bool[np.ndarray, " k"],
    sign: Float[np.ndarray, " k"],
    groups: Groups,
    study: Study,
) -> Bool[np.ndarray, " k"]:
    """Where a basis wins but does not beat its control by the sign-flip test that it won by, at the study's alpha."""
    flagged = np.zeros(len(wins), dtype=bool)
    if wins.any():
        contrasts = control.contrasts[:, wins] * sign[wins]
        p = sign_flip(contrasts, groups, flips=study.sign_flips, seed=study.seed[0])
        flagged[wins] = ~((p < 1 - study.confidence) & (contrasts.mean(0) > 0))
    return flagged
