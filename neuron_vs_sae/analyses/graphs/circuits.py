"""From a graph to circuits: its units as a ranking, the units that its edges choose, and edges patched one by one."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from neuron_vs_sae.analyses.graphs.graph import Graph
from neuron_vs_sae.core.basis import Basis
from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.core.nodes import NodeScores


def as_scores(basis: Basis, graph: Graph, units: Int[Tensor, " k"] | None = None) -> NodeScores:
    """The graph's units (or some of them) as node scores of the basis, their totals: what `evaluate` judges in the real model."""
    index = basis.index(len(graph.tokens))
    tables = [torch.zeros(index.blocks, width, dtype=torch.float64) for width in index.widths]
    for i in range(len(graph)) if units is None else units.tolist():
        tables[int(graph.site[i])][int(graph.position[i]), int(graph.unit[i])] = float(graph.total[i])
    return NodeScores(index, index.flatten(tables, [torch.zeros(index.blocks, dtype=torch.float64)] * len(tables)))


def effects(graph: Graph) -> Float[Tensor, "rows sources"]:
    """What each edge adds to the targets over all paths through its end: its share of the row's value times the row's total."""
    t = len(graph.targets)
    weights = graph.values.new_tensor([target.weight for target in graph.targets])
    gains = torch.cat([weights, _ratio(graph.total, graph.values[t:])])
    return graph.edges.leaves * gains[:, None]


def edge_selected_nodes(graph: Graph, n_edges: int) -> Int[Tensor, " k"]:
    """The units with at least one edge in and one out among the `n_edges` of largest |effect|: nodes chosen by edges.

    What published edge evaluations do: the circuit is then one of nodes, all else being ablated.
    Source: Arora et al. 2026 (arXiv 2601.22594), its released code. Raises `InputError` for more edges than there are.
    """
    size = effects(graph).abs()
    if not 1 <= n_edges <= int((size > 0).sum()):
        raise InputError(f"{n_edges} edges are asked for, and the graph has {int((size > 0).sum())}")
    kept = torch.zeros(size.numel(), dtype=torch.bool)
    kept[size.flatten().sort(descending=True, stable=True).indices[:n_edges]] = True
    table, t = kept.view_as(size), len(graph.targets)
    return (table[t:].any(1) & table[:, : len(graph)].any(0)).nonzero().flatten()


def edge_patching(graph: Graph, kept: Bool[Tensor, "rows sources"], *, zero: bool = False) -> Float[Tensor, " rows"]:
    """Every row's value when only the edges `kept` carry what their sources hold, and each other edge what the corrupt prompt sends.

    In the model whose norms, patterns and chords are those of the clean prompt, node by node in the order of the model: a kept
    edge carries its source's value as it has become, not the clean one. `zero`: other edges carry nothing. Biases stay.
    With all edges kept it is the values themselves. Sources stand as in `Edges.leaves`.
    Raises `InputError` for a graph without a reference, of a text.
    """
    if graph.reference is None and not zero:
        raise InputError(
            "this graph is of a text, so there is no corrupt prompt: patch with zero=True, or trace a pair"
        )
    clean, k, t = graph.edges, len(graph), len(graph.targets)
    other = clean.leaves * 0 if graph.reference is None or zero else graph.reference.leaves
    constant = torch.where(kept, clean.leaves, other)
    fixed = constant[:, k:].sum(1) + clean.bias + graph.remainder
    fixed = fixed + torch.where(kept[:, :k], 0.0, other[:, :k]).sum(1)
    live = torch.where(kept[:, :k], slopes(graph), 0.0)
    values = torch.linalg.solve(torch.eye(k, dtype=live.dtype) - live[t:], fixed[t:])
    return torch.cat([fixed[:t] + live[:t] @ values, values])


def slopes(graph: Graph) -> Float[Tensor, "rows units"]:
    """How much each row takes directly from each unit, per unit of its value; 0 for a unit whose value is 0."""
    return graph.edges.units * _ratio(torch.ones_like(graph.total), graph.values[len(graph.targets) :])


def _ratio(top: Float[Tensor, " k"], bottom: Float[Tensor, " k"]) -> Float[Tensor, " k"]:
    return torch.where(bottom == 0, torch.zeros_like(top), top / torch.where(bottom == 0, 1.0, bottom))
