"""From rows of text to token ids, refusing whatever would give a wrong number."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from neuron_vs_sae.core.errors import InputError

_AT_ONCE = 1024  # rows in a call of the tokenizer, which keeps far more of each than its ids


# Tuples, as there may be one for each of 100,000 rows.
class Fault(NamedTuple):
    """Why a row is not a valid pair under a tokenizer: the kind of fault, for counting, and a message for the row's author."""

    reason: str
    message: str


class Tokens(NamedTuple):
    """A row's token ids: of both prompts, BOS included, and the one that follows each."""

    clean: list[int]
    corrupt: list[int]
    answer: int
    foil: int


def tokenize(tokenizer: Any, rows: Sequence[dict[str, Any]], *, prepend_bos: bool = True) -> list[Tokens | Fault]:
    """The token ids of every row, or why it is not a valid pair.

    The tokenizer is called once per thousand rows, so that a file of 100,000 takes seconds, and not once for all, which would
    take gigabytes. Raises `InputError` for a model without a tokenizer, and for a tokenizer without BOS where one is to be put
    before the prompts.
    """
    if tokenizer is None:
        raise InputError("the model has no tokenizer, so no text can be read for it")
    bos = tokenizer.bos_token_id
    if prepend_bos and bos is None:
        raise InputError("the tokenizer has no BOS token; pass prepend_bos=False (--no-prepend-bos)")
    before = [bos] if prepend_bos else []
    chunks = (rows[i : i + _AT_ONCE] for i in range(0, len(rows), _AT_ONCE))
    return [tokens for chunk in chunks for tokens in _tokenize_some(tokenizer, chunk, before)]


def _tokenize_some(tokenizer: Any, rows: Sequence[dict[str, Any]], before: list[int]) -> list[Tokens | Fault]:
    """What these rows are, by one call of the tokenizer; `before` is what is put before every prompt."""
    followed = [(row["clean"] + row["answer"], row["corrupt"] + row["foil"]) for row in rows]
    texts = list(
        dict.fromkeys(t for row, two in zip(rows, followed, strict=True) for t in (row["clean"], row["corrupt"], *two))
    )
    only_ids = {"add_special_tokens": False, "return_attention_mask": False, "return_token_type_ids": False}
    ids = dict(zip(texts, tokenizer(texts, **only_ids).input_ids, strict=True))

    tokenized: list[Tokens | Fault] = []
    for row, (answered, foiled) in zip(rows, followed, strict=True):
        clean, corrupt, right, wrong = ids[row["clean"]], ids[row["corrupt"]], ids[answered], ids[foiled]
        if (
            len(right) == len(wrong) == len(clean) + 1 == len(corrupt) + 1
            and before + clean
            and right[:-1] == clean
            and wrong[:-1] == corrupt
            and right[-1] != wrong[-1]
            and clean != corrupt
            and not (before and before[0] in clean[:1] + corrupt[:1])
        ):
            tokenized.append(Tokens(before + clean, before + corrupt, right[-1], wrong[-1]))
        else:
            tokenized.append(_fault(tokenizer, row, before, clean, corrupt, right, wrong))
    return tokenized


def _fault(
    tokenizer: Any,
    row: dict[str, Any],
    before: list[int],
    clean: list[int],
    corrupt: list[int],
    right: list[int],
    wrong: list[int],
) -> Fault:
    """The first fault of a row that has one: `right` are the ids of clean prompt and answer, `wrong` of corrupt and foil."""
    for text, ids in ((row["clean"], clean), (row["corrupt"], corrupt)):
        if before and ids[:1] == before:
            return Fault(
                "the prompt begins with BOS",
                f"the prompt {text!r} already begins with BOS ({tokenizer.bos_token!r}) and one more would be added: "
                "leave it out of the text, or pass prepend_bos=False (--no-prepend-bos)",
            )
    if len(clean) != len(corrupt):
        return Fault(
            "clean and corrupt prompt differ in length",
            f"clean and corrupt prompt have {len(before + clean)} and {len(before + corrupt)} tokens "
            f"({row['clean']!r}, {row['corrupt']!r}); positions can only be compared at equal length: "
            "reword one of them or drop the pair",
        )
    if not before + clean:
        return Fault("the prompt is empty", "the prompt is empty")
    for prompt, answer, ids, both in (
        (row["clean"], row["answer"], clean, right), (row["corrupt"], row["foil"], corrupt, wrong)
    ):  # fmt: skip
        if both[: len(ids)] != ids or len(both) != len(ids) + 1:
            return Fault(
                "the answer is not one token",
                f"the answer {answer!r} is not one token after {prompt!r}: it gives "
                f"{tokenizer.convert_ids_to_tokens(both[len(ids) :])}. Use an answer of a single token (most begin with a "
                "space), and no trailing space in the prompt",
            )
    if clean == corrupt:
        return Fault(
            "clean and corrupt prompt are the same",
            f"clean and corrupt prompt are the same ({row['clean']!r}): nothing differs between them that a circuit could explain",
        )
    return Fault(
        "answer and foil are the same token",
        f"answer and foil are the same token ({row['answer']!r}): nothing to tell apart",
    )
