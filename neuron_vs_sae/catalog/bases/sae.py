"""SAEs of sae-lens as a basis. Sites come from each SAE's own configuration, never from its name."""

from typing import Any

from neuron_vs_sae.catalog.dictionaries.assembling import from_saes
from neuron_vs_sae.catalog.dictionaries.selection import Selection
from neuron_vs_sae.catalog.dictionaries.sources import Source
from neuron_vs_sae.catalog.dictionaries.streaming import Shelf
from neuron_vs_sae.core.basis import Basis


def sae(
    model: Any,
    source: Source | None = None,
    *,
    select: Selection = Selection(),
    shelf: Shelf | None = None,
) -> Basis:
    """Autoencoders at any number of sites.

    `source` is a folder (every sae-lens folder below it), `RELEASE` or `RELEASE/ID` of sae-lens' registry (`*` in an ID
    stands for anything), several of these joined by `+`, a list of them, or loaded `sae_lens.SAE` objects; without one,
    the model's preset has it, at `hook_mlp_out` or the selected site. `select` keeps some of them (`Selection(site=...)`).
    An SAE trained with a per-token normalisation (`layer_norm`, `constant_norm_rescale`) has that token's scale folded into
    its units; what else the normalisation adds is in the error. Bases made with one `shelf` (`Shelf()`) share the SAEs that
    they have in common; `Shelf(gib)` keeps at most that many GiB in memory and reads the rest again when it is used: the same
    numbers, slower.
    Raises `InputError` for an SAE whose model, hook or width is not this model's, whose normalisation was not folded,
    whose weights are not finite, or whose decoder is not affine in its units alone.
    """
    return from_saes(model, "sae", source, select, shelf, transcoders=False)
