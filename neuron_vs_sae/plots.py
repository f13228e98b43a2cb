"""Figures for notebooks and HTML, from results alone."""

import html
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from neuron_vs_sae import result
from neuron_vs_sae.lookup import parse

# Okabe and Ito's palette, which colour-blind readers can tell apart; a basis has one colour everywhere.
_COLOURS = {
    "mlp_neurons": "#0072B2",
    "sae": "#D55E00",
    "transcoder": "#CC79A7",
    "mlp_outputs": "#56B4E9",
    "residual": "#009E73",
    "attention": "#F0E442",
    "rotation": "#999999",
    "pca": "#E69F00",
    "random_sae": "#000000",
}
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
_CURVE_TITLES = ("faithfulness of the circuit (1 is the model)", "completeness: what is left without it (0 is best)")


def curves(found: "result.Result", *, task: str, ablation: str = "mean", errors: str = "nodes") -> go.Figure:
    """Faithfulness and completeness against circuit size (log): a colour per basis, a dash per method, bands: intervals.

    Raises `KeyError` when the result has no such task, ablation or error policy.
    """
    summary = found.summary
    rows = summary[(summary["task"] == task) & (summary["ablation"] == ablation) & (summary["errors"] == errors)]
    if rows.empty:
        raise KeyError(f"the result has no curve of task {task!r} with ablation {ablation!r} and errors {errors!r}")
    colours = colours_of(list(summary["basis"].unique()))
    dashes = {m: _DASHES[i % len(_DASHES)] for i, m in enumerate(summary["method"].unique())}
    figure = make_subplots(rows=1, cols=2, subplot_titles=_CURVE_TITLES, horizontal_spacing=0.08)
    for (basis, method), line in rows.groupby(["basis", "method"], sort=False):
        line = line[line["size"] >= 1]
        name = f"{label(str(basis))} · {method}"
        for column, score in enumerate(("faithfulness", "completeness"), 1):
            for trace in _band(line, score, colours[str(basis)], name):
                figure.add_trace(trace, row=1, col=column)
            style = {"color": colours[str(basis)], "dash": dashes[str(method)]}
            trace = go.Scatter(
                x=line["size"], y=line[score], mode="lines+markers", name=name, legendgroup=name,
                showlegend=column == 1, line=style, marker={"size": 5},
            )  # fmt: skip
            figure.add_trace(trace, row=1, col=column)
    for column, level in ((1, 1.0), (2, 0.0)):
        figure.add_hline(y=level, line={"color": "#888888", "width": 1, "dash": "dot"}, row=1, col=column)  # type: ignore[arg-type]
    figure.update_xaxes(type="log", title="nodes in the circuit")
    figure.update_layout(
        title=html.escape(_title(rows, task)),
        template="plotly_white",
        height=480,
        legend={"orientation": "h", "y": -0.25},
    )
    return figure


def colours_of(bases: list[str]) -> dict[str, str]:
    """A colour per basis: its kind's own, or a free one where two bases are of one kind."""
    taken: dict[str, str] = {}
    for text in bases:
        own = _COLOURS.get(parse("bases", text).name)
        free = [c for c in _COLOURS.values() if c not in taken.values()] or list(_COLOURS.values())
        taken[text] = own if own is not None and own not in taken.values() else free[0]
    return taken


def label(basis: str) -> str:
    """A basis's text, short enough for a legend: folders by their last name."""
    spec = parse("bases", basis)
    options = {k: Path(v).name if k == "source" else v for k, v in spec.options.items()}
    extra = ", ".join(v if k in {"source", "site"} else f"{k}={v}" for k, v in options.items())
    return f"{spec.name} ({extra})" if extra else spec.name


def write_curves_html(found: "result.Result") -> None:
    """`curves.html`: one figure per task, ablation and error policy, readable without a network."""
    cases = found.summary[["task", "ablation", "errors"]].drop_duplicates().itertuples(index=False)
    figures = [curves(found, task=c.task, ablation=c.ablation, errors=c.errors) for c in cases]
    bodies = [
        figure.to_html(full_html=False, include_plotlyjs=i == 0, default_width="100%", div_id=f"curves-{i}")
        for i, figure in enumerate(figures)
    ]
    content = "\n".join(bodies)
    page = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Circuits of {html.escape(str(found.summary['model'].iloc[0]))}</title></head>\n"
        f"<body>\n{content}\n</body></html>\n"
    )
    result.write_text(found.folder / "curves.html", page)


def _band(line: pd.DataFrame, score: str, colour: str, group: str) -> list[Any]:
    if line[f"{score}_low"].isna().all():
        return []
    x = [*line["size"], *line["size"][::-1]]
    y = [*line[f"{score}_high"], *line[f"{score}_low"][::-1]]
    fill = f"rgba({int(colour[1:3], 16)},{int(colour[3:5], 16)},{int(colour[5:7], 16)},0.12)"
    return [
        go.Scatter(
            x=x, y=y, fill="toself", fillcolor=fill, line={"width": 0}, hoverinfo="skip", legendgroup=group,
            showlegend=False,
        )
    ]  # fmt: skip


def _title(rows: pd.DataFrame, task: str) -> str:
    first = rows.iloc[0]
    return (
        f"{task} · {first['model']} · {first['metric']} · ablation {first['ablation']} · errors {first['errors']} · "
        f"positions {first['positions']} · rank by {first['rank_by']} · n={first['n_eval']}"
    )
