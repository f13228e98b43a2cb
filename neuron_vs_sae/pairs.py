"""Aligned clean and corrupt prompts: what a circuit is discovered on, and what it is judged by."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from neuron_vs_sae.errors import InputError


@dataclass(frozen=True, eq=False)
class PromptPairs:
    """Token-aligned (clean, corrupt) prompts with the next token of each.

    `clean` and `corrupt` are right-padded to a common width; `length` is the number of real tokens of both prompts
    of a pair, so the answer is predicted at position `length - 1`. `answer` is right after the clean prompt, `foil`
    after the corrupt one. `tags` are per-pair labels (case, template, lemma, ...) for splits and statistics.

    Raises `InputError` when a pair's answer is its foil, a length is impossible, or the columns differ in length.
    """

    name: str
    clean: Int[Tensor, "batch pos"]
    corrupt: Int[Tensor, "batch pos"]
    length: Int[Tensor, " batch"]
    answer: Int[Tensor, " batch"]
    foil: Int[Tensor, " batch"]
    clean_text: tuple[str, ...]
    corrupt_text: tuple[str, ...]
    answer_text: tuple[str, ...]
    foil_text: tuple[str, ...]
    tags: tuple[dict[str, str], ...]
    bos: bool

    def __post_init__(self) -> None:
        n = self.clean.shape[0]
        if n == 0:
            raise InputError(f"task '{self.name}' has no pairs")
        columns = {f.name: len(getattr(self, f.name)) for f in fields(self) if f.name not in {"name", "bos"}}
        if set(columns.values()) != {n}:
            raise InputError(f"the columns of task '{self.name}' differ in length: {columns}")
        if self.clean.shape != self.corrupt.shape:
            raise InputError(
                f"clean and corrupt prompts of task '{self.name}' differ in shape: "
                f"{tuple(self.clean.shape)} and {tuple(self.corrupt.shape)}; pairs must have equal token length"
            )
        if not bool(((self.length >= 1) & (self.length <= self.clean.shape[1])).all()):
            raise InputError(f"lengths of task '{self.name}' must lie between 1 and {self.clean.shape[1]} tokens")
        same = (self.answer == self.foil).nonzero().flatten().tolist()
        if same:
            raise InputError(
                f"pair {same[0]} of task '{self.name}' has the same token as answer and foil "
                f"({self.answer_text[same[0]]!r}): there is nothing to tell apart. Give the corrupt prompt another answer"
            )

    def __len__(self) -> int:
        return self.clean.shape[0]

    @property
    def positions(self) -> int:
        """Tokens per prompt, BOS included (the longest prompt's, if lengths differ)."""
        return self.clean.shape[1]

    @property
    def same_length(self) -> bool:
        return bool((self.length == self.positions).all())

    @property
    def real(self) -> Bool[Tensor, "batch pos"]:
        """Where there is a token, not padding; on the device of `length`."""
        return torch.arange(self.positions, device=self.length.device) < self.length[:, None]

    def take(self, rows: Sequence[int] | Int[Tensor, " n"]) -> "PromptPairs":
        """The pairs at `rows`, in that order, no wider than the longest of them."""
        chosen = self.batch(rows)
        width = int(chosen.length.max()) if len(chosen) else self.positions
        return replace(chosen, clean=chosen.clean[:, :width], corrupt=chosen.corrupt[:, :width])

    def batch(self, rows: Sequence[int] | Int[Tensor, " n"]) -> "PromptPairs":
        """The pairs at `rows`, in that order, padded as these are."""
        index = torch.as_tensor(rows, dtype=torch.long)
        picked: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Tensor):
                picked[field.name] = value[index]
            elif isinstance(value, tuple):
                picked[field.name] = tuple(value[i] for i in index.tolist())
        return replace(self, **picked)

    def batches(self, size: int) -> "list[PromptPairs]":
        """Consecutive slices of at most `size` pairs."""
        return [self.batch(range(i, min(i + size, len(self)))) for i in range(0, len(self), size)]

    def to(self, device: torch.device | str) -> "PromptPairs":
        moved = {f.name: getattr(self, f.name) for f in fields(self) if isinstance(getattr(self, f.name), Tensor)}
        return replace(self, **{name: tensor.to(device) for name, tensor in moved.items()})

    def overlap(self, other: "PromptPairs") -> int:
        """Pairs of `self` of which some prompt (clean or corrupt) is also a prompt of `other`."""
        theirs = set(other.clean_text) | set(other.corrupt_text)
        return sum(a in theirs or b in theirs for a, b in zip(self.clean_text, self.corrupt_text, strict=True))

    def deduplicated(self) -> "PromptPairs":
        """The first of every group of identical pairs."""
        seen: dict[tuple[str, str, str, str], int] = {}
        for i, row in enumerate(zip(self.clean_text, self.corrupt_text, self.answer_text, self.foil_text, strict=True)):
            seen.setdefault(row, i)
        return self.take(list(seen.values()))

    def sample(self, n: int, seed: int) -> "PromptPairs":
        """`n` pairs drawn without replacement, in their original order; all of them when `n` is their number."""
        if n > len(self):
            raise InputError(
                f"{n} pairs are asked of task '{self.name}', which has {len(self)}; ask for fewer "
                "(--examples for discovery, --eval-examples for evaluation) or give more pairs"
            )
        generator = torch.Generator().manual_seed(seed)
        return self.take(torch.randperm(len(self), generator=generator)[:n].sort().values)

    def split(
        self, n_discovery: int = 300, n_evaluation: int = 40, *, seed: int = 0, by: str = "prompt"
    ) -> "tuple[PromptPairs, PromptPairs]":
        """Discovery and evaluation pairs that share no prompt (`by="prompt"`), and no value of a tag (`by="lemma"`...).

        Identical pairs are counted once. Evaluation is drawn first; pairs that share a prompt with it are left out of
        discovery. Raises `InputError` when too few pairs remain.
        """
        pairs = self.deduplicated()
        generator = torch.Generator().manual_seed(seed)
        if by == "prompt":
            order = torch.randperm(len(pairs), generator=generator).tolist()
            if n_evaluation >= len(pairs):
                raise InputError(
                    f"{n_evaluation} evaluation pairs leave nothing for discovery: task '{self.name}' has {len(pairs)} "
                    "distinct pairs. Ask for fewer (--eval-examples) or give an evaluation file (--eval-task)"
                )
            held_out = order[:n_evaluation]
        else:
            held_out = pairs._held_out_by_tag(by, n_evaluation, generator)
        evaluation = pairs.take(sorted(held_out))
        theirs = set(evaluation.clean_text) | set(evaluation.corrupt_text)
        values = {t.get(by) for t in evaluation.tags} if by != "prompt" else set()
        kept = [
            i
            for i in sorted(set(range(len(pairs))) - set(held_out))
            if pairs.clean_text[i] not in theirs
            and pairs.corrupt_text[i] not in theirs
            and (by == "prompt" or pairs.tags[i].get(by) not in values)
        ]
        if len(kept) < n_discovery:
            raise InputError(
                f"task '{self.name}' has {len(pairs)} distinct pairs; beside {n_evaluation} for evaluation only {len(kept)} "
                f"share nothing with them (split by {by}), and {n_discovery} are asked for discovery. "
                f"Pass --examples {len(kept)} or less"
            )
        return pairs.take(kept).sample(n_discovery, seed), evaluation

    def _held_out_by_tag(self, tag: str, n: int, generator: torch.Generator) -> list[int]:
        known = sorted({key for tags in self.tags for key in tags})
        if any(tag not in tags for tags in self.tags):
            raise InputError(f"task '{self.name}' cannot be split by '{tag}': its pairs' tags are {known or 'none'}")
        values = sorted({tags[tag] for tags in self.tags})
        held_out: list[int] = []
        for j in torch.randperm(len(values), generator=generator).tolist():
            rows = [i for i, tags in enumerate(self.tags) if tags[tag] == values[j]]
            held_out += rows[: n - len(held_out)]
            if len(held_out) == n:
                return held_out
        raise InputError(f"task '{self.name}' has fewer than {n} pairs to hold out by '{tag}'")


