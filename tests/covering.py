"""Few rows that hold every pair of values of several factors; with NVS_TESTS=all (`make test-all`) every row there is.

A defect of two factors together (this basis under that ablation) is met as in the full product; one that takes three at once
may be met in the full product only.
"""

import os
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import combinations, cycle, islice, product
from typing import Any

ALL = os.environ.get("NVS_TESTS") == "all"

Row = tuple[Any, ...]
Pair = tuple[tuple[int, int], tuple[int, int]]


def covering(
    *factors: Sequence[Any], allowed: Callable[..., bool] = lambda *_: True, everything: bool = ALL
) -> list[Row]:
    """Rows of one value per factor that hold every pair of values of different factors that an allowed row has.

    Greedy and always the same: each row begins with the first pair that is still missing, and each other value is the one
    that adds most missing pairs, the least used of them. `allowed(*row)` says which rows make sense.
    """
    rows = [row for row in product(*map(range, map(len, factors))) if allowed(*_values(factors, row))]
    if everything:
        return [_values(factors, row) for row in rows]
    pairs = {row: list(combinations(enumerate(row), 2)) for row in rows}
    missing = dict.fromkeys(pair for row in rows for pair in pairs[row])
    holders: dict[Pair, list[tuple[int, ...]]] = {pair: [] for pair in missing}
    for row in rows:
        for pair in pairs[row]:
            holders[pair].append(row)
    used: Counter[tuple[int, int]] = Counter()
    chosen = []

    def worth(row: tuple[int, ...]) -> tuple[int, int]:
        return sum(pair in missing for pair in pairs[row]), -sum(used[value] for value in enumerate(row))

    while missing:
        best = max(holders[next(iter(missing))], key=worth)
        for pair in pairs[best]:
            missing.pop(pair, None)
        used.update(enumerate(best))
        chosen.append(_values(factors, best))
    return chosen


def _values(factors: Sequence[Sequence[Any]], row: Sequence[int]) -> Row:
    return tuple(values[i] for values, i in zip(factors, row, strict=True))


def in_turn(*factors: Sequence[Any], everything: bool = ALL) -> list[Row]:
    """Rows that hold every value of every factor: the longest one's, each with the next of the others'."""
    if everything:
        return list(product(*factors))
    return list(zip(*(islice(cycle(values), max(map(len, factors))) for values in factors), strict=True))
