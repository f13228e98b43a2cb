"""Transcoders of sae-lens: read one hook, write another."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from neuron_vs_sae.bases.sae import from_saes, load
from neuron_vs_sae.basis import Basis
from neuron_vs_sae.presets import source_for


def transcoder(
    model: Any,
    *,
    source: str | Path | torch.nn.Module | Sequence[Any] | None = None,
    site: str | None = None,
    layers: str | None = None,
    any_model: bool = False,
) -> Basis:
    """Units are read from `hook_name` (`ln2.hook_normalized`) and written to `hook_name_out` (`hook_mlp_out`).

    The error node lives at the written site: what the MLP wrote minus what the transcoder predicts. A skip connection
    is no function of the units, so it is part of the error. Options and errors as for `sae`.
    """
    if source is None:
        source, site = source_for(model.cfg.model_name, "transcoders", site)
    return from_saes(model, "transcoder", load(source), site, layers, any_model, transcoders=True)
