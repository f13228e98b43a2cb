"""Integrated gradients over activations: the gradient averaged along the site's own path, one site at a time."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from neuron_vs_sae.attribution._contraction import Pairing, Positions, Term, accumulate, at_sites, ends, objective
from neuron_vs_sae.attribution._path import Schedule, points
from neuron_vs_sae.basis import Basis, Site
from neuron_vs_sae.metric import Metric, check_slope_at_clean
from neuron_vs_sae.nodes import NodeScores
from neuron_vs_sae.pairs import PromptPairs
from neuron_vs_sae.splice import Edit, gradients, read


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
    Cost: 2 forward passes, and per site `steps` forward and backward passes.
    Source: Marks et al. 2024 (arXiv 2403.19647), left schedule and 10 steps as there.
    """

    alphas = points(steps, schedule)
    if alphas == [0.0]:
        check_slope_at_clean(metric)

    def terms(batch: PromptPairs) -> list[Term]:
        target = objective(model, metric, pairing, batch)
        clean = read(model, batch.clean, batch.length, basis.hooks)
        corrupt = ends(model, basis, batch, pairing)
        slopes: list[Tensor] = []
        found: dict[str, Tensor] = {}  # bases that share a site and an end share the path
        for s, (site, start) in enumerate(zip(basis.sites, at_sites(basis, clean), strict=True)):
            if corrupt is None or site.name not in found:
                end = basis.dictionaries[s].at_zero(start) if corrupt is None else site.view(corrupt[site.writes])
                found[site.name] = torch.zeros_like(start)
                for alpha in alphas:
                    edits = [_written(site, (1 - alpha) * start + alpha * end)]
                    _, slope = gradients(model, batch.clean, batch.length, [site.writes], target, edits)
                    found[site.name] = found[site.name] + site.view(slope[site.writes]) / steps
            slopes.append(found[site.name])
        return [Term(clean, corrupt, tuple(slopes))]

    return accumulate(basis, pairs, positions, batch_size, terms, "integrated_gradients")


def _written(site: Site, value: Float[Tensor, "batch pos d"]) -> Edit:
    return site.writes, lambda activation: site.put(activation, value)
