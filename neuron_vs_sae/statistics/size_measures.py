"""What "equally large" means between bases: the sizes of a curve's circuits by several measures, and means of a score over each."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from neuron_vs_sae.core.curve import Curve
from neuron_vs_sae.core.errors import InputError

LOGARITHMIC = ("units", "nodes", "values", "fraction", "bits")
MEASURES = (*LOGARITHMIC, "change")
"""units: nodes that are not error nodes. nodes: all of them. values: the numbers that they carry, one per unit and as many per
error node as its site has dimensions (`Curve.values`). fraction: nodes, of all there are. bits: log2 of the number of circuits of
that size, as far as it grows (half of all nodes). change: what removing the circuit changes, of what removing all nodes does
(`analyses/circuits/change.py`), as a mean over prompts.

Areas are over the logarithm of all but change, which runs from 0 to 1. (Over the fraction itself, half of an area is circuits
of more than half of all nodes, where every basis is near 1: MIB's CPR and CMD, `Curve.cpr`, are that area.)"""


def points(curve: Curve, measure: str) -> tuple[Int[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """(places in the curve's sizes, their size by the measure), the measure growing.

    Of circuits that are as large by the measure, the last is kept: what it holds beyond the others comes free. A change that
    a larger circuit falls behind (parts cancel) counts as the largest so far. Sizes of 0 have no logarithm and are left out.
    """
    if measure not in MEASURES:
        raise InputError(f"no size measure {measure!r}; there are: {', '.join(MEASURES)}")
    size = _sizes(curve, measure)
    kept = np.ones(len(size), dtype=bool)
    if measure == "bits":
        kept = np.array(curve.sizes) <= curve.n_total / 2
    if measure in LOGARITHMIC:
        kept &= size > 0
    place = np.flatnonzero(kept)
    grown = np.maximum.accumulate(size[place])
    last = np.append(np.diff(grown) > 0, True)[: len(grown)]
    return place[last], grown[last]


def _sizes(curve: Curve, measure: str) -> Float[np.ndarray, " sizes"]:
    if measure == "change":
        if curve.change is None:
            raise InputError("this curve has no `change`: it was made by hand. `evaluate` measures it")
        return curve.change.mean(1).numpy()
    if measure == "values":
        if curve.values is None:
            raise InputError("this curve has no `values`: it was made by hand. `evaluate` counts them")
        return np.array(curve.values, dtype=float)
    nodes = np.array(curve.sizes, dtype=float)
    by_name = {"nodes": nodes, "units": nodes - curve.n_error_nodes, "fraction": nodes / curve.n_total}
    return by_name[measure] if measure in by_name else np.array(curve.bits)


def measurable(curves: Sequence[Curve]) -> list[str]:
    """The measures that all of these curves have: all six, unless one was made by hand without `values` or `change`."""
    missing = {name for name in ("values", "change") if any(getattr(curve, name) is None for curve in curves)}
    return [measure for measure in MEASURES if measure not in missing]


def common_range(curves: Sequence[Curve], measure: str) -> tuple[float, float] | None:
    """(smallest, largest) size that all of them reach by the measure; None where they share no stretch.

    Of the two curves of a pair, this is the pair's own range: no other basis has a say in it.
    """
    reached = [points(curve, measure)[1] for curve in curves]
    if not all(len(sizes) for sizes in reached):
        return None
    low, high = max(sizes[0] for sizes in reached), min(sizes[-1] for sizes in reached)
    return (float(low), float(high)) if low < high else None


def area_weights(curve: Curve, measure: str, low: float, high: float) -> Float[np.ndarray, " sizes"]:
    """Weights, 1 in all, that make a score's mean over sizes from `low` to `high`, by the trapezoid rule.

    Between sizes that were run the score is interpolated along the measure (its logarithm, for those in `LOGARITHMIC`). A curve
    that ends within the range is held at its last value from there on, and one that begins in it at its first until there: so
    a control is judged on the range of the pair that it controls. Raises `InputError` for a curve without any point.
    """
    place, size = points(curve, measure)
    if not len(place):
        raise InputError(f"this curve has no circuit with a size in {measure}, so it has no area over it")
    scale = np.log if measure in LOGARITHMIC else np.asarray
    x, start, end = scale(size), float(scale(low)), float(scale(high))
    grid = np.concatenate([[start], x[(x > start) & (x < end)], [end]])
    steps = np.diff(grid)
    heights = (np.append(steps, 0.0) + np.append(0.0, steps)) / 2
    # Every point of the grid is a mean of the two sizes around it; beyond the ends, the size at that end.
    after = np.clip(np.searchsorted(x, grid), min(1, len(x) - 1), len(x) - 1)
    before = np.maximum(after - 1, 0)
    part = np.clip((grid - x[before]) / np.where(after > before, x[after] - x[before], 1.0), 0.0, 1.0)
    weights = np.zeros(len(curve.sizes))
    weights[place] = np.bincount(after, heights * part, len(x)) + np.bincount(before, heights * (1 - part), len(x))
    return weights / (end - start)
