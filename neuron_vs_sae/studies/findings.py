"""What each comparison of a study shows, specification by specification: computed once, for verdicts, specifications and robustness."""

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Shaped

from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.statistics.bootstrap import Estimate, interval, minimum_detectable, tail
from neuron_vs_sae.statistics.permutation import sign_flip
from neuron_vs_sae.statistics.resampling import Clusters
from neuron_vs_sae.studies.comparing import Comparison, Control, TaskCurves, by_task, compare, pairs
from neuron_vs_sae.studies.families import controls_of, neurons
from neuron_vs_sae.studies.result import Result
from neuron_vs_sae.studies.study import Study

MORE_IS_BETTER = {"faithfulness": 1.0, "completeness": -1.0}
"""Per score 1 where more of it is better, -1 where less is."""
_AT_ONCE = 2
"""Tasks on which a pair of bases is compared side by side."""


@dataclass(frozen=True, eq=False)
class Finding:
    """A comparison and its numbers: a row per specification, without adjusted p-values. `alone` is the verdict of each by its own p;
    `unbeaten` marks, for each control of the comparison, where the basis that it controls wins by its own p and does not beat it."""

    comparison: Comparison
    rows: pd.DataFrame
    alone: Shaped[np.ndarray, " k"]
    unbeaten: tuple[Bool[np.ndarray, " k"], ...]


def findings(result: Result, against: str | None = None) -> Iterator[list[Finding]]:
    """Pair by pair, a finding per task that compares the two: every pair of bases once, or `against` with every other.

    `a` is the neuron basis where one of the two is, else the one that the study names first. A list is empty where two bases have
    no prompts, cases or sizes in common. Raises `InputError` where the study has no basis `against`.
    """
    study = result.study
    if against is not None and against not in study.basis:
        raise InputError(f"no basis {against!r} in this study; there are: {', '.join(study.basis)}")
    tasks = by_task(result, study.resamples)
    controls = {task.task: controls_of(study, result.record, task.task) for task in tasks}
    wanted = [(a, b) for a, b in pairs(study.basis, [against] if against else neurons(study)) if against in (None, a)]

    def of_task(task: TaskCurves, a: str, b: str) -> Finding | None:
        comparison = compare(task, a, b, controls[task.task])
        return None if comparison is None else finding(comparison, study)

    # Resampling is numpy's work, which threads share; a pair holds all its resamples, so pairs come one after the other.
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for a, b in wanted:
            of_tasks = pool.map(partial(of_task, a=a, b=b), tasks)
            yield [of_one for of_one in of_tasks if of_one is not None]


def finding(comparison: Comparison, study: Study) -> Finding:
    """The numbers of a comparison (their meanings: `verdict.verdicts`)."""
    p = sign_flip(comparison.contrasts, comparison.clusters, flips=study.sign_flips, seed=study.seed[0])
    numbers = differ(comparison.difference, study.confidence, study.margin)
    rows = comparison.labels.assign(
        task=comparison.task,
        basis_a=comparison.basis_a,
        basis_b=comparison.basis_b,
        a=comparison.a,
        b=comparison.b,
        **numbers,
        p=p,
        margin=study.margin,
        n=len(comparison.clusters.cluster),
        n_clusters=comparison.clusters.n_clusters,
    )
    sign = signs(comparison.labels["score"])
    alone = decide(numbers, p, sign, 1 - study.confidence)
    wins = [
        alone == ("a better" if control.of == comparison.basis_a else "b better") for control in comparison.controls
    ]
    flagged = [unbeaten(c, w, sign, comparison.clusters, study) for c, w in zip(comparison.controls, wins, strict=True)]
    return Finding(comparison, rows, alone, tuple(flagged))


def signs(scores: Iterable[str]) -> Float[np.ndarray, " k"]:
    """1 for every score of which more is better, -1 for the others."""
    return np.array([MORE_IS_BETTER[score] for score in scores])


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


def decide(
    numbers: Mapping[str, Float[np.ndarray, " k"]],
    p: Float[np.ndarray, " k"],
    sign: float | Float[np.ndarray, " k"],
    alpha: float,
) -> Shaped[np.ndarray, " k"]:
    """The verdict of each specification: `equivalent`, `a better`, `b better` or `undecided`, by the numbers of `differ`.

    Equivalent where `p_equivalence` < alpha; else better where the interval excludes 0 and p < alpha.
    """
    above, below = numbers["low"] > 0, numbers["high"] < 0
    better = np.where(above == (np.asarray(sign) > 0), "a better", "b better")
    real = (above | below) & (p < alpha)
    return np.where(numbers["p_equivalence"] < alpha, "equivalent", np.where(real, better, "undecided"))


def unbeaten(
    control: Control, wins: Bool[np.ndarray, " k"], sign: Float[np.ndarray, " k"], clusters: Clusters, study: Study
) -> Bool[np.ndarray, " k"]:
    """Where a basis wins but does not beat its control by the sign-flip test that it won by, at the study's alpha."""
    flagged = np.zeros(len(wins), dtype=bool)
    if wins.any():
        contrasts = control.contrasts[:, wins] * sign[wins]
        p = sign_flip(contrasts, clusters, flips=study.sign_flips, seed=study.seed[0])
        flagged[wins] = ~((p < 1 - study.confidence) & (contrasts.mean(0) > 0))
    return flagged
