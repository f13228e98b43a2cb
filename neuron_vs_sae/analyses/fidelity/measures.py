"""A frontier in numbers: rows with intervals over contexts, the size at a level, and the area that bases are compared by."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float

from neuron_vs_sae.analyses.fidelity.frontier import Frontier
from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.core.sizes import bits
from neuron_vs_sae.statistics.bootstrap import Estimate, interval, ratio
from neuron_vs_sae.statistics.resampling import Draws, draw, independent

LEVELS = (0.8, 0.9, 0.95)


def estimates(frontier: Frontier, draws: Draws) -> dict[str, Estimate]:
    """`explained_variance` and `ce_score` per size, drawn over contexts; those of two bases on one corpus subtract, paired."""
    spread = frontier.spread.numpy()[:, None]
    variance = ratio(spread - frontier.lost.numpy(), spread, draws)
    zero = frontier.ce_zero.numpy()[:, None]
    score = ratio(zero - frontier.ce_kept.numpy(), zero - frontier.ce_model.numpy()[:, None], draws)
    return {"explained_variance": variance, "ce_score": score}


def rows(frontier: Frontier, *, confidence: float = 0.95, resamples: int = 2000, seed: int = 0) -> pd.DataFrame:
    """A row per size: explained variance and cross-entropy score with intervals, and bits per token.

    Bits are log2 of the number of choices of m units from the width, the size that is comparable between dictionaries of
    different width.
    """
    draws = draw(independent(len(frontier.tokens)), resamples, seed)
    by_score = estimates(frontier, draws)
    ends = {name: interval(estimate, confidence) for name, estimate in by_score.items()}
    columns = {name: estimate.value for name, estimate in by_score.items()}
    for name, end in ends.items():
        columns |= {f"{name}_low": end.low, f"{name}_high": end.high}
    return pd.DataFrame({
        "basis": frontier.basis, "site": frontier.site, "m": frontier.sizes, **columns,
        "bits": [bits(frontier.width, m) for m in frontier.sizes], "width": frontier.width,
        "effective_units": frontier.effective_units, "tokens": int(frontier.tokens.sum()), "contexts": len(frontier.tokens),
    })  # fmt: skip


def size_at(sizes: Sequence[int], values: Float[np.ndarray, " sizes"], level: float) -> float:
    """The units per token at which `values` first reach the level: linear in log size between two sizes; NaN where they never do.

    At 0 or 1 unit it is that size itself, as there is no log size to go along before 1.
    """
    reached = np.flatnonzero(values >= level)
    if not len(reached):
        return float("nan")
    i = int(reached[0])
    if i == 0 or sizes[i] <= 1 or sizes[i - 1] == 0:
        return float(sizes[i])
    low, high = np.log(sizes[i - 1]), np.log(sizes[i])
    share = (level - values[i - 1]) / (values[i] - values[i - 1])
    return float(np.exp(low + share * (high - low)))


def area_weights(sizes: Sequence[int], low: int, high: int) -> Float[np.ndarray, " sizes"]:
    """Weights whose product with a frontier's values is their mean over log size from `low` to `high` (trapezoids between sizes).

    Raises `InputError` where the sizes do not span the range.
    """
    if not 1 <= low < high or min(sizes) > low or max(sizes) < high:
        raise InputError(f"an area from {low} to {high} units needs sizes that span it: given are {list(sizes)}")
    positive = [i for i, size in enumerate(sizes) if size > 0]
    log = np.log([sizes[i] for i in positive])
    # Every size is a hat function of log size; its weight is the hat's integral over the range.
    knots = np.unique(np.clip([*log, np.log(low), np.log(high)], np.log(low), np.log(high)))
    weights = np.zeros(len(sizes))
    for j, i in enumerate(positive):
        hat = np.interp(knots, log, np.eye(len(positive))[j])
        weights[i] = np.trapezoid(hat, knots) / (np.log(high) - np.log(low))
    return weights
