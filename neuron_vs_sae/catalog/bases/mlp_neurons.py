"""MLP neurons: what leaves the nonlinearity (and gate) and enters the output matrix."""

from typing import Any

from neuron_vs_sae.catalog.dictionaries.sites import coordinates
from neuron_vs_sae.core.basis import Basis
from neuron_vs_sae.core.errors import InputError


def mlp_neurons(model: Any, *, layers: str | None = None) -> Basis:
    """MLP neurons, `mlp.hook_post`: `d_mlp` units per layer, the neurons of Arora et al. 2026.

    Seen from `hook_mlp_out`, a transcoder without an error, whose decoder is `W_out`. Not `mlp_outputs`, which other work
    also calls neurons. Raises `InputError` for a mixture of experts, whose neurons are each expert's own.
    """
    if getattr(model.cfg, "num_experts", None):
        raise InputError(
            f"model '{model.cfg.model_name}' is a mixture of experts: which neurons run differs from token to token, so "
            "they are no basis of a site. Use mlp_outputs"
        )
    return coordinates(model, "mlp_neurons", "mlp.hook_post", layers)
