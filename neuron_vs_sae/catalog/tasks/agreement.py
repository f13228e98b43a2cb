"""Subject-verb agreement in the four structures of Marks et al. 2024 (arXiv 2403.19647), with own words."""

from typing import Any, Literal

from neuron_vs_sae.catalog.tasks._generate import PARTS, Part, Row, Wanted, combinations, parted, pick
from neuron_vs_sae.core.pairs import PromptPairs

Structure = Literal["simple", "nounpp", "rc", "within_rc"]

# Singular and plural. Single words of most tokenizers; those that are not are dropped.
_PEOPLE = [
    *(
        (noun, noun + "s")
        for noun in (
            "teacher", "doctor", "actor", "author", "friend", "artist", "driver", "writer", "player", "farmer", "lawyer",
            "singer", "worker", "student", "soldier", "officer", "manager", "painter", "dancer", "guard", "nurse", "judge",
            "poet", "king", "queen", "prince", "sister", "brother", "uncle", "cousin", "mother", "father", "parent", "son",
            "daughter", "girl", "boy", "kid", "guest", "visitor", "neighbor", "tourist", "pilot", "captain", "sailor",
            "engineer", "scientist", "expert", "critic", "editor", "reporter", "minister", "senator", "president", "leader",
            "member", "owner", "buyer", "seller", "client", "customer", "patient", "victim", "prisoner", "rebel", "agent", "clerk", "cook", "chef", "waiter", "baker", "builder", "designer", "producer",
            "director", "runner", "rider", "fan", "winner", "loser", "ghost", "monk", "priest", "bishop", "knight",
            "lord", "hunter", "scholar", "professor", "consultant", "banker", "trader", "user", "programmer", "assistant",
            "candidate", "voter", "citizen", "immigrant", "employee", "employer", "colleague", "partner",
            "rival", "stranger", "survivor", "warrior", "collector", "inspector", "ambassador", "novelist", "musician",
        )
    ),
    ("man", "men"), ("woman", "women"), ("child", "children"), ("hero", "heroes"), ("thief", "thieves"),
    ("secretary", "secretaries"),
]  # fmt: skip
_THINGS = [
    (noun, noun + "s")
    for noun in (
        "car", "tree", "house", "table", "chair", "truck", "boat", "wall", "door", "window", "tower", "bridge", "river",
        "garden", "hotel", "shop", "train", "cat", "dog", "horse", "bird", "cow", "lamp", "clock", "picture", "stone", "gate",
    )
]  # fmt: skip
_PREPOSITIONS = ("near", "behind", "beside", "by", "with", "above", "below")
_ANSWERS = [(" is", " are"), (" was", " were"), (" has", " have"), (" does", " do"), (" goes", " go")]
_RELATIVE = [
    ("likes", "like"), ("knows", "know"), ("sees", "see"), ("loves", "love"), ("helps", "help"), ("needs", "need"),
    ("wants", "want"), ("meets", "meet"), ("hears", "hear"), ("follows", "follow"), ("calls", "call"), ("finds", "find"),
]  # fmt: skip
_NUMBERS = ("singular", "plural")


def agreement(
    model: Any,
    *,
    structure: Structure = "nounpp",
    prepend_bos: bool = True,
    seed: int = 0,
    part: Part = "discovery",
    n: int = 300,
) -> PromptPairs:
    """A verb agrees with its noun: `The teachers near the tree` -> ` are`; the corrupt prompt flips that noun's number.

    `structure`: `simple` (The teacher), `nounpp` (a prepositional phrase follows), `rc` (a relative clause follows, its
    verb included), `within_rc` (The actor that the teachers: the verb of the clause, agreeing with the second noun).
    The other noun's number is the same in both prompts, so that it agrees with one of them, and is balanced: it differs
    from the clean prompt's agreeing noun in half of the pairs. No noun is in both parts. Tags: `case` (the clean
    prompt's numbers, in order), `lemma` (the agreeing noun), `distractor`, `verb`.
    Raises `InputError` where the tokenizer leaves fewer than `n` pairs.
    """
    rows = [row for part in PARTS for row in _rows(structure, part, seed)]
    return pick(f"agreement_{structure}", model, rows, Wanted(part, n, seed, prepend_bos), balance="case")


def _rows(structure: Structure, part: Part, seed: int) -> list[Row]:
    people, things = parted(_PEOPLE)[part], parted(_THINGS)[part]
    if structure == "simple":
        return [
            _row(part, number, answers, noun, [f"The {form}" for form in noun], _NUMBERS[number])
            for noun, number, answers in combinations(people, (0, 1), _ANSWERS, seed=seed)
        ]
    others = things if structure == "nounpp" else people
    between = {"nounpp": _PREPOSITIONS, "rc": _RELATIVE, "within_rc": (None,)}[structure]
    rows = []
    for noun, other, number, theirs, word, answers in combinations(
        people, others, (0, 1), (0, 1), between, _ANSWERS, seed=seed
    ):
        if noun == other:
            continue
        if structure == "nounpp":
            texts = [f"The {form} {word} the {other[theirs]}" for form in noun]
        elif structure == "rc":
            texts = [f"The {form} that the {other[theirs]} {word[theirs]}" for form in noun]
        else:
            texts = [f"The {other[theirs]} that the {form}" for form in noun]
        numbers = (theirs, number) if structure == "within_rc" else (number, theirs)
        case = "_".join(_NUMBERS[i] for i in numbers)
        rows.append(_row(part, number, answers, noun, texts, case) | {"distractor": other[0]})
    return rows


def _row(part: Part, number: int, answers: tuple[str, str], noun: tuple[str, str], texts: list[str], case: str) -> Row:
    return {
        "clean": texts[number], "corrupt": texts[1 - number], "answer": answers[number], "foil": answers[1 - number],
        "part": part, "case": case, "lemma": noun[0], "verb": answers[0].strip(),
    }  # fmt: skip
