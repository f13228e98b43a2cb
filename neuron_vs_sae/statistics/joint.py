"""One test of many specifications at once: common sign flips, which keep what the specifications share."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from neuron_vs_sae.statistics.permutation import aligned, all_patterns, n_patterns, patterns, resolution, to_t
from neuron_vs_sae.statistics.resampling import Clusters
from neuron_vs_sae.statistics.tails import beyond, exceedances, with_tail


@dataclass(frozen=True, eq=False)
class JointTest:
    """What common sign flips say of `k` specifications of one comparison.

    `t`: each one's mean over its standard error, over clusters (n - 1). `median_t`: their median. `p`: two-sided, of the median. `p_max_t`:
    two-sided p of each, adjusted for all of them by the largest |t| (Westfall and Young 1993, single step). `resolution`:
    the smallest p that so many clusters can give, `2 / 2 ** n`. `every`: all sign patterns were used, so that `p` is exact.
    """

    t: Float[np.ndarray, " k"]
    median_t: float
    p: float
    p_max_t: Float[np.ndarray, " k"]
    resolution: float
    every: bool


def joint_test(
    values: Float[np.ndarray, "batch k"], clusters: Clusters, *, flips: int = 20_000, seed: int = 0
) -> JointTest:
    """Test "no specification has a difference" by the median t of all specifications.

    `values` holds a contrast per prompt and specification (`permutation.contrast`), signed so that more is better for the first of
    the two bases. A flip gives each cluster one sign in all specifications at once; `p` is the share of flips with
    |T*| >= |T|. All flips where half of them are at most `flips`, else that many at random, and where fewer than ten reach T, the
    tail of the fitted generalised Pareto distribution. Source: Simonsohn, Simmons and Nelson 2020 (Nature Human Behaviour 4:1208),
    with t in place of the effect, since specifications differ in scale.
    """
    n, k = clusters.n_clusters, values.shape[1]
    parts = aligned(values, clusters)
    medians, extremes = [], []
    for signs in patterns(n, flips, seed):
        r = signs @ parts
        extremes.append(np.maximum(r.max(1), -r.min(1)))
        r.sort(axis=1)
        # t grows with r: the middle of the one is the middle of the other.
        medians.append(to_t(r[:, [(k - 1) // 2, k // 2]], n).mean(1))
    t = to_t(parts.sum(0), n)
    return JointTest(
        t=t,
        median_t=float(np.median(t)),
        p=_of_median(np.abs(np.concatenate(medians)), parts, flips),
        p_max_t=_of_extremes(np.concatenate(extremes), parts, flips),
        resolution=resolution(n),
        every=all_patterns(n, flips),
    )


def _of_median(medians: Float[np.ndarray, " flips"], parts: Float[np.ndarray, "clusters k"], flips: int) -> float:
    n, count = len(parts), len(medians)
    observed = abs(float(np.median(to_t(parts.sum(0), n))))
    # Patterns are summed in another order than the observed values: ties are ties up to rounding.
    reached = np.count_nonzero(medians >= observed * (1 - 1e-9) - 1e-12)
    if all_patterns(n, flips):
        return reached / count
    size = exceedances(count) + 1
    largest = np.partition(medians, count - size)[-size:, None]
    fitted = beyond(np.array([observed]), largest, count)
    return float(with_tail(np.array([float(reached)]), fitted, count, resolution(n))[0])


def _of_extremes(
    extremes: Float[np.ndarray, " flips"], parts: Float[np.ndarray, "clusters k"], flips: int
) -> Float[np.ndarray, " k"]:
    """Shares of flips whose largest |r| is at least each specification's."""
    n = len(parts)
    observed = np.abs(parts.sum(0)) - 1e-12 * np.abs(parts).sum(0)
    reached = len(extremes) - np.searchsorted(np.sort(extremes), observed)
    if all_patterns(n, flips):
        return reached / n_patterns(n, flips)
    return (reached + 1) / (len(extremes) + 1)
