"""Uncertainty of curves: faithfulness and completeness at every size, areas, sizes at a level."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from neuron_vs_sae.core.curve import Curve
from neuron_vs_sae.statistics.bootstrap import Estimate, Interval, interval, ratio
from neuron_vs_sae.statistics.resampling import Draws, Groups, draw, independent

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
    curve: Curve, *, groups: Groups | None = None, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> tuple[Interval, Interval]:
    """Pointwise BCa intervals of (faithfulness, completeness); `groups` are the prompts' clusters and strata, if any."""
    draws = draw(groups or independent(len(curve.whole)), resamples, seed)
    found = estimates(curve, draws)
    return interval(found["faithfulness"], confidence), interval(found["completeness"], confidence)


@dataclass(frozen=True)
class SizeAt:
    """An interval for the smallest size that reaches a level of faithfulness; None: not reached.

    `not_reached` is the share of resamples that do not reach it at any size run. They are in the interval as larger than
    every size: its upper end is None where they are more than its tail.
    """

    low: int | None
    high: int | None
    not_reached: float


def size_at(curve: Curve, faithfulness: Estimate, level: float, confidence: float = 0.95) -> SizeAt:
    """Percentile interval of `Curve.size_at(level)`: sizes are those run, so its ends are too."""
    reached = faithfulness.replicates >= level
    sizes = np.append(np.array(curve.sizes, dtype=float), np.inf)
    found = np.sort(sizes[np.where(reached.any(1), reached.argmax(1), len(curve.sizes))])
    if len(faithfulness.left_out) < 2:
        return SizeAt(None, None, float(np.isinf(found).mean()))
    tail = (1 - confidence) / 2
    low, high = (float(np.quantile(found, at, method="inverted_cdf")) for at in (tail, 1 - tail))
    return SizeAt(_size(low), _size(high), float(np.isinf(found).mean()))


def _size(value: float) -> int | None:
    return None if np.isinf(value) else int(value)
