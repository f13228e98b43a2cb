"""A graph as a circuit of components, in the format of MIB's circuit track: `input`, `a{layer}.h{head}`, `m{layer}`, `logits`.

Units of an MLP are its `m{layer}`, those of attention their heads; edges between components are sums of |edge| between their units. An edge that
enters a head is split in two, source to head and head to target, where the graph knows its heads (`attention=split`); a head counts
as the first that the edge enters, so edges between heads are in none. Only values pass frozen patterns, so heads are entered at `<v>`.
"""

import re
from collections import defaultdict
from typing import Any

import torch

from neuron_vs_sae.analyses.graphs.graph import Graph
from neuron_vs_sae.core.errors import InputError

_MLP = re.compile(r"blocks\.(\d+)\.(mlp\.hook_post|hook_mlp_out)")
_HEAD = re.compile(r"blocks\.(\d+)\.attn\.hook_z\.(\d+)")


def mib_circuit(graph: Graph, shape: dict[str, Any]) -> dict[str, Any]:
    """MIB's importance file of this graph; `shape` is `n_layers, n_heads, parallel_attn_mlp, d_model` of the model.

    Raises `InputError` for a basis whose sites are no component of MIB's (the residual stream, all heads of a layer at once).
    """
    of_site = [_component(site) for site in graph.sites]
    positions, t = len(graph.tokens), len(graph.targets)
    units = [of_site[s] for s in graph.site.tolist()]
    sources = [*units, *(name for name in of_site for _ in range(positions)), *["input"] * positions]
    rows = ["logits"] * t + units
    scores: dict[str, float] = defaultdict(float)
    direct = graph.edges.leaves if graph.heads is None else graph.edges.leaves - graph.heads.sum(2)
    _add(scores, direct, rows, sources, _entered)
    if graph.heads is not None:
        for column in range(graph.heads.shape[2]):
            head = f"a{column // shape['n_heads']}.h{column % shape['n_heads']}"
            part = graph.heads[:, :, column]
            _add(scores, part, [head] * len(rows), sources, lambda name: f"{name}<v>")
            _add(scores, part, rows, [head] * len(sources), _entered)
    strength: dict[str, float] = defaultdict(float)
    for name, score in scores.items():
        strength[name.partition("->")[0]] += score
    heads = [f"a{layer}.h{head}" for layer in range(shape["n_layers"]) for head in range(shape["n_heads"])]
    nodes = ["input", *heads, *(f"m{layer}" for layer in range(shape["n_layers"])), "logits"]
    return {
        "cfg": shape,
        "nodes": {name: {"in_graph": True, "score": strength.get(name, 0.0)} for name in nodes},
        "edges": {name: {"score": score, "in_graph": True} for name, score in sorted(scores.items())},
    }


def _add(scores: dict[str, float], edges: torch.Tensor, rows: list[str], sources: list[str], entered: Any) -> None:
    """Add |edges| up by the components of their ends; a component has no edge to itself."""
    names, columns = list(dict.fromkeys(rows)), list(dict.fromkeys(sources))
    row = torch.tensor([names.index(name) for name in rows])
    column = torch.tensor([columns.index(name) for name in sources])
    sums = edges.new_zeros(len(names), edges.shape[1]).index_add(0, row, edges.abs())
    sums = sums.new_zeros(len(names), len(columns)).index_add(1, column, sums)
    for r, c in sums.nonzero().tolist():
        if names[r] != columns[c]:
            scores[f"{columns[c]}->{entered(names[r])}"] += float(sums[r, c])


def _entered(name: str) -> str:
    return f"{name}<v>" if name.startswith("a") else name


def _component(site: str) -> str:
    if match := _MLP.fullmatch(site):
        return f"m{match[1]}"
    if match := _HEAD.fullmatch(site):
        return f"a{match[1]}.h{match[2]}"
    raise InputError(
        f"{site} is no component of MIB's circuits: they have MLPs and single heads. Trace a basis of the MLP (mlp_neurons, sae, "
        "transcoder), or of single heads"
    )
