"""Baseline: how much each node changes between clean and corrupt, whatever that does to the metric."""

from typing import Any

import torch

from neuron_vs_sae.attribution._contraction import (
    Pairing,
    Positions,
    as_scores,
    check_positions,
    ends,
)
from neuron_vs_sae.basis import Basis
from neuron_vs_sae.metric import Metric
from neuron_vs_sae.nodes import NodeScores
from neuron_vs_sae.pairs import PromptPairs
from neuron_vs_sae.splice import read


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
    totals = None
    for batch in pairs.batches(batch_size):
        difference = basis.features(read(model, batch.clean, batch.length, basis.hooks))
        corrupt = ends(model, basis, batch, pairing)
        if corrupt is not None:
            difference = difference - basis.features(corrupt)
        # Padding holds no prompt: nothing changes there.
        real = batch.real[..., None]
        found = [
            ((u.abs() * real).double().sum(0), (e.norm(dim=-1) * real[..., 0]).double().sum(0))
            for u, e in zip(difference.units, difference.errors, strict=True)
        ]
        totals = found if totals is None else [(a + c, b + d) for (a, b), (c, d) in zip(totals, found, strict=True)]
    assert totals is not None  # PromptPairs are never empty
    per_site = [
        (u / len(pairs), torch.zeros_like(e) if dictionary.lossless else e / len(pairs))
        for (u, e), dictionary in zip(totals, basis.dictionaries, strict=True)
    ]
    return as_scores(basis, per_site, positions)
