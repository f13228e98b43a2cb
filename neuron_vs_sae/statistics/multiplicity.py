"""p-values of many comparisons at once."""

import numpy as np
from jaxtyping import Float
from scipy.stats import false_discovery_control


def holm(p: Float[np.ndarray, " k"]) -> Float[np.ndarray, " k"]:
    """Holm's (1979): rejecting those at most alpha, any false rejection has a probability of at most alpha."""
    order = np.argsort(p, kind="stable")
    steps = np.arange(len(p), 0, -1) * p[order]
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted


def benjamini_hochberg(p: Float[np.ndarray, " k"]) -> Float[np.ndarray, " k"]:
    """Benjamini and Hochberg's (1995): of those at most alpha, an expected share of at most alpha is false."""
    return false_discovery_control(p) if len(p) else p
