"""Aligned clean and corrupt prompts: what a circuit is discovered on, and what it is judged by."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from neuron_vs_sae.core.errors import InputError

# Fields about all pairs together; every other field has an entry per pair.
_OF_ALL = {"name", "bos", "dropped"}


@dataclass(frozen=True, eq=False, repr=False)
class PromptPairs:
    """Token-aligned (clean, corrupt) prompts with the next token of each.

    `clean` and `corrupt` are right-padded to a common width; `length` is the number of real tokens of both prompts
    of a pair, so the answer is predicted at position `length - 1`. `answer` is right after the clean prompt, `foil`
    after the corrupt one. `tags` are per-pair labels (case, template, lemma, ...) for splits and statistics.
    `dropped` counts the pairs of the source that were left out, by reason.
    `groups` marks the groups that each pair is in, where scores are wanted per group as well (`NodeScores.by_group`).

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
    dropped: tuple[tuple[str, int], ...] = ()
    groups: Bool[Tensor, "batch groups"] | None = None

    def __post_init__(self) -> None:
        n = self.clean.shape[0]
        if n == 0:
            raise InputError(f"task '{self.name}' has no pairs")
        entries = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in _OF_ALL}
        columns = {name: len(entry) for name, entry in entries.items() if entry is not None}
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

    def __repr__(self) -> str:
        lengths = sorted(set(self.length.tolist()))
        tokens = str(lengths[0]) if len(lengths) == 1 else f"{lengths[0]} to {lengths[-1]}"
        tags = sorted({key for tags in self.tags for key in tags})
        return "\n".join(
            [
                f"PromptPairs '{self.name}': {len(self)} pairs of {tokens} tokens, {'BOS included' if self.bos else 'without BOS'}",
                f"  clean:   {self.clean_text[0]!r} -> {self.answer_text[0]!r}",
                f"  corrupt: {self.corrupt_text[0]!r} -> {self.foil_text[0]!r}",
                f"  tags: {', '.join(tags) or 'none'}; dropped: {sum(count for _, count in self.dropped)}",
            ]
        )

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
        """The pairs at `rows`, in that order, padded to the longest of them."""
        chosen = self.batch(rows)
        width = int(chosen.length.max()) if len(chosen) else self.positions
        return replace(chosen, clean=chosen.clean[:, :width], corrupt=chosen.corrupt[:, :width])

    def batch(self, rows: Sequence[int] | Int[Tensor, " n"]) -> "PromptPairs":
        """The pairs at `rows`, in that order, with the padding they have here."""
        index = torch.as_tensor(rows, dtype=torch.long)
        picked: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Tensor):
                picked[field.name] = value[index]
            elif field.name not in _OF_ALL and value is not None:
                picked[field.name] = tuple(value[i] for i in index.tolist())
        return replace(self, **picked)

    def batches(self, size: int) -> "list[PromptPairs]":
        """Consecutive slices of at most `size` pairs."""
        return [self.batch(range(i, min(i + size, len(self)))) for i in range(0, len(self), size)]

    def to(self, device: torch.device | str) -> "PromptPairs":
        moved = {f.name: getattr(self, f.name) for f in fields(self) if isinstance(getattr(self, f.name), Tensor)}
        return replace(self, **{name: tensor.to(device) for name, tensor in moved.items()})

    def overlap(self, other: "PromptPairs") -> int:
        """How many pairs of `self` have a prompt (clean or corrupt) that is also a prompt of `other`."""
        theirs = set(other.clean_text) | set(other.corrupt_text)
        return sum(a in theirs or b in theirs for a, b in zip(self.clean_text, self.corrupt_text, strict=True))

    def shared(self, other: "PromptPairs") -> int:
        """How many pairs of `self` are also pairs of `other`."""
        theirs = set(zip(other.clean_text, other.corrupt_text, strict=True))
        return sum(pair in theirs for pair in zip(self.clean_text, self.corrupt_text, strict=True))

    def deduplicated(self) -> "PromptPairs":
        """The pairs without repetitions, which are counted as dropped."""
        seen: dict[tuple[str, str, str, str], int] = {}
        for i, row in enumerate(zip(self.clean_text, self.corrupt_text, self.answer_text, self.foil_text, strict=True)):
            seen.setdefault(row, i)
        repeated = len(self) - len(seen)
        if not repeated:
            return self
        return self.take(list(seen.values())).having_dropped({"the pair is there already": repeated})

    def having_dropped(self, reasons: "Counter[str] | dict[str, int]") -> "PromptPairs":
        """The same pairs, with these counts added to `dropped`."""
        return replace(self, dropped=tuple((Counter(dict(self.dropped)) + Counter(reasons)).items()))

    def sample(self, n: int, seed: int) -> "PromptPairs":
        """`n` pairs drawn without replacement, in their original order; all of them when `n` is their number."""
        if n > len(self):
            raise InputError(
                f"{n} pairs were requested from task '{self.name}', which has {len(self)}; request fewer "
                "(--examples for discovery, --eval-examples for evaluation) or give more pairs"
            )
        generator = torch.Generator().manual_seed(seed)
        return self.take(torch.randperm(len(self), generator=generator)[:n].sort().values)

    def split(
        self,
        n_discovery: int = 300,
        n_evaluation: int = 40,
        *,
        seed: int = 0,
        by: str = "prompt",
        discovery_seed: int | None = None,
    ) -> "tuple[PromptPairs, PromptPairs]":
        """Discovery and evaluation pairs that share no prompt (`by="prompt"`), and no value of a tag (`by="lemma"`...).

        Identical pairs are counted once. Evaluation is drawn first; pairs that share a prompt with it are left out of
        discovery, which `discovery_seed` (default: `seed`) draws from what is left. Raises `InputError` when too few pairs remain.
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
                f"share nothing with them (split by {by}), and {n_discovery} were requested for discovery. "
                f"Pass --examples {len(kept)} or less"
            )
        return pairs.take(kept).sample(n_discovery, seed if discovery_seed is None else discovery_seed), evaluation

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
