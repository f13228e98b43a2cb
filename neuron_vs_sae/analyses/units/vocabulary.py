"""The tokens that units promote and suppress, directly and through the layers above."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from neuron_vs_sae.analyses.units.directions import lands_at, residual, unembedded
from neuron_vs_sae.analyses.units.selection import Units
from neuron_vs_sae.core.basis import Basis
from neuron_vs_sae.execution.splice import home

_AT_ONCE = 256


@dataclass(frozen=True, eq=False)
class Ends:
    """Per unit the tokens at either end of a score over the vocabulary: `top` largest first, `bottom` smallest first."""

    top: Int[Tensor, "units n"]
    top_values: Float[Tensor, "units n"]
    bottom: Int[Tensor, "units n"]
    bottom_values: Float[Tensor, "units n"]


def direct_lens(model: Any, basis: Basis, units: Units, n: int = 10) -> Ends:
    """The tokens whose logit one more of the unit raises and lowers most by the direct path, in logits at a final norm of scale 1.

    `W_U` of the write vector, demeaned over the vocabulary. It leaves out what later layers do with it: see `causal_lens`.
    """
    return _over_units(model, basis, units, n, {})


def causal_lens(
    model: Any, basis: Basis, units: Units, jacobians: Mapping[str, Float[Tensor, "d d"]], n: int = 10
) -> Ends:
    """The same after the average Jacobian of the layers above (`jacobian.jacobians` at `hooks_of`)."""
    return _over_units(model, basis, units, n, jacobians)


def hooks_of(model: Any, basis: Basis, units: Units) -> tuple[str, ...]:
    """The hooks of the residual stream that first contain what the units write, each once."""
    return tuple(
        dict.fromkeys(lands_at(model, site) for site, at in zip(basis.sites, units.at, strict=True) if len(at))
    )


def ends(scores: Float[Tensor, "units vocab"], n: int) -> Ends:
    """Both ends of each row; of equal scores the smaller token comes first."""
    order = scores.sort(dim=-1, descending=True, stable=True)
    other = scores.sort(dim=-1, stable=True)
    return Ends(*(x[:, :n].cpu() for x in (order.indices, order.values, other.indices, other.values)))


def _over_units(model: Any, basis: Basis, units: Units, n: int, jacobians: Mapping[str, Float[Tensor, "d d"]]) -> Ends:
    """In slices of units, because the rows of a large vocabulary are long."""
    parts = []
    for site, dictionary, at in zip(basis.sites, basis.dictionaries, units.at, strict=True):
        for some in at.split(_AT_ONCE):
            if len(some):
                vectors = residual(model, site, dictionary.directions(some.to(home(model))))
                if jacobians:
                    vectors = vectors @ jacobians[lands_at(model, site)].to(vectors)
                parts.append(ends(unembedded(model, vectors), n))
    return Ends(*(torch.cat([getattr(part, name) for part in parts]) for name in Ends.__dataclass_fields__))
