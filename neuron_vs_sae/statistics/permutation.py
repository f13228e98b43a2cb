"""Sign-flip tests between two bases on the same prompts."""

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from jaxtyping import Float

from neuron_vs_sae.statistics.resampling import Clusters
from neuron_vs_sae.statistics.tails import SEEN, beyond, exceedances, with_tail

_SIGNS = 2**23
"""Signs kept between tests, at most: 64 MiB."""
_ROWS = 4096
"""Patterns held at once: what is computed of them stays in a processor's cache."""
_STATISTICS = 2**23
"""Statistics held at once: 64 MiB."""


def contrast(
    top_a: Float[np.ndarray, "batch k"],
    bottom_a: Float[np.ndarray, "batch _"],
    top_b: Float[np.ndarray, "batch k"],
    bottom_b: Float[np.ndarray, "batch _"],
) -> Float[np.ndarray, "batch k"]:
    """A number per prompt, free of ratios, whose mean is the difference of the two ratios of means, a less b.

    With r the mean of the two ratios: `(top_a - r bottom_a) / mean(bottom_a) - (top_b - r bottom_b) / mean(bottom_b)`. If both
    ratios are r in truth, each part has mean 0, so the sign of a prompt's number is what the test may flip; and what F(M)
    and F(empty) vary by is in it. Where both bases share F(empty), it is the difference of tops over the common denominator.
    """
    mean_a, mean_b = bottom_a.mean(0), bottom_b.mean(0)
    r = (top_a.mean(0) / mean_a + top_b.mean(0) / mean_b) / 2
    return (top_a - r * bottom_a) / mean_a - (top_b - r * bottom_b) / mean_b


def resolution(n_clusters: int) -> float:
    """The smallest p that a sign-flip test of so many clusters can give: `2 / 2 ** n_clusters`, the observed signs and their mirror."""
    return 2.0 ** (1 - n_clusters)


def all_patterns(n_clusters: int, flips: int) -> bool:
    """Whether all patterns are affordable. Half of them are the others' mirror, with the same two-sided statistic."""
    return 2 ** (n_clusters - 1) <= flips


def n_patterns(n_clusters: int, flips: int) -> int:
    """How many patterns `patterns` gives."""
    return 2 ** (n_clusters - 1) if all_patterns(n_clusters, flips) else flips - 1


def patterns(n_clusters: int, flips: int, seed: int) -> Iterator[Float[np.ndarray, "rows clusters"]]:
    """Signs of clusters in blocks of rows: every pattern up to its mirror where they are at most `flips`, else `flips - 1` at random."""
    count = n_patterns(n_clusters, flips)
    if count * n_clusters <= _SIGNS:
        kept = _kept_patterns(n_clusters, flips, seed)
        yield from (kept[start : start + _ROWS] for start in range(0, count, _ROWS))
    else:
        yield from _drawn_patterns(n_clusters, flips, seed)


@lru_cache(maxsize=2)
def _kept_patterns(n_clusters: int, flips: int, seed: int) -> Float[np.ndarray, "count clusters"]:
    """All of them in one array: tests of many comparisons on the same prompts flip the same signs."""
    return np.concatenate(list(_drawn_patterns(n_clusters, flips, seed)))


def _drawn_patterns(n_clusters: int, flips: int, seed: int) -> Iterator[Float[np.ndarray, "rows clusters"]]:
    left = n_patterns(n_clusters, flips)
    rng = np.random.default_rng(seed)
    while left:
        rows = min(left, _ROWS)
        if all_patterns(n_clusters, flips):
            negative = (np.arange(left - rows, left)[:, None] >> np.arange(n_clusters)) & 1
        else:
            negative = rng.integers(0, 2, (rows, n_clusters), dtype=np.int8)
        yield 1.0 - 2.0 * negative
        left -= rows


def aligned(values: Float[np.ndarray, "batch k"], clusters: Clusters) -> Float[np.ndarray, "clusters k"]:
    """Sums of each cluster, scaled such that they add up to r, in [-1, 1], of which t is a growing function (`to_t`).

    r is the sum over the root of n times the sum of squares. Flipping signs changes the sum alone, so the r of every pattern
    is a sum too. All 0: 0.
    """
    sums = clusters.sums(values)
    length = np.sqrt(len(sums) * (sums**2).sum(0))
    return sums / np.where(length > 0, length, 1.0)


def to_t(r: Float[np.ndarray, "*shape"], n_clusters: int) -> Float[np.ndarray, "*shape"]:
    """The mean over its standard error (n - 1) of cluster sums with this `aligned` sum; at most 1e6 x sqrt(n - 1)."""
    return r * np.sqrt((n_clusters - 1) / (1 - np.minimum(r * r, 1 - 1e-12)))


def sign_flip(
    values: Float[np.ndarray, "batch k"], clusters: Clusters, *, flips: int = 20_000, seed: int = 0
) -> Float[np.ndarray, " k"]:
    """Two-sided p of "the mean is 0", for each column: the share of sign patterns with as large a mean, or larger.

    A cluster's prompts keep one sign. Of all `2 ** clusters` patterns where half of them are at most `flips` (p is then exact, and
    no smaller than `resolution`: 8 clusters cannot give less than .0078), else of that many at random with the one observed;
    where fewer than ten of these are as large, p is the tail's (`tails.beyond`, fitted to |t|), still no smaller than `resolution`.
    Exact for symmetric contrasts, and near it for others: 4.3 to 5.8 % of samples without a difference were rejected at 5 %, from
    8 clusters on (results/coverage.md). All 0: p = 1.
    """
    columns = max(1, _STATISTICS // n_patterns(clusters.n_clusters, flips))
    parts = [_flipped(values[:, i : i + columns], clusters, flips, seed) for i in range(0, values.shape[1], columns)]
    return np.concatenate([np.zeros(0), *parts])


def _flipped(
    values: Float[np.ndarray, "batch k"], clusters: Clusters, flips: int, seed: int
) -> Float[np.ndarray, " k"]:
    n = clusters.n_clusters
    parts = aligned(values, clusters)
    r, start = np.empty((parts.shape[1], n_patterns(n, flips))), 0
    for signs in patterns(n, flips, seed):
        np.abs(parts.T @ signs.T, out=r[:, start : start + len(signs)])
        start += len(signs)
    observed, rounding = np.abs(parts.sum(0)), 1e-12 * np.abs(parts).sum(0)
    # Patterns are summed in another order than the observed values: ties are ties up to rounding.
    reached = np.count_nonzero(r >= (observed - rounding)[:, None], axis=1).astype(float)
    count = r.shape[1]
    if all_patterns(n, flips):
        return reached / count
    fitted = np.full(len(r), np.nan)
    few, size = np.flatnonzero(reached < SEEN), exceedances(count) + 1
    if len(few):
        largest = to_t(np.partition(r[few], count - size, axis=1)[:, -size:].T, n)
        fitted[few] = beyond(to_t(observed[few], n), largest, count)
    return with_tail(reached, fitted, count, resolution(n))
