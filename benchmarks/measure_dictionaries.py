"""Measure dictionaries (SAEs and transcoders in sae-lens' format) of a default model on text of a seed that training did not use.

The text is of three kinds: `packed` (contexts of whole sentences, as the models were trained), `single_sentences` (each
straight after BOS, as a task's prompt is) and `tasks` (both halves of evaluation pairs of every family). BOS, whose
activations are the same everywhere, and padding count nowhere unless a number's name says `with_bos`.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from neuron_vs_sae.default import language
from neuron_vs_sae.default.contexts import LENGTH, contexts
from neuron_vs_sae.default.families import FAMILIES
from neuron_vs_sae.default.tokenizer import BOS, PAD, ids
from neuron_vs_sae.default.writing import Sentence

HELD_OUT_SEED = "dictionaries, held out"


@dataclass(frozen=True)
class Text:
    """Padded tokens; `real` leaves out padding and BOS; from the places `before_answer` the answers are predicted."""

    tokens: Int[Tensor, "batch pos"]
    real: Bool[Tensor, "batch pos"]
    before_answer: Bool[Tensor, "batch pos"]

    def batches(self, rows: int = 128) -> Iterator["Text"]:
        for i in range(0, len(self.tokens), rows):
            tokens, real = self.tokens[i : i + rows], self.real[i : i + rows]
            length = int(real.any(0).nonzero().max()) + 1
            yield Text(tokens[:, :length], real[:, :length], self.before_answer[i : i + rows, :length])

    def first(self, n_tokens: int) -> "Text":
        """The first rows, `n_tokens` or little more."""
        rows = int((self.real.sum(1).cumsum(0) < n_tokens).sum()) + 1
        return Text(self.tokens[:rows], self.real[:rows], self.before_answer[:rows])


def packed(seed: str, n_tokens: int) -> Text:
    """Contexts of 64 tokens: whole sentences between BOS and EOS."""
    tokens, answers = contexts(seed, n_tokens // LENGTH)
    before_answer = torch.zeros_like(tokens, dtype=torch.bool)
    before_answer[:, :-1] = answers[:, 1:] == 1
    return Text(tokens, _real(tokens), before_answer)


def single_sentences(sentences: Iterator[Sentence], n_tokens: int) -> Text:
    """BOS and one sentence a row, until there are `n_tokens` of words or no more sentences."""
    number = ids()
    rows, answers, n = [], [], 0
    for sentence in sentences:
        rows.append(torch.tensor([number[BOS], *(number[word] for word in sentence.words)]))
        answers.append(sentence.answer)  # the place before the answer's, counted with BOS
        n += len(sentence.words)
        if n >= n_tokens:
            break
    tokens = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=number[PAD])
    before_answer = torch.zeros_like(tokens, dtype=torch.bool)
    before_answer[torch.arange(len(rows)), torch.tensor(answers)] = True
    return Text(tokens, _real(tokens), before_answer)


def training_sentences(seed: str) -> Iterator[Sentence]:
    return (sentence for _, sentence in language.sentences(seed))


def _task_sentences(seed: str, pairs: int) -> Iterator[Sentence]:
    for family in FAMILIES:
        draw = Random(f"{family} {seed}")
        for _ in range(pairs):
            pair = language.pair(family, draw, "evaluation")
            yield from (pair.clean, pair.corrupt)


def _real(tokens: Int[Tensor, "batch pos"]) -> Bool[Tensor, "batch pos"]:
    return (tokens != ids()[PAD]) & (tokens != ids()[BOS])


# ------------------------------------------------------------------------------------------------- sums over text


@dataclass
class _Sums:
    """Running sums over tokens of what a dictionary should write (`y`) and its error."""

    n: int = 0
    total: Tensor | float = 0.0
    squares: float = 0.0
    error: float = 0.0
    active: int = 0

    def add(self, y: Float[Tensor, "n d"], written: Float[Tensor, "n d"], units: Float[Tensor, "n width"]) -> None:
        self.n += len(y)
        self.total = self.total + y.double().sum(0)
        self.squares += float(y.double().square().sum())
        self.error += float((y - written).double().square().sum())
        self.active += int((units != 0).sum())

    @property
    def explained(self) -> float:
        """1 - squared error / squared deviation from the mean, both summed over coordinates."""
        mean = torch.as_tensor(self.total) / self.n
        return 1 - self.error / (self.squares - self.n * float(mean.square().sum()))


@dataclass
class _Found:
    """What the first pass over the text finds of one dictionary."""

    dictionary: Any
    used: Bool[Tensor, " width"]
    sums: dict[str, _Sums] = field(default_factory=dict)

    @property
    def hooks(self) -> tuple[str, str]:
        metadata = self.dictionary.cfg.metadata
        return metadata.hook_name, metadata.hook_name_out or metadata.hook_name

    @property
    def layer(self) -> int:
        """The block of both hooks."""
        layer, writes = (int(hook.split(".")[1]) for hook in self.hooks)
        assert layer == writes, "a dictionary that reads and writes in one block"
        return layer

    @property
    def dead(self) -> float:
        """The share of the units that were active on no token of all the text."""
        return 1 - float(self.used.float().mean())

    @property
    def mean(self) -> Float[Tensor, " d"]:
        sums = self.sums["packed"]
        return (torch.as_tensor(sums.total) / sums.n).float()


def dictionary_folders(folder: Path) -> dict[str, Path]:
    """Every folder of sae-lens below `folder`, by its path from there."""
    return {str(f.parent.relative_to(folder)): f.parent for f in sorted(folder.rglob("cfg.json"))}


def load(folder: str | Path) -> Any:
    """sae-lens' inference object with float32 weights."""
    from sae_lens import SAE

    return SAE.load_from_disk(folder, dtype="float32")


