"""Sentences whose every hidden variable is known, and how templates become sentences."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Literal, TypeVar

Part = Literal["train", "discovery", "evaluation"]
T = TypeVar("T")

_CLOSING = (".", ",", "?")  # written without a space before them


@dataclass(frozen=True, slots=True)
class Sentence:
    """Words, and what is known about them. `answer` is the place of the word that those before it determine.

    `latents` holds `(name, value, first, stop)`: the variable has that value at words `first` to `stop - 1`. Before
    `first` the text does not yet determine it.
    """

    words: tuple[str, ...]
    answer: int
    latents: tuple[tuple[str, str, int, int], ...]

    @property
    def prompt(self) -> str:
        return text_of(self.words[: self.answer])

    @property
    def text(self) -> str:
        return text_of(self.words)

    def known(self) -> list[dict[str, str]]:
        """For each word, the latent variables that are known there."""
        latents: list[dict[str, str]] = [{} for _ in self.words]
        for name, value, first, stop in self.latents:
            for at in range(first, stop):
                latents[at][name] = value
        return latents


@dataclass(frozen=True, slots=True)
class Pair:
    """A minimal pair; `tags` label it, `content` are its content words (what must not all be the evaluation half's)."""

    clean: Sentence
    corrupt: Sentence
    tags: dict[str, str]
    content: tuple[Hashable, ...] = ()

    def row(self) -> dict[str, str]:
        """The columns of a task file; the answers carry the space that separates them from the prompt."""
        answer, foil = (s.words[s.answer] for s in (self.clean, self.corrupt))
        return {
            "clean": self.clean.prompt,
            "corrupt": self.corrupt.prompt,
            "answer": " " + answer,
            "foil": " " + foil,
            **self.tags,
        }


def text_of(words: Sequence[str]) -> str:
    """The words as written: one space between two, none before a full stop, a comma or a question mark."""
    text = " ".join(words)
    for mark in _CLOSING:
        text = text.replace(" " + mark, mark)
    return text


@cache
def pieces(template: str) -> tuple[tuple[bool, str], ...]:
    return tuple((piece[0] == "{", piece.strip("{}")) for piece in template.split())


def write(template: str, fill: dict[str, str], latents: Mapping[str, tuple[str | None, str]]) -> Sentence:
    """`template` with its `{slots}` filled. A latent `name: (slot, value)` holds from its slot on (None: throughout)."""
    words: list[str] = []
    start: dict[str | None, int] = {None: 0}
    for is_slot, piece in pieces(template):
        if is_slot:
            start.setdefault(piece, len(words))
            words += fill[piece].split()
        else:
            words.append(piece)
    spans = tuple((name, value, start[slot], len(words)) for name, (slot, value) in latents.items())
    return Sentence(tuple(words), start["answer"], spans)


def halves(items: Sequence[T]) -> tuple[Sequence[T], Sequence[T]]:
    """Discovery's half of a list of words and evaluation's."""
    return items[::2], items[1::2]


def pick(draw: Random, items: Sequence[T], part: Part) -> T:
    return draw.choice(items if part == "train" else halves(items)[part == "evaluation"])


def some(draw: Random, items: Sequence[T], n: int, part: Part) -> list[T]:
    return draw.sample(items if part == "train" else halves(items)[part == "evaluation"], n)
