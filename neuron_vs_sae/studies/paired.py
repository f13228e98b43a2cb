"""Verdicts on scores estimated from one set of draws: bases compared pair by pair, in the columns that all analyses share."""

from collections.abc import Mapping
from itertools import combinations

import numpy as np
import pandas as pd

from neuron_vs_sae.statistics.bootstrap import Estimate, interval, tail
from neuron_vs_sae.statistics.multiplicity import holm


def pair_rows(
    scores: Mapping[str, Estimate], facts: Mapping[str, object], n: int, confidence: float, margin: float
) -> pd.DataFrame:
    """A row per pair of bases: `a` less `b` of one score, of which more is better, with its interval and p-values.

    The scores are of the same draws, so a difference is paired, cluster by cluster. `p` is twice the smaller tail of the bootstrap beyond 0,
    `p_equivalence` the larger of the two that the difference lies beyond the margin. `facts` are the other columns.
    """
    rows = []
    for a, b in combinations(scores, 2):
        difference = scores[a] - scores[b]
        ends = interval(difference, confidence)
        below = float(tail(difference, 0.0)[0])
        rows.append({
            **facts, "basis_a": a, "basis_b": b, "a": float(scores[a].value[0]), "b": float(scores[b].value[0]),
            "difference": float(difference.value[0]), "low": float(ends.low[0]), "high": float(ends.high[0]),
            "p": min(1.0, 2 * min(below, 1 - below)),
            "p_equivalence": float(np.maximum(tail(difference, -margin), 1 - tail(difference, margin))[0]),
            "margin": margin, "n": n, "n_clusters": len(difference.left_out),
        })  # fmt: skip
    return pd.DataFrame(rows)


def judged(rows: pd.DataFrame, confidence: float) -> pd.DataFrame:
    """The rows of one study with `p_holm` over all of them and a `verdict`, more being better.

    `equivalent` where `p_equivalence` is below alpha; else `a better` or `b better` where the interval excludes 0 and
    `p_holm` is below alpha; else `undecided`.
    """
    if not len(rows):
        return rows.assign(p_holm=[], verdict=[])
    alpha, adjusted = 1 - confidence, holm(rows["p"].to_numpy())
    real = ((rows["low"] > 0) | (rows["high"] < 0)) & (adjusted < alpha)
    better = np.where(rows["difference"] > 0, "a better", "b better")
    verdicts = np.where(rows["p_equivalence"] < alpha, "equivalent", np.where(real, better, "undecided"))
    return rows.assign(p_holm=adjusted, verdict=verdicts)