@torch.no_grad()
def measure_dictionaries(
    model: Any,
    dictionaries: Mapping[str, Any],
    seed: str = HELD_OUT_SEED,
    n_tokens: int = 240_000,
    ce_tokens: int = 20_000,
) -> dict[str, dict[str, Any]]:
    """For each dictionary (object or folder), on `n_tokens` of text, half of it packed and half single sentences:

    - `explained_variance` of packed text, the same `_with_bos`, of `_single_sentences` and of `_tasks`: one minus squared
      error over squared deviation from the mean;
    - `l0`: active units per token of packed text, and of `_single_sentences`;
    - `dead`: share of the units that were active on no token of all the text;
    - `ce_recovered`: (CE_zero - CE_dictionary) / (CE_zero - CE_model) of next-token predictions in packed text, where the
      site's activation is replaced at every token of the first `ce_tokens`; `_mean` with the mean activation in the place of zero; `_answers`: of
      the answers of task sentences; `ce_model`, `ce_increase` in nats per token of packed text.
    """
    found = _read(model, dictionaries, texts := _texts(seed, n_tokens))
    layers = {one.layer for one in found.values()}
    packed_runs = _begin(model, texts["packed"].first(ce_tokens), layers)
    task_runs = _begin(model, texts["tasks"], layers)
    return {name: _numbers(one, packed_runs, task_runs) for name, one in found.items()}


@torch.no_grad()
def share_dead(model: Any, dictionary: Any, seed: str = HELD_OUT_SEED, n_tokens: int = 240_000) -> float:
    """`dead` of `measure_dictionaries` for one dictionary (object or folder), at the cost of its layers alone."""
    return _read(model, {"": dictionary}, _texts(seed, n_tokens))[""].dead


