"""Doses as changes: what `add`, `scale`, `clamp` and `patch` write for a set of units at each dose, on given prompts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from neuron_vs_sae.analyses.interventions.subjects import Subject, check_finite, landed, site_norms
from neuron_vs_sae.core.basis import Basis
from neuron_vs_sae.core.conventions import DoseMeasure, SteerKind
from neuron_vs_sae.core.errors import InputError, check_choice
from neuron_vs_sae.execution.changes import Change, Changes, unit_values

GRIDS: dict[SteerKind, tuple[float, ...]] = {
    "add": (-0.8, -0.4, -0.2, -0.1, 0.0, 0.1, 0.2, 0.4, 0.8),
    "scale": (-4.0, -2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 4.0),
    "clamp": (-4.0, -2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 4.0),
    "patch": (-1.0, -0.5, 0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0),
}
"""Doses of each kind where none are given; a clamp's are multiples of the largest value."""

_MEASURES: dict[SteerKind, tuple[DoseMeasure, ...]] = {
    "add": ("norm", "kl", "value", "maximum"),
    "scale": ("value",),
    "clamp": ("maximum", "value"),
    "patch": ("value",),
}


@dataclass(frozen=True, eq=False)
class Handle:
    """The units of a basis that share a dose, per site; `signs` say which way each goes at a positive dose of `add`.

    `scale` is what a dose of 1 means to each unit where doses are multiples of its largest value, else 1.
    """

    units: tuple[Int[Tensor, " _"], ...]
    signs: tuple[Float[Tensor, " _"], ...]
    scale: tuple[Float[Tensor, " _"], ...]

    @property
    def n_units(self) -> int:
        return sum(len(units) for units in self.units)


def measure_of(kind: SteerKind, dose_in: DoseMeasure | None) -> DoseMeasure:
    """What doses of that kind count, as asked for or by default. Raises `InputError` for a pair that makes no sense."""
    check_choice("kind", kind, SteerKind)
    if dose_in is None:
        return _MEASURES[kind][0]
    check_choice("measure of doses", dose_in, DoseMeasure)
    if dose_in not in _MEASURES[kind]:
        raise InputError(
            f"doses of '{kind}' cannot be in '{dose_in}': they can be in {', '.join(_MEASURES[kind])} (--dose-in)"
        )
    return dose_in


def check_doses(kind: SteerKind, doses: Sequence[float]) -> tuple[float, ...]:
    """The doses, those of the kind's grid where none are given. Raises `InputError` for NaN, and for one given twice."""
    chosen = tuple(float(dose) for dose in doses) or GRIDS[kind]
    check_finite("dose", chosen)
    if len(set(chosen)) < len(chosen):
        raise InputError(f"a dose is given twice among {list(chosen)}")
    return chosen


def changes_at(
    model: Any,
    basis: Basis,
    handle: Handle,
    kind: SteerKind,
    dose: float,
    of: Subject,
    *,
    measure: DoseMeasure,
    donor: Sequence[Float[Tensor, "batch pos _"]] | None = None,
) -> Changes:
    """One dose on one subject. `donor`: the handle's units in the donor prompts, for `patch`.

    `add`: unit i moves by `a s_i`, a being the dose itself (`value`), times the unit's largest value (`maximum`), or such that the change
    has the dose's norm, relative to what is there (`norm`): the root of the sum over sites of `(|written| / |activation|)²`, at every
    position on its own, both as the site's layer adds them up (`subjects.landed`). `clamp` writes the dose, `scale` multiplies by it, and
    `patch` goes that part of the way to the donor.
    """
    if kind == "patch" and donor is None:
        raise InputError("patch needs donors: give pairs, whose corrupt prompts they are")
    factor = _norm_factor(model, basis, handle, of) if kind == "add" and measure == "norm" else None
    changes: list[Change | None] = []
    where = of.where[..., None]
    for s, (units, signs, scale) in enumerate(zip(handle.units, handle.signs, handle.scale, strict=True)):
        if not len(units):
            changes.append(None)
            continue
        like = where.to(signs.dtype)
        if kind == "add":
            by = like * dose * signs * scale if factor is None else dose * factor[..., None] * signs * like
            changes.append(Change(units, by, torch.zeros_like(by)))
        elif kind == "clamp":
            target = like * dose * scale
            changes.append(Change(units, target, (-like).expand_as(target).clone()))
        elif kind == "scale":
            slope = like * (dose - 1) * torch.ones_like(scale)
            changes.append(Change(units, torch.zeros_like(slope), slope))
        else:
            assert donor is not None  # checked above
            changes.append(Change(units, like * dose * donor[s].to(like), (-dose * like).expand_as(donor[s]).clone()))
    return tuple(changes)


def written_norms(model: Any, basis: Basis, changes: Changes, of: Subject) -> Float[Tensor, " batch"]:
    """Per prompt the relative norm that the changes write into the plain model's activations, mean over the changed positions."""
    total = torch.zeros(of.tokens.shape, dtype=torch.float64, device=of.tokens.device)
    values = unit_values(basis, of.activations, [c.units if c else torch.zeros(0, dtype=torch.long) for c in changes])
    for site, dictionary, change, value, norm in zip(
        basis.sites, basis.dictionaries, changes, values, site_norms(model, basis, of), strict=True
    ):
        if change is not None:
            by = change.offset.to(value) + change.slope.to(value) * value
            rows = landed(model, site, dictionary.directions(change.units.to(value.device)))
            total += ((by @ rows.to(by)).norm(dim=-1) / norm).nan_to_num().double() ** 2
    places = of.where.sum(1).clamp(min=1)
    return (torch.where(of.where, total.sqrt(), 0.0).sum(1) / places).cpu()


def _norm_factor(model: Any, basis: Basis, handle: Handle, of: Subject) -> Float[Tensor, "batch pos"]:
    """What `signs` are multiplied by for a change of relative norm 1, per prompt and position."""
    total = torch.zeros(of.tokens.shape, dtype=torch.float64, device=of.tokens.device)
    for site, dictionary, units, signs, norm in zip(
        basis.sites, basis.dictionaries, handle.units, handle.signs, site_norms(model, basis, of), strict=True
    ):
        if len(units):
            rows = landed(model, site, dictionary.directions(units.to(norm.device)))
            total += ((signs.to(rows) @ rows).norm() / norm).double() ** 2
    if not bool((total[of.where] > 0).all()):
        raise InputError(
            "the units of the set write nothing together, so no dose has a norm: take others, or other signs"
        )
    return torch.where(of.where, total, 1.0).rsqrt().to(handle.signs[0].dtype)


def kinds() -> tuple[SteerKind, ...]:
    """Every kind of intervention."""
    return get_args(SteerKind)
