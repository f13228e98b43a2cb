"""What a dictionary is: it writes the activation at a site as `decode(units) + error`, with an affine `decode`.

The error is computed here and nowhere else (`split`), so no dictionary can define its own. `Dictionary` is an interface
without a body: every class that implements it is final and implements all of it, so that nothing falls back to a slower
or a different path without saying so.
"""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from neuron_vs_sae.core.unit_wise import UnitWise

Encoder = Callable[[Tensor], Tensor]
"""`y [*batch, d_in] -> units [*batch, width]`."""
EncoderOfSome = Callable[[Tensor, Tensor], Tensor]
"""`(y [*batch, d_in], units [k]) -> those units [*batch, k]`."""
Rows = Callable[[Tensor, Tensor], Tensor]
"""`(y [d_in], units [k]) -> [k, d_in]`: the slope of each unit at `y`, as `Dictionary.reading` gives it."""


class Dictionary(ABC):
    """Writes the activation `x` at one site as `decode(encode(y)) + error`.

    `y` is the activation at `site.reads`, `x` the one at `site.writes`; for an autoencoder they are the same.
    `decode` is affine and a function of `units` alone: nothing is remembered between calls. Tensors come in the
    precision that scores are computed in (float32, or float64 for a float64 model) and leave in it.
    """

    width: int
    """Units."""
    d: int
    """Dimensions of `x`."""
    lossless: bool
    """`decode(encode(x))` is x up to rounding: what is left over is never a node."""

    @abstractmethod
    def unit_wise(self) -> UnitWise | None:
        """The encoder as numbers, equal to `encode` up to rounding, where it is ReLU, JumpReLU or gated."""

    @abstractmethod
    def encode(self, y: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch {self.width}"]:
        """The value of every unit."""

    @abstractmethod
    def encode_some(self, y: Float[Tensor, "*batch d_in"], units: Int[Tensor, " k"]) -> Float[Tensor, "*batch k"]:
        """`encode(y)` at `units`: at the cost of those where units do not depend on each other, else of all."""

    @abstractmethod
    def decode(self, units: Float[Tensor, "*batch {self.width}"]) -> Float[Tensor, "*batch {self.d}"]:
        """What units of these values write, offset included."""

    @abstractmethod
    def at_zero(self, like: Tensor) -> Float[Tensor, " {self.d}"]:
        """`decode(0)`, what is written when every unit is zero, on the device of `like` and in its dtype."""

    @abstractmethod
    def directions(self, units: Int[Tensor, " k"]) -> Float[Tensor, "k {self.d}"]:
        """What one more of each unit adds to the activation: rows of the decoder."""

    @abstractmethod
    def written(self, values: Float[Tensor, "*batch k"], units: Int[Tensor, " k"]) -> Float[Tensor, "*batch {self.d}"]:
        """What these units at these values add to the activation: `values @ directions(units)`."""

    @abstractmethod
    def pull_back(self, gradient: Float[Tensor, "*batch {self.d}"]) -> Float[Tensor, "*batch {self.width}"]:
        """The gradient with respect to the units, given the one at the site: `gradient @ decoder.T`."""

    @abstractmethod
    def pull_back_some(
        self, gradient: Float[Tensor, "n {self.d}"], row: Int[Tensor, " m"], unit: Int[Tensor, " m"]
    ) -> Float[Tensor, " m"]:
        """`pull_back(gradient)[row, unit]`: at the cost of those entries where the decoder is a matrix."""

    @abstractmethod
    def reading(
        self, y: Float[Tensor, " d_in"], units: Int[Tensor, " k"]
    ) -> tuple[Float[Tensor, "k d_in"], Float[Tensor, " k"]]:
        """(rows, offset) with which these units read one token: `encode(y)[units] == rows @ y + offset` at this `y`.

        `rows` are the units' slopes with everything that chooses or rescales held constant at its value at `y`: which
        units are active (ReLU, JumpReLU, TopK, gates), and the scale that a normalisation gives the token. A unit that is
        not active reads nothing: its row and its offset are 0. The nonlinearity of an MLP neuron counts as its chord, as in
        RelP. Both depend on `y`, so there is one call per token.
        """


def split(
    dictionary: Dictionary, y: Float[Tensor, "batch pos d_in"], x: Float[Tensor, "batch pos d"]
) -> tuple[Float[Tensor, "batch pos width"], Float[Tensor, "batch pos d"]]:
    """(units, error) of the activation `x`, read from `y`. The only place where an error is computed."""
    units = dictionary.encode(y)
    return units, x - dictionary.decode(units)


@final
class Coordinates(Dictionary):
    """The activation's own coordinates: unit i is x[i]. The error is bitwise zero."""

    lossless = True

    def __init__(self, d: int, dtype: torch.dtype = torch.float32):
        self.width = self.d = d
        self.dtype = dtype

    def unit_wise(self) -> UnitWise | None:
        return None

    def encode(self, y: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch {self.width}"]:
        return y

    def encode_some(self, y: Float[Tensor, "*batch d_in"], units: Int[Tensor, " k"]) -> Float[Tensor, "*batch k"]:
        return y[..., units]

    def decode(self, units: Float[Tensor, "*batch {self.width}"]) -> Float[Tensor, "*batch {self.d}"]:
        return units

    def at_zero(self, like: Tensor) -> Float[Tensor, " {self.d}"]:
        return torch.zeros(self.d).to(like)

    def directions(self, units: Int[Tensor, " k"]) -> Float[Tensor, "k {self.d}"]:
        return torch.nn.functional.one_hot(units, self.d).to(self.dtype)

    def written(self, values: Float[Tensor, "*batch k"], units: Int[Tensor, " k"]) -> Float[Tensor, "*batch {self.d}"]:
        return values.new_zeros(*values.shape[:-1], self.d).index_add_(-1, units, values)

    def pull_back(self, gradient: Float[Tensor, "*batch {self.d}"]) -> Float[Tensor, "*batch {self.width}"]:
        return gradient

    def pull_back_some(
        self, gradient: Float[Tensor, "n {self.d}"], row: Int[Tensor, " m"], unit: Int[Tensor, " m"]
    ) -> Float[Tensor, " m"]:
        return gradient[row, unit]

    def reading(
        self, y: Float[Tensor, " d_in"], units: Int[Tensor, " k"]
    ) -> tuple[Float[Tensor, "k d_in"], Float[Tensor, " k"]]:
        return self.directions(units).to(y), y.new_zeros(len(units))


@final
class Affine(Dictionary):
    """Any encoder with a matrix for a decoder: `decode(units) = units @ decoder + offset`.

    `some(y, units)` encodes those units alone, for encoders in which units do not depend on each other. `rows(y, units)` are
    the slopes of `Dictionary.reading`; without it they are `encoder`'s gradient, which is right for encoders that are
    linear once it is known which units are active (`pre * (pre > threshold)`), and differentiable.
    """

    def __init__(
        self,
        encoder: Encoder,
        decoder: Float[Tensor, "width d"],
        offset: Float[Tensor, " d"],
        *,
        some: EncoderOfSome | None = None,
        rows: Rows | None = None,
        unit_wise: UnitWise | None = None,
        lossless: bool = False,
    ):
        self.encoder = encoder
        self._unit_wise = unit_wise
        self.some = some
        self.rows = rows
        self.decoder = decoder
        self.offset = offset
        self.lossless = lossless
        self.width, self.d = decoder.shape

    def unit_wise(self) -> UnitWise | None:
        return self._unit_wise

    def encode(self, y: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch {self.width}"]:
        return self.encoder(y)

    def encode_some(self, y: Float[Tensor, "*batch d_in"], units: Int[Tensor, " k"]) -> Float[Tensor, "*batch k"]:
        return self.encoder(y)[..., units] if self.some is None else self.some(y, units)

    def decode(self, units: Float[Tensor, "*batch {self.width}"]) -> Float[Tensor, "*batch {self.d}"]:
        return units @ self.decoder + self.offset

    def at_zero(self, like: Tensor) -> Float[Tensor, " {self.d}"]:
        return self.offset.to(like)

    def directions(self, units: Int[Tensor, " k"]) -> Float[Tensor, "k {self.d}"]:
        return self.decoder[units]

    def written(self, values: Float[Tensor, "*batch k"], units: Int[Tensor, " k"]) -> Float[Tensor, "*batch {self.d}"]:
        return values @ self.decoder[units]

    def pull_back(self, gradient: Float[Tensor, "*batch {self.d}"]) -> Float[Tensor, "*batch {self.width}"]:
        return gradient @ self.decoder.T

    def pull_back_some(
        self, gradient: Float[Tensor, "n {self.d}"], row: Int[Tensor, " m"], unit: Int[Tensor, " m"]
    ) -> Float[Tensor, " m"]:
        # Unit by unit, so that each decoder row is read once, and the gradients stay in the processor's cache.
        order = unit.argsort()
        starts = torch.cat([unit.new_zeros(1), unit.bincount(minlength=self.width).cumsum(0)])
        entries, size = gradient.new_zeros(len(unit)), (self.width, len(gradient))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta", UserWarning)
            wanted = torch.sparse_csr_tensor(
                starts, row[order], torch.zeros_like(entries), size, check_invariants=False
            )
        entries[order] = torch.sparse.sampled_addmm(wanted, self.decoder, gradient.T, beta=0.0).values()
        return entries

    def reading(
        self, y: Float[Tensor, " d_in"], units: Int[Tensor, " k"]
    ) -> tuple[Float[Tensor, "k d_in"], Float[Tensor, " k"]]:
        def values(y: Tensor) -> Tensor:
            return self.encode_some(y[None], units)[0]  # encoders may insist on a batch

        rows = slopes(values, y) if self.rows is None else self.rows(y, units)
        return rows, values(y) - rows @ y


@final
class Some(Dictionary):
    """Some units of a dictionary: what all its others write is error, so its mean (or value) is never taken apart."""

    lossless = False

    def __init__(self, whole: Dictionary, units: Int[Tensor, " k"], like: Tensor):
        self.whole, self.units = whole, units
        self.rows = whole.directions(units)
        self.offset = whole.at_zero(like)
        self.width, self.d = self.rows.shape

    def unit_wise(self) -> UnitWise | None:
        return None

    def encode(self, y: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch {self.width}"]:
        return self.whole.encode_some(y, self.units)

    def encode_some(self, y: Float[Tensor, "*batch d_in"], units: Int[Tensor, " k"]) -> Float[Tensor, "*batch k"]:
        return self.whole.encode_some(y, self.units[units])

    def decode(self, units: Float[Tensor, "*batch {self.width}"]) -> Float[Tensor, "*batch {self.d}"]:
        return units @ self.rows + self.offset

    def at_zero(self, like: Tensor) -> Float[Tensor, " {self.d}"]:
        return self.offset.to(like)

    def directions(self, units: Int[Tensor, " k"]) -> Float[Tensor, "k {self.d}"]:
        return self.rows[units]

    def written(self, values: Float[Tensor, "*batch k"], units: Int[Tensor, " k"]) -> Float[Tensor, "*batch {self.d}"]:
        return values @ self.rows[units]

    def pull_back(self, gradient: Float[Tensor, "*batch {self.d}"]) -> Float[Tensor, "*batch {self.width}"]:
        return gradient @ self.rows.T

    def pull_back_some(
        self, gradient: Float[Tensor, "n {self.d}"], row: Int[Tensor, " m"], unit: Int[Tensor, " m"]
    ) -> Float[Tensor, " m"]:
        return self.whole.pull_back_some(gradient, row, self.units[unit])

    def reading(
        self, y: Float[Tensor, " d_in"], units: Int[Tensor, " k"]
    ) -> tuple[Float[Tensor, "k d_in"], Float[Tensor, " k"]]:
        return self.whole.reading(y, self.units[units])


def slopes(units: Encoder, y: Float[Tensor, " d_in"]) -> Float[Tensor, "k d_in"]:
    """The gradient at `y` of every one of `units(y) [k]`."""
    with torch.enable_grad():
        at = y.detach().requires_grad_()
        values = units(at)
        unit_vectors = torch.eye(len(values), dtype=values.dtype, device=values.device)
        (rows,) = torch.autograd.grad(values, at, unit_vectors, is_grads_batched=True)
    return rows
