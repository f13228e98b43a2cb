"""Where units are active in a corpus: in one pass, in memory that does not grow with the corpus, in shards that merge exactly.

All sums are of integers, and windows are kept by a total order, so `merge` is associative and commutative: any shards of a
corpus give together, bit for bit, what the whole corpus gives at once.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from neuron_vs_sae.analyses.units.queues import Offer, Queues, empty, keep, lottery, united
from neuron_vs_sae.analyses.units.selection import Units
from neuron_vs_sae.catalog.corpora import Batch, Corpus
from neuron_vs_sae.core.basis import Basis
from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.execution.splice import home, precision, read

QUANTILES = 10
BINS = 50
"""Of the histogram, over (0, range] of a unit and sign; a quantile is five of them."""
SIGNS = (1, -1)
_UNIT_OF_MOMENTS = 2.0**24
_SCOUTED, _EVERY = 64, 20


@dataclass(frozen=True)
class Keeping:
    """How many windows are kept per unit, and which tokens are left out.

    Per unit and sign: `top` windows of largest value (one per context), `per_quantile` windows drawn from each of ten equal
    parts of (0, range], `negatives` windows drawn from those in which no value is above `silent` x range. A window reaches
    `window` tokens to either side. Tokens whose activation has a norm above `sink` times the median of their context's are
    left out (attention sinks), as BOS, EOS and padding are. `seed` draws; `batch_size` contexts are run at once.
    """

    top: int = 20
    per_quantile: int = 5
    negatives: int = 20
    window: int = 10
    silent: float = 0.1
    sink: float = 10.0
    seed: int = 0
    batch_size: int = 32


@dataclass(frozen=True, eq=False)
class Collection:
    """What some units do on some contexts. An axis `2` separates the units' positive values from their negative ones.

    `ranges` are the largest values (in the sign's direction) of a first pass over a sample, common to all shards; the
    histogram's last bin takes what is larger. `spans` are the numbers of the contexts that were read, `counted` how many
    tokens of them count for a unit. `powers` are sums of (value / the larger range) to the powers 1 to 4 in units of 2^-24.
    """

    basis: str
    corpus: str
    names: tuple[str, ...]
    keeping: Keeping
    ranges: Float[Tensor, "2 units"]
    spans: tuple[tuple[int, int], ...]
    counted: Int[Tensor, " units"]
    histogram: Int[Tensor, "2 units 50"]
    powers: Int[Tensor, "4 units"]
    top: Queues
    quantiles: Queues
    negatives: Queues

    @property
    def contexts(self) -> int:
        """How many contexts were read."""
        return sum(stop - start for start, stop in self.spans)

    @property
    def maximum(self) -> Float[Tensor, "2 units"]:
        """The largest value in each sign's direction; 0 where there is none."""
        largest = torch.where(self.top.filled[:, 0], -self.top.key[:, 0], 0.0)
        return largest.reshape(2, -1)

    def density(self, fraction: float = 0.0) -> Float[Tensor, "2 units"]:
        """The share of tokens with a value above `fraction` of the range: a multiple of 1/50."""
        first = round(fraction * BINS)
        if not 0 <= fraction < 1 or abs(first - fraction * BINS) > 1e-9:
            raise InputError(f"density above {fraction} of the range: a multiple of {1 / BINS} from 0 on is needed")
        return self.histogram[..., first:].sum(-1) / self.counted.clamp(min=1)

    @property
    def moments(self) -> Float[Tensor, "4 units"]:
        """Means over tokens of the value's powers 1 to 4, to about 2^-24 of the range's power."""
        scale = self.ranges.amax(0).double()
        mean = self.powers / self.counted.clamp(min=1) / _UNIT_OF_MOMENTS
        return mean * torch.stack([scale**p for p in (1, 2, 3, 4)])


def collect(
    model: Any,
    basis: Basis,
    units: Units,
    corpus: Corpus,
    *,
    keeping: Keeping | None = None,
    ranges: Float[Tensor, "2 units"] | None = None,
    start: int = 0,
    stop: int | None = None,
) -> Collection:
    """What the units do on contexts `start` to `stop - 1` (default: to the end).

    Cost: a forward pass over these contexts, no further than the last site; of the dictionaries only these units are
    encoded where units do not depend on each other. Memory: O(units x windows kept), and a batch. Shards need the `ranges` of
    the whole corpus (`scout`), which are found first where none are given. Raises `InputError` for an empty corpus and a
    value that is not finite.
    """
    keeping = keeping or Keeping()
    if ranges is None:
        ranges = scout(model, basis, units, corpus, keeping)
    collection = _nothing(units, corpus, keeping, ranges)
    for batch, values, counts in _activations(model, basis, units, corpus, keeping, start, stop):
        collection = _added(collection, batch, values, counts, precision(model))
    return collection


def scout(
    model: Any, basis: Basis, units: Units, corpus: Corpus, keeping: Keeping | None = None
) -> Float[Tensor, "2 units"]:
    """The largest value of each unit in either direction, over the first contexts and every twentieth after them.

    A unit that is silent there has the largest range of its site in that direction (1 where all are silent), so that bins
    exist for it. Cost: a twentieth of `collect`'s passes.
    """
    sample = replace(
        corpus,
        read=lambda: (c for i, c in enumerate(corpus.read()) if i < _SCOUTED or i % _EVERY == 0),
    )
    largest = torch.zeros(2, len(units), dtype=precision(model))
    for _, values, counts in _activations(model, basis, units, sample, keeping or Keeping(), 0, None):
        for s, sign in enumerate(SIGNS):
            largest[s] = torch.maximum(largest[s], torch.where(counts, sign * values, 0.0).amax((0, 1)))
    for s in range(2):
        for site in units.site.unique().tolist():
            here = units.site == site
            largest[s, here & (largest[s] == 0)] = largest[s, here].max() or 1.0
    return largest


def merge(a: Collection, b: Collection) -> Collection:
    """Both collections as one. Raises `InputError` where they are of different units or share a context."""
    for field in ("basis", "corpus", "names", "keeping"):
        if getattr(a, field) != getattr(b, field):
            raise InputError(
                f"collections of another {field} cannot be merged: {getattr(a, field)} and {getattr(b, field)}"
            )
    if not torch.equal(a.ranges, b.ranges):
        raise InputError(
            "collections with other ranges cannot be merged: give all shards those of the whole corpus (`scout`)"
        )
    return replace(
        a,
        spans=_joined((*a.spans, *b.spans)),
        counted=a.counted + b.counted,
        histogram=a.histogram + b.histogram,
        powers=a.powers + b.powers,
        top=united(a.top, b.top),
        quantiles=united(a.quantiles, b.quantiles),
        negatives=united(a.negatives, b.negatives),
    )


def merged(shards: list[Collection]) -> Collection:
    """All shards as one."""
    return reduce(merge, shards)


def _joined(spans: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
    joined: list[tuple[int, int]] = []
    for start, stop in sorted(spans):
        if joined and start < joined[-1][1]:
            raise InputError(f"context {start} is in both collections: shards must not overlap")
        if joined and start == joined[-1][1]:
            joined[-1] = (joined[-1][0], stop)
        else:
            joined.append((start, stop))
    return tuple(joined)


def _nothing(units: Units, corpus: Corpus, keeping: Keeping, ranges: Float[Tensor, "2 units"]) -> Collection:
    if ranges.shape != (2, len(units)):
        raise InputError(f"ranges of {ranges.shape[-1]} units for {len(units)}: take those of the same units (`scout`)")
    n, width = len(units), 2 * keeping.window + 1
    return Collection(
        basis=units.basis,
        corpus=corpus.name,
        names=units.names,
        keeping=keeping,
        ranges=ranges,
        spans=(),
        counted=torch.zeros(n, dtype=torch.long),
        histogram=torch.zeros(2, n, BINS, dtype=torch.long),
        powers=torch.zeros(4, n, dtype=torch.long),
        top=empty(2 * n, keeping.top, width, ranges.dtype),
        quantiles=empty(2 * n * QUANTILES, keeping.per_quantile, width, ranges.dtype),
        negatives=empty(2 * n, keeping.negatives, width, ranges.dtype),
    )


def _activations(
    model: Any, basis: Basis, units: Units, corpus: Corpus, keeping: Keeping, start: int, stop: int | None
) -> Iterator[tuple[Batch, Float[Tensor, "batch pos units"], Bool[Tensor, "batch pos units"]]]:
    """Per batch the units' values, and where they count."""
    used = [s for s in range(len(basis.sites)) if len(units.at[s])]
    hooks = list(dict.fromkeys(basis.sites[s].reads for s in used))
    for batch in corpus.batches(keeping.batch_size, start, stop):
        seen = read(model, batch.tokens.to(home(model)), batch.length.to(home(model)), hooks)
        values, counts = [], []
        for s in used:
            y = basis.sites[s].view(seen[basis.sites[s].reads])
            with torch.no_grad():
                values.append(basis.dictionaries[s].encode_some(y, units.at[s].to(y.device)).cpu())
            ordinary = batch.real & ~_sinks(y.cpu(), batch.real, keeping.sink)
            counts.append(ordinary[..., None].expand(values[-1].shape))
        joined = torch.cat(values, -1)
        if not bool(joined[batch.real].isfinite().all()):
            raise InputError(
                f"basis '{basis.name}' gives a value that is not finite on corpus '{corpus.name}': look for NaN in the model's or the "
                "SAE's weights (`nvs check`), or use a wider dtype"
            )
        yield batch, joined, torch.cat(counts, -1)


def _sinks(y: Float[Tensor, "batch pos d"], real: Bool[Tensor, "batch pos"], times: float) -> Bool[Tensor, "batch pos"]:
    """Where the norm is above `times` the median over the same context's text: so it depends on that context alone."""
    norm = y.norm(dim=-1)
    median = torch.where(real, norm, torch.nan).nanmedian(1, keepdim=True).values
    return norm > times * median


def _added(
    old: Collection,
    batch: Batch,
    values: Float[Tensor, "batch pos units"],
    counts: Bool[Tensor, "batch pos units"],
    dtype: torch.dtype,
) -> Collection:
    """`old` with a batch added."""
    n = values.shape[-1]
    strength = torch.where(counts, values, 0.0)
    sign = (strength < 0).long()
    ranges = torch.where(sign == 1, old.ranges[1], old.ranges[0])
    size = strength.abs()
    # Bin i holds (i, i + 1] / 50 of the range; -1 is no value at all.
    bins = (size / ranges * BINS).ceil().long().clamp(max=BINS) - 1
    row = sign * n + torch.arange(n)
    active = size > 0
    histogram = torch.bincount((row * BINS + bins)[active], minlength=2 * n * BINS).reshape(2, n, BINS)
    powers = _powers((strength / old.ranges.amax(0)).double())
    numbers = batch.first + torch.arange(len(batch.contexts))
    window = _Window(batch, values, numbers, old.keeping.window, dtype)
    draw = lottery(old.keeping.seed, numbers, values.shape[1])
    present = [i for i, context in enumerate(batch.contexts) if context is not None]
    return replace(
        old,
        spans=_joined((*old.spans, (batch.first + present[0], batch.first + present[-1] + 1))),
        counted=old.counted + counts.sum((0, 1)),
        histogram=old.histogram + histogram,
        powers=old.powers + powers,
        top=_with_top(old.top, strength, window),
        quantiles=_with_quantiles(old.quantiles, row, bins, active, draw, window),
        negatives=_with_negatives(old, strength, counts, draw, window),
    )


def _powers(relative: Float[Tensor, "batch pos units"]) -> Int[Tensor, "4 units"]:
    """Sums of the powers 1 to 4, each rounded to 2^-24 before it is added, so that the sum is exact in any order."""
    power, sums = torch.ones_like(relative), []
    for _ in range(4):
        power = power * relative
        sums.append((power * _UNIT_OF_MOMENTS).round_().sum((0, 1)).long())
    return torch.stack(sums)


@dataclass(frozen=True, eq=False)
class _Window:
    """A batch as the windows around its tokens."""

    batch: Batch
    values: Float[Tensor, "batch pos units"]
    numbers: Int[Tensor, " batch"]
    reach: int
    dtype: torch.dtype

    def around(
        self, r: Int[Tensor, " m"], p: Int[Tensor, " m"], u: Int[Tensor, " m"]
    ) -> tuple[Int[Tensor, "m window"], Float[Tensor, "m window"], Bool[Tensor, "m window"]]:
        """(tokens, values of unit `u`, inside the context) around position `p` of row `r`; 0 outside."""
        at = p[:, None] + torch.arange(-self.reach, self.reach + 1)
        inside = (at >= 0) & (at < self.batch.length[r][:, None])
        at = at.clamp(0, self.values.shape[1] - 1)
        tokens = torch.where(inside, self.batch.tokens[r[:, None], at], 0).int()
        return tokens, torch.where(inside, self.values[r[:, None], at, u[:, None]], 0.0), inside

    def offer(self, queue: Tensor, key: Tensor, r: Tensor, p: Tensor, u: Tensor) -> Offer:
        return Offer(queue, key.double(), self.numbers[r], p, lambda k: self.around(r[k], p[k], u[k]))


def _with_top(queues: Queues, strength: Float[Tensor, "batch pos units"], window: _Window) -> Queues:
    """The largest value of each context, in either direction, competes with what is there."""
    n, worst = strength.shape[-1], queues.worst
    for s, sign in enumerate(SIGNS):
        best, at = (sign * strength).max(1)  # the first of several equal ones
        r, u = ((best > 0) & (-best <= worst[s * n : (s + 1) * n])).nonzero(as_tuple=True)
        queues = keep(queues, window.offer(s * n + u, -best[r, u], r, at[r, u], u))
    return queues


def _with_quantiles(
    queues: Queues,
    row: Int[Tensor, "batch pos units"],
    bins: Int[Tensor, "batch pos units"],
    active: Bool[Tensor, "batch pos units"],
    draw: Float[Tensor, "batch pos"],
    window: _Window,
) -> Queues:
    """A sample without replacement of each quantile's places: those with the smallest draws (so a reservoir that merges)."""
    queue = row * QUANTILES + bins.clamp(min=0) // (BINS // QUANTILES)
    r, p, u = (active & (draw[..., None] <= queues.worst[queue])).nonzero(as_tuple=True)
    return keep(queues, window.offer(queue[r, p, u], draw[r, p], r, p, u))


def _with_negatives(
    old: Collection,
    strength: Float[Tensor, "batch pos units"],
    counts: Bool[Tensor, "batch pos units"],
    draw: Float[Tensor, "batch pos"],
    window: _Window,
) -> Queues:
    """A sample of the places around which the unit is silent in that direction."""
    queues, n = old.negatives, strength.shape[-1]
    for s, sign in enumerate(SIGNS):
        limit, worst = old.keeping.silent * old.ranges[s], queues.worst[s * n : (s + 1) * n]
        r, p, u = (draw[..., None] <= worst).nonzero(as_tuple=True)
        silent = counts[r, p, u] & (sign * strength[r, p, u] <= limit[u])
        r, p, u = r[silent], p[silent], u[silent]
        _, around, _ = window.around(r, p, u)
        quiet = (sign * around <= limit[u][:, None]).all(1)
        r, p, u = r[quiet], p[quiet], u[quiet]
        queues = keep(queues, window.offer(s * n + u, draw[r, p], r, p, u))
    return queues
