"""Text as models read it: contexts of tokens in a fixed order, read afresh each time and never held whole.

A corpus is a function that starts reading, so its length costs no memory. Every context has a number, and its number decides
its batch and row: what a model computes on a context does not depend on who else reads the corpus, nor on where a shard
begins.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from neuron_vs_sae import default
from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.core.reading import check_regular, exists
from neuron_vs_sae.default import language
from neuron_vs_sae.default.writing import Sentence

_CHUNK = 1 << 16


@dataclass(frozen=True)
class Context:
    """Some tokens in a row, the first being BOS where the model has one.

    `latents` says for every token which hidden variables of the small world are known there, and `sequences` which sentence
    it is in (numbers are the corpus's, -1 for BOS and EOS); both are empty for other text.
    """

    tokens: tuple[int, ...]
    latents: tuple[dict[str, str], ...] = ()
    sequences: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class Batch:
    """The contexts of numbers `first`, `first + 1`, ... of a corpus, right-padded to its length, each at a fixed row.

    `real` is where there is a token of the text: not padding, not a special token, and not in a row that holds no context.
    """

    first: int
    contexts: tuple[Context | None, ...]
    tokens: Int[Tensor, "batch pos"]
    length: Int[Tensor, " batch"]
    real: Bool[Tensor, "batch pos"]


@dataclass(frozen=True, eq=False)
class Corpus:
    """Contexts of at most `length` tokens, the same ones each time that they are read.

    `special` are the tokens that are not text (BOS, EOS, padding); `pad` fills up a batch.
    """

    name: str
    length: int
    special: frozenset[int]
    pad: int
    read: Callable[[], Iterator[Context]]

    def batches(self, size: int, start: int = 0, stop: int | None = None) -> Iterator[Batch]:
        """Contexts `start` to `stop - 1` (default: to the end), `size` rows at a time.

        Row r of a batch holds a context whose number is r modulo `size`, wherever a shard begins; rows of other shards are
        empty. Raises `InputError` where there is no context.
        """
        contexts = islice(self.read(), start, stop)
        first = start - start % size
        rows: list[Context | None] = [None] * (start - first)
        empty = True
        for context in contexts:
            empty = False
            rows.append(context)
            if len(rows) == size:
                yield self._batch(first, rows, size)
                first, rows = first + size, []
        if empty:
            where = "" if start == 0 else f" from number {start} on"
            raise InputError(f"corpus '{self.name}' has no text{where}: give a file or dataset with some")
        if any(rows):
            yield self._batch(first, rows, size)

    def first(self, n: int) -> "Corpus":
        """The same corpus, ending after `n` contexts."""
        return replace(self, read=lambda: islice(self.read(), n))

    def _batch(self, first: int, rows: Sequence[Context | None], size: int) -> Batch:
        rows = [*rows, *[None] * (size - len(rows))]
        tokens = torch.full((size, self.length), self.pad)
        length = torch.ones(size, dtype=torch.long)
        for r, context in enumerate(rows):
            if context is not None:
                tokens[r, : len(context.tokens)] = torch.tensor(context.tokens)
                length[r] = len(context.tokens)
        real = torch.arange(self.length) < length[:, None]
        real &= torch.tensor([context is not None for context in rows])[:, None]
        for token in sorted(self.special):
            real &= tokens != token
        return Batch(first, tuple(rows), tokens, length, real)


def corpus(model: Any, source: str, *, length: int = 128, contexts: int | None = None, seed: int = 0) -> Corpus:
    """The corpus that `source` names: `world`, `FILE.jsonl` (a document a line), a text file, or a dataset's name.

    `length` is in tokens, BOS included; `contexts` limits their number (the small world's text is endless, so there it is
    required). `seed` is that of the small world. Raises `InputError` for what cannot be read, is empty, or is not text.
    """
    if length < 2 or length > model.cfg.n_ctx:
        raise InputError(f"contexts of {length} tokens: this model reads 2 to {model.cfg.n_ctx} (--context-length)")
    if contexts is not None and contexts < 1:
        raise InputError(f"{contexts} contexts are asked of corpus '{source}': ask for 1 or more (--contexts)")
    if source == "world":
        if contexts is None:
            raise InputError("the small world's text has no end: say how many contexts of it (--contexts)")
        whole = world(model, length=length, seed=seed)
    elif exists(Path(source)) and not Path(source).is_dir():
        check_regular(Path(source), "corpus")
        documents = _json_lines if source.endswith((".jsonl", ".json")) else _text
        whole = _from_documents(model, Path(source).name, lambda: documents(Path(source)), length)
    elif Path(source).suffix in {".txt", ".jsonl", ".json"}:
        raise InputError(
            f"there is no file {source}: give a text file, a file of JSON lines, a dataset's name, or 'world'"
        )
    else:
        whole = _from_documents(model, source, lambda: _dataset(source), length)
    return whole if contexts is None else whole.first(contexts)


def from_tokens(name: str, rows: Sequence[Sequence[int]], *, special: Sequence[int] = (), pad: int = 0) -> Corpus:
    """A corpus of contexts that are tokens already."""
    if not rows or not all(rows):
        raise InputError(f"corpus '{name}' has no context, or an empty one")
    contexts = [Context(tuple(map(int, row))) for row in rows]
    return Corpus(name, max(map(len, rows)), frozenset(special), pad, lambda: iter(contexts))


def world(model: Any, *, length: int = 64, seed: int = 0) -> Corpus:
    """The small world's own text, endless, with the hidden variables of every token: whole sentences between BOS and EOS.

    It is not the text that the models were trained on, which had other seeds. Raises `InputError` for another model.
    """
    if model.cfg.model_name not in default.NAMES:
        raise InputError(
            f"model '{model.cfg.model_name}' does not read the small world's words: give it a text file or a dataset (--corpus)"
        )
    tokenizer = model.tokenizer
    number: dict[str, int] = tokenizer.get_vocab()
    special = frozenset(tokenizer.all_special_ids)

    def read() -> Iterator[Context]:
        text = (sentence for _, sentence in language.sentences(f"corpus {seed}"))
        waiting: list[Sentence] = []
        sentences = 0
        for sentence in text:
            if len(sentence.words) > length - 2:
                raise InputError(
                    f"contexts of {length} tokens do not hold a sentence of {len(sentence.words)} words: take longer ones"
                )
            if 2 + sum(len(s.words) for s in waiting) + len(sentence.words) > length:
                yield _world_context(waiting, sentences, number, tokenizer.bos_token_id, tokenizer.eos_token_id)
                sentences, waiting = sentences + len(waiting), []
            waiting.append(sentence)

    return Corpus(f"world (seed {seed})", length, special, tokenizer.pad_token_id, read)


def _world_context(sentences: Sequence[Sentence], first: int, number: dict[str, int], bos: int, eos: int) -> Context:
    tokens, latents, sequences = [bos], [{}], [-1]
    for i, sentence in enumerate(sentences):
        tokens += [number[word] for word in sentence.words]
        latents += sentence.known()
        sequences += [first + i] * len(sentence.words)
    return Context((*tokens, eos), (*latents, {}), (*sequences, -1))


def _from_documents(model: Any, name: str, documents: Callable[[], Iterator[tuple[str, bool]]], length: int) -> Corpus:
    """Texts cut into contexts, each after a BOS where the tokenizer has one; a context ends with its document.

    `documents` gives pieces of text, and whether each is the last of its document.
    """
    tokenizer = model.tokenizer
    bos = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    room = length - len(bos)

    def read() -> Iterator[Context]:
        left: list[int] = []
        for text, ends in documents():
            left += _known(
                tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"], name, model.cfg.d_vocab
            )
            full = len(left) // room * room
            for i in range(0, full, room):
                yield Context((*bos, *left[i : i + room]))
            left = left[full:]
            if ends and left:
                yield Context((*bos, *left))
                left = []

    pad = next((i for i in (tokenizer.pad_token_id, tokenizer.eos_token_id) if i is not None), 0)
    return Corpus(name, length, frozenset(tokenizer.all_special_ids), pad, read)


def _known(ids: list[int], name: str, vocabulary: int) -> list[int]:
    """The ids. Raises `InputError` for one that the model has no embedding of."""
    if ids and max(ids) >= vocabulary:
        raise InputError(
            f"corpus {name} holds a token of number {max(ids)}, and the model's vocabulary ends at {vocabulary - 1}"
        )
    return ids


def _text(file: Path) -> Iterator[tuple[str, bool]]:
    """A file as one document, in pieces that end before white space, so that no word is cut."""
    left = ""
    with _decoded(file), file.open(encoding="utf-8") as stream:
        while piece := stream.read(_CHUNK):
            _refuse_binary(file, piece)
            left += piece
            cut = max(left.rfind(" "), left.rfind("\n"))
            if cut > 0:
                yield left[:cut], False
                left = left[cut:]
    yield left, True


def _json_lines(file: Path) -> Iterator[tuple[str, bool]]:
    with _decoded(file), file.open(encoding="utf-8") as stream:
        for i, line in enumerate(stream, 1):
            if line.strip():
                yield _field(line, f"{file}, line {i}"), True


def _field(line: str, where: str) -> str:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f'{where} is not JSON: {error}. A line holds one document, as {{"text": "..."}}') from None
    return _text_of(row, where)


def _text_of(row: Any, where: str) -> str:
    if not isinstance(row, dict) or not isinstance(row.get("text"), str):
        keys = ", ".join(map(str, row)) if isinstance(row, dict) else type(row).__name__
        raise InputError(
            f"{where} has no string under 'text' (it has: {keys}): the column that holds the text must be called so"
        )
    return row["text"]


@contextmanager
def _decoded(file: Path) -> Iterator[None]:
    """Raises `InputError` for a file that is not UTF-8, or cannot be read."""
    try:
        yield
    except UnicodeDecodeError:
        _refuse_binary(file, "\0")
    except OSError as error:
        raise InputError(f"corpus {file} cannot be read: {error.strerror}") from error


def _refuse_binary(file: Path, piece: str) -> None:
    if "\0" in piece:
        raise InputError(f"corpus {file} is not text in UTF-8: give a text file, or JSON lines with a key 'text'")


def _dataset(name: str) -> Iterator[tuple[str, bool]]:
    import datasets  # slow to import

    try:
        rows = datasets.load_dataset(name, split="train", streaming=True)
    except Exception as error:  # the library and the hub's client raise errors of many types
        raise InputError(
            f"corpus {name!r} is no file, and as a dataset it cannot be loaded: "
            f"{(str(error).strip() or type(error).__name__).splitlines()[0]}. Give a text file, JSON lines, 'world', or a dataset that "
            "is in the cache or can be fetched (not with HF_HUB_OFFLINE=1)"
        ) from error
    for i, row in enumerate(rows, 1):
        yield _text_of(row, f"row {i} of {name}"), True
