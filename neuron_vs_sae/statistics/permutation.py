"""Sign-flip tests between two bases on the same prompts."""

import numpy as np
from jaxtyping import Float

from neuron_vs_sae.statistics.resampling import Groups

_SIGNS = 2**22
"""Signs held at once: 32 MiB."""


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


def sign_flip(
    values: Float[np.ndarray, "batch k"], groups: Groups, *, flips: int = 20_000, seed: int = 0
) -> Float[np.ndarray, " k"]:
    """Two-sided p of "the mean is 0", for each column: the share of sign patterns with as large a mean, or larger.

    A cluster's prompts keep one sign. All `2 ** clusters` patterns where they are at most `flips` (p is then exact, and no
    smaller than `2 / 2 ** clusters`: 8 clusters cannot give less than .0078), else that many at random with the one observed.
    Exact for symmetric contrasts, and near it for others: 4.3 to 5.8 % of samples without a difference were rejected at 5 %, from
    8 clusters on (results/coverage.md). All 0: p = 1.
    """
    n = groups.n_clusters
    sums = groups.sums(values)
    # Patterns are summed in another order than the observed values: ties are ties up to rounding.
    observed = np.abs(sums.sum(0)) - 1e-12 * np.abs(sums).sum(0)
    exact = 2**n <= flips
    reached, left = np.zeros(values.shape[1]), 2**n if exact else flips - 1
    rng = np.random.default_rng(seed)
    total = left if exact else flips
    while left:
        rows = min(left, max(1, _SIGNS // n))
        numbers = np.arange(left - rows, left)[:, None]
        negative = (numbers >> np.arange(n)) & 1 if exact else rng.integers(0, 2, (rows, n), dtype=np.int8)
        reached += (np.abs((1.0 - 2.0 * negative) @ sums) >= observed).sum(0)
        left -= rows
    return (reached + (0 if exact else 1)) / total
