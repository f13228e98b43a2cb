"""Activation patching: the exact effect of each node, one run per node. The oracle that estimates are judged by."""

from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm.auto import tqdm

from neuron_vs_sae.catalog.attribution._contraction import Sums, added, as_scores, at_sites, members, objective
from neuron_vs_sae.core.basis import Basis
from neuron_vs_sae.core.building import check_positions
from neuron_vs_sae.core.conventions import Pairing, Positions
from neuron_vs_sae.core.dictionary import Dictionary
from neuron_vs_sae.core.errors import InputError, check_choice
from neuron_vs_sae.core.metric import Metric
from neuron_vs_sae.core.nodes import NodeScores
from neuron_vs_sae.core.pairs import PromptPairs
from neuron_vs_sae.execution.splice import Edit, read, run

Direction = Literal["noising", "denoising"]


def activation_patching(
    model: Any,
    basis: Basis,
    pairs: PromptPairs,
    metric: str | Metric | None = None,
    *,
    pairing: Pairing = "paired",
    positions: Positions = "separate",
    batch_size: int = 256,
    direction: Direction = "noising",
) -> NodeScores:
    """The change of the metric when one node alone is patched, mean over pairs.

    noising: `metric(clean) - metric(clean with the node at its corrupt value)`;
    denoising: `metric(corrupt with the node at its clean value) - metric(corrupt)`. Everything else runs live; for an
    SAE unit the error keeps its value. With pooled positions a unit is patched at all of them in one run, which is not the sum of
    the separate effects. Unpaired: the node is set to zero in the clean run.
    Cost: one forward pass per prompt and per node that differs between the runs (a node that does not differ has effect
    0 and is not run); `batch_size` is the number of those per pass.
    Source: methods common to Vig et al. 2020 and Meng et al. 2022; terms from Heimersheim & Nanda 2024 (2404.15255).
    """
    check_choice("direction", direction, Direction)
    if direction == "denoising" and pairing == "unpaired":
        raise InputError("direction='denoising' needs the corrupt prompt: use pairing='paired' or direction='noising'")
    check_positions(pairs, positions)
    sign = 1.0 if direction == "noising" else -1.0
    totals: list[Sums] = []
    for i in tqdm(range(len(pairs)), desc="activation_patching", leave=False, delay=2):
        pair = pairs.take([i])
        start, other = (pair.clean, pair.corrupt) if direction == "noising" else (pair.corrupt, pair.clean)
        values = read(model, start, pair.length, basis.hooks)
        here = basis.features(values)
        there = basis.features(read(model, other, pair.length, basis.hooks))
        step = here.map(torch.neg) if pairing == "unpaired" else there - here
        unpatched = objective(model, metric, pairing, pair)(run(model, start, pair.length))
        sums = []
        for s, (site, dictionary) in enumerate(zip(basis.sites, basis.dictionaries, strict=True)):
            patches = _Patches(dictionary, step.units[s][0], step.errors[s][0], positions)
            effects = torch.zeros(patches.shape, dtype=torch.float64)
            base = at_sites(basis, values)[s]
            for nodes in patches.moving.split(batch_size):
                copies = pair.take([0] * len(nodes))
                new = base + patches.of(nodes)
                edits: list[Edit] = [(site.writes, lambda x, site=site, new=new: site.put(x, new))]
                tokens = copies.clean if direction == "noising" else copies.corrupt
                logits = run(model, tokens, copies.length, edits)
                patched = objective(model, metric, pairing, copies)(logits)
                effects.view(-1)[nodes] = (sign * (unpatched - patched)).double().cpu()
            of_groups = members(pair).cpu()[:, :, None] * effects  # of one pair: groups x blocks x nodes
            sums.append(Sums(effects[:, :-1], effects[:, -1], of_groups[..., :-1], of_groups[..., -1]))
        totals = added(totals, sums)
    # Pooled effects are measured jointly, so they arrive as one block and their "sum" over positions is themselves.
    return as_scores(basis, totals, pairs, positions)


class _Patches:
    """The change of one site's activation `[pos, d]` for each of its nodes, computed on demand."""

    def __init__(
        self,
        dictionary: Dictionary,
        units: Float[Tensor, "pos width"],
        error: Float[Tensor, "pos d"],
        positions: Positions,
    ):
        self.dictionary, self.units, self.pooled = dictionary, units, positions == "pooled"
        self.error = torch.zeros_like(error) if dictionary.lossless else error
        moved = torch.cat([self.units != 0, (self.error != 0).any(1, keepdim=True)], 1)
        if self.pooled:
            moved = moved.any(0, keepdim=True)
        self.shape = tuple(moved.shape)
        self.moving: Int[Tensor, " k"] = moved.flatten().nonzero().flatten().cpu()

    def of(self, nodes: Int[Tensor, " k"]) -> Float[Tensor, "k pos d"]:
        n_positions, width = self.units.shape
        block, unit = nodes // (width + 1), nodes % (width + 1)
        is_error = unit == width
        direction = self.dictionary.directions(unit.clamp(max=width - 1)).to(self.error)
        amount = self.units[:, unit.clamp(max=width - 1)].T  # [k, pos]
        change = amount[..., None] * direction[:, None]
        change[is_error] = self.error
        if self.pooled:
            return change
        here = torch.arange(n_positions)[None] == block[:, None]
        return change * here[..., None].to(change)
