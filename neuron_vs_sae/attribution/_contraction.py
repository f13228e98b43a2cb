"""From activations and gradients at the sites to one score per node: `score = (clean - corrupt) . gradient`."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from neuron_vs_sae.basis import Basis, Features
from neuron_vs_sae.errors import InputError, check_choice
from neuron_vs_sae.metric import Metric, Pairing, Target, for_attribution, resolve
from neuron_vs_sae.nodes import NodeIndex, NodeScores
from neuron_vs_sae.pairs import PromptPairs, lengths
from neuron_vs_sae.splice import Objective, read, run

Positions = Literal["separate", "pooled"]
Activations = Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class Term:
    """One summand of a method: what changes (`before - after`, units and errors) times the gradient at each site."""

    change: Features
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
    """Per site the scores of units and of the error vector (one number per position), summed over prompts, float64."""
    found = []
    for s, (dictionary, gradient) in enumerate(zip(basis.dictionaries, term.gradient, strict=True)):
        units = (term.change.units[s] * dictionary.pull_back(gradient)).double().sum(0)
        error = (term.change.errors[s] * gradient).double().sum((0, 2))
        # What a lossless dictionary leaves over is rounding, not a node.
        found.append((units, torch.zeros_like(error) if dictionary.lossless else error))
    return found


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
    target = Target(batch.answer, batch.foil, lambda: run(model, batch.clean, batch.length))
    return lambda logits: score(logits, target)


def at_sites(basis: Basis, activations: Activations) -> tuple[Float[Tensor, "batch pos _"], ...]:
    """The vector written at each site, from activations (or gradients) by hook."""
    return tuple(site.view(activations[site.writes]) for site in basis.sites)


def change(model: Any, basis: Basis, batch: PromptPairs, clean: Activations, pairing: Pairing) -> Features:
    """What ablating each node alone would take away: clean minus corrupt, or minus zero when unpaired."""
    check_choice("pairing", pairing, Pairing)
    features = basis.features(clean)
    if pairing == "unpaired":
        return features
    return features - basis.features(read(model, batch.corrupt, batch.length, basis.hooks))
