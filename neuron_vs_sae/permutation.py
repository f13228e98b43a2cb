"""Sign-flip tests between two bases on the same prompts."""

import numpy as np
from jaxtyping import Float

from neuron_vs_sae.resampling import Groups


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
    Exact for symmetric contrasts; otherwise of the nominal rate as clusters grow (measured in results/coverage.md). All 0: p = 1.
    """
    n = groups.n_clusters
    sums = groups.sums(values)
    if 2**n <= flips:
        patterns = 1.0 - 2.0 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
    else:
        drawn = np.random.default_rng(seed).integers(0, 2, (flips - 1, n), dtype=np.int8)
        patterns = np.concatenate([np.ones((1, n)), 1.0 - 2.0 * drawn])
    # Patterns are summed in another order than the observed values: ties are ties up to rounding.
    observed = np.abs(sums.sum(0)) - 1e-12 * np.abs(sums).sum(0)
    return (np.abs(patterns @ sums) >= observed).mean(0)
