"""Bias-corrected and accelerated (BCa) bootstrap of ratios of means, their differences, and bands over many at once.

Every score here is a ratio of two means over prompts, `mean(top) / mean(bottom)`: faithfulness at a size, an area (a weighted
mean of sizes), completeness likewise. So a resample is a weighting of prompts, and all resamples are one matrix product.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.special import ndtr, ndtri
from scipy.stats import t

from neuron_vs_sae.statistics.resampling import Draws


@dataclass(frozen=True)
class Interval:
    """Lower and upper ends; NaN where there is no interval (a single prompt or cluster)."""

    low: Float[np.ndarray, " k"]
    high: Float[np.ndarray, " k"]


@dataclass(frozen=True, eq=False)
class Estimate:
    """`k` quantities: as measured, in each resample, and with each cluster left out.

    Estimates of the same draws subtract: the difference is paired, resample by resample.
    """

    value: Float[np.ndarray, " k"]
    replicates: Float[np.ndarray, "resamples k"]
    left_out: Float[np.ndarray, "clusters k"]
    strata: tuple[Int[np.ndarray, " members"], ...]

    def __sub__(self, other: "Estimate") -> "Estimate":
        with np.errstate(invalid="ignore"):
            return Estimate(
                self.value - other.value,
                self.replicates - other.replicates,
                self.left_out - other.left_out,
                self.strata,
            )

    def weighted(self, weights: Float[np.ndarray, "k m"]) -> "Estimate":
        """`m` weighted sums of the quantities: areas of a curve."""
        replicates = (weights.T @ self.replicates.T).T
        return Estimate(self.value @ weights, replicates, self.left_out @ weights, self.strata)

    def take(self, columns: Int[np.ndarray, " m"]) -> "Estimate":
        """These quantities alone."""
        replicates = np.ascontiguousarray(self.replicates.T[columns]).T
        return Estimate(self.value[columns], replicates, self.left_out[:, columns], self.strata)

    def median(self) -> "Estimate":
        """The median of all `k` quantities, as one quantity."""
        medians = np.median(np.ascontiguousarray(self.replicates), axis=1, keepdims=True)
        left_out = np.median(self.left_out, axis=1, keepdims=True)
        return Estimate(np.median(self.value, keepdims=True), medians, left_out, self.strata)

    @cached_property
    def ordered(self) -> Float[np.ndarray, "k resamples"]:
        """The replicates of each quantity in growing order, NaN last."""
        return np.sort(np.ascontiguousarray(self.replicates.T), axis=1)

    @property
    def bounded(self) -> Bool[np.ndarray, " k"]:
        """Whether every resample has a finite value."""
        return np.isfinite(self.ordered[:, 0]) & np.isfinite(self.ordered[:, -1])

    def below(self, at: Float[np.ndarray, " k"] | float) -> Float[np.ndarray, " k"]:
        """How many replicates of each quantity are less than `at`, those equal to it counting half."""
        places = np.broadcast_to(np.asarray(at, dtype=float), (len(self.value),))
        sides = [
            [np.searchsorted(row, place, side) for row, place in zip(self.ordered, places, strict=True)]
            for side in ("left", "right")
        ]
        return np.asarray(sides, dtype=float).mean(0)

    @property
    def freedom(self) -> int:
        """Degrees of freedom: clusters less strata."""
        return max(len(self.left_out) - len(self.strata), 1)

    @property
    def expansion(self) -> float:
        """`sqrt(n / (n - 1))`, n being clusters per stratum: the factor by which resamples vary too little."""
        return float(np.sqrt(len(self.left_out) / self.freedom))

    @property
    def standard_error(self) -> Float[np.ndarray, " k"]:
        """The standard deviation over resamples, expanded."""
        return self.expansion * self.replicates.std(0, ddof=1)


def ratio(
    top: Float[np.ndarray, "batch k"],
    bottom: Float[np.ndarray, "batch _"],
    draws: Draws,
    bottom_of: Int[np.ndarray, " k"] | None = None,
) -> Estimate:
    """`mean(top) / mean(bottom)`, each prompt being drawn with both of its values. `bottom` has one column for all quantities, one for
    each, or, with `bottom_of`, the columns that this picks."""
    tops, bottoms = draws.clusters.sums(top), draws.clusters.sums(bottom)
    column = slice(None) if bottom_of is None else bottom_of
    replicates = draws.resampled(tops)
    with np.errstate(divide="ignore", invalid="ignore"):  # a resample of few prompts may have no denominator
        replicates /= draws.resampled(bottoms)[:, column]
        return Estimate(
            value=tops.sum(0) / bottoms.sum(0)[column],
            replicates=replicates,
            left_out=draws.left_out(tops) / draws.left_out(bottoms)[:, column],
            strata=tuple(draws.clusters.strata),
        )


def interval(estimate: Estimate, confidence: float | Float[np.ndarray, " k"] = 0.95) -> Interval:
    """Pointwise BCa intervals (Efron 1987), the acceleration from leaving out clusters, with expanded tails.

    Expanded: a resample of n clusters varies too little, by `(n - 1) / n`, and knows no t; so the normal quantile z of each tail is
    `sqrt(n / (n - 1)) x t[n - 1]` (Hesterberg 2015, The American Statistician 69:371, 3.5). Otherwise they are scipy's.
    Where BCa is undefined (a quantity that does not vary, as at size 0) it is the percentile interval; where some resample
    has no finite value, all numbers. NaN for a single cluster. Of 95 % intervals, 93.6 to 96.1 % held the truth from 40 clusters
    on, and 90.8 % at worst of 8 very skewed ones, where plain BCa holds 85.8 % (results/coverage.md, 2,000 samples each).
    """
    k = len(estimate.value)
    if len(estimate.left_out) < 2:
        return Interval(np.full(k, np.nan), np.full(k, np.nan))
    half = np.broadcast_to((1 - np.asarray(confidence, dtype=float)) / 2, (k,))
    expanded = estimate.expansion * t.ppf(half, estimate.freedom)
    bias, acceleration = _corrections(estimate)
    ends = []
    for z in (expanded, -expanded):
        with np.errstate(invalid="ignore"):
            corrected = ndtr(bias + (bias + z) / (1 - acceleration * (bias + z)))
        ends.append(_quantile(estimate.ordered, np.where(np.isfinite(corrected), corrected, ndtr(z))))
    return Interval(np.where(estimate.bounded, ends[0], -np.inf), np.where(estimate.bounded, ends[1], np.inf))


def band(estimate: Estimate, confidence: float = 0.95) -> Interval:
    """A simultaneous band: with probability `confidence`, all `k` quantities are inside at once. Never inside `interval`.

    sup-t (Montiel Olea and Plagborg-Møller 2019, J. Appl. Econometrics 34:1): as many standard errors either way, for every
    quantity, as hold a share `confidence` of the resampled curves whole; the tail of that many by Student's t instead of the
    normal. Where the pointwise interval reaches further, it is the band's end. Of six sizes, 93.6 to 97.2 % of 95 % bands held the
    curve from 40 clusters on where prompts were normal or moderately skewed; of very skewed ones (exponential) 88.7 % at 40, 91.6 %
    at 80 and 94.1 % at 160, because the band is symmetric (results/coverage.md).
    """
    pointwise = interval(estimate, confidence)
    spread = estimate.replicates.std(0, ddof=1)
    varies = estimate.bounded & (spread > 1e-12)
    if len(estimate.left_out) < 2 or not varies.any():
        return pointwise
    away = np.abs(estimate.replicates[:, varies] - estimate.value[varies]) / spread[varies]
    errors = float(np.quantile(away.max(1), confidence))
    half = np.where(varies, t.isf(ndtr(-errors), estimate.freedom) * estimate.standard_error, 0.0)
    return Interval(np.minimum(pointwise.low, estimate.value - half), np.maximum(pointwise.high, estimate.value + half))


def tail(estimate: Estimate, at: float) -> Float[np.ndarray, " k"]:
    """The level at which the lower end of the one-sided BCa interval is `at`: p of "the truth is at most `at`".

    One minus it is p of "the truth is at least `at`". Never 0 or 1: it cannot be told more finely than resamples allow.
    """
    resamples = len(estimate.replicates)
    place = ndtri((estimate.below(at) + 0.5) / (resamples + 1))
    bias, acceleration = _corrections(estimate)
    bias = np.where(np.isfinite(bias), bias, 0.0)
    shifted = (place - bias) / (1 + acceleration * (place - bias))
    return t.cdf((shifted - bias) / estimate.expansion, estimate.freedom)


def minimum_detectable(estimate: Estimate, alpha: float = 0.05, power: float = 0.8) -> Float[np.ndarray, " k"]:
    """The true value that a two-sided test at `alpha` (of one comparison) finds with this power, for the clusters at hand.

    `(t[1 - alpha / 2] + t[power]) x standard error`, with as many degrees of freedom as clusters less strata.
    """
    return (t.ppf(1 - alpha / 2, estimate.freedom) + t.ppf(power, estimate.freedom)) * estimate.standard_error


def _corrections(estimate: Estimate) -> tuple[Float[np.ndarray, " k"], Float[np.ndarray, " k"]]:
    """(bias, acceleration). A quantity that does not vary has an acceleration of 0."""
    value = estimate.value
    below = estimate.below(value) / len(estimate.replicates)
    cubes, squares = np.zeros_like(value), np.zeros_like(value)
    for members in estimate.strata:
        inside = estimate.left_out[members]
        n = len(inside)
        with np.errstate(invalid="ignore"):  # no denominator without one cluster: no acceleration
            influence = (n - 1) * (inside.mean(0) - inside)
        cubes += (influence**3).sum(0) / n**3
        squares += (influence**2).sum(0) / n**2
    scale = np.where(squares > 0, squares, 1.0) ** 1.5
    acceleration = np.where(squares > 0, cubes / scale, 0.0) / 6
    return ndtri(below), np.where(np.isfinite(acceleration), acceleration, 0.0)


def _quantile(ordered: Float[np.ndarray, "k resamples"], at: Float[np.ndarray, " k"]) -> Float[np.ndarray, " k"]:
    """numpy's linear quantile of each sorted row at a level of its own."""
    last = ordered.shape[1] - 1
    place = at * last
    under = np.floor(place).astype(int)
    over = np.minimum(under + 1, last)
    rows = np.arange(len(ordered))
    low, high = ordered[rows, under], ordered[rows, over]
    with np.errstate(invalid="ignore"):
        return low + (high - low) * (place - under)
