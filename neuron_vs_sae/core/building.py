"""Rows of text to pairs of prompts, and what pairs must be for a study."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from neuron_vs_sae.core.conventions import Positions
from neuron_vs_sae.core.errors import InputError, check_choice
from neuron_vs_sae.core.pairs import PromptPairs
from neuron_vs_sae.core.tokenizing import Tokens, tokenize

NEEDED = ("clean", "corrupt", "answer", "foil")
"""The keys of a row; any other is a tag."""


def pairs(
    model: Any,
    rows: Iterable[Mapping[str, Any]],
    *,
    name: str = "pairs",
    drop: bool = False,
    one_length: bool = False,
    prepend_bos: bool = True,
) -> PromptPairs:
    """Pairs from rows in memory: `{"clean": ..., "corrupt": ..., "answer": ..., "foil": ...}`, any other key being a tag.

    They are on the model's device. `name` is the task's name. `drop` leaves out, and counts, rows that do not fit the tokenizer;
    `one_length` leaves out pairs whose length is not the commonest. Raises `InputError`, naming the row (`row 0` is the first),
    where one lacks a key or holds something other than text, and as `build` does.
    """
    taken = [dict(row) for row in rows]
    for i, row in enumerate(taken):
        for key in NEEDED:
            if not isinstance(row.get(key), str):
                given = f"this is {row[key]!r}" if key in row else f"it has {', '.join(map(str, row)) or 'no keys'}"
                raise InputError(
                    f"row {i} of task '{name}': '{key}' must be there, as text; {given}. A row is a pair: clean, corrupt, "
                    "answer, foil, and tags"
                )
    labels = [f"row {i}" for i in range(len(taken))]
    built = build(
        name, model.tokenizer, taken, prepend_bos=prepend_bos, labels=labels, drop=drop, one_length=one_length
    )  # fmt: skip
    return built.to(next(model.parameters()).device)


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

    `drop` leaves out rows with a fault and counts them by reason; `one_length` leaves out pairs whose length is not the
    commonest (of several equally common lengths, the shortest counts). `labels` name the rows in messages (default: `pair 0`, ...).
    Raises `InputError`, naming the row unless faults are dropped, for prompts of unequal token length, an answer that is not
    one token, answer equal to foil, a BOS token that the text already contains, a tokenizer without BOS, and,
    with the counts, where no row is left.
    """
    kept: list[tuple[dict[str, Any], Tokens]] = []
    dropped: Counter[str] = Counter()
    for i, (row, tokens) in enumerate(zip(rows, tokenize(tokenizer, rows, prepend_bos=prepend_bos), strict=True)):
        if isinstance(tokens, Tokens):
            kept.append((row, tokens))
        elif drop:
            dropped[tokens.reason] += 1
        else:
            raise InputError(f"{labels[i] if labels else f'pair {i}'} of task '{name}': {tokens.message}")
    if one_length and kept:
        counts = Counter(len(tokens.clean) for _, tokens in kept)
        commonest = min(counts, key=lambda n: (-counts[n], n))
        dropped["another length than the commonest"] += len(kept) - counts[commonest]
        kept = [(row, tokens) for row, tokens in kept if len(tokens.clean) == commonest]
    if not kept:
        raise InputError(f"task '{name}' has no pairs{f': dropped were {listed(dropped.items())}' if dropped else ''}")
    width = max(len(tokens.clean) for _, tokens in kept)

    def padded(prompts: Iterable[list[int]]) -> Int[Tensor, "batch pos"]:
        return torch.tensor([ids + [0] * (width - len(ids)) for ids in prompts], dtype=torch.long)

    return PromptPairs(
        name=name,
        clean=padded(tokens.clean for _, tokens in kept),
        corrupt=padded(tokens.corrupt for _, tokens in kept),
        length=torch.tensor([len(tokens.clean) for _, tokens in kept]),
        answer=torch.tensor([tokens.answer for _, tokens in kept]),
        foil=torch.tensor([tokens.foil for _, tokens in kept]),
        clean_text=tuple(row["clean"] for row, _ in kept),
        corrupt_text=tuple(row["corrupt"] for row, _ in kept),
        answer_text=tuple(row["answer"] for row, _ in kept),
        foil_text=tuple(row["foil"] for row, _ in kept),
        tags=tuple({key: str(value) for key, value in row.items() if key not in NEEDED} for row, _ in kept),
        bos=prepend_bos,
    ).having_dropped(dropped)


def layouts(tokenizer: Any, texts: Sequence[str]) -> list[tuple[int, ...]]:
    """For each text the number of the word that each token belongs to, words being separated by spaces. Where two texts agree,
    a position means the same in both.

    For a tokenizer that does not report where its tokens lie, only the length is known: (0, 0, ...).
    """
    if not tokenizer.is_fast:
        return [(0,) * len(ids) for ids in tokenizer(list(texts), add_special_tokens=False).input_ids]
    spans = tokenizer(list(texts), add_special_tokens=False, return_offsets_mapping=True).offset_mapping
    words_of_tokens = []
    for text, tokens in zip(texts, spans, strict=True):
        words = [0, *accumulate(map(str.isspace, text))]
        words_of_tokens.append(tuple(int(words[end]) for _, end in tokens))
    return words_of_tokens


def listed(dropped: Iterable[tuple[str, int]]) -> str:
    """What was dropped, for messages: `12 (the answer is not one token), 3 (...)`, or `none`."""
    return ", ".join(f"{count} ({reason})" for reason, count in dropped if count) or "none"


def lengths(pairs: PromptPairs) -> str:
    """The prompts' lengths and how often each occurs, for messages: `12 tokens (40), 13 tokens (20)`."""
    return ", ".join(f"{n} tokens ({count})" for n, count in sorted(Counter(pairs.length.tolist()).items()))


def check_bos(tokenizer: Any, pairs: PromptPairs) -> None:
    """Raises `InputError` for prompts that do not hold BOS exactly once, as where the text contains a second one."""
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
    """Raises `InputError` for separate positions of prompts of several lengths: one position would mean different things."""
    check_choice("positions", positions, Positions)
    if positions == "separate" and not pairs.same_length:
        raise InputError(
            f"the prompts of task '{pairs.name}' differ in length: {lengths(pairs)}; with separate positions a node is "
            "a unit at one position, so all prompts need one length. Keep one length, or use positions='pooled' "
            "(--positions pooled)"
        )
