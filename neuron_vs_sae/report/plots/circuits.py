"""How much circuits overlap: between methods, and between positions."""

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Bool, Float
from torch import Tensor

from neuron_vs_sae.core.nodes import NodeScores
from neuron_vs_sae.report.names import basis_names
from neuron_vs_sae.report.plots.choices import method_or_first, task_or_first
from neuron_vs_sae.report.plots.style import finished, panels, place
from neuron_vs_sae.studies.result import Result

_SCALE = [[0.0, "#f7fbff"], [0.25, "#c6dbef"], [0.5, "#6baed6"], [0.75, "#2171b5"], [1.0, "#08306b"]]


def overlap_of_methods(result: Result, *, task: str | None = None, size: int = 100) -> go.Figure:
    """Jaccard overlap of the `size` best nodes of a task, by default the first (all, where there are fewer) under each pair of the study's methods: a panel per basis.

    Which nodes there are to choose from is the study's first error policy's. Raises `KeyError` where there is no such task.
    """
    task = task_or_first(result, task)
    methods, bases = list(result.study.method), list(result.study.basis)
    names = basis_names(bases)
    figure = panels([names[basis] for basis in bases], columns=3, height=230)
    for panel, basis in enumerate(bases):
        chosen = [_best(result, result.scores(task=task, basis=basis, method=method), size) for method in methods]
        _map(figure, panel, len(bases), jaccard(chosen), [str(i) for i in range(1, len(methods) + 1)])
    key = ", ".join(f"{i} {method}" for i, method in enumerate(methods, 1))
    how = f"Jaccard overlap of the {size} best nodes · {key}"
    return finished(figure, f"{task}: overlap of circuits between methods", how)


def overlap_of_positions(
    result: Result, *, task: str | None = None, method: str | None = None, size: int = 100
) -> go.Figure:
    """Jaccard overlap of the units that the `size` best nodes use at each pair of positions: a panel per basis.

    A unit is the same at both when its site and number are; a position without any is left blank. Raises `KeyError` where there is
    no such task or method, or positions are pooled.
    """
    task, method = task_or_first(result, task), method_or_first(result, method)
    bases = list(result.study.basis)
    names = basis_names(bases)
    figure = panels([names[basis] for basis in bases], columns=3, height=230)
    for panel, basis in enumerate(bases):
        scores = result.scores(task=task, basis=basis, method=method)
        if scores.index.positions is None:
            raise KeyError(f"the nodes of task {task!r} have no positions: they are pooled")
        parts = scores.index.unflatten(_best(result, scores, size))
        blocks = scores.index.blocks
        used = [np.concatenate([units[b].numpy() for units, _ in parts]) for b in range(blocks)]
        _map(figure, panel, len(bases), jaccard(used), [f"{b}" for b in range(blocks)])
    how = f"method {method} · Jaccard overlap of units, {size} best nodes · positions from 0"
    return finished(figure, f"{task}: overlap of circuits between positions", how)


def jaccard(sets: list[Bool[Tensor, " nodes"]] | list[Bool[np.ndarray, " nodes"]]) -> Float[np.ndarray, "sets sets"]:
    """|A and B| / |A or B| of every pair of sets, given as masks; NaN where one is empty."""
    masks = np.stack([np.asarray(nodes) for nodes in sets]).astype(np.float64)
    both = masks @ masks.T
    counts = masks.sum(1)
    either = counts[:, None] + counts[None, :] - both
    either[(counts[:, None] == 0) | (counts[None, :] == 0)] = np.nan
    return both / either


def _best(result: Result, scores: NodeScores, size: int) -> Bool[Tensor, " nodes"]:
    """The mask of the best nodes, of those that the study's first error policy lets a circuit choose from."""
    among = ~scores.index.is_error
    if result.study.errors[0] == "nodes":
        among = scores.index.exists
    if result.study.errors[0] == "resid_only":
        residual = [site.rpartition(".")[2].startswith("hook_resid") for site in scores.index.sites]
        parts = scores.index.unflatten(scores.index.exists)
        among = scores.index.flatten(
            [units for units, _ in parts], [errors & kept for (_, errors), kept in zip(parts, residual, strict=True)]
        )
    ranked = len(scores.order(among=among))
    return scores.top(min(size, ranked), rank_by=result.study.rank_by, among=among).mask


def _map(
    figure: go.Figure, panel: int, count: int, values: Float[np.ndarray, "rows columns"], ticks: list[str]
) -> None:
    shown = [[None if np.isnan(v) else round(float(v), 3) for v in row] for row in values]
    numbers = [["" if v is None else f"{v:.2f}" for v in row] for row in shown]
    figure.add_trace(
        go.Heatmap(
            z=shown, x=ticks, y=ticks, text=numbers if len(ticks) <= 8 else None, texttemplate="%{text}" if len(ticks) <= 8 else None,
            zmin=0, zmax=1, colorscale=_SCALE, showscale=False, xgap=1, ygap=1, hovertemplate="%{y} and %{x}: %{z}<extra></extra>",
        ),
        **place(panel, min(3, count)),
    )  # fmt: skip
    where = place(panel, min(3, count))
    figure.update_xaxes(type="category", showgrid=False, **where)
    figure.update_yaxes(type="category", autorange="reversed", showgrid=False, **where)
