"""Nodes of a basis in one flat canonical order, a score for each, and circuits: sets of them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from neuron_vs_sae.core.conventions import RankBy
from neuron_vs_sae.core.errors import InputError, check_choice


@dataclass(frozen=True)
class NodeIndex:
    """The flat order of all nodes: site by site, position by position, the units and then the error node.

    `positions` is the number of token positions, or None when they are pooled: a node is then a unit at all of them.
    Every site has a slot for one error node per position; which of them exist, `exists` says; whether those take part is
    up to the error policy (`analyses/circuits/evaluation.py`).
    """

    sites: tuple[str, ...]
    widths: tuple[int, ...]
    positions: int | None
    basis: str = ""
    """Identifies the units, so that one basis's scores are not taken for those of another of the same shape."""
    lossless: tuple[bool, ...] = ()
    """Per site whether its dictionary leaves nothing over: its error node then does not exist, and its slot only keeps the
    numbering. (Empty: every site has error nodes.)"""

    @property
    def blocks(self) -> int:
        """The number of positions that are told apart: 1 when pooled."""
        return 1 if self.positions is None else self.positions

    @property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        """Per site (positions told apart, units + 1 error node)."""
        return tuple((self.blocks, width + 1) for width in self.widths)

    def __len__(self) -> int:
        return sum(blocks * columns for blocks, columns in self.shapes)

    def flatten(
        self,
        units: Sequence[Float[Tensor, "blocks _"]] | Sequence[Bool[Tensor, "blocks _"]],
        errors: Sequence[Float[Tensor, " blocks"]] | Sequence[Bool[Tensor, " blocks"]],
    ) -> Float[Tensor, " nodes"] | Bool[Tensor, " nodes"]:
        """One value per node from per-site values of units and error nodes."""
        return torch.cat([torch.cat([u, e[:, None]], 1).flatten() for u, e in zip(units, errors, strict=True)])

    def unflatten(self, flat: Float[Tensor, " nodes"] | Bool[Tensor, " nodes"]) -> list[tuple[Tensor, Tensor]]:
        """Per site (units `[blocks, width]`, error nodes `[blocks]`): the inverse of `flatten`."""
        parts = flat.split([blocks * columns for blocks, columns in self.shapes])
        tables = [part.reshape(shape) for part, shape in zip(parts, self.shapes, strict=True)]
        return [(table[:, :-1], table[:, -1]) for table in tables]

    @property
    def is_error(self) -> Bool[Tensor, " nodes"]:
        return self.flatten(
            [torch.zeros(self.blocks, width, dtype=torch.bool) for width in self.widths],
            [torch.ones(self.blocks, dtype=torch.bool) for _ in self.widths],
        )

    @property
    def exists(self) -> Bool[Tensor, " nodes"]:
        """False at the slots for error nodes of lossless sites."""
        lossless = self.lossless or (False,) * len(self.sites)
        return self.flatten(
            [torch.ones(self.blocks, width, dtype=torch.bool) for width in self.widths],
            [torch.full((self.blocks,), not nothing_left) for nothing_left in lossless],
        )

    def at_sites(self, nodes: Int[Tensor, " k"]) -> list[list[tuple[int, Int[Tensor, " _"], bool]]]:
        """Per site the nodes there: (block, its units in growing order, its error node too?) of every block that has any."""
        parts, offset = [], 0
        nodes = nodes.sort().values
        for blocks, columns in self.shapes:
            low, high = torch.searchsorted(nodes, torch.tensor([offset, offset + blocks * columns])).tolist()
            here = nodes[low:high] - offset
            offset += blocks * columns
            block, counts = (here // columns).unique_consecutive(return_counts=True)
            part = []
            for b, units in zip(block.tolist(), (here % columns).split(counts.tolist()), strict=True):
                has_error = int(units[-1]) == columns - 1  # the error node comes last
                part.append((b, units[:-1] if has_error else units, has_error))
            parts.append(part)
        return parts

    def name(self, node: int) -> str:
        """`blocks.3.mlp.hook_post/1207@5`, `.../error@5`; without `@position` when pooled."""
        left = node
        for site, (blocks, columns) in zip(self.sites, self.shapes, strict=True):
            if 0 <= left < blocks * columns:
                block, unit = divmod(left, columns)
                what = "error" if unit == columns - 1 else str(unit)
                return f"{site}/{what}" if self.positions is None else f"{site}/{what}@{block}"
            left -= blocks * columns
        raise IndexError(f"there is no node {node}: they are 0 to {len(self) - 1}")


@dataclass(frozen=True, eq=False)
class Circuit:
    """A set of nodes, kept while everything else is ablated. `nodes` are distinct flat indices, best first."""

    index: NodeIndex
    nodes: Int[Tensor, " k"]

    def __len__(self) -> int:
        return self.nodes.shape[0]

    @property
    def n_error_nodes(self) -> int:
        return int(self.index.is_error[self.nodes].sum())

    @property
    def n_units(self) -> int:
        return len(self) - self.n_error_nodes

    @property
    def mask(self) -> Bool[Tensor, " nodes"]:
        kept = torch.zeros(len(self.index), dtype=torch.bool)
        kept[self.nodes] = True
        return kept

    @property
    def names(self) -> list[str]:
        return [self.index.name(node) for node in self.nodes.tolist()]


@dataclass(frozen=True, eq=False, repr=False)
class NodeScores:
    """The estimated drop in the metric if a node alone were ablated: in metric units, mean over prompts; above 0 where it helps.

    (`delta` and `random` are baselines in units of their own; their docstrings say which.) Where the prompts were in groups
    (`PromptPairs.groups`) and the method is a mean over prompts, `by_group` holds the mean over the prompts of each group,
    in float32. Raises `InputError` when a score is not finite.
    """

    index: NodeIndex
    values: Float[Tensor, " nodes"]
    by_group: Float[Tensor, "groups nodes"] | None = None
    reliability: Float[Tensor, " nodes"] | None = None
    """From 0 to 1, where the method tells it: how far a node's score is from bending (`attribution_patching`, `order=2`)."""

    def __post_init__(self) -> None:
        if self.values.shape[0] != len(self.index):
            raise InputError(f"{self.values.shape[0]} scores for {len(self.index)} nodes")
        bad = (~self.values.isfinite()).nonzero().flatten()
        if len(bad):
            raise InputError(
                f"{len(bad)} of {len(self.values)} scores are NaN or infinite, the first at node "
                f"{self.index.name(int(bad[0]))}: look for NaN in the model's or the SAE's weights (`nvs check`), "
                "or use a wider dtype"
            )

    def __repr__(self) -> str:
        where = "pooled positions" if self.index.positions is None else f"{self.index.positions} positions"
        best = Circuit(self.index, self.order()[:3])
        return "\n".join(
            [
                f"NodeScores of basis '{self.index.basis}': {len(self.index):,} nodes at {len(self.index.sites)} sites, {where}",
                *(
                    f"  {name}: {self.values[node]:.4g}"
                    for name, node in zip(best.names, best.nodes.tolist(), strict=True)
                ),
            ]
        )

    def top(self, k: int, *, rank_by: RankBy = "absolute", among: Bool[Tensor, " nodes"] | None = None) -> Circuit:
        """The `k` nodes of largest |score| (`absolute`) or score (`signed`); ties go to the earlier node.

        Exactly `k`, and nested: `top(j)` is a subset of `top(k)` for j <= k. `among` restricts the choice. Nodes of score 0 are
        never chosen: raises `InputError` where `k` is more than the nodes that have a score.
        """
        order = self.order(rank_by=rank_by, among=among)
        if not 0 <= k <= len(order):
            raise InputError(
                f"a circuit of {k} nodes is asked for, and {len(order)} of {len(self.index)} nodes have a score"
            )
        return Circuit(self.index, order[:k])

    def order(self, *, rank_by: RankBy = "absolute", among: Bool[Tensor, " nodes"] | None = None) -> Int[Tensor, " k"]:
        """The nodes (of `among`) whose score is not 0, best first: the ranking, which says nothing about the others.

        `signed` orders by falling score: what helps most first; after the last node that helps come those that hurt, least first.
        """
        check_choice("rank_by", rank_by, RankBy)
        keys = self.values.abs() if rank_by == "absolute" else self.values
        candidates = self._among(among, self.values != 0)
        return candidates[torch.sort(keys[candidates], descending=True, stable=True).indices]

    def unscored(self, among: Bool[Tensor, " nodes"] | None = None) -> Int[Tensor, " k"]:
        """The nodes (of `among`) whose score is exactly 0, in node order: they are tied, and in no ranking."""
        return self._among(among, self.values == 0)

    def _among(self, among: Bool[Tensor, " nodes"] | None, chosen: Bool[Tensor, " nodes"]) -> Int[Tensor, " k"]:
        return (chosen if among is None else chosen & among).nonzero().flatten()

    @property
    def stored(self) -> Float[Tensor, " slots"]:
        """The scores of the nodes that exist, in node order: what is written to a file."""
        return self.values[self.index.exists]

    @staticmethod
    def from_stored(index: NodeIndex, stored: Float[Tensor, " slots"]) -> "NodeScores":
        """The scores of `stored`, 0 at the slots that do not exist. Raises `InputError` for another number of nodes."""
        exists = index.exists
        if len(stored) != int(exists.sum()):
            raise InputError(f"{len(stored)} scores are stored for {int(exists.sum())} nodes of {index.basis}")
        values = stored.new_zeros(len(index))
        values[exists] = stored
        return NodeScores(index, values)

    def table(self) -> pd.DataFrame:
        """A row per node that exists, in node order: `layer`, `site`, `position` (missing where positions are pooled), `unit`
        (missing for an error node), `is_error`, `score`, and `reliability` where it is told."""
        tables = []
        for site, (units, errors) in zip(self.index.sites, self.by_site(), strict=True):
            blocks, width = units.shape
            layer = int(site.split(".")[1]) if site.startswith("blocks.") else None
            columns = {
                "layer": layer,
                "site": site,
                "position": np.repeat(np.arange(blocks), width + 1),
                "unit": np.tile(np.append(np.arange(width, dtype=float), np.nan), blocks),
                "is_error": np.tile(np.arange(width + 1) == width, blocks),
                "score": torch.cat([units, errors[:, None]], 1).flatten().numpy(),
            }
            tables.append(pd.DataFrame(columns))
        table = pd.concat(tables, ignore_index=True)
        table[["layer", "position", "unit"]] = table[["layer", "position", "unit"]].astype("Int64")
        if self.index.positions is None:
            table["position"] = pd.NA
        if self.reliability is not None:
            table["reliability"] = self.reliability.numpy()
        return table.loc[self.index.exists.numpy()].reset_index(drop=True)

    def by_site(self) -> list[tuple[Tensor, Tensor]]:
        """Per site (units `[blocks, width]`, error nodes `[blocks]`)."""
        return self.index.unflatten(self.values)
