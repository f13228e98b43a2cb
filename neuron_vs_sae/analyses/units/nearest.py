"""Which unit of another basis writes what this one writes: which neuron is this feature?"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from neuron_vs_sae.analyses.units.directions import all_writes, writes
from neuron_vs_sae.analyses.units.selection import Units
from neuron_vs_sae.core.basis import Basis
from neuron_vs_sae.core.errors import InputError


@dataclass(frozen=True, eq=False)
class Neighbours:
    """Per unit the names of the other basis's units whose write vectors lie nearest, and the cosines, by size of the cosine."""

    names: tuple[tuple[str, ...], ...]
    cosines: Float[Tensor, "units n"]


def nearest(model: Any, basis: Basis, units: Units, other: Basis, n: int = 5) -> Neighbours:
    """The `n` units of `other` in the same layer with the largest |cosine| of write vectors, in the residual stream.

    A negative cosine means that a unit writes the opposite; for neurons, whose values have both signs, that is just as near. Raises
    `InputError` where the other basis has no site in a unit's layer, or fewer than `n` units there.
    """
    own = torch.nn.functional.normalize(writes(model, basis, units), dim=-1)
    layers = torch.tensor([site.layer for site in basis.sites])[units.site]
    names: list[tuple[str, ...]] = [()] * len(units)
    cosines = own.new_zeros(len(units), n)
    for layer in layers.unique().tolist():
        there = [s for s, site in enumerate(other.sites) if site.layer == layer]
        called = [f"{other.sites[s].name}/{i}" for s in there for i in range(other.dictionaries[s].width)]
        if len(called) < n:
            raise InputError(
                f"basis '{other.name}' has {len(called)} units in layer {layer}, and the {n} nearest are asked for"
            )
        theirs = torch.cat([torch.nn.functional.normalize(all_writes(model, other, s), dim=-1) for s in there])
        here = (layers == layer).nonzero().flatten()
        cosine = own[here] @ theirs.T
        order = cosine.abs().sort(dim=-1, descending=True, stable=True).indices[:, :n]
        cosines[here] = cosine.gather(1, order)
        for i, row in zip(here.tolist(), order.tolist(), strict=True):
            names[i] = tuple(called[j] for j in row)
    return Neighbours(tuple(names), cosines.cpu())
