"""What the page of graphs draws from: each pruned graph as short lists, and what is said of its units."""

import json
from collections.abc import Mapping
from typing import Any

import pandas as pd

from neuron_vs_sae.analyses.graphs.graph import Graph
from neuron_vs_sae.analyses.graphs.influence import Pruning, influence, normalised
from neuron_vs_sae.report.circuit_nodes import row_labels
from neuron_vs_sae.report.escaping import visible
from neuron_vs_sae.report.graph_viewer import visible_token
from neuron_vs_sae.studies.graphs import GraphsResult

PROMPTS = 24
"""Prompts on the page; the folder has the graphs of all."""
_EDGES, _WINDOWS = 1500, 3
_KINDS = {"unit": "u", "rest": "r", "token": "t", "target": "o"}


def page_data(result: GraphsResult) -> dict[str, Any]:
    """Prompts with a graph per basis, and a card per unit that some graph shows."""
    study, prompts, shown = result.study, [], set[str]()
    for _, rows in list(result.table.groupby(["task", "prompt", "index"], sort=False))[:PROMPTS]:
        task, prompt, index = (rows[column].iloc[0] for column in ("task", "prompt", "index"))
        graphs = {}
        for basis, mine in rows.groupby("basis", sort=False):
            graph = result.graph(mine["slug"].iloc[0])
            pruning = graph.prune(node_threshold=study.node_threshold, edge_threshold=study.edge_threshold)
            graphs[str(basis)] = drawn_graph(graph, pruning, mine, _groups(result, str(task), str(basis)))
            shown |= {node[3] for node in graphs[str(basis)]["nodes"] if node[0] == "u"}
        label = visible(prompt) if not task else f"{visible(task)} {index}: {visible(prompt)}"
        prompts.append({"label": label, "graphs": graphs})
    return {"prompts": prompts, "cards": _cards(result, shown)}


def drawn_graph(
    graph: Graph, pruning: Pruning, rows: pd.DataFrame, groups: Mapping[tuple[str, int, str], int]
) -> dict[str, Any]:
    """Nodes `[kind, row, column, name, value, total, held, group]`, row 0 being the tokens; the edges `[source, target, weight]` that
    carry most; and the graph's numbers. `groups` says which supernode a unit (site, number, sign) is in."""
    kept = pruning.nodes.nonzero().flatten()
    place = {node: i for i, node in enumerate(kept.tolist())}
    table, last = graph.nodes.iloc[kept.numpy()], len(graph.tokens) - 1
    nodes = []
    for (_, row), held in zip(table.iterrows(), pruning.cumulative[kept].tolist(), strict=True):
        kind = _KINDS[row["kind"]]
        level = {"t": 0, "o": len(graph.sites) + 1}.get(kind)
        level = graph.sites.index(row["site"]) + 1 if level is None else level
        value = None if pd.isna(row["value"]) else float(row["value"])
        total = None if pd.isna(row["total"]) else float(row["total"])
        unit = f"{row['site']}/{row['unit']}" if kind == "u" else visible_token(str(row["name"]))
        sign = "-" if (value or 0) < 0 else "+"
        group = groups.get((row["site"], int(row["unit"]), sign)) if kind == "u" else None
        nodes.append(
            [kind, level, last if kind == "o" else int(row["position"]), unit, value, total, round(held, 4), group]
        )
    shares = normalised(graph.A * pruning.edges)
    flow = shares * (influence(shares, graph.weights) + graph.weights)[:, None]
    into, source = pruning.edges.nonzero(as_tuple=True)
    order = flow[into, source].sort(descending=True, stable=True).indices[:_EDGES]
    edges = [
        [place[s], place[t], w]
        for t, s, w in zip(
            into[order].tolist(), source[order].tolist(), graph.A[into[order], source[order]].tolist(), strict=True
        )
    ]
    pruned = rows.loc[rows["pruned"]].iloc[0]
    largest = rows.loc[~rows["pruned"]].iloc[-1]
    names = ("replacement", "completeness", "faithfulness")
    return {
        "tokens": [visible_token(token) for token in graph.tokens], "rows": row_labels(graph.sites), "nodes": nodes, "edges": edges,
        "left": len(into) - len(edges), "scores": {name: _number(pruned[name]) for name in names}, "units": int(pruned["units"]),
        "whole": {name: _number(largest[name]) for name in names}, "whole_units": int(largest["units"]),
        "spearman": _number(pruned["spearman"]), "spearman_live": _number(pruned["spearman_live"]),
        "groups": [visible(label) for label in _labels(groups)],
    }  # fmt: skip


def _groups(result: GraphsResult, task: str, basis: str) -> "Groups":
    groups = Groups()
    if len(result.members):
        mine = result.members.loc[(result.members["task"] == task) & (result.members["basis"] == basis)]
        for row in mine.to_dict("records"):
            groups[row["site"], int(row["unit"]), row["sign"]] = int(row["group"])
            groups.labels[int(row["group"])] = row["label"]
    return groups


class Groups(dict[tuple[str, int, str], int]):
    """Which supernode each unit (site, number, sign) is in, and what each is called."""

    def __init__(self) -> None:
        super().__init__()
        self.labels: dict[int, str] = {}


def _labels(groups: Mapping[tuple[str, int, str], int]) -> list[str]:
    labels = groups.labels if isinstance(groups, Groups) else {}
    return [labels.get(i, "") for i in range(max(labels, default=-1) + 1)]


def _cards(result: GraphsResult, shown: set[str]) -> dict[str, dict[str, Any]]:
    """Per basis and unit the tokens that it promotes and suppresses, and its strongest windows."""
    cards: dict[str, dict[str, Any]] = {}
    windows = result.windows
    places = windows.groupby(["basis", "unit"], sort=False).indices if len(windows) else {}
    for row in result.units.to_dict("records"):
        if row.get("unit") not in shown or row["sign"] != "+":
            continue
        mine = windows.iloc[places.get((row["basis"], row["unit"]), [])]
        top = mine.loc[mine["kind"] == "top"].head(_WINDOWS) if len(mine) else mine
        cards.setdefault(row["basis"], {})[row["unit"]] = {
            "up": [visible_token(t) for t in _tokens(row["top_tokens"])], "down": [visible_token(t) for t in _tokens(row["bottom_tokens"])],
            "windows": [[[visible_token(t), _number(v)] for t, v in zip(w["tokens"], w["values"], strict=True)] for w in top.to_dict("records")],
        }  # fmt: skip
    return cards


def _tokens(given: Any) -> list[str]:
    """A list, or its JSON, as the two tables of units have it."""
    return json.loads(given) if isinstance(given, str) else list(given)


def _number(value: Any) -> float | None:
    return None if pd.isna(value) else float(f"{float(value):.4g}")
