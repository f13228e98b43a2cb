"""Small p-values of permutation tests: beyond what the permutations show, by the shape of their tail."""

import numpy as np
from jaxtyping import Float
from scipy.stats import genpareto

SEEN = 10
"""With as many permutations beyond the observed statistic, their share is p."""
EXCEEDANCES = 250
"""The tail that is fitted: that many of the largest statistics."""


def exceedances(permutations: int) -> int:
    """How many of the largest statistics make the tail: 250, and at most a tenth of all."""
    return min(EXCEEDANCES, permutations // 10)


def beyond(
    observed: Float[np.ndarray, " k"], largest: Float[np.ndarray, "tail k"], permutations: int
) -> Float[np.ndarray, " k"]:
    """The probability of a statistic of at least `observed`, by a generalised Pareto tail.

    `largest` are the `exceedances(permutations) + 1` largest of the permutations' statistics, in any order. The tail begins
    midway between the two smallest of them, and its shape and scale come from probability-weighted moments (Hosking and Wallis
    1987, Technometrics 29:339). The shape is at least 0: a tail with an end, fitted by chance, would give p = 0 beyond it. For |t| with
    20,000 permutations p is then within a factor of 5 of that of all permutations, rather too small than too large. NaN where all
    of `largest` are equal. Source: Knijnenburg et al. 2009, Bioinformatics 25:i161, which fits by maximum likelihood.
    """
    ordered = np.sort(largest, axis=0)
    start = ordered[:2].mean(0)
    excess = ordered[1:] - start
    n = len(excess)
    mean = excess.mean(0)
    weighted = ((1 - (np.arange(1, n + 1) - 0.35) / n)[:, None] * excess).mean(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        shape = np.maximum(2 - mean / (mean - 2 * weighted), 0.0)
        p = n / permutations * genpareto.sf(observed - start, shape, scale=mean * (1 - shape))
    return np.where(mean > 0, p, np.nan)


def with_tail(
    reached: Float[np.ndarray, " k"],
    by_tail: Float[np.ndarray, " k"],
    permutations: int,
    resolution: float,
) -> Float[np.ndarray, " k"]:
    """p of random permutations: `(reached + 1) / (permutations + 1)` where at least ten are as large as what was observed.

    With fewer it is `by_tail`, but never more than that share, so that p falls as the statistic grows, and never less than
    `resolution`, the smallest p that all permutations could give. NaN in `by_tail`: the share.
    """
    share = (reached + 1) / (permutations + 1)
    fitted = np.clip(np.where(np.isnan(by_tail), share, by_tail), resolution, share)
    return np.where(reached < SEEN, fitted, share)
