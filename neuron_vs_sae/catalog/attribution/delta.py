"""Baseline: how much each node changes between clean and corrupt, whatever that does to the metric."""

from typing import Any

import torch

from neuron_vs_sae.catalog.attribution._contraction import Sums, added, as_scores, ends, members
from neuron_vs_sae.core.basis import Basis
from neuron_vs_sae.core.building import check_positions
from neuron_vs_sae.core.conventions import Pairing, Positions
from neuron_vs_sae.core.metric import Metric
from neuron_vs_sae.core.nodes import NodeScores
from neuron_vs_sae.core.pairs import PromptPairs
from neuron_vs_sae.execution.splice import read


def delta(
    model: Any,
    basis: Basis,
    pairs: PromptPairs,
    metric: str | Metric | None = None,
    *,
    pairing: Pairing = "paired",
    positions: Positions = "separate",
    batch_size: int = 64,
) -> NodeScores:
    """`|clean - corrupt|` of each unit, mean over pairs, in the unit's own scale; an error node: the change's L2 norm.

    Not an effect on the metric, and never negative. Cost: two forward passes.
    """
    del metric
    check_positions(pairs, positions)
    totals: list[Sums] = []
    for batch in pairs.batches(batch_size):
        difference = basis.features(read(model, batch.clean, batch.length, basis.hooks))
        corrupt = ends(model, basis, batch, pairing)
        if corrupt is not None:
            difference = difference - basis.features(corrupt)
        # Padding holds no prompt: nothing changes there.
        real = batch.real[..., None]
        groups, sums = members(batch), []
        for units, errors, dictionary in zip(difference.units, difference.errors, basis.dictionaries, strict=True):
            u, e = units.abs() * real, errors.norm(dim=-1) * real[..., 0] * (not dictionary.lossless)
            of = groups.to(u.dtype)
            sums.append(
                Sums(u.double().sum(0), e.double().sum(0), torch.tensordot(of, u, 1), torch.tensordot(of, e, 1))
            )
        totals = added(totals, sums)
    return as_scores(basis, totals, pairs, positions)
