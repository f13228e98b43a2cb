"""Aligned clean and corrupt prompts: what a circuit is discovered on, and what it is judged by."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from neuron_vs_sae.errors import InputError

# Fields of all pairs together; every other one has an entry per pair.
_OF_ALL = {"name", "bos", "dropped"}


@dataclass(frozen=True, eq=False)
class PromptPairs:
    """Token-aligned (clean, corrupt) prompts with the next token of each.

    `clean` and `corrupt` are right-padded to a common width; `length` is the number of real tokens of both prompts
    of a pair, so the answer is predicted at position `length - 1`. `answer` is right after the clean prompt, `foil`
    after the corrupt one. `tags` are per-pair labels (case, template, lemma, ...) for splits and statistics.
    `dropped` says what the pairs' source had beside them: reasons, each with the number of pairs left out for it.
    `groups` says of each pair which groups of pairs it is in, where scores are wanted of groups too (`NodeScores.by_group`).

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
        """Pairs of `self` of which some prompt (clean or corrupt) is also a prompt of `other`."""
        theirs = set(other.clean_text) | set(other.corrupt_text)
        return sum(a in theirs or b in theirs for a, b in zip(self.clean_text, self.corrupt_text, strict=True))

    def shared(self, other: "PromptPairs") -> int:
        """Pairs of `self` that are also pairs of `other`."""
        theirs = set(zip(other.clean_text, other.corrupt_text, strict=True))
        return sum(pair in theirs for pair in zip(self.clean_text, self.corrupt_text, strict=True))

    def deduplicated(self) -> "PromptPairs":
        """The first of every group of identical pairs; the others are counted as dropped."""
        seen: dict[tuple[str, str, str, str], int] = {}
        for i, row in enumerate(zip(self.clean_text, self.corrupt_text, self.answer_text, self.foil_text, strict=True)):
            seen.setdefault(row, i)
        repeated = len(self) - len(seen)
        if not repeated:
            return self
        return self.take(list(seen.values())).having_dropped({"the pair is there already": repeated})

    def having_dropped(self, reasons: "Counter[str] | dict[str, int]") -> "PromptPairs":
        """The same pairs, with these counts added to what was dropped before."""
        return replace(self, dropped=tuple((Counter(dict(self.dropped)) + Counter(reasons)).items()))

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
                f"share nothing with them (split by {by}), and {n_discovery} are asked for discovery. "
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
