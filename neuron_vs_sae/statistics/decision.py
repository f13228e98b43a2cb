"""Which convention decides: how much estimates vary with each factor of a design, and what reverses their sign."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from jaxtyping import Float

Factors = Mapping[str, Sequence[str]]
"""Per factor the level of every specification."""


@dataclass(frozen=True)
class Turn:
    """One changed convention that turns the sign: `factor` from the level `start` to `end`, in a `share` of the specifications that
    can be changed so. At `start` the sign is more often that of most specifications."""

    factor: str
    start: str
    end: str
    share: float


def first_order(estimates: Float[np.ndarray, " k"], factors: Factors) -> dict[str, float]:
    """Per factor its first-order share of the estimates' variance: that of the means of its levels, over the total.

    A mean counts as often as its level occurs, so for a balanced design this is Sobol's first-order index, and shares add up to at
    most 1; the rest is interaction. 0 for a factor of one level; all 0 where the estimates do not vary.
    """
    total = float(((estimates - estimates.mean()) ** 2).sum())
    shares = {}
    for name, levels in factors.items():
        names = np.asarray(levels)
        between = sum(
            float((names == level).sum()) * float(estimates[names == level].mean() - estimates.mean()) ** 2
            for level in dict.fromkeys(levels)
        )
        # Estimates that differ by rounding alone do not vary.
        shares[name] = between / total if total > 1e-24 * len(estimates) else 0.0
    return shares


def turn(estimates: Float[np.ndarray, " k"], factors: Factors) -> Turn | None:
    """The smallest change that turns the sign: one convention, the others held, and of those the one that turns the largest share.

    None where no single change turns any sign. Of equal shares the first, in the order of the factors and of their levels.
    """
    majority = 1.0 if (estimates > 0).sum() >= (estimates < 0).sum() else -1.0
    best: Turn | None = None
    for name, levels in factors.items():
        others = [other for other in factors if other != name]
        by_level: dict[str, dict[tuple[str, ...], float]] = {level: {} for level in dict.fromkeys(levels)}
        for i, level in enumerate(levels):
            by_level[level][tuple(factors[other][i] for other in others)] = majority * float(estimates[i])
        for first, second in combinations(by_level, 2):
            shared = [key for key in by_level[first] if key in by_level[second]]
            turned = [key for key in shared if by_level[first][key] * by_level[second][key] < 0]
            share = len(turned) / len(shared) if shared else 0.0
            if share > (best.share if best else 0.0):
                ahead = sum(by_level[first][key] > 0 for key in turned)
                start, end = (first, second) if 2 * ahead >= len(turned) else (second, first)
                best = Turn(name, start, end, share)
    return best
