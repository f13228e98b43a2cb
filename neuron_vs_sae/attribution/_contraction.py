"""From activations and gradients at the sites to one score per node: `score = (clean - corrupt) . gradient`."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from neuron_vs_sae.basis import Basis, Dictionary, Site
from neuron_vs_sae.errors import InputError, check_choice
from neuron_vs_sae.metric import Metric, Pairing, Target, for_attribution, resolve
from neuron_vs_sae.nodes import NodeIndex, NodeScores
from neuron_vs_sae.pairs import PromptPairs, lengths
from neuron_vs_sae.splice import Objective, read, run

Positions = Literal["separate", "pooled"]
Activations = Mapping[str, Tensor]


# Elements of a table of tokens x units that are held at a time, 64 MiB in float32: wider dictionaries take fewer tokens.
_HELD = 1 << 24
# Where fewer units than one in so many change, a CPU multiplies a gradient by those units' decoder rows alone.
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


def check_positions(pairs: PromptPairs, positions: Positions) -> None:
    """Raises `InputError` where separate positions cannot be told apart: prompts of several lengths."""
    check_choice("positions", positions, Positions)
    if positions == "separate" and not pairs.same_length:
        raise InputError(
            f"the prompts of task '{pairs.name}' differ in length: {lengths(pairs)}; with separate positions a node is "
            "a unit at one position, so all prompts need one length. Keep one length, or use positions='pooled' "
            "(--positions pooled)"
        )


def accumulate(
    basis: Basis,
    pairs: PromptPairs,
    positions: Positions,
    batch_size: int,
    terms: Callable[[PromptPairs], Iterable[Term]],
    label: str,
) -> NodeScores:
    """The mean over pairs of the sum of `terms(batch)`, contracted to nodes."""
    check_positions(pairs, positions)
    totals: list[tuple[Tensor, Tensor]] = []
    for batch in tqdm(pairs.batches(batch_size), desc=label, leave=False, delay=2):
        for term in terms(batch):
            found = contract(basis, term)
            if not totals:
                totals = [(torch.zeros_like(u), torch.zeros_like(e)) for u, e in found]
            for (units, error), (u, e) in zip(totals, found, strict=True):
                units += u
                error += e
    return as_scores(basis, [(u / len(pairs), e / len(pairs)) for u, e in totals], positions)


def contract(basis: Basis, term: Term) -> list[tuple[Float[Tensor, "pos _"], Float[Tensor, " pos"]]]:
    """Per site the scores of units and of the error vector (one number per position), summed over prompts, float64.

    Since `decode` is affine, a site's change times its gradient is the units' scores and the error's: so the error's is
    what they leave, and nothing is decoded. Tokens at which nothing changes (those before the two prompts differ) are
    not encoded. Cost: per site two encodes (one when unpaired) and as much again for the units' gradients.
    """
    return [
        _contract_site(site, dictionary, term, gradient)
        for site, dictionary, gradient in zip(basis.sites, basis.dictionaries, term.gradient, strict=True)
    ]


def _contract_site(
    site: Site, dictionary: Dictionary, term: Term, gradient: Float[Tensor, "batch pos d"]
) -> tuple[Float[Tensor, "pos {dictionary.width}"], Float[Tensor, " pos"]]:
    y, x = (site.view(term.before[hook]) for hook in (site.reads, site.writes))
    if term.after is None:
        to_y, to_x = None, dictionary.at_zero(x).expand_as(x)
        moved = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
    else:
        to_y, to_x = (site.view(term.after[hook]) for hook in (site.reads, site.writes))
        moved = (y != to_y).any(2) | (x != to_x).any(2)
    moved &= gradient.any(2)
    total = ((x - to_x) * gradient).double().sum((0, 2))
    units = torch.zeros(x.shape[1], dictionary.width, dtype=torch.float64, device=x.device)
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
            continue
        scores = change * dictionary.pull_back(gradient[b, p])
        for at, part in enumerate(scores.split(p.bincount(minlength=x.shape[1]).tolist())):
            units[at] += part.sum(0, dtype=torch.float64)
    # What a lossless dictionary leaves over is rounding, not a node.
    error = torch.zeros_like(total) if dictionary.lossless else total - units.sum(1)
    return units, error


def as_scores(
    basis: Basis, per_site: list[tuple[Float[Tensor, "pos _"], Float[Tensor, " pos"]]], positions: Positions
) -> NodeScores:
    """Node scores on the CPU from per-site values at every position; pooled ones are their sums over positions."""
    n_positions = per_site[0][0].shape[0]
    if positions == "pooled":
        per_site = [(u.sum(0, keepdim=True), e.sum(0, keepdim=True)) for u, e in per_site]
    index: NodeIndex = basis.index(None if positions == "pooled" else n_positions)
    values = index.flatten([u.cpu() for u, _ in per_site], [e.cpu() for _, e in per_site])
    return NodeScores(index, values.to(torch.float64))


def objective(model: Any, metric: str | Metric | None, pairing: Pairing, batch: PromptPairs) -> Objective:
    """The metric of this batch's clean prompts as a function of logits alone."""
    score = resolve(for_attribution(metric, pairing))
    target = Target(batch.answer, batch.foil, cache(lambda: run(model, batch.clean, batch.length)))
    return lambda logits: score(logits, target)


def at_sites(basis: Basis, activations: Activations) -> tuple[Float[Tensor, "batch pos _"], ...]:
    """The vector written at each site, from activations (or gradients) by hook."""
    return tuple(site.view(activations[site.writes]) for site in basis.sites)


def ends(model: Any, basis: Basis, batch: PromptPairs, pairing: Pairing) -> Activations | None:
    """What ablating each node alone would bring it to: the corrupt prompt's activations, or None (zero) when unpaired."""
    check_choice("pairing", pairing, Pairing)
    return None if pairing == "unpaired" else read(model, batch.corrupt, batch.length, basis.hooks)
