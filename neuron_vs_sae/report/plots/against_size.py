"""Scores against circuit size, and the size that a level of faithfulness needs."""

from typing import Any

import pandas as pd
import plotly.graph_objects as go

from neuron_vs_sae.report.cases import cases, chance_envelope, drawable, least_sizes, ranked
from neuron_vs_sae.report.escaping import in_figure
from neuron_vs_sae.report.names import basis_names
from neuron_vs_sae.report.plots.style import (
    colours_of,
    conventions_of,
    dashes_of,
    faint,
    finished,
    markers_of,
    panels,
    place,
    plain,
)
from neuron_vs_sae.studies.result import Result
from neuron_vs_sae.studies.rows import rows_with

_CURVE_TITLES = ("faithfulness (1 is the model)", "completeness: what is left (0 is best)")
_SCORES = ("faithfulness", "completeness")
CHANCE = "chance: random circuits"


def curves(
    result: Result,
    *,
    task: str | None = None,
    ablation: str | None = None,
    errors: str | None = None,
    seed: int | None = None,
) -> go.Figure:
    """Faithfulness and completeness against circuit size (log): a colour per basis, a dash per method, bands: intervals.

    Circuits of method `random` are the band of chance, which spans the intervals of all its seeds; where there is no other
    method they are drawn as one. Of several methods the first is shown and a menu shows the others. Where no task, ablation, error policy or
    seed is named it is the study's first. Raises `KeyError` when the result has no such task, ablation, error policy or seed.
    """
    by_case, seeds = cases(result), result.study.seed
    seed = seeds[0] if seed is None else seed
    first_case = next(iter(by_case))
    task, ablation, errors = (
        own if given is None else given for given, own in zip((task, ablation, errors), first_case, strict=True)
    )
    rows = by_case.get((task, ablation, errors))
    if rows is None or seed not in seeds:
        raise KeyError(
            f"the result has no curve of task {task!r} with ablation {ablation!r} and errors {errors!r}, seed {seed}; it has: "
            f"{list(by_case)}, seeds {list(seeds)}"
        )
    rows = drawable(rows_with(rows, seed=seed))
    first = rows.iloc[0]
    bases = result.summary["basis"].unique().tolist()
    methods, chance = ranked(rows["method"].unique().tolist())
    figure = panels(_CURVE_TITLES, columns=2, height=380)
    if chance:
        grey = {"color": "#888888", "width": 1, "dash": "dot"}
        figure.add_trace(
            go.Scatter(x=[None], y=[None], mode="lines", line=grey, name=CHANCE, legendgroup="chance"), **place(0, 2)
        )
    for basis in bases:
        null = rows.loc[(rows["basis"] == basis) & rows["method"].isin(chance)]
        if len(null):
            _draw_chance(figure, null, colours_of(bases)[basis])
    for method in methods:
        for basis in bases:
            line = rows_with(rows, basis=basis, method=method)
            _draw(figure, line, basis, method, result, shown=method == methods[0])
    for panel, level in enumerate((1.0, 0.0)):
        where: Any = place(panel, 2)  # plotly's own annotation knows only "all"
        figure.add_hline(y=level, line={"color": "#888888", "width": 1, "dash": "dot"}, **where)
    figure.update_xaxes(type="log", dtick=1, title="nodes in the circuit (log scale)")
    how = f"method {methods[0]} · " if len(methods) == 1 else ""
    finished(figure, f"{task}: {first['model']}, {first['metric']}", how + conventions_of(first, seeds))
    if len(methods) > 1:
        _offer(figure, methods)
    return figure


