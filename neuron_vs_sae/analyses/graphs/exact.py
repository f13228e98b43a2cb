"""Edges against what they estimate: what a target loses when one source is silenced on its direct paths alone."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from scipy.stats import spearmanr
from torch import Tensor

from neuron_vs_sae.analyses.graphs.graph import Graph
from neuron_vs_sae.analyses.graphs.prompt import Prompt
from neuron_vs_sae.analyses.graphs.targets import parse_unit
from neuron_vs_sae.core.basis import Basis, Site
from neuron_vs_sae.core.lookup import known
from neuron_vs_sae.core.metric import Target, resolve
from neuron_vs_sae.execution.splice import Edit, read, run

_BATCH = 64


@dataclass(frozen=True, eq=False)
class Sample:
    """Some edges between units, or from a unit to a target: rows of the graph, units, the edges' weights and their exact effects."""

    row: Int[Tensor, " k"]
    unit: Int[Tensor, " k"]
    weight: Float[Tensor, " k"]
    effect: Float[Tensor, " k"]

    @property
    def spearman(self) -> float:
        """The rank correlation of weights and effects; NaN for fewer than three edges, and where either is constant."""
        if len(self.weight) < 3 or bool((self.weight == self.weight[0]).all() | (self.effect == self.effect[0]).all()):
            return float("nan")
        return float(spearmanr(self.weight.numpy(), self.effect.numpy())[0])  # pyright: ignore[reportArgumentType]


def sampled(
    model: Any, basis: Basis, prompt: Prompt, graph: Graph, *, n: int = 200, live: bool = False, seed: int = 0
) -> Sample:
    """`n` edges drawn uniformly among those that are not 0 (all, where they are fewer), with their exact direct effects."""
    rows, units = graph.edges.units.nonzero(as_tuple=True)
    measured = torch.tensor([_is_measured(target.name, target.token) for target in graph.targets])
    usable = (rows >= len(graph.targets)) | measured[rows.clamp(max=len(measured) - 1)]
    rows, units = rows[usable], units[usable]
    drawn = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))[:n].sort().values
    row, unit = rows[drawn], units[drawn]
    effect = direct_effects(model, basis, prompt, graph, row, unit, live=live)
    return Sample(row, unit, graph.edges.units[row, unit], effect)


def direct_effects(
    model: Any,
    basis: Basis,
    prompt: Prompt,
    graph: Graph,
    row: Int[Tensor, " k"],
    unit: Int[Tensor, " k"],
    *,
    live: bool = False,
) -> Float[Tensor, " k"]:
    """How much each row's value falls when what the unit writes is taken away, every other site being held at its value.

    MLPs run as they are between two sites. Patterns and norms' scales are held too, unless `live`. Cost: a forward pass per
    distinct unit, in batches.
    """
    effects = torch.zeros(len(row), dtype=graph.values.dtype)
    if not len(row):
        return effects
    sources = unit.unique()
    watch = (*basis.hooks, *(() if live else _held_hooks(model)))
    length = torch.tensor([prompt.tokens.shape[1]], device=prompt.tokens.device)
    clean = read(model, prompt.tokens, length, watch)
    for piece in sources.split(_BATCH):
        tokens = prompt.tokens.expand(len(piece), -1)
        values = _values_without(model, basis, prompt, graph, piece, tokens, clean, row.unique())
        for place, source in enumerate(piece.tolist()):
            mine = (unit == source).nonzero().flatten()
            effects[mine] = graph.values[row[mine]] - torch.stack([values[r][place] for r in row[mine].tolist()])
    return effects


def _values_without(
    model: Any,
    basis: Basis,
    prompt: Prompt,
    graph: Graph,
    piece: Int[Tensor, " batch"],
    tokens: Int[Tensor, "batch pos"],
    clean: Mapping[str, Tensor],
    rows: Int[Tensor, " r"],
) -> dict[int, Float[Tensor, " batch"]]:
    """Per row its value in each run of a batch, in each of which one unit writes nothing."""
    seen: dict[int, Tensor] = {}
    edits: list[Edit] = [
        (hook, lambda x, hook=hook: clean[hook].to(x).expand_as(x)) for hook in clean if hook not in basis.hooks
    ]
    edits += [_held(basis, graph, s, piece, clean, seen) for s in range(len(basis.sites))]
    edits += [_seen(site, s, seen) for s, site in enumerate(basis.sites) if site.reads != site.writes]
    length = torch.full((len(piece),), tokens.shape[1], device=tokens.device)
    logits = run(model, tokens, length, edits)
    return {r: _value(basis, prompt, graph, r, logits, seen).cpu() for r in rows.tolist()}


def _value(
    basis: Basis, prompt: Prompt, graph: Graph, row: int, logits: Float[Tensor, "batch vocab"], seen: dict[int, Tensor]
) -> Float[Tensor, " batch"]:
    t = len(graph.targets)
    if row < t:
        target = graph.targets[row]
        if target.token is not None:
            return logits[:, target.token] - logits.mean(1)
        if prompt.pair is not None and target.name in known("metrics"):
            pair = prompt.pair
            whole = Target(pair.answer.expand(len(logits)), pair.foil.expand(len(logits)), lambda: logits)
            return resolve(target.name)(logits, whole)
        site, unit, position = parse_unit(basis, target.name, len(graph.tokens))
    else:
        site, unit, position = (int(x[row - t]) for x in (graph.site, graph.unit, graph.position))
    y = seen[site][:, position]
    return basis.dictionaries[site].encode_some(y, torch.tensor([unit], device=y.device))[:, 0]


def _held(
    basis: Basis,
    graph: Graph,
    s: int,
    piece: Int[Tensor, " batch"],
    clean: Mapping[str, Tensor],
    seen: dict[int, Tensor],
) -> Edit:
    """A site at its clean value, but for the runs whose silenced unit is there."""
    site, dictionary = basis.sites[s], basis.dictionaries[s]

    def write(activation: Tensor) -> Tensor:
        x = site.view(activation)
        if site.reads == site.writes:
            seen[s] = x
        kept = site.view(clean[site.writes]).expand_as(x).clone()
        for place, source in enumerate(piece.tolist()):
            if int(graph.site[source]) == s:
                unit = graph.unit[source : source + 1].to(kept.device)
                value = graph.values[len(graph.targets) + source].to(kept)
                kept[place, int(graph.position[source])] -= dictionary.written(value[None], unit)
        return site.put(activation, kept)

    return site.writes, write


def _seen(site: Site, s: int, seen: dict[int, Tensor]) -> Edit:
    def keep(activation: Tensor) -> None:
        seen[s] = site.view(activation)

    return site.reads, keep


def _held_hooks(model: Any) -> tuple[str, ...]:
    return tuple(hook for hook in model.hook_dict if hook.endswith((".hook_scale", "attn.hook_pattern")))


def _is_measured(name: str, token: int | None) -> bool:
    return token is not None or name in known("metrics") or "/" in name
