"""RelP with attention patterns constant too: the paper as written."""

from typing import Any

from neuron_vs_sae.catalog.attribution.relp import replacement_scores
from neuron_vs_sae.core.basis import Basis
from neuron_vs_sae.core.conventions import Pairing, Positions
from neuron_vs_sae.core.metric import Metric
from neuron_vs_sae.core.nodes import NodeScores
from neuron_vs_sae.core.pairs import PromptPairs


def relp_ah(
    model: Any,
    basis: Basis,
    pairs: PromptPairs,
    metric: str | Metric | None = None,
    *,
    pairing: Pairing = "paired",
    positions: Positions = "separate",
    batch_size: int = 64,
) -> NodeScores:
    """RelP with attention patterns frozen as well; on a bias-free model it conserves the metric.

    On a bias-free RMSNorm model the replacement gradient conserves the metric: `sum over positions of <gradient, embedding>`
    equals the logit it explains, to rounding.
    Source: Arora et al. 2026 (arXiv 2601.22594), section 3 and its ablations; otherwise as `relp`.
    """
    return replacement_scores(
        model, basis, pairs, metric, pairing, positions, batch_size, gate="half", freeze_attention=True
    )
