"""From gradients at the cuts to edges: what each source holds, times how much of it a target takes."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from neuron_vs_sae.analyses.graphs.graph import Edges
from neuron_vs_sae.analyses.graphs.selection import Selected
from neuron_vs_sae.analyses.graphs.targets import Target
from neuron_vs_sae.core.basis import Basis
from neuron_vs_sae.core.dictionary import Dictionary
from neuron_vs_sae.execution.cut import Cut

_HELD = 1 << 24
"""Numbers of gradients that are held at a time: rows are taken in pieces of no more."""


@dataclass(frozen=True, eq=False)
class Sources:
    """What the nodes of a graph hold on one prompt: the selected units' values, each site's rest, and the embeddings."""

    value: Float[Tensor, " units"]
    rest: tuple[Float[Tensor, "pos _"], ...]
    embedded: tuple[Float[Tensor, "1 pos d"], ...]


@dataclass(frozen=True, eq=False)
class Rows:
    """Some rows of a graph that read one quantity: their places, how they read it, and what they read beside it."""

    place: Int[Tensor, " rows"]
    quantity: Float[Tensor, "1 ..."]
    cotangents: Float[Tensor, "rows 1 ..."]
    offset: Float[Tensor, " rows"]


def sources(basis: Basis, run: Cut, chosen: Selected, value: Float[Tensor, " units"]) -> Sources:
    """What each node holds in this run; `value` are the selected units' there."""
    return held_by(basis, [x[0] for x in run.written], run.embedded, chosen, value)


def held_by(
    basis: Basis,
    written: list[Float[Tensor, "pos _"]],
    embedded: tuple[Float[Tensor, "1 pos d"], ...],
    chosen: Selected,
    value: Float[Tensor, " units"],
) -> Sources:
    """What each node holds where sites wrote `written`: the rest is what the selected units and the constant leave of it."""
    rest = []
    for s, dictionary in enumerate(basis.dictionaries):
        left = written[s] - dictionary.at_zero(written[s])
        for position, mine in _by_position(chosen, s):
            left[position] -= dictionary.written(value[mine], chosen.unit[mine])
        rest.append(left)
    return Sources(value, tuple(rest), embedded)


def rows_of(basis: Basis, run: Cut, targets: tuple[Target, ...], chosen: Selected) -> Iterator[Rows]:
    """All rows of a graph: its targets one by one, then its units by site, a piece at a time."""
    for i, target in enumerate(targets):
        place = torch.tensor([i], device=chosen.site.device)
        yield Rows(place, target.quantity(run), target.cotangent[None], target.cotangent.new_tensor([target.offset]))
    held = max(x[0].numel() for x in (*run.written, *run.read, *run.embedded))
    for s, dictionary in enumerate(basis.dictionaries):
        y = run.read[s]
        mine = (chosen.site == s).nonzero().flatten()
        for piece in mine.split(max(1, _HELD // held)) if len(mine) else ():
            cotangents, offset = _readings(dictionary, y, chosen.unit[piece], chosen.position[piece])
            yield Rows(piece + len(targets), y, cotangents, offset)


def contributions(basis: Basis, run: Cut, part: Rows, chosen: Selected, held: tuple[Sources, ...]) -> tuple[Edges, ...]:
    """The edges into these rows from each of some sets of `sources`: one batched backward pass, and products with what they hold."""
    gradients = run.backward(part.quantity, part.cotangents, (*run.probes, *run.embedding_probes, *run.biases))
    n, m = len(run.probes), len(run.embedding_probes)
    rows, positions = len(part.place), run.written[0].shape[1]
    blank = part.offset.new_zeros
    slopes, bias = blank(rows, len(chosen.unit)), part.offset.clone()
    rest = [blank(rows, n, positions) for _ in held]
    tokens = [blank(rows, positions) for _ in held]
    for gradient, parameter in zip(gradients[n + m :], run.biases, strict=True):
        if gradient is not None:
            bias += gradient.flatten(1) @ parameter.detach().flatten().to(gradient)
    for s, (gradient, dictionary) in enumerate(zip(gradients[:n], basis.dictionaries, strict=True)):
        if gradient is None:
            continue
        at_site = gradient[:, 0]
        for position, mine in _by_position(chosen, s):
            slopes[:, mine] = at_site[:, position] @ dictionary.directions(chosen.unit[mine]).T
        vectors = [sources.rest[s] for sources in held] + [dictionary.at_zero(at_site).expand_as(held[0].rest[s])]
        *parts, constant = _products(at_site, vectors)
        bias += constant.sum(1)
        for of_sources, products in zip(rest, parts, strict=True):
            of_sources[:, s] = products
    for i, gradient in enumerate(gradients[n : n + m]):
        if gradient is not None:
            parts = _products(gradient[:, 0], [sources.embedded[i][0] for sources in held])
            for of_sources, products in zip(tokens, parts, strict=True):
                of_sources += products
    return tuple(
        Edges(slopes * sources.value, of_rest, of_tokens, bias)
        for sources, of_rest, of_tokens in zip(held, rest, tokens, strict=True)
    )


def _products(
    gradient: Float[Tensor, "rows pos d"], vectors: list[Float[Tensor, "pos d"]]
) -> list[Float[Tensor, "rows pos"]]:
    """Each row's gradient times each of the vectors, position by position, without a copy of the gradient."""
    products = gradient.transpose(0, 1) @ torch.stack(vectors, -1)
    return [column.T for column in products.unbind(-1)]


def _readings(
    dictionary: Dictionary, y: Float[Tensor, "1 pos d_in"], unit: Int[Tensor, " rows"], position: Int[Tensor, " rows"]
) -> tuple[Float[Tensor, "rows 1 pos d_in"], Float[Tensor, " rows"]]:
    """How these units read their site, as weights on all of it, and their offsets."""
    cotangents, offset = y.new_zeros(len(unit), *y.shape), y.new_zeros(len(unit))
    for p in position.unique().tolist():
        mine = (position == p).nonzero().flatten()
        rows, constant = dictionary.reading(y[0, p].detach(), unit[mine])
        cotangents[mine, 0, p], offset[mine] = rows, constant
    return cotangents, offset


def _by_position(chosen: Selected, site: int) -> Iterator[tuple[int, Int[Tensor, " k"]]]:
    """The selected units of a site, position by position."""
    here = chosen.site == site
    for position in chosen.position[here].unique().tolist():
        yield position, (here & (chosen.position == position)).nonzero().flatten()
