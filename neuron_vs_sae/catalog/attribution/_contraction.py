"""From activations and gradients at the sites to one score per node: `score = (clean - corrupt) . gradient`."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from neuron_vs_sae.core.basis import Basis, Site
from neuron_vs_sae.core.building import check_positions
from neuron_vs_sae.core.conventions import Pairing, Positions
from neuron_vs_sae.core.dictionary import Dictionary
from neuron_vs_sae.core.errors import check_choice
from neuron_vs_sae.core.metric import Metric, Target, for_attribution, resolve
from neuron_vs_sae.core.nodes import NodeIndex, NodeScores
from neuron_vs_sae.core.pairs import PromptPairs
from neuron_vs_sae.execution.splice import Objective, read, run

Activations = Mapping[str, Tensor]


# The most elements of a table of tokens x units held at a time, 64 MiB in float32: wider dictionaries take fewer tokens.
_HELD = 1 << 24


# Where fewer than one unit in so many changes, a CPU multiplies a gradient by those units' decoder rows alone.
_FEW = 12


@dataclass(frozen=True, eq=False)
class Term:
    """One summand of a method: the activations that change, from `before` to `after`, and the gradient at each site.

    `after` is None where units and errors change to zero. Units are encoded only when the term is contracted, a site at
    a time, so that no more than one dictionary's are held.
    """

    before: Activations
    after: Activations | None
    gradient: tuple[Float[Tensor, "batch pos _"], ...]


@dataclass(frozen=True, eq=False)
class Sums:
    """A site's scores summed over prompts in float64, and over those of each group in the scores' own precision."""

    units: Float[Tensor, "blocks width"]
    error: Float[Tensor, " blocks"]
    units_of: Float[Tensor, "groups blocks width"]
    error_of: Float[Tensor, "groups blocks"]

    def __iadd__(self, other: "Sums") -> "Sums":
        for total, addend in zip(self._all, other._all, strict=True):
            total += addend
        return self

    @property
    def _all(self) -> tuple[Tensor, ...]:
        return self.units, self.error, self.units_of, self.error_of


def members(pairs: PromptPairs) -> Float[Tensor, "groups batch"]:
    """1 where a pair is in a group, on the pairs' device; no rows where the pairs are in none."""
    groups = torch.zeros(len(pairs), 0) if pairs.groups is None else pairs.groups
    return groups.T.to(pairs.clean.device, torch.float64)


def accumulate(
    basis: Basis,
    pairs: PromptPairs,
    positions: Positions,
    batch_size: int,
    terms: Callable[[PromptPairs], Iterable[Term]],
    label: str,
) -> NodeScores:
    """The mean over pairs (and over each group of them) of the sum of `terms(batch)`, contracted to nodes."""
    check_positions(pairs, positions)
    totals: list[Sums] = []
    for batch in tqdm(pairs.batches(batch_size), desc=label, leave=False, delay=2):
        for term in terms(batch):
            totals = added(totals, contract(basis, term, members(batch)))
    return as_scores(basis, totals, pairs, positions)


def added(totals: list[Sums], sums: list[Sums]) -> list[Sums]:
    """`totals`, which begin as an empty list, with every site's `sums` added in place."""
    for total, site_sums in zip(totals, sums, strict=bool(totals)):
        total += site_sums
    return totals or sums


def contract(basis: Basis, term: Term, groups: Float[Tensor, "groups batch"]) -> list[Sums]:
    """Per site the scores of units and of the error vector (one number per position), summed over prompts.

    Since `decode` is affine, a site's change times its gradient is the sum of the units' scores and the error's, so the error's score is
    what the units leave, and nothing is decoded. Tokens at which nothing changes (those before the two prompts differ) are
    not encoded. Cost: per site two encodes (one when unpaired) and as much again for the units' gradients.
    """
    return [
        _contract_site(site, dictionary, term, gradient, groups)
        for site, dictionary, gradient in zip(basis.sites, basis.dictionaries, term.gradient, strict=True)
    ]