def sizes(
    result: Result,
    *,
    method: str | None = None,
    ablation: str | None = None,
    errors: str | None = None,
    level: float = 0.8,
) -> go.Figure:
    """The size at which faithfulness first reaches `level` (`Curve.size_at`), by task: a marker per basis, none where it does not.

    The study's first metric, and its first method, ablation and error policy where none is named. Raises `KeyError` where there is no such curve.
    """
    table = result.summary
    method, ablation, errors = (
        given or table[name].iloc[0] for given, name in ((method, "method"), (ablation, "ablation"), (errors, "errors"))
    )
    rows = rows_with(table, method=method, ablation=ablation, errors=errors, metric=table["metric"].iloc[0])
    if rows.empty:
        raise KeyError(f"the result has no curve of method {method!r} with ablation {ablation!r} and errors {errors!r}")
    reached = least_sizes(rows, level)
    bases, tasks = table["basis"].unique().tolist(), rows["task"].unique().tolist()
    names, colours, markers = basis_names(bases), colours_of(bases), markers_of(bases)
    figure = panels([f"nodes for a faithfulness of {level:g}"], columns=1, height=max(200, 60 + 44 * len(tasks)))
    for i, basis in enumerate(bases):
        least = rows_with(reached, basis=basis)
        offset = 0.5 * (i / max(len(bases) - 1, 1) - 0.5)  # so that equal sizes do not cover each other
        figure.add_trace(
            go.Scatter(
                x=least["size"].tolist(),
                y=[len(tasks) - 1 - tasks.index(task) + offset for task in least["task"]],
                mode="markers",
                name=in_figure(names[basis]),
                marker={
                    "color": colours[basis],
                    "symbol": markers[basis],
                    "size": 10,
                    "line": {"width": 2, "color": colours[basis]},
                },
                text=[
                    f"{in_figure(row['task'])}, {in_figure(names[basis])}: {row['size']:.0f} nodes, {row['n_error_nodes']:.0f} of them error nodes"
                    for row in least.to_dict("records")
                ],
                hoverinfo="text",
            )
        )
    figure.update_xaxes(type="log", title="nodes (log scale)")
    figure.update_yaxes(
        tickvals=list(range(len(tasks))),
        ticktext=[in_figure(task) for task in reversed(tasks)],
        range=[-0.6, len(tasks) - 0.4],
    )
    how = f"no marker: not reached by the nodes with a score · method {method} · {conventions_of(rows.iloc[0])}"
    return finished(figure, f"Size that reaches {level:g}, by task", how)


def _draw(figure: go.Figure, line: pd.DataFrame, basis: str, method: str, result: Result, shown: bool) -> None:
    """A curve and its band in both panels."""
    bases = result.summary["basis"].unique().tolist()
    colour = colours_of(bases)[basis]
    dash = dashes_of(ranked(result.summary["method"].unique().tolist())[0])[method]
    name = in_figure(f"{basis_names(bases)[basis]} · {method}")
    common: dict[str, Any] = {"legendgroup": name, "meta": {"method": method}, "visible": shown}
    for panel, score in enumerate(_SCORES):
        low, high = line[f"{score}_low"], line[f"{score}_high"]
        if not bool(low.isna().all()):
            band = _band(line["size"], low, high, faint(colour, 0.13))
            figure.add_trace(go.Scatter(**band, **common, showlegend=False), **place(panel, 2))
        figure.add_trace(
            go.Scatter(
                x=line["size"].tolist(), y=plain(line[score]), mode="lines+markers", name=name, showlegend=panel == 0,
                line={"color": colour, "dash": dash, "width": 2},
                marker={"size": 6, "symbol": markers_of(bases)[basis]}, **common,
            ),
            **place(panel, 2),
        )  # fmt: skip


def _draw_chance(figure: go.Figure, null: pd.DataFrame, colour: str) -> None:
    """From the lowest to the highest end of the intervals (the curves, where there are none) of all seeds."""
    for panel, score in enumerate(_SCORES):
        size, low, high = map(list, zip(*chance_envelope(null, score), strict=True))
        band = _band(size, low, high, faint(colour, 0.16))
        line = {"color": faint(colour, 0.6), "width": 1, "dash": "dot"}
        named = {"legendgroup": "chance", "showlegend": False}
        figure.add_trace(go.Scatter(**{**band, "line": line}, **named), **place(panel, 2))


def _band(x: Any, low: Any, high: Any, fill: str) -> dict[str, Any]:
    return {
        "x": [*x, *x[::-1]], "y": [*plain(high), *plain(low[::-1])], "fill": "toself", "fillcolor": fill, "mode": "lines",
        "line": {"width": 0}, "hoverinfo": "skip",
    }  # fmt: skip


def _offer(figure: go.Figure, methods: list[str]) -> None:
    """A menu of methods; the chance band, which is of none, stays."""
    traces: Any = figure.data
    buttons = [
        {
            "label": in_figure(f"method {method}"),
            "method": "restyle",
            "args": [{"visible": [(t.meta or {}).get("method", method) == method for t in traces]}],
        }
        for method in methods
    ]
    colours = {"bgcolor": "#eeeeee", "font": {"color": "#1b1f24"}}  # plotly's menu is light on dark pages too
    figure.update_layout(
        updatemenus=[{"buttons": buttons, "x": 1, "xanchor": "right", "y": 1.22, "yanchor": "top", **colours}]
    )
    figure.layout.meta = {**figure.layout.meta, "methods": methods}
