"""The rows that stand for a product hold every pair of its values."""

from itertools import combinations, product

import pytest
from covering import covering, in_turn

FACTORS = ("abcde", (1, 2, 3, 4), ("x", "y"), (True, False, None))


def every_pair(rows: list) -> set:
    return {pair for row in rows for pair in combinations(enumerate(row), 2)}


@pytest.mark.parametrize("factors", [FACTORS, FACTORS[::-1], FACTORS[:2]])
def test_every_pair_is_there_in_few_rows(factors: tuple) -> None:
    rows = covering(*factors, everything=False)
    assert every_pair(rows) == every_pair(list(product(*factors)))
    assert len(rows) <= 1.3 * 20 + 1  # five times four pairs need twenty rows
    assert rows == covering(*factors, everything=False)


def test_only_allowed_rows_are_there_and_all_their_pairs() -> None:
    def allowed(letter: str, number: int, *_: object) -> bool:
        return letter != "a" or number > 2

    rows = covering(*FACTORS, allowed=allowed, everything=False)
    assert all(allowed(*row) for row in rows)
    assert every_pair(rows) == every_pair([row for row in product(*FACTORS) if allowed(*row)])


def test_everything_is_the_product() -> None:
    assert covering(*FACTORS, everything=True) == list(product(*FACTORS))


def test_in_turn_every_value_is_there() -> None:
    rows = in_turn("abcde", (1, 2, 3), everything=False)
    assert rows == [("a", 1), ("b", 2), ("c", 3), ("d", 1), ("e", 2)]
