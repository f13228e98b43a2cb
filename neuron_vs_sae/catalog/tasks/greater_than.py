"""Greater-than (Hanna et al. 2023, arXiv 2305.00586), with own nouns, as pairs with a single answer each."""

from typing import Any

from neuron_vs_sae.catalog.tasks._generate import PARTS, Part, Row, Wanted, combinations, parted, pick
from neuron_vs_sae.core.pairs import PromptPairs

_EVENTS = (
    "war", "siege", "famine", "drought", "reign", "revolt", "campaign", "crisis", "journey", "plague", "strike", "trial",
    "voyage", "conflict", "dispute", "alliance", "truce", "treaty", "boom", "decline", "reform", "rule", "mission",
    "rebellion", "occupation", "blockade", "project", "program", "partnership", "marriage", "quest", "expedition", "peace",
    "contract", "empire", "monarchy", "regime", "government", "exile", "trade", "festival", "exhibition", "tour", "study",
    "search", "debate", "feud", "rivalry", "epidemic", "depression", "construction", "renovation", "pilgrimage", "unrest",
)  # fmt: skip
_TEMPLATE = "The {event} lasted from the year {century}{year:02d} to the year {century}"
_CENTURIES = tuple(range(11, 19))


def greater_than(
    model: Any, *, prepend_bos: bool = True, seed: int = 0, part: Part = "discovery", n: int = 300
) -> PromptPairs:
    """A later year follows: `The war lasted from the year 1745 to the year 17` -> `62` rather than `28`.

    The corrupt prompt's first year ends in 01, as published, after which the foil is right too. The published metric
    sums over all years; here answer and foil are one year each, equally far from the clean prompt's, on either side.
    Only years of two tokens remain, so the task is empty for tokenizers of single digits or of three together. No event
    is in both parts. Tags: `event`, `century`, `year`. Raises `InputError` where fewer than `n` pairs are left.
    """
    rows = [row for part in PARTS for row in _rows(part, seed)]
    hint = "Years must be two tokens of two digits each, as GPT-2's and Pythia's are"
    return pick("greater_than", model, rows, Wanted(part, n, seed, prepend_bos), hint=hint)


def _rows(part: Part, seed: int) -> list[Row]:
    rows = []
    for event, century, year, away in combinations(
        parted(_EVENTS)[part], _CENTURIES, range(4, 98), range(1, 48), seed=seed, n=2000
    ):
        if year - away < 2 or year + away > 99:
            continue
        rows.append({
            "clean": _TEMPLATE.format(event=event, century=century, year=year),
            "corrupt": _TEMPLATE.format(event=event, century=century, year=1),
            "answer": f"{year + away:02d}", "foil": f"{year - away:02d}",
            "part": part, "event": event, "century": str(century), "year": f"{year:02d}",
        })  # fmt: skip
    return rows
