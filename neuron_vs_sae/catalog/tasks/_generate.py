"""From word lists to pairs that fit a tokenizer: combine words, keep what fits, draw, and report what was dropped."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from random import Random
from typing import Any, Literal, TypeVar

from neuron_vs_sae.core.building import build, layouts, listed
from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.core.pairs import PromptPairs
from neuron_vs_sae.core.tokenizing import Tokens, tokenize

Part = Literal["discovery", "evaluation"]
PARTS: tuple[Part, ...] = ("discovery", "evaluation")
T = TypeVar("T")
Row = dict[str, str]

# Candidates per part: a fixed number, so that discovery and evaluation choose the same layout however many pairs are requested.
CANDIDATES = 1000

_ELSEWHERE = "its words lie at other tokens than in most pairs"


def parted(words: Sequence[T]) -> dict[Part, tuple[T, ...]]:
    """Two lists without a common word: every third word is for evaluation, the others for discovery."""
    return {
        "discovery": tuple(word for i, word in enumerate(words) if i % 3 != 2),
        "evaluation": tuple(words[2::3]),
    }


def combinations(*lists: Sequence[Any], seed: int, n: int = CANDIDATES) -> list[tuple[Any, ...]]:
    """`n` tuples with an entry of each list, drawn without replacement; all of them, in random order, if fewer."""
    random, total = Random(seed), prod(len(options) for options in lists)
    if total <= 4 * n:
        everything = list(product(*lists))
        return random.sample(everything, min(n, total))
    drawn = []
    for number in random.sample(range(total), n):
        entries = []
        for options in lists:
            number, i = divmod(number, len(options))
            entries.append(options[i])
        drawn.append(tuple(entries))
    return drawn


@dataclass(frozen=True)
class Wanted:
    """What a caller of a task asks for: which part, how many pairs of it, drawn how, with BOS or without."""

    part: Part
    n: int
    seed: int
    prepend_bos: bool


def pick(
    name: str,
    model: Any,
    rows: Sequence[Row],
    wanted: Wanted,
    *,
    balance: str | None = None,
    beside: str | None = None,
    value: str | None = None,
    one_layout: bool = True,
    hint: str = "",
) -> PromptPairs:
    """`wanted.n` pairs of a part, from the rows (`{clean, corrupt, answer, foil, part, **tags}`) that fit the tokenizer.

    `rows` are of both parts: with `one_layout` every pair, of either part, has its words at the same tokens, so that a
    position means the same everywhere. Where a task has kinds to compare, `beside` is their tag and `value` the kind
    wanted; all kinds share the layout. `balance` is a tag whose values get equal shares as far as there are rows.
    Rows that do not fit are counted in `dropped`. Raises `InputError` with these counts where fewer than `n` are left.
    """
    tokenized = tokenize(model.tokenizer, rows, prepend_bos=wanted.prepend_bos)
    fits = [i for i, tokens in enumerate(tokenized) if isinstance(tokens, Tokens)]
    cells = [(row["part"], row[beside] if beside else None) for row in rows]
    places = _layouts(model.tokenizer, [rows[i] for i in fits]) if one_layout else [()] * len(fits)
    chosen = _commonest([cells[i] for i in fits], places, set(cells))
    suits = {i for i, place in zip(fits, places, strict=True) if place == chosen}
    cell = (wanted.part, value)
    dropped: Counter[str] = Counter()
    kept: dict[tuple[str, ...], Row] = {}
    for i, (row, tokens) in enumerate(zip(rows, tokenized, strict=True)):
        if cells[i] != cell:
            continue
        if i in suits:
            kept.setdefault((row["clean"], row["corrupt"], row["answer"], row["foil"]), row)
        else:
            dropped[_ELSEWHERE if isinstance(tokens, Tokens) else tokens.reason] += 1
    if len(kept) < wanted.n:
        option = "--examples" if wanted.part == "discovery" else "--eval-examples"
        raise InputError(
            f"task '{name}' has {len(kept)} pairs for {wanted.part} with this tokenizer, and {wanted.n} were requested"
            + (f": pass {option} {len(kept)} or less. " if kept else ". ")
            + f"Dropped of {cells.count(cell)} candidates: {listed(dropped.items())}"
            + (f". {hint}" if hint else "")
        )
    drawn = _shares(list(kept.values()), wanted.n, balance)
    plain = [{key: text for key, text in row.items() if key != "part"} for row in drawn]
    pairs = build(name, model.tokenizer, plain, prepend_bos=wanted.prepend_bos).having_dropped(dropped)
    return pairs.to(next(model.parameters()).device)


def _layouts(tokenizer: Any, rows: Sequence[Row]) -> list[tuple[Any, ...]]:
    texts = list(dict.fromkeys(text for row in rows for text in (row["clean"], row["corrupt"])))
    of = dict(zip(texts, layouts(tokenizer, texts), strict=True)) if texts else {}
    return [(of[row["clean"]], of[row["corrupt"]]) for row in rows]


def _commonest(
    cells: Sequence[tuple[str, str | None]],
    places: Sequence[tuple[Any, ...]],
    needed: set[tuple[str, str | None]],
) -> tuple[Any, ...] | None:
    """The layout that most pairs have in every cell: the one with the largest product of the cells' counts."""
    counts: dict[tuple[Any, ...], Counter[Any]] = {}
    for cell, place in zip(cells, places, strict=True):
        counts.setdefault(place, Counter())[cell] += 1
    # Ties go to the larger sum, then to the first.
    return max(counts, key=lambda p: (prod(counts[p][c] for c in needed), counts[p].total()), default=None)


def _shares(rows: list[Row], n: int, balance: str | None) -> list[Row]:
    """The first `n` rows, taking turns between the values of the tag `balance`."""
    turns: Counter[str] = Counter()
    order = []
    for i, row in enumerate(rows):
        value = row[balance] if balance else ""
        order.append((turns[value] if balance else i, i))
        turns[value] += 1
    return [rows[i] for _, i in sorted(order)[:n]]
