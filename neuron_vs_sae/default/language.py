"""The small world's text and its tasks, without end and the same for the same seed. Families are in `families.py`."""

from collections.abc import Iterator
from random import Random

from neuron_vs_sae.default.families import FAMILIES, only_for_evaluation
from neuron_vs_sae.default.writing import Pair, Part, Sentence


def pair(family: str, draw: Random, part: Part) -> Pair:
    """One pair of a family. A training pair's clean half is never a question kept for evaluation."""
    while True:
        pair = FAMILIES[family].pair(draw, part)
        if part != "train" or not only_for_evaluation(pair):
            return pair


def sentences(seed: int | str) -> Iterator[tuple[str, Sentence]]:
    """Training text without end: `(family, sentence)`, the same for the same seed."""
    draw = Random(seed)
    names, shares = list(FAMILIES), [family.share for family in FAMILIES.values()]
    while True:
        for family in draw.choices(names, shares, k=256):
            yield family, pair(family, draw, "train").clean


def rows(family: str, part: Part, n: int, seed: int = 0, template: int | None = None) -> list[dict[str, str]]:
    """At most `n` distinct pairs of a task as rows of a task file; fewer where the world has no more.

    `template` keeps one of the family's templates, so that a place in the prompt means the same in every pair.
    """
    kept = None if template is None else FAMILIES[family].templates[template]
    draw = Random(f"{family} {part} {seed}")
    distinct: dict[tuple[str, ...], dict[str, str]] = {}
    for _ in range(20 * n if template is None else 20 * n * len(FAMILIES[family].templates)):
        row = pair(family, draw, part).row()
        if kept in (None, row["template"]):
            distinct.setdefault((row["clean"], row["corrupt"], row["answer"], row["foil"]), row)
        if len(distinct) == n:
            break
    return list(distinct.values())
