"""Attribution patching: the change of each node times the metric's gradient, or with half of what the gradient changes by."""

from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor

from neuron_vs_sae.catalog.attribution._contraction import (
    Activations,
    Sums,
    Term,
    accumulate,
    added,
    as_scores,
    at_sites,
    contract,
    ends,
    members,
    objective,
)
from neuron_vs_sae.core.basis import Basis
from neuron_vs_sae.core.conventions import Pairing, Positions
from neuron_vs_sae.core.errors import InputError, check_choice
from neuron_vs_sae.core.metric import Metric, check_slope_at_clean
from neuron_vs_sae.core.nodes import NodeScores
from neuron_vs_sae.core.pairs import PromptPairs
from neuron_vs_sae.execution.curvature import curvature
from neuron_vs_sae.execution.splice import gradients, read

GradAt = Literal["clean", "corrupt"]
Order = Literal[1, 2]


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
    order: Order = 1,
) -> NodeScores:
    """`(clean - corrupt) . gradient`, summed over the batch's prompts, averaged over pairs.

    `grad_at="clean"` linearises noising (the corrupt value put into the clean run), "corrupt" denoising; compare each
    with exact patching of the same direction. Exact where the model is linear between the two prompts. An error node
    is the dot product of its vector's change with the gradient. Also known as delta x gradient.
    `order=2` adds the second-order term of each site's change, `-/+ 1/2 change . H change` shared among its nodes: the mean of the gradient at
    both ends, if it changes evenly between them. A site's scores then add up to what patching the whole site does wherever the metric is quadratic in it.
    `NodeScores.reliability` is `|first| / (|first| + |second|)`; scores below .8 should not be read alone.
    Cost: two forward passes and one backward, whatever the number of nodes; `order=2`: and one backward through it per site.
    Source: Nanda 2023, "Attribution patching"; error nodes: Marks et al. 2024 (arXiv 2403.19647).
    """
    check_choice("grad_at", grad_at, GradAt)
    check_choice("order", order, Order)
    if grad_at == "clean":
        check_slope_at_clean(metric)
    if grad_at == "corrupt" and pairing == "unpaired":
        raise InputError("grad_at='corrupt' needs the corrupt prompt: use pairing='paired' or grad_at='clean'")

    if order == 2:
        return _second_order(model, basis, pairs, metric, pairing, positions, batch_size, grad_at)

    def terms(batch: PromptPairs) -> list[Term]:
        tokens = batch.clean if grad_at == "clean" else batch.corrupt
        values, slope = gradients(model, tokens, batch.length, basis.hooks, objective(model, metric, pairing, batch))
        clean = values if grad_at == "clean" else read(model, batch.clean, batch.length, basis.hooks)
        return [Term(clean, ends(model, basis, batch, pairing), at_sites(basis, slope))]

    return accumulate(basis, pairs, positions, batch_size, terms, "attribution_patching")


def _second_order(
    model: Any,
    basis: Basis,
    pairs: PromptPairs,
    metric: str | Metric | None,
    pairing: Pairing,
    positions: Positions,
    batch_size: int,
    grad_at: GradAt,
) -> NodeScores:
    firsts: list[Sums] = []
    half = -0.5 if grad_at == "clean" else 0.5

    def terms(batch: PromptPairs) -> list[Term]:
        target, after = objective(model, metric, pairing, batch), ends(model, basis, batch, pairing)
        if grad_at == "clean":
            tokens, clean = batch.clean, None
        else:
            tokens, clean = batch.corrupt, read(model, batch.clean, batch.length, basis.hooks)

        def moves(here: Activations) -> Activations:
            return _moves(basis, here, after) if clean is None else _moves(basis, clean, here)

        values, slope, bent = curvature(model, tokens, batch.length, basis.hooks, target, moves)
        before = values if clean is None else clean
        firsts[:] = added(firsts, contract(basis, Term(before, after, at_sites(basis, slope)), members(batch)))
        corrected = {hook: slope[hook] + half * bent[hook] for hook in slope}
        return [Term(before, after, at_sites(basis, corrected))]

    scores = accumulate(basis, pairs, positions, batch_size, terms, "attribution_patching")
    first = as_scores(basis, firsts, pairs, positions).values.abs()
    second = (scores.values - as_scores(basis, firsts, pairs, positions).values).abs()
    return replace(scores, reliability=torch.where(first + second > 0, first / (first + second), 1.0))


def _moves(basis: Basis, start: Activations, end: Activations | None) -> Activations:
    """By how much each site's activation differs, clean less corrupt (or less what its dictionary writes for units and error at 0)."""
    moves: dict[str, Tensor] = {}
    for site, dictionary in zip(basis.sites, basis.dictionaries, strict=True):
        x = site.view(start[site.writes])
        to = dictionary.at_zero(x).expand_as(x) if end is None else site.view(end[site.writes])
        moves[site.writes] = site.put(moves.get(site.writes, torch.zeros_like(start[site.writes])), x - to)
    return moves
