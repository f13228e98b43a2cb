"""Figures for notebooks and HTML, from results alone."""

import html
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from neuron_vs_sae import result
from neuron_vs_sae.lookup import Spec, parse

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


def curves(
    found: "result.Result", *, task: str, ablation: str = "mean", errors: str = "nodes", seed: int | None = None
) -> go.Figure:
    """Faithfulness and completeness against circuit size (log): a colour per basis, a dash per method, bands: intervals.

    Of several seeds one is drawn (default: the study's first); their spread is in `table.md`.
    Raises `KeyError` when the result has no such task, ablation, error policy or seed.
    """
    cases = _cases(found)
    seed = found.study.seed[0] if seed is None else seed
    rows = cases.get((task, ablation, errors))
    rows = rows if rows is None else rows[rows["seed"] == seed]
    if rows is None or rows.empty:
        raise KeyError(
            f"the result has no curve of task {task!r} with ablation {ablation!r} and errors {errors!r}, seed {seed}; it has: "
            f"{list(cases)}, seeds {list(found.study.seed)}"
        )
    bases = found.summary["basis"].unique().tolist()
    colours, names = colours_of(bases), labels(bases)
    dashes = {m: _DASHES[i % len(_DASHES)] for i, m in enumerate(found.summary["method"].unique())}
    figure = make_subplots(rows=1, cols=2, subplot_titles=_CURVE_TITLES, horizontal_spacing=0.08)
    for _, line in rows.loc[rows["size"] >= 1].groupby(["basis", "method"], sort=False):
        basis, method = str(line["basis"].iloc[0]), str(line["method"].iloc[0])
        name = html.escape(f"{names[basis]} · {method}")
        for column, score in enumerate(("faithfulness", "completeness"), 1):
            for trace in _band(line, score, colours[basis], name):
                figure.add_trace(trace, row=1, col=column)
            trace = go.Scatter(
                x=line["size"], y=line[score], mode="lines+markers", name=name, legendgroup=name,
                showlegend=column == 1, line={"color": colours[basis], "dash": dashes[method]}, marker={"size": 5},
            )  # fmt: skip
            figure.add_trace(trace, row=1, col=column)
    for column, level in ((1, 1.0), (2, 0.0)):
        place: dict[str, Any] = {"row": 1, "col": column}  # plotly's own annotation knows only "all"
        figure.add_hline(y=level, line={"color": "#888888", "width": 1, "dash": "dot"}, **place)
    figure.update_xaxes(type="log", dtick=1, title="nodes in the circuit (log scale)")
    figure.update_layout(
        title=_title(rows.iloc[0], found.study.seed),
        template="plotly_white",
        height=520,
        margin={"t": 110},  # of two lines of title above the panels' own
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


def labels(bases: Iterable[str]) -> dict[str, str]:
    """A short text per basis, for legends and tables: folders by as much of their end as tells the bases apart."""
    specs = {text: parse("bases", text) for text in bases}
    deepest = max((len(Path(spec.options.get("source", "")).parts) for spec in specs.values()), default=0)
    short: dict[str, str] = {}
    for depth in range(1, max(deepest, 1) + 1):
        short = {text: str(_shortened(spec, depth)) for text, spec in specs.items()}
        if len(set(short.values())) == len(short):
            break
    return short


def _shortened(spec: Spec, depth: int) -> Spec:
    if "source" not in spec.options:
        return spec
    return Spec(spec.name, {**spec.options, "source": str(Path(*Path(spec.options["source"]).parts[-depth:]))})


def write_curves_html(found: "result.Result") -> None:
    """`curves.html`: one figure per task, ablation and error policy, readable without a network."""
    figures = [curves(found, task=task, ablation=ablation, errors=errors) for task, ablation, errors in _cases(found)]
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


def _cases(found: "result.Result") -> dict[tuple[str, str, str], pd.DataFrame]:
    columns = ["task", "ablation", "errors"]
    return {tuple(rows[columns].iloc[0]): rows for _, rows in found.summary.groupby(columns, sort=False)}


def _band(line: pd.DataFrame, score: str, colour: str, group: str) -> list[Any]:
    if bool(line[f"{score}_low"].isna().all()):
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


def _title(first: pd.Series, seeds: tuple[int, ...]) -> str:
    what = f"{first['task']}: {first['model']}, {first['metric']}"
    how = (
        f"ablation {first['ablation']} · errors {first['errors']} · positions {first['positions']} · "
        f"rank by {first['rank_by']} · {first['n_eval']} prompts, {first['confidence']:.0%} bootstrap intervals"
    )
    how += f" · seed {first['seed']} of {', '.join(map(str, seeds))}" if len(seeds) > 1 else ""
    return f"{html.escape(what)}<br><sub>{html.escape(how)}</sub>"
