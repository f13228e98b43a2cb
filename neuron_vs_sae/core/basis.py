"""What a basis is: at each site, a dictionary that writes the activation as `decode(units) + error`.

The error is computed here and nowhere else, so no basis can define its own; and `decode` is affine, so one gradient at
a site serves every basis there. Nothing outside a basis's own file asks which basis it is.
"""

import hashlib
import json
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.core.nodes import NodeIndex, NodeScores
from neuron_vs_sae.core.unit_wise import UnitWise


class Dictionary(ABC):
    """Writes the activation `x` at one site as `decode(encode(y)) + error`.

    `y` is the activation at `site.reads`, `x` the one at `site.writes`; for an autoencoder the two are one.
    `decode` is affine and a function of `units` alone: nothing is remembered between calls. Tensors come in the
    precision that scores are computed in (float32, or float64 for a float64 model) and leave in it.
    """

    width: int
    d: int
    lossless: bool = False
    """`decode(encode(x))` is x up to rounding: what is left over is never a node."""

    unit_wise: UnitWise | None = None
    """The encoder as numbers, equal to `encode` up to rounding, where it is ReLU, JumpReLU or gated."""

    @abstractmethod
    def encode(self, y: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch {self.width}"]: ...

    def encode_some(self, y: Float[Tensor, "*batch d_in"], units: Int[Tensor, " k"]) -> Float[Tensor, "*batch k"]:
        """`encode(y)` at `units`: at their cost where units do not look at each other, else at the cost of all."""
        return self.encode(y)[..., units]

    @abstractmethod
    def decode(self, units: Float[Tensor, "*batch {self.width}"]) -> Float[Tensor, "*batch {self.d}"]: ...

    def at_zero(self, like: Tensor) -> Float[Tensor, " {self.d}"]:
        """`decode(0)`, what is written when every unit is zero, on the device of `like` and in its dtype."""
        return self.decode(torch.zeros(self.width).to(like))

    @abstractmethod
    def directions(self, units: Int[Tensor, " k"]) -> Float[Tensor, "k {self.d}"]:
        """What one more of each unit adds to the activation: rows of the decoder."""

    def written(self, values: Float[Tensor, "*batch k"], units: Int[Tensor, " k"]) -> Float[Tensor, "*batch {self.d}"]:
        """What these units at these values add to the activation: `values @ directions(units)`."""
        return values @ self.directions(units)

    @abstractmethod
    def pull_back(self, gradient: Float[Tensor, "*batch {self.d}"]) -> Float[Tensor, "*batch {self.width}"]:
        """The gradient with respect to the units, given the one at the site: `gradient @ decoder.T`."""

    def pull_back_some(
        self, gradient: Float[Tensor, "n {self.d}"], row: Int[Tensor, " m"], unit: Int[Tensor, " m"]
    ) -> Float[Tensor, " m"]:
        """`pull_back(gradient)[row, unit]`: at the cost of those entries where there is a decoder."""
        return self.pull_back(gradient)[row, unit]


class Coordinates(Dictionary):
    """The activation's own coordinates: unit i is x[i]. The error is bitwise zero."""

    lossless = True

    def __init__(self, d: int, dtype: torch.dtype = torch.float32):
        self.width = self.d = d
        self.dtype = dtype

    def encode(self, y: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch {self.width}"]:
        return y

    def encode_some(self, y: Float[Tensor, "*batch d_in"], units: Int[Tensor, " k"]) -> Float[Tensor, "*batch k"]:
        return y[..., units]

    def decode(self, units: Float[Tensor, "*batch {self.width}"]) -> Float[Tensor, "*batch {self.d}"]:
        return units

    def directions(self, units: Int[Tensor, " k"]) -> Float[Tensor, "k {self.d}"]:
        return torch.nn.functional.one_hot(units, self.d).to(self.dtype)

    def written(self, values: Float[Tensor, "*batch k"], units: Int[Tensor, " k"]) -> Float[Tensor, "*batch {self.d}"]:
        return values.new_zeros(*values.shape[:-1], self.d).index_add_(-1, units, values)

    def pull_back(self, gradient: Float[Tensor, "*batch {self.d}"]) -> Float[Tensor, "*batch {self.width}"]:
        return gradient


class Affine(Dictionary):
    """Any encoder with a matrix for a decoder: `decode(units) = units @ decoder + offset`.

    `some(y, units)` encodes those units alone, for encoders in which units do not look at each other.
    """

    def __init__(
        self,
        encoder: Callable[[Tensor], Tensor],
        decoder: Float[Tensor, "width d"],
        offset: Float[Tensor, " d"],
        *,
        some: Callable[[Tensor, Tensor], Tensor] | None = None,
        unit_wise: UnitWise | None = None,
        lossless: bool = False,
    ):
        self.encoder = encoder
        self.some = some
        self.unit_wise = unit_wise
        self.decoder = decoder
        self.offset = offset
        self.lossless = lossless
        self.width, self.d = decoder.shape

    def encode(self, y: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch {self.width}"]:
        return self.encoder(y)

    def encode_some(self, y: Float[Tensor, "*batch d_in"], units: Int[Tensor, " k"]) -> Float[Tensor, "*batch k"]:
        return super().encode_some(y, units) if self.some is None else self.some(y, units)

    def decode(self, units: Float[Tensor, "*batch {self.width}"]) -> Float[Tensor, "*batch {self.d}"]:
        return units @ self.decoder + self.offset

    def at_zero(self, like: Tensor) -> Float[Tensor, " {self.d}"]:
        return self.offset.to(like)

    def directions(self, units: Int[Tensor, " k"]) -> Float[Tensor, "k {self.d}"]:
        return self.decoder[units]

    def pull_back(self, gradient: Float[Tensor, "*batch {self.d}"]) -> Float[Tensor, "*batch {self.width}"]:
        return gradient @ self.decoder.T

    def pull_back_some(
        self, gradient: Float[Tensor, "n {self.d}"], row: Int[Tensor, " m"], unit: Int[Tensor, " m"]
    ) -> Float[Tensor, " m"]:
        # Unit by unit, so that each decoder row is read once, and the gradients stay in the processor's cache.
        order = unit.argsort()
        starts = torch.cat([unit.new_zeros(1), unit.bincount(minlength=self.width).cumsum(0)])
        found, size = gradient.new_zeros(len(unit)), (self.width, len(gradient))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta", UserWarning)
            asked = torch.sparse_csr_tensor(starts, row[order], torch.zeros_like(found), size, check_invariants=False)
        found[order] = torch.sparse.sampled_addmm(asked, self.decoder, gradient.T, beta=0.0).values()
        return found


class Some(Dictionary):
    """Some units of a dictionary: what all its others write is error, so its mean (or value) is never taken apart."""

    def __init__(self, whole: Dictionary, units: Int[Tensor, " k"], like: Tensor):
        self.whole, self.units = whole, units
        self.rows = whole.directions(units)
        self.offset = whole.at_zero(like)
        self.width, self.d = self.rows.shape

    def encode(self, y: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch {self.width}"]:
        return self.whole.encode_some(y, self.units)

    def decode(self, units: Float[Tensor, "*batch {self.width}"]) -> Float[Tensor, "*batch {self.d}"]:
        return units @ self.rows + self.offset

    def directions(self, units: Int[Tensor, " k"]) -> Float[Tensor, "k {self.d}"]:
        return self.rows[units]

    def pull_back(self, gradient: Float[Tensor, "*batch {self.d}"]) -> Float[Tensor, "*batch {self.width}"]:
        return gradient @ self.rows.T


def split(
    dictionary: Dictionary, y: Float[Tensor, "batch pos d_in"], x: Float[Tensor, "batch pos d"]
) -> tuple[Float[Tensor, "batch pos width"], Float[Tensor, "batch pos d"]]:
    """(units, error) of the activation `x`, read from `y`. The only place where an error is computed."""
    units = dictionary.encode(y)
    return units, x - dictionary.decode(units)


@dataclass(frozen=True)
class Site:
    """Where one dictionary reads and writes, as hook names; `head` picks one head of `attn.hook_z`."""

    layer: int
    reads: str
    writes: str
    head: int | None = None

    @property
    def name(self) -> str:
        return self.writes if self.head is None else f"{self.writes}.{self.head}"

    @property
    def kind(self) -> str:
        """The site without its layer: `hook_mlp_out`, `attn.hook_z`."""
        return self.writes.split(".", 2)[-1] if self.writes.startswith("blocks.") else self.writes

    def view(self, activation: Float[Tensor, "batch pos *d"]) -> Float[Tensor, "batch pos d"]:
        """The site's vector at every position: heads flattened, or the one head."""
        return activation.flatten(2) if self.head is None else activation[:, :, self.head]

    def put(
        self, activation: Float[Tensor, "batch pos *d"], value: Float[Tensor, "batch pos d"]
    ) -> Float[Tensor, "batch pos *d"]:
        """`activation` with the site's vectors replaced, in its own shape and dtype and on its own device."""
        value = value.to(activation)
        if self.head is None:
            return value.reshape(activation.shape).contiguous()  # transformer-lens views it
        out = activation.clone()
        out[:, :, self.head] = value
        return out


@dataclass(frozen=True, eq=False)
class Features:
    """Per site the units and the error vector of a batch of prompts. Leading axes may be 1 where values are shared."""

    units: tuple[Float[Tensor, "_ _ _"], ...]
    errors: tuple[Float[Tensor, "_ _ _"], ...]

    def map(self, f: Any) -> "Features":
        return Features(tuple(f(u) for u in self.units), tuple(f(e) for e in self.errors))

    def __sub__(self, other: "Features") -> "Features":
        return Features(
            tuple(a - b for a, b in zip(self.units, other.units, strict=True)),
            tuple(a - b for a, b in zip(self.errors, other.errors, strict=True)),
        )


@dataclass(frozen=True, eq=False)
class Basis:
    """A dictionary at each of some sites, in the order in which the model reaches them.

    `provenance` says what it was made of (release, files, hashes, seeds); it goes into every result.
    """

    name: str
    sites: tuple[Site, ...]
    dictionaries: tuple[Dictionary, ...]
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.sites:
            raise InputError(f"basis '{self.name}' has no site")
        if len(self.sites) != len(self.dictionaries):
            raise InputError(
                f"basis '{self.name}' has {len(self.sites)} sites and {len(self.dictionaries)} dictionaries"
            )
        names = [site.name for site in self.sites]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise InputError(
                f"basis '{self.name}' has more than one dictionary at {', '.join(twice)}: "
                "name one SAE per site (sae:DIR/SUBFOLDER or sae:RELEASE/ID)"
            )

    @property
    def parts(self) -> "tuple[Basis, ...]":
        """The bases that it is made of: itself alone, but for `together`."""
        return (self,)

    @property
    def hooks(self) -> tuple[str, ...]:
        """Every hook that it reads or writes, once, in order."""
        return tuple(dict.fromkeys(hook for site in self.sites for hook in (site.reads, site.writes)))

    @property
    def kind(self) -> str:
        """Kinds of site, joined by `+`: `hook_mlp_out`."""
        return "+".join(dict.fromkeys(site.kind for site in self.sites))

    def index(self, positions: int | None) -> NodeIndex:
        """The order of its nodes; `positions=None` pools them."""
        made_of = json.dumps([self.name, self.provenance], sort_keys=True, default=str)
        return NodeIndex(
            sites=tuple(site.name for site in self.sites),
            widths=tuple(d.width for d in self.dictionaries),
            positions=positions,
            basis=f"{self.name} {hashlib.sha256(made_of.encode()).hexdigest()[:12]}",
        )

    def features(self, activations: Mapping[str, Float[Tensor, "batch pos ..."]]) -> Features:
        """Units and errors, given the activation at every hook of `hooks`."""
        parts = [
            split(dictionary, site.view(activations[site.reads]), site.view(activations[site.writes]))
            for site, dictionary in zip(self.sites, self.dictionaries, strict=True)
        ]
        return Features(tuple(units for units, _ in parts), tuple(error for _, error in parts))

    def constants(self, like: Tensor) -> tuple[Float[Tensor, " _"], ...]:
        """Per site what is written when every unit and the error are zero: `decode(0)`."""
        return tuple(d.at_zero(like) for d in self.dictionaries)


@dataclass(frozen=True, eq=False)
class _Together(Basis):
    members: tuple[Basis, ...] = ()

    def __post_init__(self) -> None:
        """Two bases may share a site: nothing is written here."""

    @property
    def parts(self) -> tuple[Basis, ...]:
        return self.members


def together(bases: Sequence[Basis]) -> Basis:
    """The sites of several bases one after another, to be discovered on in the same passes; not to be written to."""
    return _Together(
        name="+".join(basis.name for basis in bases),
        sites=tuple(site for basis in bases for site in basis.sites),
        dictionaries=tuple(d for basis in bases for d in basis.dictionaries),
        members=tuple(bases),
    )


def apart(scores: NodeScores, basis: Basis) -> list[NodeScores]:
    """The scores of each part of a basis made by `together`."""
    indices = [part.index(scores.index.positions) for part in basis.parts]
    lengths = [len(index) for index in indices]
    groups = [None] * len(indices) if scores.by_group is None else scores.by_group.split(lengths, 1)
    return [NodeScores(*parts) for parts in zip(indices, scores.values.split(lengths), groups, strict=True)]
