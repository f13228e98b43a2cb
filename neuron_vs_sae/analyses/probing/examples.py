"""Labelled tokens with the units' values there, split so that no sequence is in two splits."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

from neuron_vs_sae.analyses.probing.concepts import Concept
from neuron_vs_sae.catalog.corpora import Context, Corpus
from neuron_vs_sae.core.basis import Basis
from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.execution.splice import home, read

Of = Literal["activations", "contributions"]
SPLITS = ("train", "validation", "test")
SHARES = (0.5, 0.2, 0.3)


@dataclass(frozen=True)
class Places:
    """Tokens (context, position) with their labels, the sequence of each, and its split (0, 1, 2 as in `SPLITS`)."""

    concept: str
    at: tuple[tuple[int, int], ...]
    holds: tuple[bool, ...]
    sequence: tuple[int, ...]
    split: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Examples:
    """One split of the places: a row of unit values, a label and a sequence per token."""

    x: Float[np.ndarray, "n width"]
    y: Bool[np.ndarray, " n"]
    sequence: Int[np.ndarray, " n"]


def places(corpus: Corpus, concept: Concept, *, n: int = 10_000, skip: int = 0, seed: int = 0) -> Places:
    """At most `n` tokens at which the concept is defined, a share of .2 to .5 of them positive, split by sequence.

    A sequence is a sentence of the small world, else a context; `skip` leaves out the first tokens of a context. Half of the
    sequences are for training, a fifth for validation, the rest for testing. Raises `InputError` where a split lacks a class.
    """
    defined: list[tuple[tuple[int, int], bool, int]] = []
    for number, context in enumerate(corpus.read()):
        for position in range(max(skip, 0), len(context.tokens)):
            if context.tokens[position] in corpus.special:
                continue
            holds = concept.label(context, position)
            if holds is not None:
                defined.append(((number, position), holds, _sequence(context, number, position)))
    if not defined:
        raise InputError(
            f"concept {concept.name!r} is not defined anywhere in corpus '{corpus.name}': take more text or another concept"
        )
    positive = sum(holds for _, holds, _ in defined)
    if positive in (0, len(defined)):
        raise InputError(
            f"concept {concept.name!r} has one class in corpus '{corpus.name}': it {'holds' if positive else 'fails'} at all "
            f"{len(defined)} tokens where it is defined. Take more text (--contexts), or another concept"
        )
    rng = np.random.default_rng(seed)
    chosen = _balanced([holds for _, holds, _ in defined], n, rng)
    kept = [defined[i] for i in chosen]
    sequences = sorted({sequence for _, _, sequence in kept})
    split = dict(zip(sequences, _assigned(len(sequences), rng), strict=True))
    labelled = Places(
        concept=concept.name,
        at=tuple(place for place, _, _ in kept),
        holds=tuple(holds for _, holds, _ in kept),
        sequence=tuple(sequence for _, _, sequence in kept),
        split=tuple(split[sequence] for _, _, sequence in kept),
    )
    _check(labelled, corpus)
    return labelled


def activations(
    model: Any, basis: Basis, s: int, corpus: Corpus, where: Places, *, of: Of = "activations", batch_size: int = 32
) -> tuple[Examples, Examples, Examples]:
    """The values of all units of site `s` at the places, by split; `contributions` are values times |write vector|."""
    site, dictionary = basis.sites[s], basis.dictionaries[s]
    rows = {place: i for i, place in enumerate(where.at)}
    x = np.zeros((len(where.at), dictionary.width), dtype=np.float32)
    last = max(number for number, _ in where.at) + 1
    for batch in corpus.batches(batch_size, 0, last):
        wanted = [
            (r, p, rows[batch.first + r, p])
            for r, context in enumerate(batch.contexts)
            if context is not None
            for p in range(len(context.tokens))
            if (batch.first + r, p) in rows
        ]
        if wanted:
            r, p, i = (list(part) for part in zip(*wanted, strict=True))
            seen = read(model, batch.tokens.to(home(model)), batch.length.to(home(model)), [site.reads])
            with torch.no_grad():
                x[i] = dictionary.encode(site.view(seen[site.reads])[r, p]).float().cpu().numpy()
    if of == "contributions":
        every = torch.arange(dictionary.width, device=home(model))
        x *= torch.cat([dictionary.directions(some).norm(dim=-1) for some in every.split(4096)]).float().cpu().numpy()
    y, sequence, split = np.array(where.holds), np.array(where.sequence), np.array(where.split)
    train, validation, test = (Examples(x[split == i], y[split == i], sequence[split == i]) for i in range(3))
    return train, validation, test


def _sequence(context: Context, number: int, position: int) -> int:
    return context.sequences[position] if context.sequences else number


def _balanced(holds: Sequence[bool], n: int, rng: np.random.Generator) -> list[int]:
    """At most `n` places in order, with the share of positive ones brought into [.2, .5] by leaving out others."""
    labels = np.array(holds)
    positive, negative = (rng.permutation(np.flatnonzero(labels == value)) for value in (True, False))
    share = min(max(len(positive) / len(labels), 0.2), 0.5)
    total = min(n, int(len(positive) / share), int(len(negative) / (1 - share)))
    n_positive = round(total * share)
    return sorted([*positive[:n_positive].tolist(), *negative[: total - n_positive].tolist()])


def _assigned(n: int, rng: np.random.Generator) -> list[int]:
    edges = np.round(np.cumsum(SHARES) * n).astype(int)
    split = np.searchsorted(edges, np.arange(n), side="right")
    return rng.permutation(split).tolist()


def _check(where: Places, corpus: Corpus) -> None:
    for i, name in enumerate(SPLITS):
        inside = [holds for holds, split in zip(where.holds, where.split, strict=True) if split == i]
        for value in (True, False):
            if inside.count(value) < 2:
                raise InputError(
                    f"concept {where.concept!r} {'holds' if value else 'fails'} at {inside.count(value)} tokens of the {name} split of corpus "
                    f"'{corpus.name}' ({len(set(where.sequence))} sequences): take more text (--contexts), or another concept"
                )