def build(
    name: str,
    tokenizer: Any,
    rows: Sequence[dict[str, Any]],
    *,
    prepend_bos: bool = True,
    labels: Sequence[str] | None = None,
) -> PromptPairs:
    """Tokenize rows of `{clean, corrupt, answer, foil, **tags}`; the answer is tokenized in its context.

    `labels` are what messages call the rows (default: `pair 0`, `pair 1`, ...).
    Raises `InputError`, naming the row, for prompts of unequal token length, an answer of more or less than one token,
    answer equal to foil, a BOS token that the text already contains, or a tokenizer without BOS.
    """
    bos = tokenizer.bos_token_id
    if prepend_bos and bos is None:
        raise InputError("the tokenizer has no BOS token; pass prepend_bos=False (--no-prepend-bos)")

    def encode(text: str) -> list[int]:
        ids = list(tokenizer(text, add_special_tokens=False).input_ids)
        if not prepend_bos:
            return ids
        if ids and ids[0] == bos:
            raise InputError(
                f"the prompt {text!r} already begins with BOS ({tokenizer.bos_token!r}) and one more would be added: "
                "leave it out of the text, or pass prepend_bos=False (--no-prepend-bos)"
            )
        return [bos, *ids]

    def next_token(prompt: str, prompt_ids: list[int], answer: str) -> int:
        ids = encode(prompt + answer)
        if ids[: len(prompt_ids)] != prompt_ids or len(ids) != len(prompt_ids) + 1:
            extra = tokenizer.convert_ids_to_tokens(ids[len(prompt_ids) :])
            raise InputError(
                f"the answer {answer!r} is not one token after {prompt!r}: it gives {extra}. "
                "Use an answer of a single token (most begin with a space), and no trailing space in the prompt"
            )
        return ids[-1]

    clean, corrupt, answers, foils = [], [], [], []
    for i, row in enumerate(rows):
        try:
            clean.append(encode(row["clean"]))
            corrupt.append(encode(row["corrupt"]))
            if len(clean[-1]) != len(corrupt[-1]):
                raise InputError(
                    f"clean and corrupt prompt have {len(clean[-1])} and {len(corrupt[-1])} tokens "
                    f"({row['clean']!r}, {row['corrupt']!r}); positions can only be compared at equal length: "
                    "reword one of them or drop the pair"
                )
            if not clean[-1]:
                raise InputError("the prompt is empty")
            answers.append(next_token(row["clean"], clean[-1], row["answer"]))
            foils.append(next_token(row["corrupt"], corrupt[-1], row["foil"]))
            if answers[-1] == foils[-1]:
                raise InputError(f"answer and foil are the same token ({row['answer']!r}): nothing to tell apart")
        except InputError as error:
            raise InputError(f"{labels[i] if labels else f'pair {i}'} of task '{name}': {error}") from None
    if not rows:
        raise InputError(f"task '{name}' has no pairs")
    width = max(len(ids) for ids in clean)

    def padded(prompts: list[list[int]]) -> Tensor:
        return torch.tensor([ids + [0] * (width - len(ids)) for ids in prompts], dtype=torch.long)

    known = {"clean", "corrupt", "answer", "foil"}
    return PromptPairs(
        name=name,
        clean=padded(clean),
        corrupt=padded(corrupt),
        length=torch.tensor([len(ids) for ids in clean]),
        answer=torch.tensor(answers),
        foil=torch.tensor(foils),
        clean_text=tuple(row["clean"] for row in rows),
        corrupt_text=tuple(row["corrupt"] for row in rows),
        answer_text=tuple(row["answer"] for row in rows),
        foil_text=tuple(row["foil"] for row in rows),
        tags=tuple({k: str(v) for k, v in row.items() if k not in known} for row in rows),
        bos=prepend_bos,
    )


def lengths(pairs: PromptPairs) -> str:
    """The prompts' lengths and how often each occurs, for messages: `12 tokens (40), 13 tokens (20)`."""
    return ", ".join(f"{n} tokens ({count})" for n, count in sorted(Counter(pairs.length.tolist()).items()))
