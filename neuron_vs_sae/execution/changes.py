"""Runs in which some units take other values: the error and every other unit stay what they are in the run.

Every intervention on a unit is affine in its value: to add, scale, clamp or patch is to write `v + offset + slope * v` for v.
The change is written along the unit's own direction, on top of what is there; so nothing is taken apart, and where offset and
slope are 0 the activation keeps its bits. Values are live: a unit that lies after another change is read after it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from neuron_vs_sae.core.basis import Basis
from neuron_vs_sae.core.dictionary import Dictionary
from neuron_vs_sae.execution.splice import Edit, home, precision


@dataclass(frozen=True, eq=False)
class Change:
    """What some units of one site become: `v + offset + slope * v`, by prompt and position (1 where all have the same)."""

    units: Int[Tensor, " k"]
    offset: Float[Tensor, "_ _ k"]
    slope: Float[Tensor, "_ _ k"]

    @property
    def is_nothing(self) -> bool:
        return not bool(self.offset.any() | self.slope.any())

    def of(self, rows: Int[Tensor, " n"], length: int) -> "Change":
        """The change of these prompts, at their first `length` positions."""
        offset, slope = (x if x.shape[0] == 1 else x[rows.to(x.device)] for x in (self.offset, self.slope))
        return Change(self.units, *(x if x.shape[1] == 1 else x[:, :length] for x in (offset, slope)))


Changes = tuple[Change | None, ...]
"""One run: for each site of a basis its change, None where there is none."""


def edits_of(model: Any, basis: Basis, changes: Changes) -> list[Edit]:
    """The changes as edits for `splice.run`, `read` and `gradients`: the exact execution."""
    edits: list[Edit] = []
    for site, dictionary, change in zip(basis.sites, basis.dictionaries, changes, strict=True):
        if change is None or change.is_nothing:
            continue
        inputs: dict[str, Tensor] = {}
        if site.reads != site.writes:
            edits.append((site.reads, lambda x, inputs=inputs: inputs.update(y=x)))

        # Bound as defaults: the function runs after the loop has moved on.
        def write(
            activation: Tensor,
            site: Any = site,
            dictionary: Any = dictionary,
            change: Change = change,
            inputs: dict[str, Tensor] = inputs,
        ) -> Tensor:
            x = site.view(activation).to(home(model), precision(model))
            y = site.view(inputs["y"]).to(x) if inputs else x
            return site.put(activation, x + written(dictionary, y, change))

        edits.append((site.writes, write))
    return edits


def written(dictionary: Dictionary, y: Float[Tensor, "batch pos d_in"], change: Change) -> Float[Tensor, "batch pos d"]:
    """What a change adds to the activation at its site, read from `y`."""
    units = change.units.to(y.device)
    values = dictionary.encode_some(y, units)
    return dictionary.written(change.offset.to(values) + change.slope.to(values) * values, units)


def unit_values(
    basis: Basis, activations: dict[str, Float[Tensor, "batch pos ..."]], units: Sequence[Int[Tensor, " _"]]
) -> list[Float[Tensor, "batch pos _"]]:
    """Per site the values of these units, as a change reads them; `activations` are those at `basis.hooks`."""
    values = []
    for site, dictionary, at in zip(basis.sites, basis.dictionaries, units, strict=True):
        y = site.view(activations[site.reads])
        values.append(dictionary.encode_some(y, at.to(y.device)) if len(at) else y.new_zeros(*y.shape[:2], 0))
    return values


@dataclass(frozen=True, eq=False)
class Changed:
    """One site's changes in a group of runs that go through the model together, at the positions that they run through."""

    units: Int[Tensor, " k"]
    offset: Float[Tensor, "runs _ pos k"]
    slope: Float[Tensor, "runs _ pos k"]

    @staticmethod
    def of(changes: Sequence[Change | None], length: int, first: int) -> "Changed | None":
        """The changes of one site in several runs, from position `first` of `length` on; None where no run has any."""
        real = [change for change in changes if change is not None]
        if not real:
            return None
        units = torch.cat([change.units for change in real]).unique()
        n = max(change.offset.shape[0] for change in real)
        shape = (len(changes), n, length - first, len(units))
        offset, slope = (real[0].offset.new_zeros(shape) for _ in range(2))
        for r, change in enumerate(changes):
            if change is not None:
                columns = torch.searchsorted(units, change.units)
                for table, value in ((offset, change.offset), (slope, change.slope)):
                    table[r][..., columns] = value if value.shape[1] == 1 else value[:, first:length]
        return Changed(units, offset, slope)

    def last(self, positions: int) -> "Changed":
        """The last so many positions."""
        return Changed(self.units, self.offset[:, :, -positions:], self.slope[:, :, -positions:])

    def write(
        self,
        x: Float[Tensor, "runs batch pos d"],
        y: Float[Tensor, "runs batch pos d_in"],
        dictionary: Dictionary,
        dtype: torch.dtype,
    ) -> None:
        """Add what is written to `x`, in place, where anything is; units are read from `y` before (the two may be one)."""
        at = self.last(x.shape[2])
        where = (at.offset.any(-1) | at.slope.any(-1)).to(x.device).expand(x.shape[:3])
        run, prompt, position = where.nonzero(as_tuple=True)
        if not len(run):
            return
        own = prompt if at.offset.shape[1] > 1 else torch.zeros_like(prompt)
        units = at.units.to(x.device)
        values = dictionary.encode_some(y[run, prompt, position][None].to(dtype), units)[0]
        offset, slope = (table.to(values)[run, own, position] for table in (at.offset, at.slope))
        before = x[run, prompt, position]
        after = before.to(dtype) + dictionary.written(offset + slope * values, units)
        x[run, prompt, position] = after.to(x.dtype)
