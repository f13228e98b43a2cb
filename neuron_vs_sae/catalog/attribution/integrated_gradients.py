"""Integrated gradients over activations: the gradient averaged along the site's own path, one site at a time."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from neuron_vs_sae.catalog.attribution._contraction import Term, accumulate, at_sites, ends, objective
from neuron_vs_sae.catalog.attribution._path import Schedule, between, copies, points, together
from neuron_vs_sae.core.basis import Basis, Site
from neuron_vs_sae.core.conventions import Pairing, Positions
from neuron_vs_sae.core.metric import Metric, check_slope_at_clean
from neuron_vs_sae.core.nodes import NodeScores
from neuron_vs_sae.core.pairs import PromptPairs
from neuron_vs_sae.execution.splice import Edit, Start, gradients, read, starts_at_blocks


def integrated_gradients(
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
    """`(clean - corrupt) . mean gradient` on the straight path of one site's units and error from clean to corrupt.

    All units, the error and all positions of a site move together; everything else runs live. Because `decode` is
    affine, moving units and error jointly moves the activation on a straight line, so the path (and the gradient at the
    site) is the same in every basis. The scores of one site sum to `metric - metric with the whole site at its corrupt
    value`, with an error that falls as 1 / steps (left, right) or 1 / steps ** 2 (midpoint). One left step is
    attribution patching at clean.
    Cost: 2 forward passes, and per site `steps` forward and backward passes from the site's block on, several at a time where
    a batch of pairs has room for them.
    Source: Marks et al. 2024 (arXiv 2403.19647), left schedule and 10 steps as there.
    """

    alphas = points(steps, schedule)
    if alphas == [0.0]:
        check_slope_at_clean(metric)

    def terms(batch: PromptPairs) -> list[Term]:
        below = _below(model, basis)
        clean = read(model, batch.clean, batch.length, [*basis.hooks, *set(below.values())])
        corrupt = ends(model, basis, batch, pairing)
        slopes: list[Tensor] = []
        mean_slopes: dict[str, Tensor] = {}  # bases that share a site and an end share the path
        for s, (site, start) in enumerate(zip(basis.sites, at_sites(basis, clean), strict=True)):
            if corrupt is None or site.name not in mean_slopes:
                end = basis.dictionaries[s].at_zero(start) if corrupt is None else site.view(corrupt[site.writes])
                mean_slopes[site.name] = torch.zeros_like(start)
                for chunk in together(alphas, len(batch), batch_size):
                    rows = copies(batch, len(chunk))
                    hook = below.get(site.name)
                    resid = None if hook is None else Start(site.layer, torch.cat([clean[hook]] * len(chunk)))
                    edits = [_written(site, between(start, end, chunk))]
                    target = objective(model, metric, pairing, rows)
                    _, slope = gradients(model, rows.clean, rows.length, [site.writes], target, edits, start=resid)
                    parts = site.view(slope[site.writes]).unflatten(0, (len(chunk), -1))
                    mean_slopes[site.name] = mean_slopes[site.name] + parts.sum(0) / steps
            slopes.append(mean_slopes[site.name])
        return [Term(clean, corrupt, tuple(slopes))]

    return accumulate(basis, pairs, positions, batch_size, terms, "integrated_gradients")


def _below(model: Any, basis: Basis) -> dict[str, str]:
    """For each site the hook at which its block begins, where the blocks below it need not be run again."""
    if not starts_at_blocks(model):
        return {}
    blocks = {site.name: f"blocks.{site.layer}." for site in basis.sites}
    return {
        site.name: f"{blocks[site.name]}hook_resid_pre"
        for site in basis.sites
        if site.writes.startswith(blocks[site.name])
    }


def _written(site: Site, value: Float[Tensor, "batch pos d"]) -> Edit:
    return site.writes, lambda activation: site.put(activation, value)
