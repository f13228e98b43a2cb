"""One number per unit: how its activation is spread over tokens, whether it promotes the tokens it is active on, and what it does
to predictions."""

from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from neuron_vs_sae.analyses.units.collecting import BINS, QUANTILES, Collection
from neuron_vs_sae.analyses.units.selection import Units
from neuron_vs_sae.catalog.attribution.activation_patching import activation_patching
from neuron_vs_sae.core.basis import Basis
from neuron_vs_sae.core.conventions import Pairing
from neuron_vs_sae.core.dictionary import Some
from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.core.pairs import PromptPairs
from neuron_vs_sae.execution.splice import Edit, home, precision, run


def kurtosis(collection: Collection) -> Float[Tensor, " units"]:
    """The fourth central moment over the squared variance (3 for a normal variable); NaN for a unit that never varies."""
    m1, m2, m3, m4 = collection.moments
    variance = m2 - m1**2
    fourth = m4 - 4 * m1 * m3 + 6 * m1**2 * m2 - 3 * m1**4
    return torch.where(variance > 1e-12 * collection.ranges.amax(0).double() ** 2, fourth / variance**2, torch.nan)


def effective_tokens(collection: Collection) -> Float[Tensor, "2 units"]:
    """The effective number of tokens that a unit is active on: exp of the entropy of its activation by token. NaN where it is never active.

    A measure of polysemanticity: 1 for a unit that is active on one token alone. Estimated from the quantiles' windows, each
    weighted by what its quantile holds, so it is at most their number.
    """
    signs, units = collection.maximum.shape
    queues = collection.quantiles
    middle = queues.tokens.shape[-1] // 2
    mass = collection.histogram.reshape(-1, QUANTILES, BINS // QUANTILES).sum(-1).flatten().double()
    shares = queues.filled.double() * queues.center.abs() * (mass / queues.filled.sum(1).clamp(min=1))[:, None]
    tokens = queues.tokens[..., middle].reshape(signs * units, -1)
    shares = shares.reshape(signs * units, -1)
    counts = torch.full((signs * units,), torch.nan, dtype=torch.float64)
    for i in range(signs * units):
        total = float(shares[i].sum())
        if total > 0:
            _, which = tokens[i].unique(return_inverse=True)
            p = torch.zeros(int(which.max()) + 1, dtype=torch.float64).index_add_(0, which, shares[i] / total)
            counts[i] = torch.special.entr(p).sum().exp()
    return counts.reshape(signs, units)


def input_score(collection: Collection, said: Int[Tensor, "2 units n"]) -> Float[Tensor, "2 units"]:
    """The share of a unit's strongest windows whose peak token is among the tokens `said`. NaN where it has no window.

    `said` are the ends of its lens: the tokens promoted by positive values, and those promoted by negative ones. Source: Gur-Arieh
    et al. 2025, arXiv 2505.20063.
    """
    queues = collection.top
    peak = queues.tokens[..., queues.tokens.shape[-1] // 2]
    hit = (peak[..., None] == said.reshape(peak.shape[0], 1, -1)).any(-1) & queues.filled
    share = hit.sum(1) / queues.filled.sum(1)  # 0 / 0 is NaN
    return share.reshape(2, -1)


def output_score(
    model: Any,
    basis: Basis,
    units: Units,
    amount: Float[Tensor, " units"],
    said: Int[Tensor, "units n"],
    prompt: Int[Tensor, " pos"],
) -> Float[Tensor, " units"]:
    """How strongly the model predicts a unit's own tokens when `amount` of it is added at the last position of a neutral prompt.

    `(1 - lowest rank / vocabulary) x largest probability` of the tokens `said`; `amount` is usually ten times the largest value. Cost: a forward
    pass per unit. Source: Gur-Arieh et al. 2025, arXiv 2505.20063.
    """
    if len(amount) != len(units) or len(said) != len(units):
        raise InputError(
            f"{len(amount)} amounts and {len(said)} lists of tokens for {len(units)} units: give one of each per unit"
        )
    scores = torch.zeros(len(units), dtype=precision(model))
    tokens, length = prompt[None].to(home(model)), torch.tensor([len(prompt)], device=home(model))
    for u, (s, unit) in enumerate(zip(units.site.tolist(), units.unit.tolist(), strict=True)):
        site, dictionary = basis.sites[s], basis.dictionaries[s]
        change = amount[u] * dictionary.directions(torch.tensor([unit], device=home(model)))[0]

        def add(x: Tensor, site: Any = site, change: Tensor = change) -> Tensor:
            changed = site.view(x).to(precision(model)).clone()
            changed[:, -1] += change
            return site.put(x, changed)

        edits: list[Edit] = [(site.writes, add)]
        logits = run(model, tokens, length, edits)[0].cpu()
        probabilities = logits.softmax(-1)
        own = probabilities[said[u]]
        rank = (probabilities[:, None] > own).sum(0).min()
        scores[u] = (1 - rank / len(logits)) * own.max()
    return scores


def ablation_effects(
    model: Any,
    basis: Basis,
    units: Units,
    pairs: PromptPairs,
    metric: str = "logit_difference",
    pairing: Pairing = "paired",
) -> Float[Tensor, " units"]:
    """What each unit alone does for a task: the drop of the metric when it takes its corrupt value (unpaired: 0) at all positions.

    Exact, a run per prompt and unit; everything else runs live. In units of the metric, mean over prompts; > 0: it helps.
    """
    used = [s for s, at in enumerate(units.at) if len(at)]
    like = torch.zeros(1, device=home(model), dtype=precision(model))
    chosen = replace(
        basis,
        sites=tuple(basis.sites[s] for s in used),
        dictionaries=tuple(Some(basis.dictionaries[s], units.at[s].to(home(model)), like) for s in used),
    )
    scores = activation_patching(model, chosen, pairs, metric, pairing=pairing, positions="pooled")
    return torch.cat([at[0] for at, _ in scores.by_site()])
