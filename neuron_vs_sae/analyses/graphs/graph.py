"""An attribution graph: which units were active, and what each took directly from every earlier one."""

from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from neuron_vs_sae.analyses.graphs import influence
from neuron_vs_sae.analyses.graphs.influence import Order, Pruning, Scores
from neuron_vs_sae.core.errors import InputError


@dataclass(frozen=True, eq=False)
class Edges:
    """What flows into each row, in the row's own unit: positive where the source raises it. Rows are the targets, then the units.

    `rest` is what a site writes at a position beyond the units of the graph and its constant: the other units and the error.
    """

    units: Float[Tensor, "rows units"]
    rest: Float[Tensor, "rows sites pos"]
    tokens: Float[Tensor, "rows pos"]
    bias: Float[Tensor, " rows"]

    @property
    def leaves(self) -> Float[Tensor, "rows sources"]:
        """All but the bias side by side: units, then the rest site by site, then tokens."""
        return torch.cat([self.units, self.rest.flatten(1), self.tokens], 1)

    @property
    def total(self) -> Float[Tensor, " rows"]:
        """What flows in altogether: with chords, the row's value."""
        return self.leaves.sum(1) + self.bias


@dataclass(frozen=True)
class TargetNode:
    """What a graph explains: its name, its weight in the influence of nodes, and the vocabulary entry of a logit."""

    name: str
    weight: float
    token: int | None = None


