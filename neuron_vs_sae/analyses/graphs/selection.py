"""Which units a graph holds: those of largest total influence, found by one backward pass over the uncut model."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from neuron_vs_sae.analyses.graphs.targets import Target
from neuron_vs_sae.core.basis import Basis
from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.execution.cut import Cut

MOST = 7500
"""Units of a graph that is asked for by mass, at most."""


@dataclass(frozen=True, eq=False)
class Selected:
    """The units of a graph, those of largest |total| first, with their values and what each adds to the targets over all paths."""

    site: Int[Tensor, " units"]
    unit: Int[Tensor, " units"]
    position: Int[Tensor, " units"]
    value: Float[Tensor, " units"]
    total: Float[Tensor, " units"]
    n_scored: int
    n_total: int


def selected(basis: Basis, run: Cut, targets: Sequence[Target], nodes: int | None, mass: float | None) -> Selected:
    """The `nodes` units of largest |total| (all that have one, where they are fewer), or as few as hold the share `mass` of all |total|.

    Of several targets the totals are added up by weight; units are ordered by the sum of their sizes. `run` is one `through` the
    model: every site's gradient holds all paths, the errors constant. No more than one dictionary's units are held at a time.
    Raises `InputError` for more nodes than exist, and where no unit reaches a target.
    """
    positions = run.written[0].shape[1]
    n_total = positions * sum(dictionary.width for dictionary in basis.dictionaries)
    most = MOST if nodes is None else nodes
    if most < 1 or (nodes is not None and nodes > n_total):
        raise InputError(
            f"a graph of {nodes} units is asked for, and basis '{basis.name}' has {n_total} on {positions} tokens: ask for 1 to "
            f"{n_total} (--nodes)"
        )
    gradients = [run.backward(t.quantity(run), t.cotangent[None], run.probes) for t in targets]
    parts, n_scored, everything = [], 0, 0.0
    for s, dictionary in enumerate(basis.dictionaries):
        values = dictionary.encode(run.read[s].detach())[0]
        totals, sizes = torch.zeros_like(values), torch.zeros_like(values)
        for target, gradient in zip(targets, (of_sites[s] for of_sites in gradients), strict=True):
            if gradient is None:
                continue
            contributions = values * dictionary.pull_back(gradient[0])[0]
            totals += target.weight * contributions
            sizes += target.weight * contributions.abs()
        n_scored += int((sizes > 0).sum())
        everything += float(sizes.sum())
        size, place = _largest(sizes.flatten(), most)
        parts.append([torch.full_like(place, s), place, size, values.flatten()[place], totals.flatten()[place]])
    site, place, size, value, total = (torch.cat(columns) for columns in zip(*parts, strict=True))
    order = size.sort(descending=True, stable=True).indices[:most]
    if mass is not None:
        order = order[: 1 + int((size[order].cumsum(0) < mass * everything).sum())]
    if not len(order):
        raise InputError("no unit of the basis reaches the target: nothing flows into it but tokens and biases")
    site, place = site[order], place[order]
    widths = torch.tensor([dictionary.width for dictionary in basis.dictionaries], device=site.device)[site]
    return Selected(site, place % widths, place // widths, value[order], total[order], n_scored, n_total)


def _largest(sizes: Float[Tensor, " n"], most: int) -> tuple[Float[Tensor, " k"], Int[Tensor, " k"]]:
    """(the largest that are not 0, their places), largest first, ties in order of place; without sorting all."""
    limit = sizes.topk(min(most, len(sizes))).values[-1]
    place = ((sizes >= limit) & (sizes > 0)).nonzero().flatten()
    size, order = sizes[place].sort(descending=True, stable=True)
    return size[:most], place[order[:most]]
