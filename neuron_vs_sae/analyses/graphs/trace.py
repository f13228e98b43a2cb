"""Traces a prompt: one rule for edges in every basis."""

from collections.abc import Sequence
from typing import Any, Literal

import torch

from neuron_vs_sae.analyses.graphs.contributions import Sources, contributions, held_by, rows_of, sources
from neuron_vs_sae.analyses.graphs.graph import Edges, Graph, TargetNode
from neuron_vs_sae.analyses.graphs.heads import loadings
from neuron_vs_sae.analyses.graphs.prompt import Prompt, prompt_of
from neuron_vs_sae.analyses.graphs.selection import Selected, selected
from neuron_vs_sae.analyses.graphs.targets import Direction, Target, targets_of, watched
from neuron_vs_sae.core.basis import Basis
from neuron_vs_sae.core.errors import check_choice
from neuron_vs_sae.core.metric import Metric
from neuron_vs_sae.core.pairs import PromptPairs
from neuron_vs_sae.execution.cut import Cut, cut, embedding_hooks, through
from neuron_vs_sae.execution.replacement import frozen, rules
from neuron_vs_sae.execution.splice import read

Slope = Literal["chord", "gradient"]
"""How an MLP counts between two sites: as its chord, each branch of a gate taking half (RelP), or by its own slope."""
Attention = Literal["frozen", "split"]
"""Attention patterns are constant; `split` tells each edge's share by the first head that it enters."""

_SHAPE = ("n_layers", "n_heads", "parallel_attn_mlp", "d_model")


def trace(
    model: Any,
    basis: Basis,
    prompt: str | PromptPairs,
    metric: str | Metric | None = None,
    *,
    nodes: int | None = 300,
    mass: float | None = None,
    slope: Slope = "chord",
    targets: str | Direction | None = None,
    attention: Attention = "frozen",
) -> Graph:
    """The attribution graph of one prompt: what each unit, and what is to be explained, takes directly from every earlier node.

    The edge from s to t is `v_s <w_s, dv_t/dx>`, x being what s's site writes: the part of t's value that comes from s along all
    paths that pass no other site, through residual stream and attention, with patterns and norms' scales constant. Chords
    conserve: the edges into a node and its bias add up to its value. Gradients estimate a single edge better, and do not.
    `targets`: `metric` (of a pair; the default there), `logits` (the salient ones; the default of a text), a unit
    `SITE/NUMBER@POSITION`, or a `Direction`. The units held are the `nodes` of largest total influence, or (`nodes=None`) as many
    as hold the share `mass` of it; the others are part of the `rest`. A pair's corrupt prompt gives the graph's `reference`.
    Cost: two forward passes (three for a pair), one backward pass for the choice and one for each row of the graph; memory in proportion
    to nodes x sites x positions, whatever the width of the dictionaries.
    Raises `InputError` for several prompts, more nodes than exist, a target that is not there, and a model of half precision.
    """
    check_choice("slope", slope, Slope)
    check_choice("attention", attention, Attention)
    given = prompt_of(model, prompt)
    asked = targets or ("logits" if given.pair is None else "metric")
    replaced = rules(model, freeze_attention=True) if slope == "chord" else frozen(model)
    watch = watched(asked)
    with through(model, basis, given.tokens, replaced, watch) as run:
        explained = targets_of(model, basis, given, asked, metric, run)
        chosen = selected(basis, run, explained, nodes, mass)
    corrupt = [] if given.pair is None else [_reference(model, basis, given, chosen)]
    with cut(model, basis, given.tokens, replaced, watch=watch) as run:
        clean, *reference = _edges(basis, run, explained, chosen, [sources(basis, run, chosen, chosen.value), *corrupt])
    heads = None
    if attention == "split":
        heads = loadings(model, basis, given.tokens, replaced, explained, chosen, watch)
    return Graph(
        settings={
            "model": model.cfg.model_name, "shape": {name: getattr(model.cfg, name) for name in _SHAPE}, "basis": basis.name, "slope": slope,
            "attention": attention, "provenance": basis.provenance,
        },
        prompt=given.text,
        tokens=given.shown,
        token_ids=tuple(given.tokens[0].tolist()),
        sites=tuple(site.name for site in basis.sites),
        layers=tuple(site.layer for site in basis.sites),
        widths=tuple(dictionary.width for dictionary in basis.dictionaries),
        targets=tuple(TargetNode(target.name, target.weight, target.token) for target in explained),
        site=chosen.site.cpu(),
        unit=chosen.unit.cpu(),
        position=chosen.position.cpu(),
        total=chosen.total.cpu(),
        values=torch.cat([chosen.value.new_tensor([target.value for target in explained]), chosen.value]).cpu(),
        edges=clean,
        n_scored=chosen.n_scored,
        n_total=chosen.n_total,
        heads=heads,
        reference=reference[0] if reference else None,
    )  # fmt: skip


def _reference(model: Any, basis: Basis, given: Prompt, chosen: Selected) -> Sources:
    """What the same nodes hold on the corrupt prompt: one plain forward pass, up to the last site."""
    assert given.pair is not None
    n = given.tokens.shape[1]
    embeddings = embedding_hooks(model)
    length = torch.tensor([n], device=given.tokens.device)
    seen = read(model, given.pair.corrupt[:, :n], length, (*basis.hooks, *embeddings))
    value = torch.zeros_like(chosen.value)
    for s, (site, dictionary) in enumerate(zip(basis.sites, basis.dictionaries, strict=True)):
        mine = (chosen.site == s).nonzero().flatten()
        y = site.view(seen[site.reads])
        for p in chosen.position[mine].unique().tolist():
            here = mine[chosen.position[mine] == p]
            value[here] = dictionary.encode_some(y[:, p], chosen.unit[here])[0]
    written = [site.view(seen[site.writes])[0] for site in basis.sites]
    return held_by(basis, written, tuple(seen[hook] for hook in embeddings), chosen, value)


def _edges(
    basis: Basis, run: Cut, explained: Sequence[Target], chosen: Selected, held: Sequence[Sources]
) -> list[Edges]:
    """The edges into every row, from each of the sets of sources."""
    n = len(explained) + len(chosen.unit)
    blank = chosen.value.new_zeros
    positions, sites = run.written[0].shape[1], len(basis.sites)
    whole = [Edges(blank(n, len(chosen.unit)), blank(n, sites, positions), blank(n, positions), blank(n)) for _ in held]
    for part in rows_of(basis, run, tuple(explained), chosen):
        for edges, piece in zip(whole, contributions(basis, run, part, chosen, tuple(held)), strict=True):
            edges.units[part.place], edges.rest[part.place] = piece.units, piece.rest
            edges.tokens[part.place], edges.bias[part.place] = piece.tokens, piece.bias
    return [Edges(e.units.cpu(), e.rest.cpu(), e.tokens.cpu(), e.bias.cpu()) for e in whole]