@dataclass(frozen=True, eq=False)
class Graph:
    """The units of one basis that matter most to some targets on one prompt, and the edges between them.

    Units stand in the order of `total`, the largest first: the sum over all paths of what each contributes to the targets, the
    errors being constant. `values` are those of the targets, then of the units. `heads` is how much of each edge enters the
    first attention head on its way, per head of every layer, where it was asked for; the rest of the edge passes no head.
    `reference` holds the same edges with what the corrupt prompt would send along them.
    `settings` says what it was traced with: model, basis, slope, and where these came from.
    """

    settings: dict[str, Any]
    prompt: str
    tokens: tuple[str, ...]
    token_ids: tuple[int, ...]
    sites: tuple[str, ...]
    layers: tuple[int, ...]
    widths: tuple[int, ...]
    """Units of each site's dictionary."""
    targets: tuple[TargetNode, ...]
    site: Int[Tensor, " units"]
    unit: Int[Tensor, " units"]
    position: Int[Tensor, " units"]
    total: Float[Tensor, " units"]
    values: Float[Tensor, " rows"]
    edges: Edges
    n_scored: int
    """Units at positions that have a total at all: as many nodes as the graph could have."""
    n_total: int
    """Units at positions."""
    heads: Float[Tensor, "rows sources heads"] | None = None
    reference: Edges | None = None

    def __len__(self) -> int:
        return len(self.unit)

    def __repr__(self) -> str:
        scores = self.scores()
        return "\n".join(
            [
                f"Graph of {self.settings['basis']} on {self.prompt!r}: {len(self)} of {self.n_scored:,} units with influence",
                f"  explains: {', '.join(target.name for target in self.targets)}",
                f"  replacement {scores.replacement:.3f}, completeness {scores.completeness:.3f}; first: "
                f"{', '.join(self.names[:3]) or 'none'}",
            ]
        )

    @property
    def names(self) -> list[str]:
        """`blocks.3.mlp.hook_post/1207@5`, the name of a node, unit by unit."""
        triples = zip(self.site.tolist(), self.unit.tolist(), self.position.tolist(), strict=True)
        return [f"{self.sites[s]}/{unit}@{position}" for s, unit, position in triples]

    @property
    def order(self) -> Order:
        """The nodes of `A` by kind."""
        positions = len(self.tokens)
        return Order(len(self), len(self.sites) * positions, positions, len(self.targets))

    @property
    def A(self) -> Float[Tensor, "n n"]:  # noqa: N802 (the field's letter for an adjacency matrix)
        """All edges but those from biases as one matrix: a row per target, a column per source; units, rest, tokens, targets."""
        order, t = self.order, len(self.targets)
        matrix = self.values.new_zeros(len(order), len(order))
        incoming = self.edges.leaves
        matrix[: order.units, : incoming.shape[1]] = incoming[t:]
        matrix[order.target, : incoming.shape[1]] = incoming[:t]
        return matrix

    @property
    def weights(self) -> Float[Tensor, " n"]:
        """Per node of `A` its weight as a target: 0 for all others."""
        weights = self.values.new_zeros(len(self.order))
        weights[self.order.target] = weights.new_tensor([target.weight for target in self.targets])
        return weights

    @property
    def nodes(self) -> pd.DataFrame:
        """A row per node of `A`, in its order: `kind` (unit, rest, token, target), `name`, `layer`, `site`, `unit`, `position`, `value`
        (missing for leaves), `total` (units alone)."""
        t, positions = len(self.targets), len(self.tokens)
        values = self.values.tolist()
        rows: list[dict[str, Any]] = [
            {"kind": "unit", "name": name, "layer": self.layers[s], "site": self.sites[s], "unit": u, "position": p, "value": v, "total": total}
            for name, s, u, p, v, total in zip(
                self.names, self.site.tolist(), self.unit.tolist(), self.position.tolist(), values[t:], self.total.tolist(), strict=True
            )
        ]  # fmt: skip
        for layer, site in zip(self.layers, self.sites, strict=True):
            rows += [
                {"kind": "rest", "name": f"{site}/rest@{p}", "layer": layer, "site": site, "position": p}
                for p in range(positions)
            ]
        rows += [{"kind": "token", "name": text, "position": p} for p, text in enumerate(self.tokens)]
        rows += [
            {"kind": "target", "name": target.name, "value": value}
            for target, value in zip(self.targets, values[:t], strict=True)
        ]
        columns = ["kind", "name", "layer", "site", "unit", "position", "value", "total"]
        return pd.DataFrame(rows, columns=columns).astype({"layer": "Int64", "unit": "Int64", "position": "Int64"})

    @property
    def remainder(self) -> Float[Tensor, " rows"]:
        """What the edges and the bias leave of each row's value: rounding with chords, and what curvature costs with gradients."""
        return self.values - self.edges.total

    def at(self, k: int) -> "Graph":
        """The graph of the first `k` units: all others, their edges included, become part of the rest.

        Raises `InputError` where it has fewer.
        """
        if not 0 <= k <= len(self):
            raise InputError(
                f"a graph of {k} units is asked for, and this one has {len(self)}: trace with more (--nodes)"
            )
        return self.keeping(torch.arange(k))

    def keeping(self, units: Int[Tensor, " k"]) -> "Graph":
        """The graph of some of its units, in this order: all others, their edges included, become part of the rest."""
        t = len(self.targets)
        rows = torch.cat([torch.arange(t), t + units])
        is_other = torch.ones(len(self), dtype=torch.bool)
        is_other[units] = False
        others = is_other.nonzero().flatten()
        places = (self.site * len(self.tokens) + self.position)[others]

        def merged(edges: Edges) -> Edges:
            rest = edges.rest[rows].flatten(1).index_add(1, places, edges.units[rows][:, others])
            return Edges(
                edges.units[rows][:, units], rest.view_as(edges.rest[rows]), edges.tokens[rows], edges.bias[rows]
            )

        heads = None
        if self.heads is not None:
            of_rows = self.heads[rows]
            leaves = of_rows[:, len(self) :].index_add(1, places, of_rows[:, others])
            heads = torch.cat([of_rows[:, units], leaves], 1)
        return replace(
            self, site=self.site[units], unit=self.unit[units], position=self.position[units], total=self.total[units],
            values=self.values[rows], edges=merged(self.edges), heads=heads,
            reference=None if self.reference is None else merged(self.reference),
        )  # fmt: skip

    def scores(self) -> Scores:
        """Replacement and completeness, what the graph does not hold (`rest`) counting as error."""
        return influence.scores(self.A, self.weights, self.order)

    def prune(self, *, node_threshold: float = 0.8, edge_threshold: float = 0.98) -> Pruning:
        """Which nodes and edges of `A` matter most (`influence.prune`). Raises `InputError` for a threshold outside 0 to 1."""
        for name, value in (("node", node_threshold), ("edge", edge_threshold)):
            if not 0 <= value <= 1:
                raise InputError(f"a {name} threshold of {value}: it is a share, from 0 to 1 (--{name}-threshold)")
        return influence.prune(
            self.A, self.weights, self.order, node_threshold=node_threshold, edge_threshold=edge_threshold
        )
