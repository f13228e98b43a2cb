"""Bounded queues of text windows: of all windows offered to a queue, those with the smallest keys are kept.

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
class Queues:
    """Per queue (a unit and a sign, or a quantile of one) at most `n` windows, smallest key first.

    Entries where `filled` is false mean nothing. A window is the tokens around position `position` of context `context` and
    the unit's values there (signed); `inside` is false where it reaches beyond the context.
    """

    filled: Bool[Tensor, "queues n"]
    key: Float[Tensor, "queues n"]
    context: Int[Tensor, "queues n"]
    position: Int[Tensor, "queues n"]
    tokens: Int[Tensor, "queues n window"]
    values: Float[Tensor, "queues n window"]
    inside: Bool[Tensor, "queues n window"]

    @property
    def n(self) -> int:
        return self.filled.shape[1]

    @property
    def worst(self) -> Float[Tensor, " queues"]:
        """What a window's key must not exceed to be kept: infinite while the queue is not full."""
        return torch.where(self.filled.all(1), self.key.amax(1), torch.inf)

    @property
    def center(self) -> Float[Tensor, "queues n"]:
        """The unit's value at the window's own position."""
        return self.values[..., self.values.shape[-1] // 2]


@dataclass(frozen=True, eq=False)
class Offer:
    """Windows offered: each with its queue, key and place. `content` gives the tokens, values and inside of some of them."""

    queue: Int[Tensor, " m"]
    key: Float[Tensor, " m"]
    context: Int[Tensor, " m"]
    position: Int[Tensor, " m"]
    content: Callable[[Int[Tensor, " k"]], tuple[Tensor, Tensor, Tensor]]


def empty(queues: int, n: int, window: int, dtype: torch.dtype) -> Queues:
    """`queues` queues of at most `n` windows, with no window yet; a window has `window` tokens."""
    whole = torch.zeros(queues, n, dtype=torch.long)
    return Queues(
        filled=whole.bool(),
        key=whole.double(),
        context=whole,
        position=whole,
        tokens=torch.zeros(queues, n, window, dtype=torch.int32),
        values=torch.zeros(queues, n, window, dtype=dtype),
        inside=torch.zeros(queues, n, window, dtype=torch.bool),
    )


def keep(queues: Queues, offer: Offer) -> Queues:
    """The queues after the offer. A window that is in them already must not be offered again."""
    if not len(offer.queue):
        return queues
    touched, queue = offer.queue.unique(return_inverse=True)
    old = queues.filled[touched].nonzero(as_tuple=True)
    at = (touched[old[0]], old[1])
    all_queues = torch.cat([old[0], queue])
    key = torch.cat([queues.key[at], offer.key])
    context = torch.cat([queues.context[at], offer.context])
    position = torch.cat([queues.position[at], offer.position])
    order = torch.from_numpy(np.lexsort((position.numpy(), context.numpy(), key.numpy(), all_queues.numpy())))
    in_order = all_queues[order]
    rank = torch.arange(len(order)) - torch.searchsorted(in_order, in_order)
    order, rank, in_order = (x[rank < queues.n] for x in (order, rank, in_order))
    from_old = order < len(at[0])
    tokens, values, inside = (
        torch.cat([getattr(queues, name)[at][order[from_old]], fresh])
        for name, fresh in zip(
            ("tokens", "values", "inside"), offer.content(order[~from_old] - len(at[0])), strict=True
        )
    )
    # The contents came old ones first: back into the order of the keys.
    place = torch.empty_like(order)
    place[from_old] = torch.arange(int(from_old.sum()))
    place[~from_old] = torch.arange(int(from_old.sum()), len(order))
    where = (touched[in_order], rank)
    filled = queues.filled.clone()
    filled[touched] = False
    filled[where] = True
    return Queues(
        filled=filled,
        key=queues.key.index_put(where, key[order]),
        context=queues.context.index_put(where, context[order]),
        position=queues.position.index_put(where, position[order]),
        tokens=queues.tokens.index_put(where, tokens[place]),
        values=queues.values.index_put(where, values[place]),
        inside=queues.inside.index_put(where, inside[place]),
    )


def united(a: Queues, b: Queues) -> Queues:
    """The queues of both, whose windows must be of different places."""
    at = b.filled.nonzero(as_tuple=True)
    return keep(
        a,
        Offer(
            queue=at[0],
            key=b.key[at],
            context=b.context[at],
            position=b.position[at],
            content=lambda k: (b.tokens[at][k], b.values[at][k], b.inside[at][k]),
        ),
    )


def equal(a: Queues, b: Queues) -> bool:
    """Whether both hold the same windows, bit for bit."""
    if not torch.equal(a.filled, b.filled):
        return False
    return all(torch.equal(getattr(a, f.name)[a.filled], getattr(b, f.name)[b.filled]) for f in fields(Queues))


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
