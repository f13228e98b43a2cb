"""Which units tell a concept: six rankings of earlier work and two searches, all on training tokens alone.

Units come scaled by `max(standard deviation, 1e-3) x 10`, not centred. Source: Gurnee et al. 2023, arXiv 2305.01610, section 3.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from neuron_vs_sae.analyses.probing.optimal import optimal_support
from neuron_vs_sae.core.errors import InputError

X, Y = Float[np.ndarray, "n width"], Bool[np.ndarray, " n"]
_PREFILTERED = 512
_CANDIDATES, _LARGEST = 50, 8


def _mean_difference(x: X, y: Y, seed: int) -> Float[np.ndarray, " width"]:
    del seed
    return np.abs(x[y].mean(0) - x[~y].mean(0))


def _f_statistic(x: X, y: Y, seed: int) -> Float[np.ndarray, " width"]:
    del seed
    from sklearn.feature_selection import f_classif

    with np.errstate(divide="ignore", invalid="ignore"):  # of a unit that never varies
        return np.nan_to_num(f_classif(x, y)[0], nan=0.0)


def _mutual_information(x: X, y: Y, seed: int) -> Float[np.ndarray, " width"]:
    from sklearn.feature_selection import mutual_info_classif

    return mutual_info_classif(x, y, random_state=seed)


def _l1(x: X, y: Y, seed: int) -> Float[np.ndarray, " width"]:
    return np.abs(fitted(x, y, seed, l1_ratio=1.0, C=0.1, solver="saga", max_iter=200).coef_[0])


def _svm(x: X, y: Y, seed: int) -> Float[np.ndarray, " width"]:
    from sklearn.svm import LinearSVC

    with _unconverged():
        machine = LinearSVC(loss="hinge", class_weight="balanced", random_state=seed, max_iter=2000).fit(x, y)
    return np.abs(machine.coef_[0])


def _random(x: X, y: Y, seed: int) -> Float[np.ndarray, " width"]:
    del y
    return np.random.default_rng(seed).random(x.shape[1])


_SCORES: dict[str, tuple[Callable[[X, Y, int], Float[np.ndarray, " width"]], bool]] = {
    "mean_difference": (_mean_difference, False),
    "f_statistic": (_f_statistic, False),
    "mutual_information": (_mutual_information, True),
    "l1": (_l1, True),
    "svm": (_svm, True),
    "random": (_random, False),
}
"""A score per unit, and whether it is slow: those see the 512 units of largest mean difference."""
RANKERS = (*_SCORES, "adaptive", "optimal")


def supports(ranker: str, x: X, y: Y, ks: Sequence[int], *, seed: int = 0) -> dict[int, Int[np.ndarray, " k"]]:
    """The units chosen at each k (of those that there are), best first; ties go to the earlier unit.

    `adaptive` goes down through the k's, each time keeping the largest coefficients of an elastic-net probe on what is left;
    `optimal` (k up to 8, among the 50 units of largest mean difference) is `optimal.optimal_support`. Raises `InputError` for another name.
    """
    if ranker not in RANKERS:
        raise InputError(f"no ranker {ranker!r}; there are: {', '.join(RANKERS)} (--ranker)")
    asked = sorted({min(k, x.shape[1]) for k in ks})
    if not asked or asked[0] < 1:
        raise InputError(f"k of {list(ks)}: give numbers of units, 1 or more (--k)")
    by_difference = _descending(_mean_difference(x, y, seed))
    if ranker == "optimal":
        return _optimal(x, y, asked, by_difference[:_CANDIDATES])
    if ranker == "adaptive":
        return _adaptive(x, y, asked, by_difference[:_PREFILTERED], seed)
    score, slow = _SCORES[ranker]
    candidates = by_difference[: max(_PREFILTERED, asked[-1])] if slow else np.arange(x.shape[1])
    order = candidates[_descending(score(x[:, candidates], y, seed))]
    return {k: order[:k] for k in asked}


def fitted(x: X, y: Y, seed: int, **options: Any) -> Any:
    """A logistic probe with both classes weighted equally; where it has not converged within its iterations, as far as it got."""
    from sklearn.linear_model import LogisticRegression

    with _unconverged():
        return LogisticRegression(**{"class_weight": "balanced", "max_iter": 200, "random_state": seed, **options}).fit(
            x, y
        )


@contextmanager
def _unconverged() -> Iterator[None]:
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield


def _adaptive(x: X, y: Y, ks: Sequence[int], candidates: Int[np.ndarray, " m"], seed: int) -> dict[int, Any]:
    support, chosen = candidates, {}
    for k in sorted(ks, reverse=True):
        mixed = float(np.clip(np.exp(-k / 20), 0.1, 0.9))
        probe = fitted(x[:, support], y, seed, l1_ratio=mixed, C=k / 20, solver="saga", max_iter=1000)
        support = support[_descending(np.abs(probe.coef_[0]))][:k]
        chosen[k] = support
    return chosen


def _optimal(x: X, y: Y, ks: Sequence[int], candidates: Int[np.ndarray, " m"]) -> dict[int, Any]:
    """From the largest k down, each begun from the units of largest coefficient of the one before."""
    beyond = [k for k in ks if k > min(_LARGEST, len(candidates))]
    if beyond:
        raise InputError(
            f"optimal supports have at most {min(_LARGEST, len(candidates))} units, and k={beyond[0]} is asked (--k)"
        )
    by_k = {k: optimal_support(x[:, candidates], y, k) for k in ks}
    return {k: candidates[support.columns] for k, support in by_k.items()}


def _descending(scores: Float[np.ndarray, " width"]) -> Int[np.ndarray, " width"]:
    return np.argsort(-scores, kind="stable")