def _contract_site(
    site: Site,
    dictionary: Dictionary,
    term: Term,
    gradient: Float[Tensor, "batch pos d"],
    groups: Float[Tensor, "groups batch"],
) -> Sums:
    y, x = (site.view(term.before[hook]) for hook in (site.reads, site.writes))
    if term.after is None:
        to_y, to_x = None, dictionary.at_zero(x).expand_as(x)
        moved = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
    else:
        to_y, to_x = (site.view(term.after[hook]) for hook in (site.reads, site.writes))
        moved = (y != to_y).any(2) | (x != to_x).any(2)
    moved &= gradient.any(2)
    moves = ((x - to_x) * gradient).double()
    total, total_of = moves.sum((0, 2)), groups @ moves.sum(2)
    units = torch.zeros(x.shape[1], dictionary.width, dtype=torch.float64, device=x.device)
    units_of = torch.zeros(len(groups), *units.shape, dtype=x.dtype, device=x.device)
    groups = groups.to(x.dtype)
    position, prompt = moved.T.nonzero(as_tuple=True)  # position by position
    for rows in torch.arange(len(position)).split(max(1, _HELD // dictionary.width)):
        p, b = position[rows], prompt[rows]
        change = dictionary.encode(y[b, p])
        if to_y is not None:
            change = change - dictionary.encode(to_y[b, p])
        if change.is_cpu and _FEW * int(change.count_nonzero()) < change.numel():
            row, unit = change.nonzero(as_tuple=True)
            scores = change[row, unit] * dictionary.pull_back_some(gradient[b, p], row, unit)
            units.index_put_((p[row], unit), scores.double(), accumulate=True)
            units_of.flatten(1).index_add_(1, p[row] * dictionary.width + unit, groups[:, b[row]] * scores)
            continue
        scores = change * dictionary.pull_back(gradient[b, p])
        counts = p.bincount(minlength=x.shape[1]).tolist()
        for at, (part, rows_of) in enumerate(zip(scores.split(counts), b.split(counts), strict=True)):
            units[at] += part.sum(0, dtype=torch.float64)
            units_of[:, at] += groups[:, rows_of] @ part
    # What a lossless dictionary leaves over is rounding, not a node.
    error = torch.zeros_like(total) if dictionary.lossless else total - units.sum(1)
    error_of = torch.zeros_like(total_of) if dictionary.lossless else total_of - units_of.sum(2, dtype=torch.float64)
    return Sums(units, error, units_of, error_of.to(x.dtype))


def as_scores(basis: Basis, sums: list[Sums], pairs: PromptPairs, positions: Positions) -> NodeScores:
    """Node scores on the CPU from every site's sums over `pairs`: their mean; pooled ones are sums over positions."""
    index: NodeIndex = basis.index(None if positions == "pooled" else len(sums[0].error))

    def mean(tables: list[tuple[Tensor, Tensor]], n: float) -> Tensor:
        tables = [(units / n, error / n) for units, error in tables]
        if positions == "pooled":
            tables = [(units.sum(0, keepdim=True), error.sum(0, keepdim=True)) for units, error in tables]
        return index.flatten([units.cpu() for units, _ in tables], [error.cpu() for _, error in tables])

    values = mean([(site.units, site.error) for site in sums], float(len(pairs)))
    by_group = [
        mean([(site.units_of[g], site.error_of[g]) for site in sums], size).float()
        for g, size in enumerate(members(pairs).sum(1).tolist())
    ]
    return NodeScores(index, values.to(torch.float64), torch.stack(by_group) if by_group else None)


def objective(model: Any, metric: str | Metric | None, pairing: Pairing, batch: PromptPairs) -> Objective:
    """The metric of this batch's clean prompts as a function of logits alone."""
    score = resolve(for_attribution(metric, pairing))
    target = Target(batch.answer, batch.foil, cache(lambda: run(model, batch.clean, batch.length)))
    return lambda logits: score(logits, target)


def at_sites(basis: Basis, activations: Activations) -> tuple[Float[Tensor, "batch pos _"], ...]:
    """The vector written at each site, from activations (or gradients) by hook."""
    return tuple(site.view(activations[site.writes]) for site in basis.sites)


def ends(model: Any, basis: Basis, batch: PromptPairs, pairing: Pairing) -> Activations | None:
    """The activations that ablated nodes are set to: the corrupt prompt's, or None (zero) when unpaired."""
    check_choice("pairing", pairing, Pairing)
    return None if pairing == "unpaired" else read(model, batch.corrupt, batch.length, basis.hooks)
