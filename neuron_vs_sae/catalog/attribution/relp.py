"""RelP: attribution patching with the gradient of the replacement model (`replacement.py`)."""

from typing import Any

from neuron_vs_sae.catalog.attribution._contraction import Term, accumulate, at_sites, ends, objective
from neuron_vs_sae.core.basis import Basis
from neuron_vs_sae.core.conventions import Pairing, Positions
from neuron_vs_sae.core.metric import Metric, check_slope_at_clean
from neuron_vs_sae.core.nodes import NodeScores
from neuron_vs_sae.core.pairs import PromptPairs
from neuron_vs_sae.execution import replacement
from neuron_vs_sae.execution.splice import gradients


def relp(
    model: Any,
    basis: Basis,
    pairs: PromptPairs,
    metric: str | Metric | None = None,
    *,
    pairing: Pairing = "paired",
    positions: Positions = "separate",
    batch_size: int = 64,
) -> NodeScores:
    """`(clean - corrupt) . replacement gradient at clean`: norm, identity and half rules; attention differentiated.

    Cost: two forward passes and one backward, whatever the number of nodes.
    Source: Jafari et al. 2025 (arXiv 2508.21258), whose gradient is at the corrupt prompt; at clean, as in the released
    code of Arora et al. 2026 (arXiv 2601.22594). `relp_ah` is that paper's text.
    """
    return replacement_scores(
        model, basis, pairs, metric, pairing, positions, batch_size, gate="half", freeze_attention=False
    )


def replacement_scores(
    model: Any,
    basis: Basis,
    pairs: PromptPairs,
    metric: str | Metric | None,
    pairing: Pairing,
    positions: Positions,
    batch_size: int,
    *,
    gate: replacement.Gate,
    freeze_attention: bool,
) -> NodeScores:
    """RelP with the given rules; the presets are methods of their own."""
    check_slope_at_clean(metric)
    rules = replacement.rules(model, gate=gate, freeze_attention=freeze_attention)

    def terms(batch: PromptPairs) -> list[Term]:
        target = objective(model, metric, pairing, batch)
        clean, slope = gradients(model, batch.clean, batch.length, basis.hooks, target, rules.edits, rules.observers)
        return [Term(clean, ends(model, basis, batch, pairing), at_sites(basis, slope))]

    return accumulate(basis, pairs, positions, batch_size, terms, "relp")
