"""Encoders whose units do not look at each other, as numbers: so that only the units that can be active are worked on."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

# What rounding may add to a pre-activation, as a share of the numbers that it is summed from.
_ROUNDING = 1e-5


@dataclass(frozen=True, eq=False)
class Active:
    """The units that are not zero: unit `unit[i]` of row `row[i]` has the value `value[i]`. Rows grow."""

    row: Int[Tensor, " m"]
    unit: Int[Tensor, " m"]
    value: Float[Tensor, " m"]


@dataclass(frozen=True, eq=False)
class UnitWise:
    """A ReLU, JumpReLU or gated encoder.

    With `z, scale = normalised(y)` and `pre = z @ rows.T + bias`, unit i is active where `pre[i] > threshold[i]`, and its
    value is then `pre[i]`, times `scale` where there is one. A gated encoder's `pre` is its gate's, and its value
    `max(gain[i] * (pre[i] - bias[i]) + shift[i], 0)` (Rajamanoharan et al. 2024, arXiv 2404.16014, section 3.2).
    Thresholds are at least 0: ReLU's is 0, JumpReLU's `max(theta, 0)`, the gate's 0.
    """

    normalised: Callable[[Tensor], tuple[Tensor, Tensor | None]]
    rows: Float[Tensor, "width d_in"]
    bias: Float[Tensor, " width"]
    threshold: Float[Tensor, " width"]
    gain: Float[Tensor, " width"] | None = None
    shift: Float[Tensor, " width"] | None = None

    @cached_property
    def norms(self) -> Float[Tensor, " width"]:
        """The length of every unit's encoder vector."""
        return self.rows.norm(dim=1)

    def pre(self, z: Float[Tensor, "n d_in"]) -> Float[Tensor, "n width"]:
        """Pre-activations of the encoder's own input, what `normalised` gives."""
        return torch.addmm(self.bias, z, self.rows.T)

    def active(self, z: Float[Tensor, "n d_in"]) -> Active:
        """The active units of every row, by row and then by unit; without `scale`."""
        pre = self.pre(z)
        row, unit = (pre > self.threshold).nonzero(as_tuple=True)
        return Active(row, unit, self._magnitude(pre[row, unit], unit))

    def values(self, z: Float[Tensor, "n d_in"], units: Int[Tensor, " k"]) -> Float[Tensor, "n k"]:
        """Some units of every row, 0 where they are not active; without `scale`."""
        pre = torch.addmm(self.bias[units], z, self.rows[units].T)
        return torch.where(pre > self.threshold[units], self._magnitude(pre, units), 0.0)

    def can_fire(
        self, pre: Float[Tensor, " width"], z: Float[Tensor, " d_in"], change: Float[Tensor, ""]
    ) -> Bool[Tensor, " width"]:
        """Which units may be active on some input no further than `change` (L2) from `z`, whose pre-activations are `pre`.

        A pre-activation moves by at most its encoder vector's length times the change (Cauchy-Schwarz), and by rounding.
        """
        rounding = _ROUNDING * (self.norms * (z.norm() + change) + self.bias.abs())
        return pre + self.norms * change + rounding > self.threshold

    def _magnitude(self, pre: Float[Tensor, "*n"], units: Int[Tensor, " k"]) -> Float[Tensor, "*n"]:
        """The value of units that are active."""
        if self.gain is None or self.shift is None:
            return pre
        return (self.gain[units] * (pre - self.bias[units]) + self.shift[units]).relu()
