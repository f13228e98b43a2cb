"""Writes slots whose error node is flipped, which takes the whole dictionary, at the cost of the active units."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import embedding_bag

from neuron_vs_sae.core.dictionary import Dictionary, split
from neuron_vs_sae.core.unit_wise import UnitWise

# Where fewer than one value in so many is nonzero, a CPU adds up those units' decoder rows alone.
_FEW = 12


def whole_slots(
    dictionary: Dictionary,
    y: Float[Tensor, "n batch d_in"],
    x: Float[Tensor, "n batch d"],
    kept: Bool[Tensor, "n width"],
    live: Bool[Tensor, " n"],
    units: Float[Tensor, "n _ width"],
    error: Float[Tensor, "n _ d"],
) -> Float[Tensor, "n batch d"]:
    """`decode(kept ? encode(y) : units) + (live ? x - decode(encode(y)) : error)`, slot by slot; `units` and `error` are references."""
    unit_wise = dictionary.unit_wise()
    if unit_wise is None or not x.is_cpu:
        encoded, left_over = split(dictionary, y, x)
        mixed = torch.where(kept[:, None], encoded, units)
        return dictionary.decode(mixed) + torch.where(live[:, None, None], left_over, error)
    return _by_active_units(dictionary, unit_wise, y, x, kept, live, units, error)


def _by_active_units(
    dictionary: Dictionary,
    unit_wise: UnitWise,
    y: Float[Tensor, "n batch d_in"],
    x: Float[Tensor, "n batch d"],
    kept: Bool[Tensor, "n width"],
    live: Bool[Tensor, " n"],
    units: Float[Tensor, "n _ width"],
    error: Float[Tensor, "n _ d"],
) -> Float[Tensor, "n batch d"]:
    """The same, rearranged: with a live error, what ablated units write is subtracted from `x`; else what kept units write is summed."""
    n, batch = y.shape[:2]
    active = unit_wise.active(y.flatten(0, 1))
    slot = active.row // batch
    wanted = kept[slot, active.unit] != live[slot]
    from_units = sum_of(dictionary, active.row[wanted], active.unit[wanted], active.value[wanted], n * batch)
    from_units = from_units.unflatten(0, (n, batch))
    ablated = units.masked_fill(kept[:, None], 0.0).flatten(0, 1)
    from_reference = _written(dictionary, ablated).unflatten(0, units.shape[:2])
    with_error = torch.where(live[:, None, None], x - from_units, from_units + dictionary.at_zero(x) + error)
    return with_error + from_reference


def _written(dictionary: Dictionary, values: Float[Tensor, "n width"]) -> Float[Tensor, "n d"]:
    """`decode(values) - decode(0)`."""
    row, unit = values.nonzero(as_tuple=True)
    return sum_of(dictionary, row, unit, values[row, unit], len(values))


def sum_of(
    dictionary: Dictionary, row: Int[Tensor, " m"], unit: Int[Tensor, " m"], value: Float[Tensor, " m"], rows: int
) -> Float[Tensor, "rows d"]:
    """Per row the sum of its units' directions times their values; `row` grows, and rows without a unit are 0."""
    if _FEW * len(row) > rows * dictionary.width:
        dense = value.new_zeros(rows, dictionary.width)
        dense[row, unit] = value
        return dense @ dictionary.directions(torch.arange(dictionary.width, device=unit.device))
    used, place = unit.unique(return_inverse=True)
    starts = torch.cat([row.new_zeros(1), row.bincount(minlength=rows).cumsum(0)[:-1]])
    directions = dictionary.directions(used) if len(used) else value.new_zeros(1, dictionary.d)
    return embedding_bag(place, directions, starts, mode="sum", per_sample_weights=value)
