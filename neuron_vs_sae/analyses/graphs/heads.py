"""How much of each edge passes through which attention head: told by the first head that it enters.

In the cut model everything between two sites is linear, so an edge is the sum over heads of what enters each of them straight from
the source, times what the target takes from that head's output along any way, and of what passes no head at all.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from neuron_vs_sae.analyses.graphs.contributions import Sources, rows_of, sources
from neuron_vs_sae.analyses.graphs.selection import Selected
from neuron_vs_sae.analyses.graphs.targets import Target
from neuron_vs_sae.core.basis import Basis
from neuron_vs_sae.execution.cut import Cut, cut
from neuron_vs_sae.execution.replacement import Rules

_HELD = 1 << 24


def loadings(
    model: Any,
    basis: Basis,
    tokens: Int[Tensor, "1 pos"],
    replaced: Rules,
    targets: Sequence[Target],
    chosen: Selected,
    watch: Sequence[str],
) -> Float[Tensor, "rows sources heads"]:
    """Per edge (from units, the rest, tokens, in the order of `Edges.leaves`) and head of each layer the part that enters that head first.

    Cost: as much again as the edges, and one backward pass of a backward pass for each source.
    """
    with cut(model, basis, tokens, replaced, heads=True, watch=watch) as run:
        rows = _to_rows(basis, run, targets, chosen)
    with cut(model, basis, tokens, replaced, cut_heads=True, watch=watch) as run:
        return _through(_from_sources(basis, run, chosen, sources(basis, run, chosen, chosen.value)), rows)


def _to_rows(
    basis: Basis, run: Cut, targets: Sequence[Target], chosen: Selected
) -> Float[Tensor, "rows layers pos head d_head"]:
    """What each row takes from each head's output, along any way that is left."""
    shape = (len(targets) + len(chosen.unit), len(run.head_probes), *run.head_probes[0].shape[1:])
    taken = chosen.value.new_zeros(shape)
    for part in rows_of(basis, run, tuple(targets), chosen):
        gradients = run.backward(part.quantity, part.cotangents, run.head_probes)
        for layer, gradient in enumerate(gradients):
            if gradient is not None:
                taken[part.place, layer] = gradient[:, 0]
    return taken


def _from_sources(
    basis: Basis, run: Cut, chosen: Selected, held: Sources
) -> list[Float[Tensor, "_ layers pos head d_head"]]:
    """What each source sends straight into each head's output: units, the rest, tokens, a piece at a time, in that order."""
    probes = [*run.probes, *run.embedding_probes]
    n, positions = len(run.probes), run.written[0].shape[1]
    # The transposed map, as a function of weights on the heads; its own gradient is the map.
    weights = [torch.zeros_like(z, requires_grad=True) for z in run.heads]
    back = torch.autograd.grad(run.heads, probes, weights, create_graph=True, allow_unused=True)

    def sent(place: int, vectors: Float[Tensor, "k 1 pos _"]) -> Float[Tensor, "k layers pos head d_head"]:
        out = vectors.new_zeros(len(vectors), len(weights), *run.heads[0].shape[1:])
        through = back[place]
        if through is None or not through.requires_grad or not len(vectors):
            return out
        pieces = vectors.split(max(1, _HELD // max(out[0].numel(), vectors[0].numel())))
        for low, piece in zip(range(0, len(vectors), len(pieces[0])), pieces, strict=True):
            gradients = torch.autograd.grad(
                through, weights, piece, retain_graph=True, allow_unused=True, is_grads_batched=True
            )
            for layer, gradient in enumerate(gradients):
                if gradient is not None:
                    out[low : low + len(piece), layer] = gradient[:, 0]
        return out

    def at_each_position(rows: Float[Tensor, "pos d"]) -> Float[Tensor, "pos 1 pos d"]:
        return torch.diag_embed(rows.T).permute(1, 2, 0)[:, None]

    units = chosen.value.new_zeros(len(chosen.unit), len(weights), *run.heads[0].shape[1:])
    for s, dictionary in enumerate(basis.dictionaries):
        mine = (chosen.site == s).nonzero().flatten()
        vectors = run.written[s].new_zeros(len(mine), *run.written[s].shape)
        vectors[torch.arange(len(mine)), 0, chosen.position[mine]] = (
            dictionary.directions(chosen.unit[mine]) * held.value[mine, None]
        )
        units[mine] = sent(s, vectors)
    rest = [sent(s, at_each_position(held.rest[s])) for s in range(n)]
    tokens = chosen.value.new_zeros(positions, *units.shape[1:])
    for i, embedded in enumerate(held.embedded):
        tokens = tokens + sent(n + i, at_each_position(embedded[0]))
    return [units, *rest, tokens]


def _through(
    sent: list[Float[Tensor, "_ layers pos head d_head"]], taken: Float[Tensor, "rows layers pos head d_head"]
) -> Float[Tensor, "rows sources heads"]:
    parts = [torch.einsum("tlphe,slphe->tslh", taken, piece).flatten(2) for piece in sent]
    return torch.cat(parts, 1).cpu()
