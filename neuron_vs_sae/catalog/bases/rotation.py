"""Control: the site's coordinates in a random orthonormal basis."""

from typing import Any

import torch

from neuron_vs_sae.catalog.dictionaries.sites import site_hooks, widths
from neuron_vs_sae.core.basis import Basis, Site
from neuron_vs_sae.core.dictionary import Affine, Dictionary
from neuron_vs_sae.execution.splice import precision


def rotation(model: Any, *, site: str = "hook_mlp_out", seed: int = 0, layers: str | None = None) -> Basis:
    """`units = x @ Q.T`, `x = units @ Q`, Q orthogonal (Haar), drawn per layer from `seed`. Lossless.

    Whatever sparsity remains here is due to the site, not to the basis.
    """
    hooks = site_hooks(model, site, layers)
    like = next(model.parameters())
    width = widths(model, [hook for _, hook in hooks])
    dictionaries: list[Dictionary] = []
    for layer, hook in hooks:
        d = width[hook]
        generator = torch.Generator().manual_seed(1000 * seed + layer)
        q, r = torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=torch.float64))
        q = (q * r.diagonal().sign()).T.to(like.device, precision(model))
        offset = torch.zeros(d, device=like.device, dtype=precision(model))
        dictionaries.append(
            Affine(lambda x, q=q: x @ q.T, q, offset, some=lambda x, units, q=q: x @ q[units].T, lossless=True)
        )
    sites = tuple(Site(layer, hook, hook) for layer, hook in hooks)
    return Basis("rotation", sites, tuple(dictionaries), {"site": site, "seed": seed})
