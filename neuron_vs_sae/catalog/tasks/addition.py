"""Addition of two numbers, as a question, in base or chat form."""

from functools import cache
from typing import Any, Literal

from neuron_vs_sae.catalog.tasks._chat import rendered
from neuron_vs_sae.catalog.tasks._generate import PARTS, Part, Row, Wanted, combinations, pick
from neuron_vs_sae.core.pairs import PromptPairs


def addition(
    model: Any,
    *,
    largest: int = 99,
    form: Literal["base", "chat"] = "base",
    prepend_bos: bool = True,
    seed: int = 0,
    part: Part = "discovery",
    n: int = 300,
) -> PromptPairs:
    """`What is 36 + 59?` and `Answer:` -> ` 95`; the corrupt prompt asks for another sum.

    Operands are 0 to `largest`. The space before the answer belongs to the prompt where the tokenizer makes it a token
    of its own. The two parts share no pair of operands, in either order. Tags: `x`, `y`, `sum`. Raises `InputError`
    where the tokenizer leaves fewer than `n` pairs: those of single digits need `largest=9`, for sums of one digit.
    """
    tokenizer = model.tokenizer
    space = " " if tokenizer is not None and _space_is_a_token(tokenizer) else ""

    @cache
    def text(x: int, y: int) -> str:
        question = f"What is {x} + {y}?"
        if form == "chat":
            return rendered(tokenizer, question, f"Answer:{space}")
        return f"Question: {question}\nAnswer:{space}"

    rows: list[Row] = []
    for candidate_part in PARTS:
        problems = [
            (x, y) for x in range(largest + 1) for y in range(largest + 1)
            if ((min(x, y) * 31 + max(x, y)) % 4 == 0) == (candidate_part == "evaluation")
        ]  # fmt: skip
        for (x, y), (a, b) in combinations(problems, problems, seed=seed, n=3000):
            if x + y != a + b:
                rows.append({
                    "clean": text(x, y), "corrupt": text(a, b), "part": candidate_part, "x": str(x), "y": str(y), "sum": str(x + y),
                    "answer": f"{x + y}" if space else f" {x + y}", "foil": f"{a + b}" if space else f" {a + b}",
                })  # fmt: skip
    name = "addition" if form == "base" else "addition_chat"
    hint = "With a tokenizer of single digits pass largest=9" if largest > 9 else ""
    return pick(name, model, rows, Wanted(part, n, seed, prepend_bos), hint=hint)


def _space_is_a_token(tokenizer: Any) -> bool:
    """Whether `: 7` continues the tokens of `: `, so that a number after a space begins with the number."""
    alone, both = (tokenizer(text, add_special_tokens=False).input_ids for text in (": ", ": 7"))
    return both[: len(alone)] == alone
