"""Optimal sparse probing: the k units whose support vector machine fits best, found exactly among few candidates.

Over supports s of size k the cost is convex: `c(s) = max_a -y.a - (gamma / 2) |X_s' a|^2` subject to `sum a = 0` and `-1 <= y_i a_i / w_i <= 0`
(the dual of the hinge loss, classes weighted alike), with gradient `-(gamma / 2) (X_j . a)^2`. So each support gives a cut, and a small
integer program proposes the next (Bertsimas et al. 2021; Gurnee et al. 2023, arXiv 2305.01610, appendix). Solved by scipy's HiGHS.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.optimize import milp

from neuron_vs_sae.core.errors import InputError


@dataclass(frozen=True, eq=False)
class Support:
    """The chosen columns, ascending; their cost; and whether no other support costs less (up to `TOLERANCE`)."""

    columns: Int[np.ndarray, " k"]
    cost: float
    is_optimal: bool


TOLERANCE = 1e-4
_EXHAUSTIVE = 2000
_ROUNDS = 200


def optimal_support(
    x: Float[np.ndarray, "n width"],
    y: Bool[np.ndarray, " n"],
    k: int,
    *,
    first: Sequence[int] = (),
    gamma: float | None = None,
) -> Support:
    """The best `k` columns; `gamma` is `1 / sqrt(n)` unless given. `first` is a support to begin from.

    Exhaustive where there are at most 2000 supports, else by cuts, at most 200 of them (`is_optimal` says whether they sufficed). Raises
    `InputError` for k beyond the columns.
    """
    n, width = x.shape
    if not 1 <= k <= width:
        raise InputError(f"a support of {k} of {width} units: choose 1 to {width}")
    gamma = float(1 / np.sqrt(n)) if gamma is None else gamma
    if comb(width, k) <= _EXHAUSTIVE:
        return exhaustive_support(x, y, k, gamma=gamma)
    return _by_cuts(x, y, k, list(first) if len(first) == k else list(range(k)), gamma)


def exhaustive_support(x: Float[np.ndarray, "n width"], y: Bool[np.ndarray, " n"], k: int, *, gamma: float) -> Support:
    """The best `k` columns, every support tried; of equal ones the first."""
    costs = [(_cost(x, y, columns, gamma)[0], columns) for columns in combinations(range(x.shape[1]), k)]
    cost, columns = min(costs)
    return Support(np.array(columns), cost, True)


def cut_support(x: Float[np.ndarray, "n width"], y: Bool[np.ndarray, " n"], k: int, *, gamma: float) -> Support:
    """The best `k` columns by cuts alone, from the first k."""
    return _by_cuts(x, y, k, list(range(k)), gamma)


def _by_cuts(
    x: Float[np.ndarray, "n width"], y: Bool[np.ndarray, " n"], k: int, start: list[int], gamma: float
) -> Support:
    width = x.shape[1]
    best = Support(np.array(start), np.inf, False)
    columns, rows, ends = start, [], []
    integral = np.array([1] * width + [0])
    bounds = np.zeros(width + 1), np.array([1.0] * width + [np.inf])
    exactly_k = np.array([1.0] * width + [0.0]), k, k
    for _ in range(_ROUNDS):
        cost, gradient = _cost(x, y, columns, gamma)
        if cost < best.cost:
            best = Support(np.array(sorted(columns)), cost, False)
        here = np.zeros(width)
        here[columns] = 1
        # t >= c(s0) + gradient . (s - s0)
        rows.append([*-gradient, 1.0])
        ends.append(cost - gradient @ here)
        solution = milp(
            np.array([0.0] * width + [1.0]), integrality=integral, bounds=bounds,
            constraints=[exactly_k, (np.array(rows), np.array(ends), np.inf)],
        )  # fmt: skip
        if solution.x is None or solution.x[-1] >= best.cost - TOLERANCE * max(1.0, abs(best.cost)):
            return Support(best.columns, best.cost, solution.x is not None)
        columns = np.flatnonzero(solution.x[:-1] > 0.5).tolist()
    return best


def _cost(
    x: Float[np.ndarray, "n width"], y: Bool[np.ndarray, " n"], columns: Sequence[int], gamma: float
) -> tuple[float, Float[np.ndarray, " width"]]:
    """(cost, gradient): a support vector machine on these columns. Its dual coefficients are -gamma x alpha."""
    from sklearn.svm import SVC

    share = y.mean()
    weight = np.where(y, 0.5 / share, 0.5 / (1 - share))
    machine = SVC(C=gamma, kernel="linear", tol=1e-6, cache_size=500)
    machine.fit(x[:, list(columns)].astype(np.float64), y, sample_weight=weight)
    alpha = np.zeros(len(y))
    alpha[machine.support_] = -machine.dual_coef_[0] / gamma
    sign = np.where(y, 1.0, -1.0)
    inside = x[:, list(columns)].astype(np.float64).T @ alpha
    cost = -float(sign @ alpha) - gamma / 2 * float(inside @ inside)
    return cost, -(gamma / 2) * (x.astype(np.float64).T @ alpha) ** 2
