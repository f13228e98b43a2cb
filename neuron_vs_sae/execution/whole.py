"""Slots written by the whole dictionary, because their error node is flipped: at the cost of the units that are active."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import embedding_bag

from neuron_vs_sae.core.basis import Dictionary, split
from neuron_vs_sae.core.unit_wise import UnitWise

# Where fewer values than one in so many are not zero, a CPU adds up those units' decoder rows alone.
_FEW = 12

# Multiplications that encode one prompt at one position in all runs, from which on it is worth asking which units can fire;
# and how far apart the runs' inputs may be, as a share of their length, for the bound to say anything.
_MANY = 1 << 22
_NEAR = 0.25


def whole_slots(
    dictionary: Dictionary,
    y: Float[Tensor, "n batch d_in"],
    x: Float[Tensor, "n batch d"],
    position: Int[Tensor, " n"],
    kept: Bool[Tensor, "n width"],
    live: Bool[Tensor, " n"],
    units: Float[Tensor, "n _ width"],
    error: Float[Tensor, "n _ d"],
) -> Float[Tensor, "n batch d"]:
    """`decode(kept ? encode(y) : units) + (live ? x - decode(encode(y)) : error)`, slot by slot.

    `units` and `error` are references. On a CPU, with a unit-wise encoder, it is rearranged: where the error is live, what the
    ablated units write is taken off `x`, else what the kept ones write is summed.
    """
    if dictionary.unit_wise is None or not x.is_cpu:
        encoded, left_over = split(dictionary, y, x)
        mixed = torch.where(kept[:, None], encoded, units)
        return dictionary.decode(mixed) + torch.where(live[:, None, None], left_over, error)
    written = _written_by(dictionary, dictionary.unit_wise, y, 2 * position + live, kept != live[:, None])
    reference = units.masked_fill(kept[:, None], 0.0).flatten(0, 1)
    row, unit = reference.nonzero(as_tuple=True)
    from_reference = _sum(dictionary, row, unit, reference[row, unit], len(reference)).unflatten(0, units.shape[:2])
    return torch.where(live[:, None, None], x - written, written + dictionary.at_zero(x) + error) + from_reference


def _written_by(
    dictionary: Dictionary,
    unit_wise: UnitWise,
    y: Float[Tensor, "n batch d_in"],
    like: Int[Tensor, " n"],
    wanted: Bool[Tensor, "n width"],
) -> Float[Tensor, "n batch d"]:
    """What the `wanted` units of every slot write; slots of one number in `like` are expected to have similar inputs."""
    z, scale = unit_wise.normalised(y)
    written = y.new_empty(*y.shape[:2], dictionary.d)
    whole = torch.ones(y.shape[:2], dtype=torch.bool)
    for number in like.unique():
        slots = (like == number).nonzero()[:, 0]
        if len(slots) > 1 and len(slots) * unit_wise.rows.numel() >= _MANY:
            for b, units in _can_fire(unit_wise, z[slots]).items():
                values = unit_wise.values(z[slots, b], units) * wanted[slots][:, units]
                active = values.any(0).nonzero()[:, 0]
                written[slots, b] = values[:, active] @ dictionary.directions(units[active])
                whole[slots, b] = False
    slot, prompt = whole.nonzero(as_tuple=True)
    active = unit_wise.active(z[slot, prompt])
    chosen = wanted[slot[active.row], active.unit]
    row, unit, value = active.row[chosen], active.unit[chosen], active.value[chosen]
    written[slot, prompt] = _sum(dictionary, row, unit, value, len(slot))
    return written if scale is None else written * scale


def _can_fire(unit_wise: UnitWise, z: Float[Tensor, "runs batch d_in"]) -> dict[int, Int[Tensor, " _"]]:
    """By prompt the units that can be active in any of the runs, for prompts of which they are few.

    Told from the mean over the runs of what the encoder is given, which is encoded in their place.
    """
    middle = z.mean(0)
    change = (z - middle).norm(dim=-1).amax(0)
    near = (change < _NEAR * middle.norm(dim=-1)).nonzero()[:, 0].tolist()
    found = {}
    for b, pre in zip(near, unit_wise.pre(middle[near]), strict=True):
        units = unit_wise.can_fire(pre, middle[b], change[b]).nonzero()[:, 0]
        if _FEW * len(units) <= len(pre):
            found[b] = units
    return found


def _sum(
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
