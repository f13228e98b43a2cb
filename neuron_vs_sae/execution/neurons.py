"""MLP neurons seen from what the MLP writes: a transcoder without an error, whose decoder is `W_out`."""

from collections.abc import Callable
from functools import partial
from typing import Any, final

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import gelu

from neuron_vs_sae.core.dictionary import Dictionary
from neuron_vs_sae.core.unit_wise import UnitWise

# transformer-lens writes GPT-2's GELU out in five passes over memory.
_ACTIVATIONS: dict[Any, Callable[[Tensor], Tensor]] = {
    "gelu_new": partial(gelu, approximate="tanh"),
    "gelu_fast": partial(gelu, approximate="tanh"),
}


@final
class Neurons(Dictionary):
    """Read an MLP's input, write `post @ W_out + b_out`, with no error."""

    lossless = True

    def __init__(self, mlp: Any, dtype: torch.dtype):
        self.mlp, self.dtype = mlp, dtype
        self.width, self.d = mlp.W_out.shape
        self.act = activation(mlp)
        self.gated = hasattr(mlp, "W_gate")

    def unit_wise(self) -> UnitWise | None:
        return None

    def _post(self, y: Tensor, units: Any) -> Tensor:
        mlp = self.mlp
        y = y.to(mlp.W_in.dtype)
        if self.gated:
            return self.act(y @ mlp.W_gate[:, units]) * (y @ mlp.W_in[:, units]) + mlp.b_in[units]
        return self.act(y @ mlp.W_in[:, units] + mlp.b_in[units])

    def encode(self, y: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch {self.width}"]:
        return self._post(y, slice(None)).to(self.dtype)

    def encode_some(self, y: Float[Tensor, "*batch d_in"], units: Int[Tensor, " k"]) -> Float[Tensor, "*batch k"]:
        return self._post(y, units).to(self.dtype)

    def decode(self, units: Float[Tensor, "*batch {self.width}"]) -> Float[Tensor, "*batch {self.d}"]:
        return (units.to(self.mlp.W_out.dtype) @ self.mlp.W_out + self.mlp.b_out).to(self.dtype)

    def at_zero(self, like: Tensor) -> Float[Tensor, " {self.d}"]:
        return self.mlp.b_out.to(self.dtype).to(like)

    def directions(self, units: Int[Tensor, " k"]) -> Float[Tensor, "k {self.d}"]:
        return self.mlp.W_out[units].to(self.dtype)

    def written(self, values: Float[Tensor, "*batch k"], units: Int[Tensor, " k"]) -> Float[Tensor, "*batch {self.d}"]:
        return values @ self.directions(units)

    def pull_back(self, gradient: Float[Tensor, "*batch {self.d}"]) -> Float[Tensor, "*batch {self.width}"]:
        return gradient @ self.mlp.W_out.T.to(self.dtype)

    def pull_back_some(
        self, gradient: Float[Tensor, "n {self.d}"], row: Int[Tensor, " m"], unit: Int[Tensor, " m"]
    ) -> Float[Tensor, " m"]:
        return (gradient[row] * self.directions(unit)).sum(1)

    def reading(
        self, y: Float[Tensor, " d_in"], units: Int[Tensor, " k"]
    ) -> tuple[Float[Tensor, "k d_in"], Float[Tensor, " k"]]:
        """The activation counts as its chord `act(pre) / pre`, and each branch of a gated MLP gets half of the product."""
        mlp = self.mlp
        at = y.to(mlp.W_in.dtype)
        entering, bias = mlp.W_in[:, units].T, mlp.b_in[units]
        if self.gated:
            gating = mlp.W_gate[:, units].T
            pre, up = gating @ at, entering @ at
            chord = self._chord(pre)
            rows, offset = 0.5 * ((chord * up)[:, None] * gating + (chord * pre)[:, None] * entering), bias
        else:
            chord = self._chord(entering @ at + bias)
            rows, offset = chord[:, None] * entering, chord * bias
        return rows.to(self.dtype), offset.to(self.dtype)

    def _chord(self, pre: Float[Tensor, " k"]) -> Float[Tensor, " k"]:
        """`act(pre) / pre`, and its limit at 0."""
        near = torch.where(pre == 0, torch.full_like(pre, 1e-6), pre)
        return self.act(near) / near


def activation(mlp: Any) -> Callable[[Tensor], Tensor]:
    """The MLP's elementwise nonlinearity."""
    return _ACTIVATIONS.get(mlp.cfg.act_fn) or mlp.act_fn


def is_known(mlp: Any) -> bool:
    from transformer_lens.components.mlps.gated_mlp import GatedMLP
    from transformer_lens.components.mlps.mlp import MLP

    return type(mlp) in (MLP, GatedMLP) and not mlp.cfg.is_layer_norm_activation()


def post(mlp: Any, y: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch width"]:
    """The output of the nonlinearity (and gate) of a known MLP."""
    if hasattr(mlp, "W_gate"):
        return activation(mlp)(y @ mlp.W_gate) * (y @ mlp.W_in) + mlp.b_in
    return activation(mlp)(y @ mlp.W_in + mlp.b_in)
