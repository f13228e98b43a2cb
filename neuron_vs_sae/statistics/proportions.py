"""Shares of prompts, with their intervals."""

from scipy.stats import binomtest


def wilson(hits: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's (1927) score interval of `hits / n`; (NaN, NaN) without any trial."""
    if n == 0:
        return float("nan"), float("nan")
    ends = binomtest(hits, n).proportion_ci(confidence, method="wilson")
    return float(ends.low), float(ends.high)
