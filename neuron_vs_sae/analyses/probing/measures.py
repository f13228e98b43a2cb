"""How well a probe does, and how certain that is: scores of its predictions, resampled by sequence."""

import numpy as np
from jaxtyping import Bool, Float, Int

from neuron_vs_sae.statistics.bootstrap import Estimate
from neuron_vs_sae.statistics.resampling import Clusters, Draws, draw


def draws_of(sequence: Int[np.ndarray, " n"], resamples: int, seed: int) -> Draws:
    """Draws of whole sequences: tokens of one are not independent."""
    cluster = np.unique(sequence, return_inverse=True)[1]
    return draw(Clusters(cluster, np.zeros(len(cluster), dtype=np.int64)), resamples, seed)


def mcc(y: Bool[np.ndarray, " n"], decision: Float[np.ndarray, " n"], draws: Draws) -> Estimate:
    """Matthews correlation of the labels with `decision > 0`; 0 where one of them never varies (as is usual)."""
    said = decision > 0
    cells = np.stack([y & said, ~y & said, y & ~said, ~y & ~said], 1).astype(float)
    sums = draws.clusters.sums(cells)
    return Estimate(
        value=_mcc(sums.sum(0)[None]),
        replicates=_mcc(draws.resampled(sums))[:, None],
        left_out=_mcc(draws.left_out(sums))[:, None],
        strata=tuple(draws.clusters.strata),
    )


def auroc(y: Bool[np.ndarray, " n"], decision: Float[np.ndarray, " n"], draws: Draws) -> Estimate:
    """The chance that a positive token's decision is above a negative one's, ties counting half; NaN without one of the classes."""
    n_clusters = draws.clusters.n_clusters
    every = np.ones((1, n_clusters))
    alone = every - np.eye(n_clusters)
    cluster = draws.clusters.cluster
    return Estimate(
        value=_auroc(y, decision, every[:, cluster]),
        replicates=_auroc(y, decision, draws.counts[:, cluster])[:, None],
        left_out=_auroc(y, decision, alone[:, cluster])[:, None],
        strata=tuple(draws.clusters.strata),
    )


def _mcc(cells: Float[np.ndarray, "m 4"]) -> Float[np.ndarray, " m"]:
    hit, false, missed, right = cells.T
    bottom = np.sqrt((hit + false) * (hit + missed) * (right + false) * (right + missed))
    return np.where(bottom > 0, (hit * right - false * missed) / np.where(bottom > 0, bottom, 1.0), 0.0)


def _auroc(
    y: Bool[np.ndarray, " n"], decision: Float[np.ndarray, " n"], weights: Float[np.ndarray, "m n"]
) -> Float[np.ndarray, " m"]:
    """Under weights of the tokens: each distinct decision's negatives lie above all positives of larger ones, and tie with its own."""
    order = np.argsort(decision, kind="stable")
    starts = np.flatnonzero(np.diff(decision[order], prepend=-np.inf) > 0)
    positive = np.add.reduceat(weights[:, order] * y[order], starts, axis=1)
    negative = np.add.reduceat(weights[:, order] * ~y[order], starts, axis=1)
    below = np.cumsum(negative, 1) - negative / 2
    pairs = positive.sum(1) * negative.sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (positive * below).sum(1) / pairs
