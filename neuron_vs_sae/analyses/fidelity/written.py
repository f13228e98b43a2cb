"""Neurons seen from what their MLP writes, so that they stand beside dictionaries of the MLP's output at one site."""

from dataclasses import replace
from typing import Any

import torch

from neuron_vs_sae.core.basis import Basis, Site
from neuron_vs_sae.core.dictionary import Affine, Dictionary
from neuron_vs_sae.execution.passes import norms_last
from neuron_vs_sae.execution.splice import home, precision


def at_mlp_out(model: Any, basis: Basis) -> Basis:
    """The same basis with units of `mlp.hook_post` writing to `hook_mlp_out` by rows of `W_out`: the same units and values.

    Where the block normalises what the MLP writes (Gemma 2, OLMo 2) that is no matrix, and such sites stay where they are.
    """
    seen = [_seen(model, site, d) for site, d in zip(basis.sites, basis.dictionaries, strict=True)]
    sites, dictionaries = zip(*seen, strict=True)
    return replace(basis, sites=sites, dictionaries=dictionaries)


def _seen(model: Any, site: Site, dictionary: Dictionary) -> tuple[Site, Dictionary]:
    if (
        site.kind != "mlp.hook_post"
        or norms_last(model)
        or getattr(model.blocks[site.layer], "ln2_post", None) is not None
    ):
        return site, dictionary
    mlp, wide = model.blocks[site.layer].mlp, precision(model)
    matrix, bias = mlp.W_out.detach().to(home(model), wide), mlp.b_out.detach().to(home(model), wide)
    every = dictionary.directions(torch.arange(dictionary.width, device=home(model))).to(wide)
    written = Affine(
        dictionary.encode,
        every @ matrix,
        dictionary.at_zero(bias) @ matrix + bias,
        some=dictionary.encode_some,
        lossless=dictionary.lossless,
    )
    return Site(site.layer, site.reads, f"blocks.{site.layer}.hook_mlp_out"), written