def _texts(seed: str, n_tokens: int) -> dict[str, Text]:
    return {
        "packed": packed(seed, n_tokens // 2),
        "single_sentences": single_sentences(training_sentences(f"{seed} single"), n_tokens // 2),
        "tasks": single_sentences(_task_sentences(seed, max(1, n_tokens // 4000)), n_tokens),
    }


def _read(model: Any, dictionaries: Mapping[str, Any], texts: Mapping[str, Text]) -> dict[str, _Found]:
    """The dictionaries (objects or folders) with their sums over the texts: one pass for all, as far as the last of them."""
    found = {
        name: _Found(d, torch.zeros(d.cfg.d_sae, dtype=torch.bool))
        for name, given in dictionaries.items()
        for d in [load(given) if isinstance(given, (str, Path)) else given]
    }
    hooks = {hook for one in found.values() for hook in one.hooks}
    stop = 1 + max(one.layer for one in found.values())
    for kind, text in texts.items():
        for batch in text.batches():
            _, cache = model.run_with_cache(batch.tokens, names_filter=lambda name: name in hooks, stop_at_layer=stop)
            for one in found.values():
                _add(one, kind, cache, batch.real)
    return found


def _add(one: _Found, kind: str, cache: Any, real: Bool[Tensor, "batch pos"]) -> None:
    reads, writes = one.hooks
    selections = {kind: real}
    if kind == "packed":  # only here is BOS as frequent as the models saw it
        selections["bos"] = torch.zeros_like(real)
        selections["bos"][:, 0] = True
    for name, selection in selections.items():
        units = one.dictionary.encode(cache[reads][selection])
        one.sums.setdefault(name, _Sums()).add(cache[writes][selection], one.dictionary.decode(units), units)
        if name != "bos":
            one.used |= (units != 0).any(0)


@dataclass(frozen=True)
class _Runs:
    """A text and the model's own run on it: the loss of every real token in nats, and per batch what enters each block.

    What all dictionaries of a site are compared with is run once, and kept in `ablated`.
    """

    model: Any
    text: Text
    own: Float[Tensor, " n"]
    streams: list[dict[int, Tensor]]
    ablated: dict[tuple[str, str], Tensor] = field(default_factory=dict)

    def without(self, kind: str, one: _Found, replacement: Callable[[Tensor], Tensor]) -> Float[Tensor, " n"]:
        """The losses where the dictionary's site holds `replacement` of what it holds, by that kind's name."""
        key = (kind, one.hooks[1])
        if key not in self.ablated:
            self.ablated[key] = self.spliced(one, replacement)
        return self.ablated[key]

    def spliced(self, one: _Found, replacement: Callable[[Tensor], Tensor] | None = None) -> Float[Tensor, " n"]:
        """The losses with the site replaced at every real token, by what the dictionary writes unless told otherwise.

        The run begins before the dictionary's block: below it nothing differs from the model's own.
        """
        reads, writes = one.hooks
        read: dict[str, Tensor] = {}

        def keep(value: Tensor, hook: Any) -> None:
            read["x"] = value

        losses = []
        for batch, stream in zip(self.text.batches(), self.streams, strict=True):

            def splice(value: Tensor, hook: Any, real: Tensor = batch.real) -> Tensor:
                written = replacement(value) if replacement else one.dictionary.decode(one.dictionary.encode(read["x"]))
                return torch.where(real[..., None], written, value)

            logits = self.model.run_with_hooks(
                stream[one.layer], start_at_layer=one.layer, fwd_hooks=[(reads, keep), (writes, splice)]
            )
            losses.append(_cross_entropy(logits, batch))
        return torch.cat(losses)


def _begin(model: Any, text: Text, layers: set[int]) -> _Runs:
    entries = {f"blocks.{layer}.hook_resid_pre": layer for layer in layers}
    losses, streams = [], []
    for batch in text.batches():
        logits, cache = model.run_with_cache(batch.tokens, names_filter=lambda name: name in entries)
        losses.append(_cross_entropy(logits, batch))
        streams.append({layer: cache[name] for name, layer in entries.items()})
    return _Runs(model, text, torch.cat(losses), streams)


def _cross_entropy(logits: Float[Tensor, "batch pos vocab"], batch: Text) -> Float[Tensor, " n"]:
    """Loss of every real token but each row's first, in nats."""
    real = batch.real[:, 1:]
    return cross_entropy(logits[:, :-1][real], batch.tokens[:, 1:][real], reduction="none")


def _numbers(one: _Found, packed_runs: _Runs, task_runs: _Runs) -> dict[str, Any]:
    clean = packed_runs.own.mean()
    zero = packed_runs.without("zero", one, torch.zeros_like).mean()
    mean = packed_runs.without("mean", one, lambda value: one.mean.expand_as(value)).mean()
    spliced = packed_runs.spliced(one).mean()
    tasks = task_runs.text
    answers = tasks.before_answer[:, :-1][tasks.real[:, 1:]]
    clean_tasks = task_runs.own[answers].mean()
    zero_tasks = task_runs.without("zero", one, torch.zeros_like)[answers].mean()
    spliced_tasks = task_runs.spliced(one)[answers].mean()
    sums = one.sums
    numbers = {
        "explained_variance": sums["packed"].explained,
        "explained_variance_with_bos": _together(sums["packed"], sums["bos"]).explained,
        "explained_variance_single_sentences": sums["single_sentences"].explained,
        "explained_variance_tasks": sums["tasks"].explained,
        "l0": sums["packed"].active / sums["packed"].n,
        "l0_single_sentences": sums["single_sentences"].active / sums["single_sentences"].n,
        "dead": one.dead,
        "ce_recovered": float((zero - spliced) / (zero - clean)),
        "ce_recovered_mean": float((mean - spliced) / (mean - clean)),
        "ce_recovered_answers": float((zero_tasks - spliced_tasks) / (zero_tasks - clean_tasks)),
        "ce_model": float(clean),
        "ce_increase": float(spliced - clean),
        "ce_increase_answers": float(spliced_tasks - clean_tasks),
    }
    cfg = one.dictionary.cfg
    described = {"architecture": cfg.architecture(), "width": cfg.d_sae}
    return described | {name: round(number, 5) for name, number in numbers.items()}


def _together(a: _Sums, b: _Sums) -> _Sums:
    return _Sums(a.n + b.n, a.total + b.total, a.squares + b.squares, a.error + b.error, a.active + b.active)
