"""Where the attribution is, and how unevenly: by layer, position and error node, over nodes, and by size of score."""

import re
from typing import Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float

from neuron_vs_sae.core.nodes import NodeScores
from neuron_vs_sae.report.escaping import in_figure
from neuron_vs_sae.report.names import basis_names
from neuron_vs_sae.report.plots.choices import method_or_first, task_or_first
from neuron_vs_sae.report.plots.style import colours_of, dashes_of, faint, finished, panels, place, plain
from neuron_vs_sae.studies.result import Result

_POINTS = 150


def shares(result: Result, *, task: str | None = None, method: str | None = None) -> go.Figure:
    """Each layer's, position's and the error nodes' share of the sum of |score|: a bar per basis, its hatched part error nodes.

    Raises `KeyError` where the result has no scores of this task and method.
    """
    task, method = task_or_first(result, task), method_or_first(result, method)
    bases, scores = _of_bases(result, task, method)
    names, colours = basis_names(bases), colours_of(bases)
    titles = (
        ["by layer", "by position", "error nodes"] if scores[bases[0]].index.positions else ["by layer", "error nodes"]
    )
    figure = panels(titles, columns=len(titles), height=330)
    for i, basis in enumerate(bases):
        by_layer, by_position = mass(scores[basis])
        errors = float(by_layer[:, 1].sum())
        tables = [by_layer, by_position, np.array([[0.0, errors]])]
        tables = tables if len(titles) == 3 else [tables[0], tables[2]]
        for panel, table in enumerate(tables):
            x = ["error nodes"] if panel == len(titles) - 1 else list(range(len(table)))
            common: dict[str, Any] = {
                "x": x,
                "offsetgroup": str(i),
                "legendgroup": str(i),
                "name": in_figure(names[basis]),
            }
            bar = go.Bar(**common, y=plain(table[:, 0]), marker={"color": colours[basis]}, showlegend=panel == 0)
            hatch = {"color": faint(colours[basis], 0.35), "pattern": {"shape": "/", "fgcolor": colours[basis]}}
            top = go.Bar(**common, y=plain(table[:, 1]), base=plain(table[:, 0]), marker=hatch, showlegend=False)
            figure.add_traces([bar, top], rows=[1, 1], cols=[panel + 1] * 2)
    figure.update_layout(barmode="group", bargap=0.2)
    figure.update_yaxes(rangemode="tozero")
    figure.update_yaxes(title="share of the sum of |score|", col=1)
    for panel, title in enumerate(titles[:-1]):
        figure.update_xaxes(title=title.removeprefix("by "), dtick=1, **place(panel, len(titles)))
    figure.update_xaxes(showticklabels=False, **place(len(titles) - 1, len(titles)))
    return finished(figure, f"{task}: where the attribution is", f"method {method} · hatched: error nodes")


def concentration(result: Result, *, task: str | None = None, method: str | None = None) -> go.Figure:
    """How much of the sum of |score| few nodes hold, by their share of all nodes (the Lorenz curve, read from its top) and by their number.

    Raises `KeyError` as `shares` does.
    """
    task, method = task_or_first(result, task), method_or_first(result, method)
    bases, scores = _of_bases(result, task, method)
    names, colours, dashes = basis_names(bases), colours_of(bases), dashes_of(bases)
    figure = panels(("by share of all nodes (Lorenz)", "by number of nodes"), columns=2, height=360)
    for basis in bases:
        sizes = np.sort(np.abs(scores[basis].values.double().numpy()))
        held = np.concatenate([[0.0], np.cumsum(sizes)]) / sizes.sum()
        total = len(sizes)
        at = _spread(total)
        name = in_figure(f"{names[basis]} (Gini {gini(sizes):.2f})")
        line = {"color": colours[basis], "dash": dashes[basis], "width": 2}
        common: dict[str, Any] = {"mode": "lines", "line": line, "legendgroup": basis, "name": name}
        lorenz = go.Scatter(x=plain(at / total), y=plain(1 - held[total - at]), **common)
        top = go.Scatter(x=at.tolist(), y=plain(1 - held[total - at]), showlegend=False, **common)
        figure.add_traces([lorenz, top], rows=[1, 1], cols=[1, 2])
    alike, grey = np.geomspace(1e-4, 1, 60), {"color": "#888888", "width": 1, "dash": "dot"}
    equal = go.Scatter(x=plain(alike), y=plain(alike), mode="lines", line=grey, name="all alike (Gini 0)")
    figure.add_trace(equal, row=1, col=1)
    figure.update_xaxes(
        title="share of nodes, largest |score| first (log)", type="log", exponentformat="power", row=1, col=1
    )
    figure.update_xaxes(title="nodes of largest |score| (log)", type="log", dtick=1, row=1, col=2)
    figure.update_yaxes(title="share of the sum of |score|", range=[0, 1.02], col=1)
    figure.update_yaxes(range=[0, 1.02], col=2)
    return finished(
        figure, f"{task}: how few nodes hold the attribution", f"method {method} · all nodes, error nodes among them"
    )


