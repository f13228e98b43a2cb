"""What all figures share: a colour and a marker per basis, a dash per method, panels, and light or dark."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from neuron_vs_sae.core.lookup import parse
from neuron_vs_sae.report.escaping import in_figure
from neuron_vs_sae.report.plots.figure import ResultFigure

# Okabe and Ito's palette, which colour-blind readers can tell apart, less its black and yellow, and its light blue and orange made darker:
# every colour has a contrast of 3:1 or better on a white and on a dark page. A basis has one colour and one marker everywhere.
_COLOURS = {
    "mlp_neurons": "#0072B2",
    "sae": "#D55E00",
    "transcoder": "#CC79A7",
    "mlp_outputs": "#3A8FC2",
    "residual": "#009E73",
    "attention": "#A58A00",
    "rotation": "#6F6F6F",
    "pca": "#B87D00",
    "random_sae": "#96623C",
}
_MARKERS = {
    "mlp_neurons": "circle", "sae": "square", "transcoder": "diamond", "mlp_outputs": "circle-open", "residual": "triangle-up",
    "attention": "triangle-down", "rotation": "x-thin-open", "pca": "cross", "random_sae": "square-open",
}  # fmt: skip


@dataclass(frozen=True)
class Look:
    """How a series is drawn."""

    colour: str
    marker: str


POLICIES = {
    "nodes": Look("#D55E00", "circle"),
    "keep": Look("#0080A8", "square"),
    "ablate": Look("#8A63B8", "diamond"),
    "resid_only": Look("#6F6F6F", "triangle-up"),
}
"""Error policies in a forest plot, in the order in which they are listed."""
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
THEMES = {
    "light": {"font.color": "#1b1f24", "paper_bgcolor": "#ffffff", "plot_bgcolor": "#ffffff"},
    "dark": {"font.color": "#e4e7eb", "paper_bgcolor": "#14171b", "plot_bgcolor": "#14171b"},
}


def colours_of(bases: Iterable[str]) -> dict[str, str]:
    """A colour per basis: its kind's own, or a free one where two bases are of one kind."""
    return _own_or_free(bases, _COLOURS)


def markers_of(bases: Iterable[str]) -> dict[str, str]:
    """A marker per basis, by the same rule, so that colour is never the only cue."""
    return _own_or_free(bases, _MARKERS)


def _own_or_free(bases: Iterable[str], kinds: dict[str, str]) -> dict[str, str]:
    taken: dict[str, str] = {}
    for text in bases:
        own = kinds.get(parse("bases", text).name)
        free = [look for look in kinds.values() if look not in taken.values()] or list(kinds.values())
        taken[text] = own if own is not None and own not in taken.values() else free[0]
    return taken


def dashes_of(methods: Iterable[str]) -> dict[str, str]:
    """A dash per method, in their order."""
    return {method: _DASHES[i % len(_DASHES)] for i, method in enumerate(methods)}


def faint(colour: str, opacity: float) -> str:
    """The colour with an opacity: `rgba(0,114,178,0.12)`."""
    return f"rgba({int(colour[1:3], 16)},{int(colour[3:5], 16)},{int(colour[5:7], 16)},{opacity})"


def panels(titles: Sequence[str], *, columns: int, height: int) -> ResultFigure:
    """An empty figure of one panel per title, `columns` side by side, each `height` pixels high, in the light theme."""
    count = len(titles)
    columns = min(columns, count)
    rows = -(-count // columns)
    figure = ResultFigure()
    make_subplots(
        figure=figure,
        rows=rows, cols=columns, subplot_titles=[in_figure(title) for title in titles],
        horizontal_spacing=0.3 / columns**1.5, vertical_spacing=min(0.35 / rows, 80 / (rows * height)),
    )  # fmt: skip
    grid = "rgba(128,128,128,0.22)"
    common = {
        "gridcolor": grid, "zeroline": False, "linecolor": "rgba(128,128,128,0.6)", "ticks": "outside", "automargin": True,
        "title_standoff": 6,
    }  # fmt: skip
    figure.update_xaxes(**common)
    figure.update_yaxes(**common)
    figure.update_annotations(font_size=13)
    figure.update_layout(
        template="none",
        font={"family": _FONT, "size": 12},
        margin={"t": 100, "l": 60, "r": 20},
        modebar={"bgcolor": "rgba(0,0,0,0)", "color": "#8a929b", "activecolor": "#56606a"},
        meta={"panels": count, "columns": columns, "panel_height": height},
        hoverlabel={"font": {"family": _FONT}},
    )
    themed(figure, "light")
    return figure


def place(panel: int, columns: int) -> dict[str, Any]:
    """Row and column of the panel of that number, for plotly."""
    return {"row": 1 + panel // columns, "col": 1 + panel % columns}


def finished(figure: go.Figure, title: str, subtitle: str) -> go.Figure:
    """The figure with its title, its legend below, and as high as both need."""
    shared = figure.layout.meta
    traces: Any = figure.data
    names = {t.name for t in traces if t.name and t.showlegend is not False and t.visible is not False}
    rows = -(-shared["panels"] // shared["columns"])
    legend = 24 * -(-len(names) // 4) if len(names) > 1 else 0
    height = rows * shared["panel_height"] + 170 + legend
    figure.update_layout(
        title={
            "text": f"{in_figure(title)}<br><sub>{in_figure(subtitle)}</sub>", "x": 0.01, "xanchor": "left", "yref": "container",
            "y": 0.98, "yanchor": "top",
        },
        height=height,
        margin_b=65 + legend,
        showlegend=len(names) > 1,
        legend={"orientation": "h", "yref": "container", "y": 0.0, "yanchor": "bottom", "x": 0},
    )  # fmt: skip
    return figure


def themed(figure: go.Figure, theme: Literal["light", "dark"]) -> go.Figure:
    """The figure for a light or a dark page (in place, and returned)."""
    figure.update_layout({name.replace(".", "_"): value for name, value in THEMES[theme].items()})
    return figure


def conventions_of(first: pd.Series, seeds: Sequence[int] = ()) -> str:
    """The choices behind a figure's rows, in one line; of several `seeds`, whose rows they are."""
    of_seeds = f" · seed {first['seed']} of {', '.join(map(str, seeds))}" if len(seeds) > 1 else ""
    return (
        f"ablation {first['ablation']} · errors {first['errors']} · positions {first['positions']} · "
        f"rank by {first['rank_by']} · {first['n_eval']} prompts, {first['confidence']:.0%} bootstrap intervals{of_seeds}"
    )


def plain(values: Iterable[Any]) -> list[float]:
    """The values as Python floats, which plotly writes as plain numbers rather than packed."""
    return [float(value) for value in values]
