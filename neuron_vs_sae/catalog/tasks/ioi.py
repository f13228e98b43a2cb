"""Indirect object identification (Wang et al. 2022, arXiv 2211.00593), with own names and templates."""

from typing import Any, Literal

from neuron_vs_sae.catalog.tasks._generate import PARTS, Part, Row, Wanted, combinations, parted, pick
from neuron_vs_sae.core.pairs import PromptPairs

_NAMES = (
    "Mary", "John", "Alice", "Tom", "Sarah", "James", "Anna", "Peter", "Emma", "Paul", "Laura", "Mark", "Julia", "David",
    "Kate", "Robert", "Jane", "Michael", "Lisa", "George", "Susan", "Henry", "Helen", "Frank", "Maria", "Jack", "Emily",
    "Steve", "Lucy", "Simon", "Rachel", "Daniel", "Martha", "Brian", "Karen", "Kevin", "Linda", "Scott", "Nancy", "Eric",
    "Amy", "Adam", "Diana", "Andrew", "Jessica", "Charles", "Claire", "Edward", "Sophie", "Martin", "Alex", "Ryan",
    "Rebecca", "Joseph", "Victoria", "William", "Elizabeth", "Richard", "Michelle", "Thomas", "Jennifer", "Jason",
)  # fmt: skip
_PLACES = (
    "store", "park", "school", "office", "station", "garden", "market", "hospital", "library", "beach", "museum", "church",
    "restaurant", "farm", "house", "theater", "hotel", "gym",
)  # fmt: skip
_THINGS = (
    "book", "drink", "ring", "ball", "letter", "key", "gift", "cake", "ticket", "pen", "map", "box", "phone", "flower",
    "coat", "card", "camera", "bag",
)  # fmt: skip
_TEMPLATE = "{begin} {0} and {1} {went} to the {place}, {2} {gave} a {thing} to"
_BEGINNINGS = ("When", "After", "Once", "Since")
_WENT = ("went", "came", "walked", "drove", "got")
_GAVE = ("gave", "handed", "passed", "sent", "brought")


def ioi(
    model: Any,
    *,
    counterfactual: Literal["swap", "names"] = "swap",
    prepend_bos: bool = True,
    seed: int = 0,
    part: Part = "discovery",
    n: int = 300,
) -> PromptPairs:
    """Who is given it: `When Mary and John went to the park, John gave a book to` -> ` Mary`; the foil is the giver.

    Corrupt prompts either let the other one give (`swap`: the answer flips to the foil) or replace the names by three
    others (`names`: nothing favours answer or foil, which stays the clean prompt's giver). The order of the first two
    names (`order`: ABBA or BABA) is balanced. No name, place or thing is in both parts. Tags: `order`, `template`, `io`,
    `subject`. Raises `InputError` where the tokenizer leaves fewer than `n` pairs.
    """
    rows = [row for part in PARTS for row in _rows(counterfactual, part, seed)]
    name = "ioi" if counterfactual == "swap" else "ioi_names"
    return pick(name, model, rows, Wanted(part, n, seed, prepend_bos), balance="order")


def _rows(counterfactual: str, part: Part, seed: int) -> list[Row]:
    names, places, things = (parted(words)[part] for words in (_NAMES, _PLACES, _THINGS))
    rows = []
    for order, io, subject, place, thing, begin, went, gave, *three in combinations(
        ("ABBA", "BABA"), names, names, places, things, _BEGINNINGS, _WENT, _GAVE, names, names, names, seed=seed
    ):
        if len({io, subject, *three}) < 5:
            continue
        first, second = (io, subject) if order == "ABBA" else (subject, io)
        words = {"begin": begin, "went": went, "place": place, "gave": gave, "thing": thing}
        names_in_corrupt = (first, second, io) if counterfactual == "swap" else three
        rows.append({
            "clean": _TEMPLATE.format(first, second, subject, **words),
            "corrupt": _TEMPLATE.format(*names_in_corrupt, **words), "answer": f" {io}", "foil": f" {subject}",
            "part": part, "order": order, "template": f"{begin} {went} {gave}", "io": io, "subject": subject,
        })  # fmt: skip
    return rows
