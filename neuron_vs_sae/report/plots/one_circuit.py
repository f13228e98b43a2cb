"""The circuit itself: layers by tokens, a square per node."""

from collections import Counter

import plotly.graph_objects as go

from neuron_vs_sae.report.circuit_nodes import NODES, ShownNode, best_nodes, row_labels, tokens
from neuron_vs_sae.report.escaping import in_figure
from neuron_vs_sae.report.names import basis_names, level_name, task_names
from neuron_vs_sae.report.plots.choices import method_or_first, task_or_first
from neuron_vs_sae.report.plots.style import colours_of, finished, panels, place
from neuron_vs_sae.report.robust_tables import confirmatory
from neuron_vs_sae.studies.result import Result

_ACROSS = 4
"""Squares side by side within a cell."""
_LARGEST = 34
"""Pixels of a square that holds the largest share."""


def circuit(
    result: Result,
    *,
    task: str | None = None,
    bases: tuple[str, ...] = (),
    method: str | None = None,
    nodes: int = NODES,
) -> go.Figure:
    """The `nodes` nodes of largest |score| of each basis, by layer and token; a square's area is its share of the sum of |score|.

    Crossed squares are error nodes, open ones hinder the answer. `bases`: by default neurons and the first trained dictionary, or the
    study's first two. Scores are means over the discovery prompts, tokens those of the first. Raises `KeyError` where there are no
    such scores.
    """
    task, method = task_or_first(result, task), method_or_first(result, method)
    pairs = confirmatory(result)
    shown = bases or (pairs[0] if pairs else tuple(result.study.basis[:2]))
    names, colours = basis_names(result.study.basis), colours_of(result.study.basis)
    scores = {basis: result.scores(task=task, basis=basis, method=method) for basis in shown}
    best = {basis: best_nodes(scores[basis], nodes, result.study.rank_by) for basis in shown}
    largest = max((node.share for ranking in best.values() for node in ranking), default=1.0)
    words = tokens(result, task)
    rows = max(len(scores[basis].index.sites) for basis in shown)
    figure = panels([names[basis] for basis in shown], columns=2, height=80 + 70 * rows)
    for panel, basis in enumerate(shown):
        sites, where = scores[basis].index.sites, place(panel, min(2, len(shown)))
        drawn = _placed(best[basis])
        figure.add_trace(
            go.Scatter(
                x=[x for _, x, _ in drawn], y=[y for _, _, y in drawn], mode="markers", showlegend=False, hoverinfo="text",
                text=[in_figure(_said(node, sites[node.row])) for node, _, _ in drawn],
                marker={
                    "symbol": [_symbol(node) for node, _, _ in drawn], "color": colours[basis], "line": {"width": 1.5, "color": colours[basis]},
                    "size": [max(3.0, _LARGEST * (node.share / largest) ** 0.5) for node, _, _ in drawn],
                },
            ),
            **where,
        )  # fmt: skip
        ticks = [in_figure(label) for label in row_labels(sites)]
        figure.update_yaxes(tickvals=list(range(len(sites))), ticktext=ticks, range=[-0.5, len(sites) - 0.5], **where)
        figure.update_xaxes(
            tickvals=list(range(len(words))), ticktext=[in_figure(word) for word in words], range=[-0.5, len(words) - 0.5],
            tickangle=-45, **where,
        )  # fmt: skip
    how = f"{level_name('method', method)} · area: share of |score| · crossed: error nodes · open: hinders"
    return finished(figure, f"{task_names(result.summary['task']).get(task, task)}: the circuit", how)


def _placed(nodes: list[ShownNode]) -> list[tuple[ShownNode, float, float]]:
    """The nodes with x and y: those of one cell side by side in rows, largest first."""
    seen: Counter[tuple[int, int]] = Counter()
    placed = []
    for node in nodes:
        down, along = divmod(seen[node.row, node.position], _ACROSS)
        seen[node.row, node.position] += 1
        x = node.position + (along + 0.5) / _ACROSS - 0.5
        placed.append((node, x, node.row + 0.32 - 0.22 * (down % 4)))
    return placed


def _symbol(node: ShownNode) -> str:
    if node.unit < 0:
        return "square-x-open"
    return "square" if node.score > 0 else "square-open"


def _said(node: ShownNode, site: str) -> str:
    what = "error node" if node.unit < 0 else f"unit {node.unit}"
    return f"{what}, {site}, position {node.position}: score {node.score:.4g}, rank {node.rank}"
