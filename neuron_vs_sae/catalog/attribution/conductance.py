"""Conductance: how much of the metric's change, as the embeddings move, goes through each node."""

from collections.abc import Iterator
from typing import Any

from neuron_vs_sae.catalog.attribution._contraction import Term, accumulate, at_sites, objective
from neuron_vs_sae.catalog.attribution._path import copies, embeddings, points, together
from neuron_vs_sae.core.basis import Basis
from neuron_vs_sae.core.conventions import Pairing, Positions
from neuron_vs_sae.core.metric import Metric
from neuron_vs_sae.core.nodes import NodeScores
from neuron_vs_sae.core.pairs import PromptPairs
from neuron_vs_sae.execution.splice import gradients, read


def conductance(
    model: Any,
    basis: Basis,
    pairs: PromptPairs,
    metric: str | Metric | None = None,
    *,
    pairing: Pairing = "paired",
    positions: Positions = "separate",
    batch_size: int = 64,
    steps: int = 10,
) -> NodeScores:
    """`sum over j = 1..steps of gradient at j . (node at j - 1 - node at j)` on the embeddings' path to corrupt (or 0).

    The scores of a site that every path crosses (the residual stream after one layer) sum to `metric(clean) -
    metric(corrupt)`, with an error that falls as 1 / steps.
    Cost: `steps` + 1 forward and `steps` backward passes for all sites together, several at a time where a batch of pairs
    has room for them.
    Source: Dhamdhere et al. 2018 (arXiv 1805.12233).
    """

    def terms(batch: PromptPairs) -> Iterator[Term]:
        move = embeddings(model, batch, pairing)
        before = read(model, batch.clean, batch.length, basis.hooks)
        for chunk in together(points(steps, "right"), len(batch), batch_size):
            rows = copies(batch, len(chunk))
            target = objective(model, metric, pairing, rows)
            values, slopes = gradients(model, rows.clean, rows.length, basis.hooks, target, [move(chunk)])
            for j in range(len(chunk)):
                here = slice(j * len(batch), (j + 1) * len(batch))
                after = {hook: x[here] for hook, x in values.items()}
                yield Term(before, after, at_sites(basis, {hook: g[here] for hook, g in slopes.items()}))
                before = after

    return accumulate(basis, pairs, positions, batch_size, terms, "conductance")
