"""Sets of nodes of one prompt as changes: set to a donor's values, or moved by a given amount."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from neuron_vs_sae.core.nodes import NodeIndex
from neuron_vs_sae.execution.changes import Change, Changes


def towards(
    index: NodeIndex, nodes: Int[Tensor, " k"], donor: Sequence[Float[Tensor, "pos _"]], alpha: float
) -> Changes:
    """Each node's value v becomes `v + alpha (donor's - v)`: at 1 it is the donor's, whatever it would be in the run."""
    return tuple(
        _change(here, values, lambda target: (alpha * target, torch.full_like(target, -alpha)))
        for here, values in zip(index.at_sites(nodes), donor, strict=True)
    )


def moved(
    index: NodeIndex, nodes: Int[Tensor, " k"], amounts: Float[Tensor, " k"], like: Sequence[Float[Tensor, "pos _"]]
) -> Changes:
    """Each node's value v becomes `v + amount`; amounts in the order of the nodes, which are distinct."""
    flat = torch.zeros(len(index), dtype=torch.float64)
    flat[nodes] = amounts.double()
    tables = [units for units, _ in index.unflatten(flat)]
    return tuple(
        _change(here, table.to(values), lambda amount: (amount, torch.zeros_like(amount)))
        for here, table, values in zip(index.at_sites(nodes), tables, like, strict=True)
    )


def _change(
    here: Sequence[tuple[int, Int[Tensor, " _"], bool]],
    values: Float[Tensor, "pos width"],
    rule: Callable[[Tensor], tuple[Tensor, Tensor]],
) -> Change | None:
    chosen = [(block, units) for block, units, _ in here if len(units)]
    if not chosen:
        return None
    every = torch.cat([units for _, units in chosen]).unique()
    offset, slope = (values.new_zeros(1, len(values), len(every)) for _ in range(2))
    for block, units in chosen:
        columns = torch.searchsorted(every, units)
        offset[0, block, columns], slope[0, block, columns] = rule(values[block, units.to(values.device)])
    return Change(every, offset, slope)


def at_nodes(index: NodeIndex, tables: Sequence[Float[Tensor, "pos _"]]) -> Float[Tensor, " nodes"]:
    """One number per node from a table per site; 0 for error nodes."""
    zeros = [table.new_zeros(len(table)).cpu() for table in tables]
    return index.flatten([table.cpu() for table in tables], zeros)


def written_norm(
    index: NodeIndex,
    nodes: Int[Tensor, " k"],
    amounts: Float[Tensor, " k"],
    site_norm: Sequence[Float[Tensor, " pos"]],
    directions: Sequence[Float[Tensor, "_ _"]],
) -> float:
    """What moving these nodes by these amounts writes, relative to what is there: the root of the sum over sites and positions
    of `(|written| / |activation|)²`. `directions` of all units, as each site's layer adds them up (`subjects.landed`)."""
    flat = torch.zeros(len(index), dtype=torch.float64)
    flat[nodes] = amounts.double()
    total = 0.0
    for (units, _), norm, rows in zip(index.unflatten(flat), site_norm, directions, strict=True):
        used = units.any(0).nonzero().flatten().to(rows.device)
        if len(used):
            norms = (units.to(rows)[:, used] @ rows[used]).norm(dim=-1)
            total += float(((norms / norm.to(norms)).nan_to_num() ** 2).sum())
    return total**0.5
