"""Transcoders of sae-lens: read one hook, write another."""

from typing import Any

from neuron_vs_sae.catalog.dictionaries.assembling import from_saes
from neuron_vs_sae.catalog.dictionaries.selection import Selection
from neuron_vs_sae.catalog.dictionaries.sources import Source
from neuron_vs_sae.catalog.dictionaries.streaming import Shelf
from neuron_vs_sae.core.basis import Basis


def transcoder(
    model: Any,
    source: Source | None = None,
    *,
    select: Selection = Selection(),
    shelf: Shelf | None = None,
) -> Basis:
    """Units are read from `hook_name` (`ln2.hook_normalized`, `mlp.hook_in`) and written to `hook_name_out` (`hook_mlp_out`).

    The error node lives at the written site: what the MLP wrote minus what the transcoder predicts. A skip connection
    is no function of the units, so it is part of the error. Options and errors as for `sae`.
    """
    return from_saes(model, "transcoder", source, select, shelf, transcoders=True)
