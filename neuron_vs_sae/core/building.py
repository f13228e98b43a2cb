"""Rows of text to pairs of tokens: what a tokenizer makes of them, and what would give a wrong number."""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor

from neuron_vs_sae.core.conventions import Positions
from neuron_vs_sae.core.errors import InputError, check_choice
from neuron_vs_sae.core.pairs import PromptPairs


# Tuples, as there may be one for each of 100,000 rows.
class Fault(NamedTuple):
    """Why a row is no pair for a tokenizer: the kind of fault, to count, and what to tell the row's author."""

    reason: str
    message: str


class Tokens(NamedTuple):
    """A row's token ids: of both prompts, BOS included, and the one that follows each."""

    clean: list[int]
    corrupt: list[int]
    answer: int
    foil: int


def build(
    name: str,
    tokenizer: Any,
    rows: Sequence[dict[str, Any]],
    *,
    prepend_bos: bool = True,
    labels: Sequence[str] | None = None,
    drop: bool = False,
    one_length: bool = False,
) -> PromptPairs:
    """Tokenize rows of `{clean, corrupt, answer, foil, **tags}`; the answer is tokenized in its context.

    `drop` leaves out rows with a fault and counts them by reason; `one_length` leaves out pairs of another length than
    the commonest (of the equally common, the shortest). `labels` are what messages call the rows (default: `pair 0`, ...).
    Raises `InputError`, naming the row unless faults are dropped, for prompts of unequal token length, an answer of more
    or less than one token, answer equal to foil, a BOS token that the text already contains, a tokenizer without BOS, and,
    with the counts, where no row is left.
    """
    kept: list[tuple[dict[str, Any], Tokens]] = []
    dropped: Counter[str] = Counter()
    for i, (row, found) in enumerate(zip(rows, tokenize(tokenizer, rows, prepend_bos=prepend_bos), strict=True)):
        if isinstance(found, Tokens):
            kept.append((row, found))
        elif drop:
            dropped[found.reason] += 1
        else:
            raise InputError(f"{labels[i] if labels else f'pair {i}'} of task '{name}': {found.message}")
    if one_length and kept:
        counts = Counter(len(found.clean) for _, found in kept)
        commonest = min(counts, key=lambda n: (-counts[n], n))
        dropped["another length than the commonest"] += len(kept) - counts[commonest]
        kept = [one for one in kept if len(one[1].clean) == commonest]
    if not kept:
        raise InputError(f"task '{name}' has no pairs{f': dropped were {listed(dropped.items())}' if dropped else ''}")
    width = max(len(found.clean) for _, found in kept)

    def padded(prompts: Iterable[list[int]]) -> Tensor:
        return torch.tensor([ids + [0] * (width - len(ids)) for ids in prompts], dtype=torch.long)

    known = {"clean", "corrupt", "answer", "foil"}
    return PromptPairs(
        name=name,
        clean=padded(found.clean for _, found in kept),
        corrupt=padded(found.corrupt for _, found in kept),
        length=torch.tensor([len(found.clean) for _, found in kept]),
        answer=torch.tensor([found.answer for _, found in kept]),
        foil=torch.tensor([found.foil for _, found in kept]),
        clean_text=tuple(row["clean"] for row, _ in kept),
        corrupt_text=tuple(row["corrupt"] for row, _ in kept),
        answer_text=tuple(row["answer"] for row, _ in kept),
        foil_text=tuple(row["foil"] for row, _ in kept),
        tags=tuple({k: str(v) for k, v in row.items() if k not in known} for row, _ in kept),
        bos=prepend_bos,
    ).having_dropped(dropped)


