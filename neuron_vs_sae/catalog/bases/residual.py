"""Coordinates of the residual stream after each block."""

from typing import Any

from neuron_vs_sae.catalog.dictionaries.sites import coordinates
from neuron_vs_sae.core.basis import Basis


def residual(model: Any, *, layers: str | None = None) -> Basis:
    """`hook_resid_post`, `d_model` units per layer."""
    return coordinates(model, "residual", "hook_resid_post", layers)
