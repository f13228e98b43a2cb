"""MLP neurons: what leaves the nonlinearity (and gate) and enters the output matrix."""

from typing import Any

from neuron_vs_sae.bases._sites import coordinates
from neuron_vs_sae.basis import Basis


def mlp_neurons(model: Any, *, layers: str | None = None) -> Basis:
    """MLP neurons, `mlp.hook_post`: `d_mlp` units per layer, the neurons of Arora et al. 2026.

    Seen from `hook_mlp_out`, a transcoder without an error, whose decoder is `W_out`. Not `mlp_outputs`, which other work
    also calls neurons.
    """
    return coordinates(model, "mlp_neurons", "mlp.hook_post", layers)
