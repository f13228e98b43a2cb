"""Windows of text in slots: of all windows offered to a group, those with the smallest keys are kept.

A key and a place (context and position) order windows totally, so what is kept of a set does not depend on the order in
which it was offered, nor on how it was divided: keeping is associative and commutative, bit for bit.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Slots:
    """Per group (a unit and a sign, or a quantile of one) at most as many windows as there are slots, smallest key first.

    Entries where `filled` is false mean nothing. A window is the tokens around position `position` of context `context` and
    the unit's values there (signed); `inside` is false where it reaches beyond the context.
    """

    filled: Bool[Tensor, "groups slots"]
    key: Float[Tensor, "groups slots"]
    context: Int[Tensor, "groups slots"]
    position: Int[Tensor, "groups slots"]
    tokens: Int[Tensor, "groups slots window"]
    values: Float[Tensor, "groups slots window"]
    inside: Bool[Tensor, "groups slots window"]

    @property
    def n(self) -> int:
        return self.filled.shape[1]

    @property
    def worst(self) -> Float[Tensor, " groups"]:
        """What a window's key must not exceed to be kept: infinite while there is a free slot."""
        return torch.where(self.filled.all(1), self.key.amax(1), torch.inf)

    @property
    def center(self) -> Float[Tensor, "groups slots"]:
        """The unit's value at the position that the window is of."""
        return self.values[..., self.values.shape[-1] // 2]


@dataclass(frozen=True, eq=False)
class Offer:
    """Windows offered: each with its group, key and place. `content` gives the tokens, values and inside of some of them."""

    group: Int[Tensor, " m"]
    key: Float[Tensor, " m"]
    context: Int[Tensor, " m"]
    position: Int[Tensor, " m"]
    content: Callable[[Int[Tensor, " k"]], tuple[Tensor, Tensor, Tensor]]


def empty(groups: int, slots: int, window: int, dtype: torch.dtype) -> Slots:
    """No window yet; a window has `window` tokens."""
    whole = torch.zeros(groups, slots, dtype=torch.long)
    return Slots(
        filled=whole.bool(),
        key=whole.double(),
        context=whole,
        position=whole,
        tokens=torch.zeros(groups, slots, window, dtype=torch.int32),
        values=torch.zeros(groups, slots, window, dtype=dtype),
        inside=torch.zeros(groups, slots, window, dtype=torch.bool),
    )


def keep(slots: Slots, offer: Offer) -> Slots:
    """What is kept of the windows there and the windows offered. A window that is there already must not be offered again."""
    if not len(offer.group):
        return slots
    touched, group = offer.group.unique(return_inverse=True)
    old = slots.filled[touched].nonzero(as_tuple=True)
    at = (touched[old[0]], old[1])
    all_groups = torch.cat([old[0], group])
    key = torch.cat([slots.key[at], offer.key])
    context = torch.cat([slots.context[at], offer.context])
    position = torch.cat([slots.position[at], offer.position])
    order = torch.from_numpy(np.lexsort((position.numpy(), context.numpy(), key.numpy(), all_groups.numpy())))
    in_order = all_groups[order]
    rank = torch.arange(len(order)) - torch.searchsorted(in_order, in_order)
    order, rank, in_order = (x[rank < slots.n] for x in (order, rank, in_order))
    from_old = order < len(at[0])
    tokens, values, inside = (
        torch.cat([getattr(slots, name)[at][order[from_old]], fresh])
        for name, fresh in zip(
            ("tokens", "values", "inside"), offer.content(order[~from_old] - len(at[0])), strict=True
        )
    )
    # The contents came old ones first: back into the order of the keys.
    place = torch.empty_like(order)
    place[from_old] = torch.arange(int(from_old.sum()))
    place[~from_old] = torch.arange(int(from_old.sum()), len(order))
    where = (touched[in_order], rank)
    filled = slots.filled.clone()
    filled[touched] = False
    filled[where] = True
    return Slots(
        filled=filled,
        key=slots.key.index_put(where, key[order]),
        context=slots.context.index_put(where, context[order]),
        position=slots.position.index_put(where, position[order]),
        tokens=slots.tokens.index_put(where, tokens[place]),
        values=slots.values.index_put(where, values[place]),
        inside=slots.inside.index_put(where, inside[place]),
    )


def united(a: Slots, b: Slots) -> Slots:
    """What is kept of the windows of both, which must be of different places."""
    at = b.filled.nonzero(as_tuple=True)
    return keep(
        a,
        Offer(
            group=at[0],
            key=b.key[at],
            context=b.context[at],
            position=b.position[at],
            content=lambda k: (b.tokens[at][k], b.values[at][k], b.inside[at][k]),
        ),
    )


def equal(a: Slots, b: Slots) -> bool:
    """Whether both hold the same windows, bit for bit."""
    if not torch.equal(a.filled, b.filled):
        return False
    return all(torch.equal(getattr(a, f.name)[a.filled], getattr(b, f.name)[b.filled]) for f in fields(Slots))


def lottery(seed: int, context: Int[Tensor, " batch"], positions: int) -> Float[Tensor, "batch pos"]:
    """A number in [0, 1) for every place, uniform and a function of (seed, context, position) alone.

    SplitMix64 (Steele, Lea and Flood 2014) of the three in turn, its first 53 bits.
    """
    with np.errstate(over="ignore"):  # 64-bit arithmetic wraps, as it should
        state = _mixed(np.full((1, 1), seed, dtype=np.uint64) + _GOLDEN)
        state = _mixed(state + context.numpy().astype(np.uint64)[:, None] * _GOLDEN)
        state = _mixed(state + np.arange(1, positions + 1, dtype=np.uint64)[None] * _GOLDEN)
    return torch.from_numpy((state >> np.uint64(11)).astype(np.float64) / 2.0**53)


_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def _mixed(z: np.ndarray) -> np.ndarray:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
