"""SAEs of sae-lens as a basis. Sites come from each SAE's own configuration, never from its name."""

from typing import Any

from neuron_vs_sae.catalog.dictionaries.assembling import from_saes
from neuron_vs_sae.catalog.dictionaries.sources import Source
from neuron_vs_sae.catalog.dictionaries.streaming import Shelf
from neuron_vs_sae.core.basis import Basis


def sae(
    model: Any,
    *,
    source: Source | None = None,
    site: str | None = None,
    layers: str | None = None,
    any_model: bool = False,
    revision: str | None = None,
    shelf: Shelf | None = None,
) -> Basis:
    """Autoencoders at any number of sites.

    `source` is a folder (every sae-lens folder below it), `RELEASE` or `RELEASE/ID` of sae-lens' registry (`*` in an ID
    stands for anything), several of these joined by `+`, a list of them, or loaded `sae_lens.SAE` objects; without one,
    the model's preset has it, at `hook_mlp_out` or `site`. `site` keeps one kind (`hook_mlp_out`), `layers` some layers:
    weights are read of those alone. An SAE trained with a per-token
    normalisation (`layer_norm`, `constant_norm_rescale`) has that token's scale folded into its units; what else the
    normalisation adds is in the error. `any_model=True` accepts SAEs trained on another model (a base model's SAEs
    on its chat version). `revision` pins the hub's branch, tag or commit of a release. With a `shelf` (`Shelf(gib)`) no more
    than fits on it is in memory at a time, and the rest is read again when it is used: the same numbers, slower.
    Raises `InputError` for an SAE whose model, hook or width is not this model's, whose normalisation was not folded,
    whose weights are not finite, or whose decoder is not affine in its units alone.
    """
    return from_saes(model, "sae", source, site, layers, any_model, revision, shelf, transcoders=False)
