"""The uncertainty of curves: of faithfulness and completeness at every size, of areas, and of sizes at a level."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from neuron_vs_sae.core.curve import Curve
from neuron_vs_sae.statistics.bootstrap import Estimate, Interval, interval, ratio
from neuron_vs_sae.statistics.resampling import Clusters, Draws, draw, independent

SCORES = ("faithfulness", "completeness")


def tops(curve: Curve) -> dict[str, Float[np.ndarray, "batch sizes"]]:
    """Per score the numerator of every prompt and size: `F(C) - F(empty)`, and `F(complement) - F(empty)`."""
    empty = curve.empty.numpy()[:, None]
    return {"faithfulness": curve.circuit.numpy().T - empty, "completeness": curve.complement.numpy().T - empty}


def bottom(curve: Curve) -> Float[np.ndarray, "batch 1"]:
    """The denominator of every prompt, `F(M) - F(empty)`."""
    return (curve.whole.numpy() - curve.empty.numpy())[:, None]


def estimates(curve: Curve, draws: Draws) -> dict[str, Estimate]:
    """Both scores at every size, in the resamples of `draws`: the four F's of a prompt are drawn together.

    One set of draws for all curves on the same prompts makes their differences paired. Conditional on the ranking and on the
    ablation's values.
    """
    return {score: ratio(top, bottom(curve), draws) for score, top in tops(curve).items()}


def intervals(
    curve: Curve, *, clusters: Clusters | None = None, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> tuple[Interval, Interval]:
    """Pointwise BCa intervals of (faithfulness, completeness); `clusters` are the prompts' clusters and strata, if any."""
    draws = draw(clusters or independent(len(curve.whole)), resamples, seed)
    by_score = estimates(curve, draws)
    return interval(by_score["faithfulness"], confidence), interval(by_score["completeness"], confidence)


@dataclass(frozen=True)
class SizeAt:
    """An interval for the size at which the ranking first reaches a level of faithfulness; None: not reached.

    `not_reached` is the share of resamples that do not reach it with all nodes that have a score. They are in the interval as
    larger than every size: its upper end is None where they are more than its tail.
    """

    low: float | None
    high: float | None
    not_reached: float


def size_at(curve: Curve, faithfulness: Estimate, level: float, confidence: float = 0.95) -> SizeAt:
    """Percentile interval of `Curve.size_at(level)` over the resamples of `faithfulness`, interpolated as that is."""
    sizes = crossings(np.array(curve.sizes, dtype=float), faithfulness.replicates, level)
    not_reached = float(np.isinf(sizes).mean())
    if len(faithfulness.left_out) < 2:
        return SizeAt(None, None, not_reached)
    tail = (1 - confidence) / 2
    low, high = (float(np.quantile(sizes, at, method="inverted_cdf")) for at in (tail, 1 - tail))
    return SizeAt(_reached(low), _reached(high), not_reached)


def crossings(
    sizes: Float[np.ndarray, " sizes"], scores: Float[np.ndarray, "draws sizes"], level: float
) -> Float[np.ndarray, " draws"]:
    """Per draw the size at which its scores first reach the level, linear in log size between two that were run; the smallest
    size (of at least 1) where that one reaches it; infinity where none does."""
    kept = sizes >= 1
    x, above = np.log(sizes[kept]), scores[:, kept] - level
    if not len(x):
        return np.full(len(scores), np.inf)
    hit = above >= 0
    after = hit.argmax(1)
    before = np.maximum(after - 1, 0)
    low, high = (np.take_along_axis(above, at[:, None], 1)[:, 0] for at in (before, after))
    part = np.divide(-low, high - low, out=np.zeros(len(scores)), where=(after > before) & hit.any(1))
    crossing = np.exp(x[before] + part * (x[after] - x[before]))
    return np.where(hit.any(1), crossing, np.inf)


def _reached(size: float) -> float | None:
    return None if np.isinf(size) else size
