"""Coordinates of what the MLP adds to the residual stream."""

from typing import Any

from neuron_vs_sae.catalog.dictionaries.sites import coordinates
from neuron_vs_sae.core.basis import Basis


def mlp_outputs(model: Any, *, layers: str | None = None) -> Basis:
    """`hook_mlp_out`, `d_model` units per layer (after `ln2_post` where the model has one): what feature-circuits calls neurons."""
    return coordinates(model, "mlp_outputs", "hook_mlp_out", layers)
