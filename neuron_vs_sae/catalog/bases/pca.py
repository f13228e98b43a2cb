"""Control: the site's principal components on given prompts."""

from typing import Any

import torch

from neuron_vs_sae.catalog.dictionaries.sites import site_hooks, widths
from neuron_vs_sae.core.basis import Basis, Site
from neuron_vs_sae.core.dictionary import Affine, Dictionary
from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.core.pairs import PromptPairs
from neuron_vs_sae.execution.splice import precision, read


def pca(
    model: Any,
    *,
    prompts: PromptPairs,
    site: str = "hook_mlp_out",
    components: int | None = None,
    layers: str | None = None,
    batch_size: int = 64,
) -> Basis:
    """Components of the activations at all real tokens of clean and corrupt `prompts`, by falling variance.

    `units = x @ V.T` (not centred), `x = units @ V + offset + error`, the offset being the mean's part outside the
    components. Lossless when all are kept (the default); with fewer, what they miss is the error.
    """
    hooks = site_hooks(model, site, layers)
    names = [hook for _, hook in hooks]
    for d in widths(model, names).values():
        if components is not None and not 1 <= components <= d:
            raise InputError(f"components={components}: {site} has {d} dimensions, so 1 to {d} components")
    samples: dict[str, list[torch.Tensor]] = {hook: [] for hook in names}
    for batch in prompts.batches(batch_size):
        for tokens in (batch.clean, batch.corrupt):
            for hook, x in read(model, tokens, batch.length, names).items():
                samples[hook].append(x.flatten(2)[batch.real].double())
    dictionaries: list[Dictionary] = []
    for hook in names:
        x = torch.cat(samples[hook])
        mean = x.mean(0)
        vectors = torch.linalg.eigh((x - mean).T @ (x - mean)).eigenvectors.flip(1).T
        # An eigenvector's sign is arbitrary: the largest coordinate is made positive.
        largest = vectors.gather(1, vectors.abs().argmax(1, keepdim=True))
        v = (vectors * largest.sign())[:components].to(precision(model))
        lossless = components is None or components == len(mean)
        # All components together span the mean too, so nothing is left to add; fewer leave the part outside them.
        outside = torch.zeros_like(mean) if lossless else mean - (mean @ v.T.double()) @ v.double()
        offset = outside.to(precision(model))
        dictionaries.append(
            Affine(lambda x, v=v: x @ v.T, v, offset, some=lambda x, units, v=v: x @ v[units].T, lossless=lossless)
        )
    provenance = {"site": site, "components": components, "fitted_on": prompts.name, "prompts": len(prompts)}
    sites = tuple(Site(layer, hook, hook) for layer, hook in hooks)
    return Basis("pca", sites, tuple(dictionaries), provenance)
