"""Encoders whose units do not depend on each other, as weights and thresholds, so that work is done for active units only."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Active:
    """The units that are not zero: unit `unit[i]` of row `row[i]` has the value `value[i]`. Rows are in ascending order."""

    row: Int[Tensor, " m"]
    unit: Int[Tensor, " m"]
    value: Float[Tensor, " m"]


@dataclass(frozen=True, eq=False)
class UnitWise:
    """A ReLU, JumpReLU or gated encoder.

    With `z, scale = normalised(y)` and `pre = z @ columns + bias`, unit i is active where `pre[i] > threshold[i]`, and its
    value is then `pre[i]`, times `scale` where there is one. A gated encoder's `pre` is its gate's, and its value
    `max(gain[i] * (pre[i] - bias[i]) + shift[i], 0)` (Rajamanoharan et al. 2024, arXiv 2404.16014, section 3.2).
    Thresholds are at least 0: ReLU's is 0, JumpReLU's `max(theta, 0)`, the gate's 0.
    """

    normalised: Callable[[Tensor], tuple[Tensor, Tensor | None]]
    columns: Float[Tensor, "d_in width"]
    bias: Float[Tensor, " width"]
    threshold: Float[Tensor, " width"]
    gain: Float[Tensor, " width"] | None = None
    shift: Float[Tensor, " width"] | None = None

    def active(self, y: Float[Tensor, "n d_in"]) -> Active:
        """The active units of every row, by row and then by unit."""
        z, scale = self.normalised(y)
        pre = torch.addmm(self.bias, z, self.columns)
        row, unit = (pre > self.threshold).nonzero(as_tuple=True)
        value = pre[row, unit]
        if self.gain is not None and self.shift is not None:
            value = (self.gain[unit] * (value - self.bias[unit]) + self.shift[unit]).relu()
        if scale is not None:
            value = value * scale.expand(len(y), 1)[row, 0]
        return Active(row, unit, value)
