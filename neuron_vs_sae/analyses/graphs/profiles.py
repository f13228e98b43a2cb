"""What a unit is made of and what it is for, on one prompt: where its value comes from among tokens, and which targets it raises."""

from collections import Counter
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from neuron_vs_sae.analyses.graphs.circuits import slopes
from neuron_vs_sae.analyses.graphs.graph import Graph

Sign = Literal["+", "-"]
Key = tuple[str, int, Sign]
"""What a unit is across prompts: its site, its number, and the sign of its value."""


@dataclass(frozen=True, eq=False)
class Profiles:
    """Per unit (each sign apart, its positions added up) of one pruned graph: the parts of its value that come from each token
    over all paths, what it adds to each target over all paths, and its total."""

    keys: tuple[Key, ...]
    sources: Float[Tensor, "keys pos"]
    uses: Float[Tensor, "keys targets"]
    total: Float[Tensor, " keys"]
    tokens: tuple[str, ...]
    targets: tuple[str, ...]


def profiles(graph: Graph, *, node_threshold: float = 0.8, edge_threshold: float = 0.98) -> Profiles:
    """The profiles of the units that survive pruning; paths run through all units of the graph."""
    k, t = len(graph), len(graph.targets)
    kept = graph.prune(node_threshold=node_threshold, edge_threshold=edge_threshold).nodes[:k].nonzero().flatten()
    steps = slopes(graph)
    paths = torch.linalg.inv(torch.eye(k, dtype=steps.dtype) - steps[t:])
    sources = paths @ graph.edges.tokens[t:]
    uses = (steps[:t] @ paths).T * graph.values[t:, None]
    keys = [key_of(graph, i) for i in kept.tolist()]
    places = {key: place for place, key in enumerate(dict.fromkeys(keys))}
    row = torch.tensor([places[key] for key in keys], dtype=torch.long)

    def added(values: Tensor) -> Tensor:
        return values.new_zeros(len(places), *values.shape[1:]).index_add(0, row, values[kept])

    return Profiles(
        tuple(places), added(sources), added(uses), added(graph.total), graph.tokens, tuple(x.name for x in graph.targets)
    )  # fmt: skip


def key_of(graph: Graph, i: int) -> Key:
    """The identity of the graph's i-th unit."""
    sign: Sign = "-" if float(graph.values[len(graph.targets) + i]) < 0 else "+"
    return graph.sites[int(graph.site[i])], int(graph.unit[i]), sign


def label(members: set[Key], prompts: list[Profiles]) -> str:
    """What the members are about, without a language model: the token that most of their values come from, and the target that they
    raise most, over all prompts."""
    said: tuple[Counter[str], Counter[str]] = (Counter(), Counter())
    for prompt in prompts:
        rows = [i for i, key in enumerate(prompt.keys) if key in members]
        if not rows:
            continue
        weights = prompt.total[rows].abs()
        for counter, names, table in ((said[0], prompt.tokens, prompt.sources), (said[1], prompt.targets, prompt.uses)):
            shares = table[rows] / table[rows].abs().sum(1, keepdim=True).clamp(min=1e-12)
            for name, value in zip(names, (weights @ shares).tolist(), strict=True):
                counter[name] += value
    ends = [counter.most_common(1)[0][0].strip() if counter else "?" for counter in said]
    return f"{ends[0]} → {ends[1]}"
