"""Influence, pruning and the two scores of an attribution graph, as circuit-tracer defines them, so that numbers compare.

A matrix has a row per target and a column per source, nodes in the order units, errors, tokens, explained targets. With
`N = |A|` divided by its rows' sums and `q` the weights of the targets, a node's influence is `q N + q N^2 + ...`: how much
of what reaches the targets passes through it, by absolute value.
Source: Ameisen et al. 2025, "Circuit tracing", and circuit-tracer 0.4.1, whose definitions these are; code of our own.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

_SMALLEST = 1e-10


@dataclass(frozen=True)
class Order:
    """How many nodes of each kind a matrix has, in this order."""

    units: int
    errors: int
    tokens: int
    targets: int

    def __len__(self) -> int:
        return self.units + self.errors + self.tokens + self.targets

    @property
    def error(self) -> slice:
        return slice(self.units, self.units + self.errors)

    @property
    def token(self) -> slice:
        return slice(self.units + self.errors, self.units + self.errors + self.tokens)

    @property
    def target(self) -> slice:
        return slice(len(self) - self.targets, len(self))


@dataclass(frozen=True)
class Scores:
    """`replacement`: the share of the targets' influence that reaches tokens rather than errors. `completeness`: the share of
    nodes' inputs that are no errors, weighed by what the nodes pass on. 1 is best; NaN where nothing flows."""

    replacement: float
    completeness: float


def normalised(matrix: Float[Tensor, "n n"]) -> Float[Tensor, "n n"]:
    """Each node's inputs as shares of their sum, by absolute value; a node without inputs has zeros."""
    size = matrix.abs()
    return size / size.sum(1, keepdim=True).clamp(min=_SMALLEST)


def influence(shares: Float[Tensor, "n n"], weights: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """`weights (shares + shares^2 + ...)`. The graph has no circle, so the sum ends after as many terms as its longest path."""
    total, passed = torch.zeros_like(weights), weights
    for _ in range(len(weights)):
        passed = passed @ shares
        if not bool(passed.any()):
            break
        total = total + passed
    return total


def scores(matrix: Float[Tensor, "n n"], weights: Float[Tensor, " n"], order: Order) -> Scores:
    """The replacement and the completeness score of a graph."""
    shares = normalised(matrix)
    reached = influence(shares, weights)
    tokens, errors = reached[order.token].sum(), reached[order.error].sum()
    passed_on = reached + weights
    not_errors = 1 - shares[:, order.error].sum(1)
    return Scores(float(tokens / (tokens + errors)), float((not_errors * passed_on).sum() / passed_on.sum()))


@dataclass(frozen=True, eq=False)
class Pruning:
    """Which nodes and edges of a graph are kept, and per node the share of all influence held by it and those above it: a low
    number is an important node."""

    nodes: Bool[Tensor, " n"]
    edges: Bool[Tensor, "n n"]
    cumulative: Float[Tensor, " n"]


def prune(
    matrix: Float[Tensor, "n n"],
    weights: Float[Tensor, " n"],
    order: Order,
    *,
    node_threshold: float = 0.8,
    edge_threshold: float = 0.98,
) -> Pruning:
    """The fewest nodes that hold `node_threshold` of all influence, then the fewest edges between them that hold `edge_threshold`
    of what flows there; units without an edge in and one out, and errors without one out, fall away until none is left.

    Tokens and targets stay. Nodes or edges that tie with the last one kept are kept too. A threshold of 1 keeps all that carry anything.
    """
    reached = influence(normalised(matrix), weights)
    nodes = _largest(reached, node_threshold)
    nodes[order.token], nodes[order.target] = True, True
    between = matrix * (nodes[:, None] & nodes)
    shares = normalised(between)
    flow = shares * (influence(shares, weights) + weights)[:, None]
    edges = _largest(flow.flatten(), edge_threshold).view_as(flow)
    while True:
        has_out, has_in = edges.any(0), edges.any(1)
        kept = nodes.clone()
        kept[: order.error.stop] &= has_out[: order.error.stop]
        kept[: order.units] &= has_in[: order.units]
        edges = edges & kept[:, None] & kept
        if torch.equal(kept, nodes):
            return Pruning(nodes, edges, _cumulative(reached))
        nodes = kept


def _largest(values: Float[Tensor, " k"], share: float) -> Bool[Tensor, " k"]:
    """The largest values, as few as hold this share of their sum, and those that tie with the last; never a 0."""
    ordered = values.sort(descending=True).values
    held = ordered.cumsum(0)
    place = int((held < share * held[-1]).sum()) if share < 1 else len(values)
    return (values >= ordered[min(place, len(values) - 1)]) & (values > 0)


def _cumulative(values: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    ordered, places = values.sort(descending=True, stable=True)
    held = torch.empty_like(values)
    held[places] = ordered.cumsum(0) / ordered.sum().clamp(min=_SMALLEST)
    return held
