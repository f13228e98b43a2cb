"""RelP and its presets: attribution patching with the gradient of the replacement model (`replacement.py`)."""

from typing import Any

from neuron_vs_sae.catalog.attribution._contraction import Term, accumulate, at_sites, ends, objective
from neuron_vs_sae.core.basis import Basis
from neuron_vs_sae.core.conventions import Pairing, Positions
from neuron_vs_sae.core.metric import Metric, check_slope_at_clean
from neuron_vs_sae.core.nodes import NodeScores
from neuron_vs_sae.core.pairs import PromptPairs
from neuron_vs_sae.execution.replacement import Rules, rules
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
    return _scores(model, basis, pairs, metric, pairing, positions, batch_size, rules(model, gate="half"))


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
    frozen = rules(model, gate="half", freeze_attention=True)
    return _scores(model, basis, pairs, metric, pairing, positions, batch_size, frozen)


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
    """RelP without the half rule: each branch of a gated MLP gets the whole gradient.

    A gated product is then counted twice. The same as `relp` where MLPs have no gate.
    Source: Arora et al. 2026 (arXiv 2601.22594), section 3 and its ablations; otherwise as `relp`.
    """
    return _scores(model, basis, pairs, metric, pairing, positions, batch_size, rules(model, gate="full"))


def relp_no_gate(
    model: Any,
    basis: Basis,
    pairs: PromptPairs,
    metric: str | Metric | None = None,
    *,
    pairing: Pairing = "paired",
    positions: Positions = "separate",
    batch_size: int = 64,
) -> NodeScores:
    """RelP with the gate's activation constant: the up branch gets the whole gradient of a gated MLP.

    The same as `relp` where MLPs have no gate.
    Source: Arora et al. 2026 (arXiv 2601.22594), section 3 and its ablations; otherwise as `relp`.
    """
    return _scores(model, basis, pairs, metric, pairing, positions, batch_size, rules(model, gate="up_only"))


def _scores(
    model: Any,
    basis: Basis,
    pairs: PromptPairs,
    metric: str | Metric | None,
    pairing: Pairing,
    positions: Positions,
    batch_size: int,
    replaced: Rules,
) -> NodeScores:
    """RelP with the given rules."""
    check_slope_at_clean(metric)

    def terms(batch: PromptPairs) -> list[Term]:
        target = objective(model, metric, pairing, batch)
        clean, slope = gradients(
            model, batch.clean, batch.length, basis.hooks, target, replaced.edits, replaced.observers
        )
        return [Term(clean, ends(model, basis, batch, pairing), at_sites(basis, slope))]

    return accumulate(basis, pairs, positions, batch_size, terms, "relp")
