"""Coordinates of the attention heads' mixed values."""

from typing import Any

from neuron_vs_sae.catalog.dictionaries.sites import coordinates
from neuron_vs_sae.core.basis import Basis


def attention(model: Any, *, layers: str | None = None) -> Basis:
    """`attn.hook_z`, heads flattened: `n_heads * d_head` units per layer, grouped-query attention included."""
    return coordinates(model, "attention", "attn.hook_z", layers)