def distributions(result: Result, *, task: str | None = None, method: str | None = None) -> go.Figure:
    """How many nodes have a score of at least x, for nodes that help (score > 0) and that hinder (score < 0); both axes log.

    Raises `KeyError` as `shares` does.
    """
    task, method = task_or_first(result, task), method_or_first(result, method)
    bases, scores = _of_bases(result, task, method)
    names, colours, dashes = basis_names(bases), colours_of(bases), dashes_of(bases)
    figure = panels(("nodes that help (score > 0)", "nodes that hinder (score < 0)"), columns=2, height=360)
    for basis in bases:
        values = scores[basis].values.double().numpy()
        for panel, side in enumerate((values, -values)):
            at_least = tail_counts(side)
            figure.add_trace(
                go.Scatter(
                    x=[score for score, _ in at_least], y=[count for _, count in at_least], mode="lines", name=in_figure(names[basis]), legendgroup=basis,
                    showlegend=panel == 0, line={"color": colours[basis], "dash": dashes[basis], "width": 2},
                ),
                **place(panel, 2),
            )  # fmt: skip
    figure.update_xaxes(type="log", exponentformat="power", dtick=2)
    figure.update_xaxes(title="score (metric units)", row=1, col=1)
    figure.update_xaxes(title="-score (metric units)", row=1, col=2)
    figure.update_yaxes(type="log", dtick=1)
    figure.update_yaxes(title="nodes with at least that score", col=1)
    return finished(figure, f"{task}: distribution of scores", f"method {method} · both axes logarithmic")


def tail_counts(values: Float[np.ndarray, " nodes"]) -> list[tuple[float, int]]:
    """(score, number of nodes with at least that score), for about 150 scores above 0, largest first."""
    largest = np.sort(values[values > 0])[::-1]
    at = _spread(len(largest))
    return list(zip(plain(largest[at - 1]), at.tolist(), strict=True))


def mass(scores: NodeScores) -> tuple[Float[np.ndarray, "layers two"], Float[np.ndarray, "blocks two"]]:
    """Shares of the sum of |score| (by layer, by position): of units and of error nodes. All of each add up to 1."""
    parts = [(units.abs().double(), errors.abs().double()) for units, errors in scores.by_site()]
    whole = float(sum(units.sum() + errors.sum() for units, errors in parts))
    layers = [_layer(site, i) for i, site in enumerate(scores.index.sites)]
    by_layer = np.zeros((max(layers) + 1, 2))
    by_position = np.zeros((scores.index.blocks, 2))
    for layer, (units, errors) in zip(layers, parts, strict=True):
        by_layer[layer] += (float(units.sum()), float(errors.sum()))
        by_position[:, 0] += units.sum(1).numpy()
        by_position[:, 1] += errors.numpy()
    return by_layer / whole, by_position / whole


def gini(sizes: Float[np.ndarray, " nodes"]) -> float:
    """Gini's coefficient of values >= 0 in growing order: 0 when all are alike, 1 - 1/n when one has everything."""
    n = len(sizes)
    return float((2 * np.arange(1, n + 1) - n - 1) @ sizes / (n * sizes.sum()))


def _layer(site: str, otherwise: int) -> int:
    """The layer of a hook, `blocks.3.hook_mlp_out`; the site's own number for a hook outside the blocks."""
    match = re.match(r"blocks\.(\d+)\.", site)
    return int(match[1]) if match else otherwise


def _spread(total: int) -> np.ndarray:
    """About `_POINTS` ranks from 1 to `total`, evenly in their logarithm; none of none."""
    return np.unique(np.geomspace(1, total, _POINTS).round().astype(int)) if total else np.zeros(0, int)


def _of_bases(result: Result, task: str, method: str) -> tuple[list[str], dict[str, NodeScores]]:
    bases = list(result.study.basis)
    return bases, {basis: result.scores(task=task, basis=basis, method=method) for basis in bases}
