"""Uncertainty of curves: paired bootstrap over prompts."""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.stats import DegenerateDataWarning, bootstrap

from neuron_vs_sae.curve import Curve


@dataclass(frozen=True)
class Interval:
    """Lower and upper ends per size; NaN where there is no interval (a single prompt)."""

    low: Float[np.ndarray, " sizes"]
    high: Float[np.ndarray, " sizes"]


def intervals(
    curve: Curve, *, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> tuple[Interval, Interval]:
    """Pointwise intervals of (faithfulness, completeness): BCa bootstrap over prompts.

    A prompt's F(M), F(empty), F(C) and F(complement) are resampled together, because the scores are ratios; one seed
    gives the same draws for every basis and method of the same prompts. Where BCa is undefined (a score that does not
    vary, as at size 0), the interval is the percentile one. Conditional on the ablation's values and on the ranking.
    """
    return (
        _ratio_interval(curve.circuit.numpy(), curve, confidence, resamples, seed),
        _ratio_interval(curve.complement.numpy(), curve, confidence, resamples, seed),
    )


def _ratio_interval(
    values: Float[np.ndarray, "sizes batch"], curve: Curve, confidence: float, resamples: int, seed: int
) -> Interval:
    if values.shape[1] < 2:
        missing = np.full(values.shape[0], np.nan)
        return Interval(missing, missing)
    whole = np.broadcast_to(curve.whole.numpy(), values.shape)
    empty = np.broadcast_to(curve.empty.numpy(), values.shape)

    def score(kept: Any, whole: Any, empty: Any, axis: int) -> Any:
        bottom = empty.mean(axis)
        return (kept.mean(axis) - bottom) / (whole.mean(axis) - bottom)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DegenerateDataWarning)
        warnings.simplefilter("ignore", RuntimeWarning)
        found: Any = bootstrap(
            (values, whole, empty),
            score,
            n_resamples=resamples,
            vectorized=True,
            paired=True,
            axis=-1,
            confidence_level=confidence,
            rng=np.random.default_rng(seed),
            batch=max(1, 4_000_000 // values.size),
            method="BCa",
        )
    tail = (1 - confidence) / 2
    plain = np.quantile(found.bootstrap_distribution, [tail, 1 - tail], axis=-1)
    low, high = found.confidence_interval
    return Interval(np.where(np.isnan(low), plain[0], low), np.where(np.isnan(high), plain[1], high))
