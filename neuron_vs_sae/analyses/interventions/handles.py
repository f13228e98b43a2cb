"""What is steered: units by name, the first units of a ranking, or a direction as a basis of one unit."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from neuron_vs_sae.analyses.interventions.doses import Handle
from neuron_vs_sae.analyses.interventions.subjects import places
from neuron_vs_sae.analyses.units.selection import named
from neuron_vs_sae.catalog.attribution.attribution_patching import attribution_patching
from neuron_vs_sae.catalog.corpora import Corpus
from neuron_vs_sae.core.basis import Basis, Site
from neuron_vs_sae.core.conventions import SteerAt
from neuron_vs_sae.core.dictionary import Affine
from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.core.metric import Target, resolve
from neuron_vs_sae.core.pairs import PromptPairs
from neuron_vs_sae.execution.splice import gradients, home, precision, read, run


def handle_of(model: Any, basis: Basis, names: Sequence[str], signs: Sequence[float] | None = None) -> Handle:
    """The units of these names, each going up at a positive dose, or as `signs` say. Raises `InputError` for no unit of the basis."""
    chosen = named(basis, names)
    given = dict(zip(names, signs or [1.0] * len(names), strict=True))
    by_site = [
        [given.get(f"{site}/{unit}", 1.0) for unit in units.tolist()]
        for site, units in zip(chosen.sites, chosen.at, strict=True)
    ]
    like = torch.zeros(0, dtype=precision(model), device=home(model))
    tensors = tuple(like.new_tensor(row) for row in by_site)
    return Handle(chosen.at, tensors, tuple(torch.ones_like(row) for row in tensors))


def names_of(basis: Basis, handle: Handle) -> tuple[str, ...]:
    """`blocks.3.mlp.hook_post/1207`, site by site."""
    return tuple(
        f"{site.name}/{unit}" for site, units in zip(basis.sites, handle.units, strict=True) for unit in units.tolist()
    )


def first_units(
    model: Any,
    basis: Basis,
    pairs: PromptPairs,
    top: int,
    metric: str = "logit_difference",
    *,
    at: SteerAt = "all",
) -> Handle:
    """The `top` units of largest |score| by attribution patching on these pairs, summed over positions; at a positive dose each goes
    the way that lowers the metric: towards the corrupt prompt's answer.

    Which way that is, the gradient says: its mean over the clean prompts, summed over the tokens that will be steered. Raises `InputError` where fewer
    units have a score.
    """
    scores = attribution_patching(model, basis, pairs, metric, positions="pooled")
    index = scores.index
    ranked = scores.order(among=~index.is_error & index.exists)[:top]
    if len(ranked) < top:
        raise InputError(
            f"{top} units are asked of basis '{basis.name}', and {len(ranked)} have a score on '{pairs.name}' (--top)"
        )
    units = [here[0][1] if here else torch.zeros(0, dtype=torch.long) for here in index.at_sites(ranked)]
    signs = []
    for slope in _slopes(model, basis, pairs, units, metric, at):
        signs.append(torch.where(slope > 0, -1.0, 1.0).to(slope))
    return Handle(tuple(units), tuple(signs), tuple(torch.ones_like(row) for row in signs))


def _slopes(
    model: Any, basis: Basis, pairs: PromptPairs, units: Sequence[Int[Tensor, " _"]], metric: str, at: SteerAt
) -> list[Float[Tensor, " _"]]:
    """Per site by how much the metric rises for one more of each unit at every steered token, summed over the clean prompts."""
    measure = resolve(metric)
    totals: list[Tensor] = []
    for batch in pairs.batches(32):
        target = Target(batch.answer, batch.foil, cache(lambda batch=batch: run(model, batch.clean, batch.length)))
        _, slopes = gradients(
            model, batch.clean, batch.length, basis.hooks, lambda logits, target=target: measure(logits, target)
        )
        where = places(batch, at).to(home(model))
        parts = []
        for site, dictionary, chosen in zip(basis.sites, basis.dictionaries, units, strict=True):
            total = site.view(slopes[site.writes])[where].sum(0)
            parts.append(dictionary.directions(chosen.to(total.device)).to(total) @ total)
        totals = [a + b for a, b in zip(totals, parts, strict=True)] if totals else parts
    return totals


def largest_values(model: Any, basis: Basis, handle: Handle, corpus: Corpus, batch_size: int = 16) -> Handle:
    """The handle with each unit's largest |value| on the corpus as its scale, in which `maximum` doses count.

    Raises `InputError` for a unit that is never active there.
    """
    largest = [torch.zeros_like(row) for row in handle.scale]
    for batch in corpus.batches(batch_size):
        tokens, length, real = (x.to(home(model)) for x in (batch.tokens, batch.length, batch.real))
        seen = read(model, tokens, length, basis.hooks)
        for s, (site, dictionary, units) in enumerate(zip(basis.sites, basis.dictionaries, handle.units, strict=True)):
            if len(units):
                values = dictionary.encode_some(site.view(seen[site.reads]), units.to(home(model))).abs()
                largest[s] = torch.maximum(largest[s], torch.where(real[..., None], values, 0.0).amax((0, 1)))
    silent = [
        name for name, value in zip(names_of(basis, handle), torch.cat(largest).tolist(), strict=True) if not value
    ]
    if silent:
        raise InputError(
            f"unit {silent[0]} is never active on corpus '{corpus.name}', so multiples of its largest value are nothing: give doses in "
            "norm or value (--dose-in), or a longer corpus"
        )
    return Handle(handle.units, handle.signs, tuple(largest))


def direction_basis(model: Any, site: Site, direction: Float[Tensor, " d"], name: str) -> Basis:
    """A basis of one unit: how far an activation goes along a direction, which is made to have norm 1. What is across is its error."""
    direction = direction.to(home(model), precision(model))
    if not bool(direction.isfinite().all()) or not bool(direction.any()):
        raise InputError(f"the direction '{name}' is zero or not finite: nothing can be written along it")
    return subspace(model, [site], [(direction / direction.norm())[None]], name)


def subspace(model: Any, sites: Sequence[Site], rows: Sequence[Float[Tensor, "k d"]], name: str) -> Basis:
    """A basis of orthonormal directions at each site: units are projections, what is across is the error."""
    wide = precision(model)
    dictionaries = []
    for row in rows:
        decoder = row.to(home(model), wide)

        def encode(x: Tensor, decoder: Tensor = decoder) -> Tensor:
            return x @ decoder.T

        def some(x: Tensor, units: Int[Tensor, " k"], decoder: Tensor = decoder) -> Tensor:
            return x @ decoder[units].T

        dictionaries.append(Affine(encode, decoder, decoder.new_zeros(decoder.shape[1]), some=some))
    return Basis(name, tuple(sites), tuple(dictionaries), {"directions": [len(row) for row in rows]})
