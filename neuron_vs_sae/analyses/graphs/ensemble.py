"""How much of a graph depends on where it is pruned: the same graph under a grid of thresholds.

Source: Parekh 2026, "CIRCUS" (arXiv 2603.00523), applied to nodes and edges of one graph.
"""

from dataclasses import dataclass

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from neuron_vs_sae.analyses.graphs.graph import Graph

NODE_THRESHOLDS = (0.5, 0.6125, 0.725, 0.8375, 0.95)
EDGE_THRESHOLDS = (0.9, 0.9225, 0.945, 0.9675, 0.99)


@dataclass(frozen=True, eq=False)
class Ensemble:
    """The share of the prunings that keep each node, and each edge, of a graph's `A`."""

    nodes: Float[Tensor, " n"]
    edges: Float[Tensor, "n n"]

    def counts(self, graph: Graph) -> pd.DataFrame:
        """A row each for units and edges: how many are in all prunings (`core`), in some (`contingent`), and in at most a tenth (`noise`)."""
        rows = []
        for what, shares in (("units", self.nodes[: len(graph)]), ("edges", self.edges[graph.A != 0])):
            noise = int(((shares > 0) & (shares <= 0.1)).sum())
            core, ever = int((shares == 1).sum()), int((shares > 0).sum())
            rows.append({"what": what, "core": core, "contingent": ever - core - noise, "noise": noise, "union": ever})
        return pd.DataFrame(rows)


def ensemble(graph: Graph) -> Ensemble:
    """The graph under 25 prunings: five node thresholds from .5 to .95, each with five edge thresholds from .9 to .99."""
    prunings = [graph.prune(node_threshold=n, edge_threshold=e) for n in NODE_THRESHOLDS for e in EDGE_THRESHOLDS]
    return Ensemble(
        torch.stack([pruning.nodes for pruning in prunings]).double().mean(0),
        torch.stack([pruning.edges for pruning in prunings]).double().mean(0),
    )
