"""Integrated gradients over inputs: every site's gradient averaged while the token embeddings move."""

from typing import Any

import torch

from neuron_vs_sae.catalog.attribution._contraction import Term, accumulate, at_sites, ends, objective
from neuron_vs_sae.catalog.attribution._path import Schedule, copies, embeddings, points, together
from neuron_vs_sae.core.basis import Basis
from neuron_vs_sae.core.conventions import Pairing, Positions
from neuron_vs_sae.core.metric import Metric, check_slope_at_clean
from neuron_vs_sae.core.nodes import NodeScores
from neuron_vs_sae.core.pairs import PromptPairs
from neuron_vs_sae.execution.splice import gradients, read


def integrated_gradients_inputs(
    model: Any,
    basis: Basis,
    pairs: PromptPairs,
    metric: str | Metric | None = None,
    *,
    pairing: Pairing = "paired",
    positions: Positions = "separate",
    batch_size: int = 64,
    steps: int = 10,
    schedule: Schedule = "left",
) -> NodeScores:
    """`(clean - corrupt) . mean gradient` on the straight path of the token embeddings from clean to corrupt (or zero).

    Position embeddings, where the model adds them, stay. One left step is attribution patching at clean.
    Cost: 2 forward passes, and `steps` forward and backward passes for all sites together, several at a time where a batch
    of pairs has room for them.
    Source: Hanna et al. 2024 (EAP-IG, arXiv 2403.17806), applied to nodes.
    """

    alphas = points(steps, schedule)
    if alphas == [0.0]:
        check_slope_at_clean(metric)

    def terms(batch: PromptPairs) -> list[Term]:
        clean = read(model, batch.clean, batch.length, basis.hooks)
        move = embeddings(model, batch, pairing)
        slopes = [torch.zeros_like(x) for x in at_sites(basis, clean)]
        for chunk in together(alphas, len(batch), batch_size):
            rows = copies(batch, len(chunk))
            target = objective(model, metric, pairing, rows)
            _, gradient = gradients(model, rows.clean, rows.length, basis.hooks, target, [move(chunk)])
            for slope, step in zip(slopes, at_sites(basis, gradient), strict=True):
                slope += step.unflatten(0, (len(chunk), -1)).sum(0) / steps
        return [Term(clean, ends(model, basis, batch, pairing), tuple(slopes))]

    return accumulate(basis, pairs, positions, batch_size, terms, "integrated_gradients_inputs")
