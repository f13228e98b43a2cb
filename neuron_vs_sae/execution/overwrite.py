"""Writes one site's slots over an activation: what a run keeps and what it ablates there (`slots.py`)."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from neuron_vs_sae.core.dictionary import Dictionary
from neuron_vs_sae.execution.slots import REFERENCE, Slots
from neuron_vs_sae.execution.whole import whole_slots

# Elements of a table of slots x prompts x units that are held at a time, 64 MiB in float32: memory does not grow with width.
HELD = 1 << 24


@dataclass(frozen=True, eq=False)
class AblatedSite:
    """One site's reference values: what it writes where everything is ablated (`written`), the values of the units that can be live
    (`units`, those of `columns` or all) and of the error; and what runs without the ablation's constants lack, at the site
    (`offset`) and after it (`constant`: hook and vector)."""

    written: Float[Tensor, "_ _ d"]
    units: Float[Tensor, "_ _ w"]
    error: Float[Tensor, "_ _ _"]
    columns: Int[Tensor, " w"] | None
    offset: Float[Tensor, " _"] | None
    constant: tuple[str, Float[Tensor, " _"]] | None

    def of(self, units: Int[Tensor, " k"], positions: Int[Tensor, " n"]) -> Float[Tensor, "n _ k"]:
        """The reference values of some units at some positions, by slot and prompt."""
        columns = units if self.columns is None else torch.searchsorted(self.columns, units)
        return _at(self.units[..., columns.to(self.units.device)], positions)


def _at(values: Tensor, positions: Tensor) -> Tensor:
    """`[n, batch or 1, d]` of a reference's `[batch or 1, pos or 1, d]`."""
    at = positions.to(values.device) if values.shape[1] > 1 else torch.zeros_like(positions, device=values.device)
    return values[:, at].transpose(0, 1)


def overwrite(
    x: Float[Tensor, "runs batch pos d"],
    y: Float[Tensor, "runs batch pos d_in"],
    dictionary: Dictionary,
    at: Slots,
    ablated: AblatedSite,
    dtype: torch.dtype,
) -> None:
    """Write the slots into `x`, in place; units are read from `y` before anything is written (`x` and `y` may be the same)."""
    batch = x.shape[1]
    inputs = [y[c.run, :, c.position].to(dtype) for c in at.corrections]
    run, position, kept = at.whole
    whole_y, whole_x = y[run, :, position].to(dtype), x[run, :, position].to(dtype)
    on_reference = (at.form == REFERENCE).nonzero(as_tuple=True)
    x[on_reference[0], :, on_reference[1]] = _at(ablated.written, at.first + on_reference[1]).to(x.dtype).expand(
        -1, batch, -1
    )  # fmt: skip
    for c, read in zip(at.corrections, inputs, strict=True):
        units = c.units.to(x.device)
        directions = dictionary.directions(units)
        for n in _slices(len(read), batch * len(units)):
            change = dictionary.encode_some(read[n], units) - ablated.of(c.units, at.first + c.position[n])
            change = change * c.sign[n, None].to(change)
            before = x[c.run[n], :, c.position[n]]
            x[c.run[n], :, c.position[n]] = (before.to(dtype) + change @ directions).to(x.dtype)
    for n in _slices(len(run), batch * dictionary.width):
        live = at.error[run[n], position[n]].to(x.device)
        written = whole_slots(
            dictionary, whole_y[n], whole_x[n], kept[n].to(x.device), live,
            _at(ablated.units, at.first + position[n]), _at(ablated.error, at.first + position[n]),
        )  # fmt: skip
        x[run[n], :, position[n]] = written.to(x.dtype)


def _slices(n: int, elements: int) -> list[Int[Tensor, " m"]]:
    """The numbers below `n` in slices, each as long as `HELD` allows at that many elements per number."""
    return list(torch.arange(n).split(max(1, HELD // max(1, elements)))) if n else []
