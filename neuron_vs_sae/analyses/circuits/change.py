"""How much a circuit's removal changes: the norm of what its nodes write beyond their reference values."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from neuron_vs_sae.core.basis import Basis
from neuron_vs_sae.core.dictionary import Dictionary, split
from neuron_vs_sae.core.nodes import NodeIndex
from neuron_vs_sae.core.pairs import PromptPairs
from neuron_vs_sae.execution.splice import Ablation, read

_VALUES = 2**25
"""The most unit values, of all sites, held at once; bounds the prompts per pass (128 MiB in float32, times what ablations hold)."""


Ranked = tuple[Int[Tensor, " nodes"], Sequence[int]]
"""An order of nodes, and the sizes of the circuits that are its first so many."""


def changes(
    model: Any,
    basis: Basis,
    index: NodeIndex,
    pairs: PromptPairs,
    rankings: Sequence[Ranked],
    ablate: Callable[[Basis, int], Ablation],
    batch_size: int,
) -> list[Float[Tensor, "sizes batch"]]:
    """Per ranking, how much removing each of its circuits (the first `sizes[i]` nodes of `order`) changes on each prompt, as a share
    of what removing all of `order` changes.

    At the model's own activations on the clean prompt, removing a unit takes `(unit - reference) x direction` out of what its site
    writes, and removing an error node takes out `error - reference`. The change is the L2 norm of the sum of these vectors over all
    sites and real positions, divided by the same norm for all nodes of `order`: 0 for no node, 1 for all. Parts may cancel, so it can
    exceed 1 on the way, and fall. It is 0 where there is nothing to take out. Norms are taken in the sites' own spaces, so shares at
    different kinds of site are not comparable. Constants that an ablation removes (`splice.ReferenceValues`) are not nodes and
    enter neither norm.

    Sizes increase; `ablate(basis, prompts per pass)` gives the reference values. Cost: a clean pass, encoding and the ablation's
    values for every prompt, once for all rankings, and each node decoded once per ranking, whatever the number of sizes.
    """
    per_prompt = sum(columns for _, columns in index.shapes) * pairs.positions
    rows_per_pass = max(1, min(batch_size, _VALUES // per_prompt))
    reference = ablate(basis, rows_per_pass)
    steps = [_steps(index, order, sizes) for order, sizes in rankings]
    columns: list[list[Tensor]] = [[] for _ in rankings]
    for rows in torch.arange(len(pairs)).split(rows_per_pass):
        batch = pairs.batch(rows)
        activations = read(model, batch.clean, batch.length, basis.hooks)
        values = reference(rows)
        squares = [torch.zeros(len(sizes) + 1, len(rows), dtype=torch.float64) for _, sizes in rankings]
        for s, (site, dictionary) in enumerate(zip(basis.sites, basis.dictionaries, strict=True)):
            units, error = split(dictionary, site.view(activations[site.reads]), site.view(activations[site.writes]))
            units, error = units - values.features.units[s], error - values.features.errors[s]
            real = batch.real.to(units.device)
            for total, own in zip(squares, steps, strict=True):
                total += _squares(dictionary, units, error, real, own[s], index.positions is None).cpu()
        for shares, total in zip(columns, squares, strict=True):
            norms = total.sqrt()
            shares.append(torch.where(norms[-1] > 0, norms[:-1] / norms[-1], 0.0))
    return [torch.cat(shares, 1) for shares in columns]


Step = list[tuple[int, Int[Tensor, " _"], bool]]
"""What joins one site's part of a circuit from one size to the next: (block, units, the error node too?)."""


def _steps(index: NodeIndex, order: Int[Tensor, " nodes"], sizes: Sequence[int]) -> list[list[Step]]:
    """Per site what each size adds to the one before; the last step adds the nodes that no size has."""
    added = [index.at_sites(order[start:end]) for start, end in pairwise([0, *sizes, len(order)])]
    return [[step[site] for step in added] for site in range(len(index.sites))]


def _squares(
    dictionary: Dictionary,
    units: Float[Tensor, "batch pos width"],
    error: Float[Tensor, "batch pos d"],
    real: Bool[Tensor, "batch pos"],
    steps: list[Step],
    pooled: bool,
) -> Float[Tensor, "steps batch"]:
    """The squared norm of what one site's nodes change, after every step; summed over real positions."""
    at_site = torch.zeros_like(error)
    by_step = []
    for step in steps:
        for block, chosen, has_error in step:
            where = slice(None) if pooled else slice(block, block + 1)
            chosen = chosen.to(units.device)
            at_site[:, where] += dictionary.written(units[:, where][..., chosen], chosen)
            if has_error:
                at_site[:, where] += error[:, where]
        squares = at_site.double().square().sum(-1)
        by_step.append((squares * real).sum(1))
    return torch.stack(by_step)
