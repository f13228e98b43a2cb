"""What a basis is: at each site, a dictionary that writes the activation as `decode(units) + error`.

`decode` is affine, so one gradient at a site serves every basis there. Nothing outside a basis's own file asks which basis
it is.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, final

from jaxtyping import Float
from torch import Tensor

from neuron_vs_sae.core.dictionary import Dictionary, split
from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.core.nodes import NodeIndex, NodeScores

# Sites that a basis shows in its `repr`.
_SHOWN = 4


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

    def map(self, f: Callable[[Tensor], Tensor]) -> "Features":
        """`f` of every tensor."""
        return Features(tuple(f(u) for u in self.units), tuple(f(e) for e in self.errors))

    def __sub__(self, other: "Features") -> "Features":
        return Features(
            tuple(a - b for a, b in zip(self.units, other.units, strict=True)),
            tuple(a - b for a, b in zip(self.errors, other.errors, strict=True)),
        )


@final
@dataclass(frozen=True, eq=False, repr=False)
class Basis:
    """A dictionary at each of some sites, in the order in which the model reaches them.

    `provenance` says what it was made of (release, files, hashes, seeds); it goes into every result. `members` are the
    bases that `together` joined: they may share sites, so a joint basis is for discovery alone. `trained`: its dictionaries
    were trained to reconstruct their sites, so one that explains next to nothing there is at fault (controls are not).
    Raises `InputError` where there is no site, or where a basis that joins no others has two dictionaries at one site.
    """

    name: str
    sites: tuple[Site, ...]
    dictionaries: tuple[Dictionary, ...]
    provenance: dict[str, Any] = field(default_factory=dict)
    members: "tuple[Basis, ...]" = ()
    trained: bool = False

    def __post_init__(self) -> None:
        if not self.sites:
            raise InputError(f"basis '{self.name}' has no site")
        if len(self.sites) != len(self.dictionaries):
            raise InputError(
                f"basis '{self.name}' has {len(self.sites)} sites and {len(self.dictionaries)} dictionaries"
            )
        names = [site.name for site in self.sites]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice and not self.members:
            raise InputError(
                f"basis '{self.name}' has more than one dictionary at {', '.join(twice)}: "
                "name one SAE per site (sae:DIR/SUBFOLDER or sae:RELEASE/ID)"
            )

    def __repr__(self) -> str:
        units = sum(dictionary.width for dictionary in self.dictionaries)
        lines = [f"Basis '{self.name}': {units:,} units at {len(self.sites)} sites"]
        for site, dictionary in list(zip(self.sites, self.dictionaries, strict=True))[:_SHOWN]:
            reads = "" if site.reads == site.writes else f", read from {site.reads}"
            error = "lossless" if dictionary.lossless else "with an error"
            lines.append(f"  {site.name}: {dictionary.width:,} units of {dictionary.d} dimensions{reads}, {error}")
        if len(self.sites) > _SHOWN:
            lines.append(f"  and {len(self.sites) - _SHOWN} more sites")
        return "\n".join(lines)

    @property
    def parts(self) -> "tuple[Basis, ...]":
        """The bases that it joins; itself alone where it joins none."""
        return self.members or (self,)

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
            lossless=tuple(d.lossless for d in self.dictionaries),
        )

    def features(self, activations: Mapping[str, Float[Tensor, "batch pos ..."]]) -> Features:
        """Units and errors, given the activation at every hook of `hooks`."""
        parts = [
            split(dictionary, site.view(activations[site.reads]), site.view(activations[site.writes]))
            for site, dictionary in zip(self.sites, self.dictionaries, strict=True)
        ]
        return Features(tuple(units for units, _ in parts), tuple(error for _, error in parts))

    def constants(self, like: Tensor) -> tuple[Float[Tensor, " _"], ...]:
        """Per site `decode(0)`: what is written when every unit and the error are zero."""
        return tuple(d.at_zero(like) for d in self.dictionaries)


def together(bases: Sequence[Basis]) -> Basis:
    """The sites of several bases, basis after basis, so that the same passes attribute all of them; circuits cannot be run in it."""
    return Basis(
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
    reliability = [None] * len(indices) if scores.reliability is None else scores.reliability.split(lengths)
    return [
        NodeScores(*parts) for parts in zip(indices, scores.values.split(lengths), groups, reliability, strict=True)
    ]
