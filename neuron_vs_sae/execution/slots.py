"""What a run keeps, slot by slot: which units of which site at which position differ from its anchor.

A circuit's run keeps nothing but the circuit; its complement's run keeps everything but the circuit. So a run is one of two
*anchors* (nothing kept, everything kept) and the nodes that are *flipped* in it, and it costs what those nodes cost.
A slot (a site at a position) whose flipped units are `F` is written in one of three ways:

    REFERENCE   reference + sum over F of (unit - its reference) x direction       units of F live, the error ablated
    LIVE        x         - sum over F of (unit - its reference) x direction       units of F ablated, the error live
    WHOLE       decode(all units, each live or at its reference) + error, live or not    the rest: the error node is flipped
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from neuron_vs_sae.core.nodes import NodeIndex

REFERENCE, LIVE, WHOLE = range(3)


@dataclass(frozen=True, eq=False)
class Run:
    """`full`: everything is kept but the `flipped` nodes; otherwise only they are kept. `constants`: whether the constants that
    the ablation takes out (`splice.ReferenceValues`) are kept."""

    full: bool
    flipped: Int[Tensor, " k"]
    constants: bool = True


@dataclass(frozen=True)
class ErrorNode:
    """Whether the error nodes of one site are kept in either anchor: `empty`, in which nothing is kept, and `full`, in which everything is.

    `exact`: the dictionary leaves nothing over there, so what is written is the same either way.
    """

    empty: bool
    full: bool
    exact: bool


@dataclass(frozen=True, eq=False)
class Flips:
    """What one run flips at one site, by block (position, or 0 where they are pooled)."""

    units: dict[int, Int[Tensor, " k"]]
    errors: frozenset[int]

    @property
    def blocks(self) -> set[int]:
        return {*self.units, *self.errors}


@dataclass(frozen=True, eq=False)
class Correction:
    """`units` in the slots (`run[i]`, `position[i]`): `sign[i, k]` is 1 to add unit k's change, -1 to take it off, else 0."""

    units: Int[Tensor, " k"]
    run: Int[Tensor, " n"]
    position: Int[Tensor, " n"]
    sign: Float[Tensor, "n k"]


@dataclass(frozen=True, eq=False)
class Slots:
    """How one site is written in some runs, from position `first` on; positions count from there."""

    first: int
    form: Int[Tensor, "runs pos"]
    error: Bool[Tensor, "runs pos"]
    corrections: tuple[Correction, ...]
    whole: tuple[Int[Tensor, " n"], Int[Tensor, " n"], Bool[Tensor, "n _"]]
    listed: Bool[Tensor, "runs pos"]


def flips(index: NodeIndex, run: Run) -> list[Flips]:
    """The run's flipped nodes, site by site."""
    return [
        Flips(
            {block: units for block, units, _ in here if len(units)},
            frozenset(b for b, _, has_error in here if has_error),
        )
        for here in index.at_sites(run.flipped)
    ]


def form_of(error: ErrorNode, full: bool, flipped: bool) -> int:
    """How a slot is written in a run from that anchor, with its error node flipped or not."""
    live = (error.full if full else error.empty) != flipped
    if error.exact or live == full:
        return LIVE if full else REFERENCE
    return WHOLE


def slots(
    full: Sequence[bool], flipped: Sequence[Flips], error: ErrorNode, width: int, pooled: bool, first: int, last: int
) -> Slots:
    """The slots of one site at positions `first` to `last` - 1, for runs from the anchors `full` with these flips."""
    n, span = len(full), last - first
    form = torch.empty(n, span, dtype=torch.long)
    live = torch.empty(n, span, dtype=torch.bool)
    listed = torch.zeros(n, span, dtype=torch.bool)
    entries: list[tuple[int, int, Tensor]] = []
    whole: list[tuple[int, int, Tensor]] = []
    for r, (is_full, flip) in enumerate(zip(full, flipped, strict=True)):
        for q in range(span):
            block = 0 if pooled else first + q
            turned = block in flip.errors
            form[r, q] = form_of(error, is_full, turned)
            live[r, q] = (error.full if is_full else error.empty) != turned
            units = flip.units.get(block)
            if form[r, q] == WHOLE:
                kept = torch.full((width,), is_full)
                if units is not None:
                    kept[units] = not is_full
                whole.append((r, q, kept))
            elif units is not None:
                listed[r, q] = True
                entries.append((r, q, units))
    return Slots(first, form, live, tuple(_corrections(entries, form)), _stacked(whole, width), listed)


def _corrections(entries: list[tuple[int, int, Tensor]], form: Tensor) -> list[Correction]:
    """One correction for all slots where their units are mostly the same, else one per position."""
    if not entries:
        return []
    everywhere = torch.cat([units for _, _, units in entries]).unique()
    if len(everywhere) <= 2 * max(len(units) for _, _, units in entries):
        return [_correction(entries, everywhere, form)]
    by_position: dict[int, list[tuple[int, int, Tensor]]] = {}
    for entry in entries:
        by_position.setdefault(entry[1], []).append(entry)
    return [_correction(part, torch.cat([u for _, _, u in part]).unique(), form) for part in by_position.values()]


def _correction(entries: list[tuple[int, int, Tensor]], units: Tensor, form: Tensor) -> Correction:
    run, position = torch.tensor([r for r, _, _ in entries]), torch.tensor([q for _, q, _ in entries])
    sign = torch.zeros(len(entries), len(units))
    for i, (r, q, own) in enumerate(entries):
        sign[i, torch.searchsorted(units, own)] = 1.0 if form[r, q] == REFERENCE else -1.0
    return Correction(units, run, position, sign)


def _stacked(whole: list[tuple[int, int, Tensor]], width: int) -> tuple[Tensor, Tensor, Tensor]:
    run = torch.tensor([r for r, _, _ in whole], dtype=torch.long)
    position = torch.tensor([q for _, q, _ in whole], dtype=torch.long)
    return run, position, torch.stack([k for _, _, k in whole]) if whole else torch.zeros(0, width, dtype=torch.bool)


def beginnings(
    full: bool,
    flipped: Sequence[Flips],
    errors: Sequence[ErrorNode],
    layers: Sequence[int],
    cuts: Sequence[bool],
    n_layers: int,
    positions: int,
    pooled: bool,
) -> tuple[int, ...]:
    """Per layer the first position at which a run differs from its anchor (`positions` where none does).

    Nothing before the first flipped slot can change, in its layer or a later one, because attention only looks back. A site
    that `cuts` (the residual stream, with every slot at its reference) undoes what came before it.
    """
    first = []
    start = positions
    for layer in range(n_layers):
        sites = [s for s in range(len(flipped)) if layers[s] == layer]
        earliest = {s: (0 if pooled else min(flipped[s].blocks)) if flipped[s].blocks else positions for s in sites}
        start = min([start, *earliest.values()])
        first.append(start)
        for s in sites:
            if cuts[s] and form_of(errors[s], full, False) == REFERENCE:
                start = earliest[s]
    return tuple(first)
