"""Attribution patching: the change of each node times the metric's gradient."""

from typing import Any, Literal

from neuron_vs_sae.catalog.attribution._contraction import Term, accumulate, at_sites, ends, objective
from neuron_vs_sae.core.basis import Basis
from neuron_vs_sae.core.conventions import Pairing, Positions
from neuron_vs_sae.core.errors import InputError, check_choice
from neuron_vs_sae.core.metric import Metric, check_slope_at_clean
from neuron_vs_sae.core.nodes import NodeScores
from neuron_vs_sae.core.pairs import PromptPairs
from neuron_vs_sae.execution.splice import gradients, read

GradAt = Literal["clean", "corrupt"]


def attribution_patching(
    model: Any,
    basis: Basis,
    pairs: PromptPairs,
    metric: str | Metric | None = None,
    *,
    pairing: Pairing = "paired",
    positions: Positions = "separate",
    batch_size: int = 64,
    grad_at: GradAt = "clean",
) -> NodeScores:
    """`(clean - corrupt) . gradient`, summed over the batch's prompts, averaged over pairs.

    `grad_at="clean"` linearises noising (the corrupt value put into the clean run), "corrupt" denoising; compare each
    with exact patching of the same direction. Exact where the model is linear between the two prompts. An error node
    is the dot product of its vector's change with the gradient. Also known as delta x gradient.
    Cost: two forward passes and one backward, whatever the number of nodes.
    Source: Nanda 2023, "Attribution patching"; error nodes: Marks et al. 2024 (arXiv 2403.19647).
    """
    check_choice("grad_at", grad_at, GradAt)
    if grad_at == "clean":
        check_slope_at_clean(metric)
    if grad_at == "corrupt" and pairing == "unpaired":
        raise InputError("grad_at='corrupt' needs the corrupt prompt: use pairing='paired' or grad_at='clean'")

    def terms(batch: PromptPairs) -> list[Term]:
        tokens = batch.clean if grad_at == "clean" else batch.corrupt
        values, slope = gradients(model, tokens, batch.length, basis.hooks, objective(model, metric, pairing, batch))
        clean = values if grad_at == "clean" else read(model, batch.clean, batch.length, basis.hooks)
        return [Term(clean, ends(model, basis, batch, pairing), at_sites(basis, slope))]

    return accumulate(basis, pairs, positions, batch_size, terms, "attribution_patching")
