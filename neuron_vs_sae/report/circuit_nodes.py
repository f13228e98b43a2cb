"""The nodes that a picture of a circuit shows, and the rows and tokens at which it places them."""

import json
import re
from dataclasses import dataclass

import pandas as pd

from neuron_vs_sae.core.conventions import RankBy
from neuron_vs_sae.core.nodes import NodeScores
from neuron_vs_sae.report.robust_tables import usual_levels
from neuron_vs_sae.studies.result import Result
from neuron_vs_sae.studies.rows import rows_with

NODES = 60
"""Nodes that a picture shows of each basis."""


@dataclass(frozen=True)
class ShownNode:
    """A node of a circuit: `row` numbers its site, `position` its token, `unit` is -1 for an error node; `share` of the sum of |score|."""

    row: int
    position: int
    unit: int
    score: float
    share: float
    rank: int


def best_nodes(scores: NodeScores, most: int = NODES, rank_by: RankBy = "absolute") -> list[ShownNode]:
    """The first nodes of a ranking, best first, without those whose score is 0."""
    whole = float(scores.values.abs().double().sum())
    nodes = []
    for rank, flat in enumerate(scores.order(rank_by=rank_by)[:most].tolist(), 1):
        score, left = float(scores.values[flat]), flat
        for row, (blocks, columns) in enumerate(scores.index.shapes):
            if left < blocks * columns:
                position, unit = divmod(left, columns)
                if score:
                    is_error = unit == columns - 1
                    nodes.append(ShownNode(row, position, -1 if is_error else unit, score, abs(score) / whole, rank))
                break
            left -= blocks * columns
    return nodes


def row_labels(sites: tuple[str, ...]) -> list[str]:
    """`L3` for a site in layer 3; with its hook where a layer has several."""
    layers = [re.match(r"blocks\.(\d+)\.(.+)", site) for site in sites]
    numbers = [match[1] if match else "" for match in layers]
    several = len(set(numbers)) < len(numbers)
    return [
        (f"L{match[1]} {match[2]}" if several else f"L{match[1]}") if match else site
        for match, site in zip(layers, sites, strict=True)
    ]


def tokens(result: Result, task: str) -> list[str]:
    """The tokens of the task's first discovery prompt, positions by number where the result does not know them, or one column where
    positions are pooled."""
    if result.study.positions == "pooled":
        return ["all positions"]
    scores = result.scores(task=task, basis=result.study.basis[0], method=usual_levels(result)["method"])
    numbered = [str(position) for position in range(scores.index.blocks)]
    file = result.folder / "prompts.parquet"
    prompts = rows_with(pd.read_parquet(file), task=task, split="discovery") if file.exists() else pd.DataFrame()
    if prompts.empty:
        return numbered
    first = prompts.iloc[0]
    if "clean_tokens" in first:
        return json.loads(first["clean_tokens"])
    before = ["<s>"] if result.study.prepend_bos else []
    words = [*before, *re.findall(r"\w+|[^\w\s]", str(first["clean"]))]
    return words if len(words) == len(numbered) else numbered
