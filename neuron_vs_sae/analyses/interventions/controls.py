"""What a patch has to beat: as much written, but in other units, with the amounts mixed up, reversed, or one token off.

Source: Birardi 2025, "Do we need sparsity afterall?" (LessWrong); there a specificity is told by |main| / |mean control|, which is
misleading where controls average to 0: here every control has its own rows, and a z-score.
"""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from neuron_vs_sae.core.nodes import NodeIndex

PatchControl = Literal["random", "permuted", "permuted_across", "negated", "wrong_position", "wrong_source"]
"""The amounts in random units of random layers at the same tokens; exchanged among the patched units of a site, or of all sites; with the
other sign; one token earlier; those of another pair's donor, whose units are ranked anew."""
DRAWN: tuple[PatchControl, ...] = ("random", "permuted", "permuted_across")
"""Controls that are drawn several times."""

Moved = tuple[Int[Tensor, " k"], Float[Tensor, " k"]]
"""Nodes, and by how much the value of each is moved."""


def randomised(
    control: PatchControl, index: NodeIndex, nodes: Int[Tensor, " k"], amounts: Float[Tensor, " k"], draw: Generator
) -> Moved:
    """One draw of a control that moves the same amounts elsewhere."""
    if control == "random":
        return _elsewhere(index, nodes, draw), amounts
    site, _ = _site_and_block(index, nodes)
    if control == "permuted_across":
        return nodes, amounts[torch.randperm(len(nodes), generator=draw)]
    mixed = amounts.clone()
    for s in site.unique().tolist():
        here = (site == s).nonzero().flatten()
        mixed[here] = amounts[here[torch.randperm(len(here), generator=draw)]]
    return nodes, mixed


def one_earlier(index: NodeIndex, nodes: Int[Tensor, " k"], amounts: Float[Tensor, " k"]) -> Moved:
    """The same units one position earlier; those at the first position are left out."""
    site, block = _site_and_block(index, nodes)
    columns = torch.tensor([columns for _, columns in index.shapes])[site]
    kept = block > 0
    return (nodes - columns)[kept], amounts[kept]


def _site_and_block(index: NodeIndex, nodes: Int[Tensor, " k"]) -> tuple[Int[Tensor, " k"], Int[Tensor, " k"]]:
    columns = torch.tensor([columns for _, columns in index.shapes])
    ends = (columns * index.blocks).cumsum(0)
    site = torch.bucketize(nodes, ends, right=True)
    within = nodes - (ends - columns * index.blocks)[site]
    return site, within // columns[site]


def _elsewhere(index: NodeIndex, nodes: Int[Tensor, " k"], draw: Generator) -> Int[Tensor, " k"]:
    """As many distinct units, of any site, at the same positions."""
    _, block = _site_and_block(index, nodes)
    widths = torch.tensor(index.widths)
    ends, columns = widths.cumsum(0), widths + 1
    starts = (columns * index.blocks).cumsum(0) - columns * index.blocks
    chosen = torch.empty_like(nodes)
    for b in block.unique().tolist():
        here = (block == b).nonzero().flatten()
        unit = torch.randperm(int(ends[-1]), generator=draw)[: len(here)]
        site = torch.bucketize(unit, ends, right=True)
        chosen[here] = starts[site] + b * columns[site] + unit - (ends - widths)[site]
    return chosen