def tokenize(tokenizer: Any, rows: Sequence[dict[str, Any]], *, prepend_bos: bool = True) -> list[Tokens | Fault]:
    """What every row is to this tokenizer: its token ids, or why it is no pair.

    One call of the tokenizer, so that a file of 100,000 rows takes seconds. Raises `InputError` for a model without
    tokenizer, or a tokenizer without BOS where one is to be put before the prompts.
    """
    if tokenizer is None:
        raise InputError("the model has no tokenizer, so no text can be read for it")
    bos = tokenizer.bos_token_id
    if prepend_bos and bos is None:
        raise InputError("the tokenizer has no BOS token; pass prepend_bos=False (--no-prepend-bos)")
    followed = [(row["clean"] + row["answer"], row["corrupt"] + row["foil"]) for row in rows]
    texts = list(
        dict.fromkeys(t for row, two in zip(rows, followed, strict=True) for t in (row["clean"], row["corrupt"], *two))
    )
    only_ids = {"add_special_tokens": False, "return_attention_mask": False, "return_token_type_ids": False}
    ids = dict(zip(texts, tokenizer(texts, **only_ids).input_ids if texts else (), strict=True))
    before = [bos] if prepend_bos else []

    found: list[Tokens | Fault] = []
    for row, (answered, foiled) in zip(rows, followed, strict=True):
        clean, corrupt, right, wrong = ids[row["clean"]], ids[row["corrupt"]], ids[answered], ids[foiled]
        if (
            len(right) == len(wrong) == len(clean) + 1 == len(corrupt) + 1
            and before + clean
            and right[:-1] == clean
            and wrong[:-1] == corrupt
            and right[-1] != wrong[-1]
            and not (before and bos in clean[:1] + corrupt[:1])
        ):
            found.append(Tokens(before + clean, before + corrupt, right[-1], wrong[-1]))
        else:
            found.append(_fault(tokenizer, row, before, clean, corrupt, right, wrong))
    return found


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
    return Fault(
        "answer and foil are the same token",
        f"answer and foil are the same token ({row['answer']!r}): nothing to tell apart",
    )


def layouts(tokenizer: Any, texts: Sequence[str]) -> list[tuple[int, ...]]:
    """The word of every token of each text, words being what spaces part: where two texts agree, so do their positions.

    A tokenizer that does not say where its tokens lie gives the length alone: (0, 0, ...).
    """
    if not tokenizer.is_fast:
        return [(0,) * len(ids) for ids in tokenizer(list(texts), add_special_tokens=False).input_ids]
    spans = tokenizer(list(texts), add_special_tokens=False, return_offsets_mapping=True).offset_mapping
    found = []
    for text, tokens in zip(texts, spans, strict=True):
        words = [0, *accumulate(map(str.isspace, text))]
        found.append(tuple(int(words[end]) for _, end in tokens))
    return found


def listed(dropped: Iterable[tuple[str, int]]) -> str:
    """What was dropped, for messages: `12 (the answer is not one token), 3 (...)`, or `none`."""
    return ", ".join(f"{count} ({reason})" for reason, count in dropped if count) or "none"


def lengths(pairs: PromptPairs) -> str:
    """The prompts' lengths and how often each occurs, for messages: `12 tokens (40), 13 tokens (20)`."""
    return ", ".join(f"{n} tokens ({count})" for n, count in sorted(Counter(pairs.length.tolist()).items()))


def check_bos(tokenizer: Any, pairs: PromptPairs) -> None:
    """Raises `InputError` for prompts that hold BOS more than once, as a second one inside the text would."""
    if not pairs.bos or tokenizer is None or tokenizer.bos_token_id is None:
        return
    for tokens, texts in ((pairs.clean, pairs.clean_text), (pairs.corrupt, pairs.corrupt_text)):
        times = ((tokens == tokenizer.bos_token_id) & pairs.real).sum(1)
        wrong = (times != 1).nonzero().flatten().tolist()
        if wrong:
            raise InputError(
                f"the prompt {texts[wrong[0]]!r} of task '{pairs.name}' holds BOS ({tokenizer.bos_token!r}) {int(times[wrong[0]])} "
                "times: it is put before every prompt, once, so leave it out of the text"
            )


def check_positions(pairs: PromptPairs, positions: Positions) -> None:
    """Raises `InputError` where separate positions cannot be told apart: prompts of several lengths."""
    check_choice("positions", positions, Positions)
    if positions == "separate" and not pairs.same_length:
        raise InputError(
            f"the prompts of task '{pairs.name}' differ in length: {lengths(pairs)}; with separate positions a node is "
            "a unit at one position, so all prompts need one length. Keep one length, or use positions='pooled' "
            "(--positions pooled)"
        )
