"""What comes next in a familiar order (lists as in Gould et al. 2023, arXiv 2312.09230)."""

from typing import Any, Literal, get_args

from neuron_vs_sae.catalog.tasks._generate import PARTS, Part, Row, Wanted, combinations, pick
from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.core.pairs import PromptPairs

Kind = Literal[
    "all", "numbers", "number_words", "ordinals", "days", "short_days", "months", "short_months", "letters", "roman"
]

_MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December",
)  # fmt: skip
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
LISTS: dict[str, tuple[str, ...]] = {
    "numbers": tuple(str(i) for i in range(1, 201)),
    "number_words": (
        "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen",
        "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty",
    ),
    "ordinals": (
        "first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth", "eleventh", "twelfth",
        "thirteenth", "fourteenth", "fifteenth", "sixteenth", "seventeenth", "eighteenth", "nineteenth", "twentieth",
    ),
    "days": _DAYS,
    "short_days": tuple(day[:3] for day in _DAYS),
    "months": _MONTHS,
    "short_months": tuple(month[:3] for month in _MONTHS),
    "letters": tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ"),
    "roman": (
        "I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X", "XI", "XII", "XIII", "XIV", "XV", "XVI", "XVII", "XVIII",
        "XIX", "XX",
    ),
}  # fmt: skip
CYCLES = {"days", "short_days", "months", "short_months"}


def successor(
    model: Any,
    *,
    kind: Kind = "all",
    length: int = 3,
    prepend_bos: bool = True,
    seed: int = 0,
    part: Part = "discovery",
    n: int = 300,
) -> PromptPairs:
    """The next of a run: `In order: Monday, Tuesday, Wednesday,` -> ` Thursday`; the corrupt prompt is another run.

    A run has `length` items; both runs are of one list (`kind`, or `all` of them in equal shares as far as they reach).
    Days and months go round. Every third run of a list is for evaluation: the parts share no run, though they share
    items. Tags: `kind`. Raises `InputError` where the tokenizer leaves fewer than `n` pairs.
    """
    if not 1 <= length <= 6:
        raise InputError(f"length={length}: a run has 1 to 6 items (the days of the week leave no more)")
    kinds = [k for k in get_args(Kind) if k in LISTS and kind in ("all", k)]
    rows = [row for part in PARTS for k in kinds for row in _rows(k, length, part, seed)]
    name = "successor" if kind == "all" else f"successor_{kind}"
    return pick(name, model, rows, Wanted(part, n, seed, prepend_bos), balance="kind")


def _rows(kind: str, length: int, part: Part, seed: int) -> list[Row]:
    items = LISTS[kind]
    starts = range(len(items) if kind in CYCLES else len(items) - length)
    mine = [i for i in starts if (i % 3 == 2) == (part == "evaluation")]

    def text(start: int) -> str:
        run = [items[(start + j) % len(items)] for j in range(length)]
        return "In order: " + ", ".join(run) + ","

    def following(start: int) -> str:
        return " " + items[(start + length) % len(items)]

    return [
        {"clean": text(a), "corrupt": text(b), "answer": following(a), "foil": following(b), "part": part, "kind": kind}
        for a, b in combinations(mine, mine, seed=seed, n=1000)
        if a != b
    ]
