"""RelP without the half rule: each branch of a gated MLP gets the whole gradient."""

from typing import Any

from neuron_vs_sae.catalog.attribution.relp import replacement_scores
from neuron_vs_sae.core.basis import Basis
from neuron_vs_sae.core.conventions import Pairing, Positions
from neuron_vs_sae.core.metric import Metric
from neuron_vs_sae.core.nodes import NodeScores
from neuron_vs_sae.core.pairs import PromptPairs


def relp_no_half(
    model: Any,
    basis: Basis,
    pairs: PromptPairs,
    metric: str | Metric | None = None,
    *,
    pairing: Pairing = "paired",
    positions: Positions = "separate",
    batch_size: int = 64,
) -> NodeScores:
    """RelP without the half rule.

    A gated product is then counted twice. The same as `relp` where MLPs have no gate.
    Source: Arora et al. 2026 (arXiv 2601.22594), section 3 and its ablations; otherwise as `relp`.
    """
    return replacement_scores(
        model, basis, pairs, metric, pairing, positions, batch_size, gate="full", freeze_attention=False
    )
