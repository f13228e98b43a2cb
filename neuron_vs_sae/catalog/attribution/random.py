"""Baseline: a random order of the nodes."""

from typing import Any

import torch

from neuron_vs_sae.core.basis import Basis
from neuron_vs_sae.core.building import check_positions
from neuron_vs_sae.core.conventions import Pairing, Positions
from neuron_vs_sae.core.metric import Metric
from neuron_vs_sae.core.nodes import NodeScores
from neuron_vs_sae.core.pairs import PromptPairs


def random(
    model: Any,
    basis: Basis,
    pairs: PromptPairs,
    metric: str | Metric | None = None,
    *,
    pairing: Pairing = "paired",
    positions: Positions = "separate",
    batch_size: int = 64,
    seed: int = 0,
) -> NodeScores:
    """One standard normal number per node, for error nodes and units alike. The null of every curve.

    The draws do not depend on which error nodes exist; those that do not exist score 0.
    """
    del model, metric, pairing, batch_size
    check_positions(pairs, positions)
    blocks = None if positions == "pooled" else pairs.positions
    drawn = [
        torch.randn(len(part.index(blocks)), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        for part in basis.parts
    ]
    index = basis.index(blocks)
    return NodeScores(index, torch.cat(drawn).masked_fill(~index.exists, 0.0))
