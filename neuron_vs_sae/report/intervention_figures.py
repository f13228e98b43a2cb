"""Figures of interventions: units to flip, dose and response, price and efficacy, swaps, heads, selectivity. One claim each."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from neuron_vs_sae.core.lookup import known
from neuron_vs_sae.report.escaping import in_drawing
from neuron_vs_sae.report.names import basis_names
from neuron_vs_sae.report.paper_style import GREY, LEGEND, SMALL, beside, legend_height, plain
from neuron_vs_sae.report.plots.style import colours_of

_WIDTH, _HEIGHT = 6.4, 3.0
_DENSE = "#1b1f24"
"""What is no basis of the study, such as a dense direction."""


def called(bases: Iterable[str]) -> dict[str, str]:
    """What bases are called; dense directions, which are none of the study's, as they are labelled."""
    bases = list(dict.fromkeys(bases))
    specs = [basis for basis in bases if _is_spec(basis)]
    return {**{basis: basis.replace("_", " ") for basis in bases}, **basis_names(specs)}


def coloured(bases: Iterable[str]) -> dict[str, str]:
    """A colour for each of them."""
    bases = list(dict.fromkeys(bases))
    return {**dict.fromkeys(bases, _DENSE), **colours_of([basis for basis in bases if _is_spec(basis)])}


def _is_spec(basis: str) -> bool:
    return basis.partition(":")[0].partition("@")[0].partition(",")[0] in known("bases")


def units_to_flip(table: pd.DataFrame, task: str) -> Figure:
    """The share of prompts whose answer is flipped against the number of units patched; dashed: as much moved in random units."""
    mine = table.loc[
        (table["task"] == task) & (table["alpha"] == table["alpha"].iloc[0]) & (table["seed"] == table["seed"].iloc[0])
    ]
    figure, axes, names, colours = _canvas(mine["basis"])
    for basis in names:
        for control, style in (("", "-"), ("random", "--")):
            rows = mine.loc[(mine["basis"] == basis) & (mine["control"] == control)].sort_values("k")
            if len(rows):
                axes.plot(
                    rows["k"],
                    rows["flip_rate"],
                    style,
                    color=colours[basis],
                    label=names[basis] if not control else None,
                    linewidth=1.2,
                )
                if not control:
                    axes.fill_between(
                        rows["k"], rows["low"], rows["high"], color=colours[basis], alpha=0.15, linewidth=0
                    )
    axes.set(xscale="log", xlabel="units set to the donor's values", ylabel="share flipped", ylim=(-0.03, 1.03))
    return _finished(figure, names)


def foretold(table: pd.DataFrame, task: str) -> Figure:
    """The effect that the gradient predicts against the effect that is measured; dotted: equal."""
    mine = table.loc[(table["task"] == task) & (table["control"] == "")]
    figure, axes, names, colours = _canvas(mine["basis"])
    for basis in names:
        rows = mine.loc[mine["basis"] == basis].sort_values("k")
        axes.plot(
            rows["predicted"],
            rows["actual"],
            "o-",
            color=colours[basis],
            label=names[basis],
            markersize=3,
            linewidth=0.8,
        )
    most = float(np.nanmax([mine["predicted"].max(), mine["actual"].max()]))
    axes.plot([0, most], [0, most], ":", color=GREY, linewidth=0.8)
    axes.set(xlabel="predicted fall of the metric", ylabel="measured fall")
    return _finished(figure, names)


def dose_response(table: pd.DataFrame, task: str) -> Figure:
    """The change of the metric at every dose, with its interval, and beside it what the dose costs on neutral text (or at the answer, where none was read)."""
    mine = table.loc[(table["task"] == task) & (table["seed"] == table["seed"].iloc[0])]
    figure, _, names, colours = _canvas(mine["basis"], panels=2)
    left, right = figure.axes
    cost = "corpus_kl" if "corpus_kl" in mine and mine["corpus_kl"].notna().any() else "kl"
    for basis in names:
        rows = mine.loc[mine["basis"] == basis].sort_values("dose")
        left.plot(
            rows["dose"], rows["effect"], "o-", color=colours[basis], label=names[basis], markersize=3, linewidth=1
        )
        left.fill_between(rows["dose"], rows["low"], rows["high"], color=colours[basis], alpha=0.15, linewidth=0)
        right.plot(rows["dose"], rows[cost], "o-", color=colours[basis], markersize=3, linewidth=1)
    left.axhline(0, color=GREY, linewidth=0.6)
    left.set(xlabel=f"dose ({in_drawing(mine['dose_in'].iloc[0])})", ylabel="change of the metric")
    where = "on neutral text" if cost == "corpus_kl" else "at the answer"
    right.set(xlabel=f"dose ({in_drawing(mine['dose_in'].iloc[0])})", ylabel=f"KL {where} (nats)")
    return _finished(figure, names)


def frontier(table: pd.DataFrame, task: str, guard: str) -> Figure:
    """What the best affordable dose does to prompts that did not choose it, against the price."""
    mine = table.loc[(table["task"] == task) & (table["guard"] == guard) & table["price"].notna()]
    figure, axes, names, colours = _canvas(mine["basis"])
    for basis in names:
        rows = mine.loc[mine["basis"] == basis].sort_values("price")
        axes.plot(
            rows["price"], rows["efficacy"], "o-", color=colours[basis], label=names[basis], markersize=3, linewidth=1.2
        )
        axes.fill_between(rows["price"], rows["low"], rows["high"], color=colours[basis], alpha=0.15, linewidth=0)
    price = "KL at the answer" if guard == "kl" else "KL on neutral text"
    axes.set(xscale="log", xlabel=f"price: {price} (nats)", ylabel="efficacy")
    return _finished(figure, names)


def swap_matrix(table: pd.DataFrame, task: str) -> Figure:
    """The rate at which the donor's answer comes first: a row per basis and way of finding units, a column per number of units."""
    mine = table.loc[(table["task"] == task) & (table["swap"] == "swap") & (table["seed"] == table["seed"].iloc[0])]
    names = called(mine["basis"])
    wide = mine.pivot_table(index=["basis", "way"], columns="k", values="hit", sort=False)
    figure = Figure(figsize=(_WIDTH, 0.9 + 0.24 * len(wide)), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(wide.to_numpy(), vmin=0, vmax=1, cmap="Blues", aspect="auto")
    axes.set_xticks(range(wide.shape[1]), [str(k) for k in wide.columns])
    axes.set_yticks(range(len(wide)), [in_drawing(f"{names[basis]}, {way}") for basis, way in wide.index])
    for (row, column), value in np.ndenumerate(wide.to_numpy()):
        axes.text(
            column,
            row,
            f"{value:.2f}",
            ha="center",
            va="center",
            fontsize=SMALL,
            color="white" if value > 0.6 else "black",
        )
    axes.set_xlabel("units of each value", fontsize=8)
    axes.tick_params(labelsize=SMALL, length=0)
    return figure


def head_map(table: pd.DataFrame) -> Figure:
    """The successor score of every head, over all lists."""
    wide = table.loc[table["order"] == "all"].pivot(index="layer", columns="head", values="score")
    figure = Figure(figsize=(min(_WIDTH, 1.6 + 0.4 * wide.shape[1]), 1.0 + 0.28 * len(wide)), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(wide.to_numpy(), vmin=0, vmax=1, cmap="Blues", aspect="auto")
    axes.set_xticks(range(wide.shape[1]), [str(h) for h in wide.columns])
    axes.set_yticks(range(len(wide)), [str(layer) for layer in wide.index])
    if wide.size <= 200:
        for (row, column), value in np.ndenumerate(wide.to_numpy()):
            axes.text(
                column,
                row,
                f"{value:.2f}",
                ha="center",
                va="center",
                fontsize=SMALL,
                color="white" if value > 0.6 else "black",
            )
    axes.set_xlabel("head", fontsize=8)
    axes.set_ylabel("layer", fontsize=8)
    axes.tick_params(labelsize=SMALL, length=0)
    return figure


def selective(table: pd.DataFrame, matched: str) -> Figure:
    """Selectivity of each task's units, at as many units or as large a norm; dashed: random units."""
    mine = table.loc[(table["matched"] == matched) & (table["seed"] == table["seed"].iloc[0])]
    tasks = list(dict.fromkeys(mine["own"]))
    figure, _, names, colours = _canvas(mine["basis"], panels=len(tasks))
    for axes, own in zip(figure.axes, tasks, strict=True):
        for basis in names:
            for control, style in (("", "o-"), ("random", "--")):
                rows = mine.loc[
                    (mine["own"] == own) & (mine["basis"] == basis) & (mine["control"] == control)
                ].sort_values("size")
                axes.plot(
                    rows["size"],
                    rows["selectivity"],
                    style,
                    color=colours[basis],
                    label=None if control else names[basis],
                    markersize=3,
                    linewidth=1,
                )
        axes.axhline(0, color=GREY, linewidth=0.6)
        axes.set(
            xscale="log",
            ylim=(-1.05, 1.05),
            xlabel="units ablated" if matched == "k" else "relative norm ablated",
            title=f"units of {in_drawing(own)}",
        )
        axes.title.set_fontsize(8)
    figure.axes[0].set_ylabel("selectivity")
    return _finished(figure, names)


def _canvas(bases: Iterable[str], panels: int = 1) -> tuple[Figure, Any, dict[str, str], dict[str, str]]:
    names = called(bases)
    figure = Figure(figsize=(_WIDTH, _HEIGHT + legend_height(list(names.values()))), layout="constrained")
    axes = figure.subplots(1, panels)
    return figure, axes, names, coloured(names)


def _finished(figure: Figure, names: dict[str, str]) -> Figure:
    for axes in figure.axes:
        plain(axes)
        for label in (axes.xaxis.label, axes.yaxis.label):
            label.set_fontsize(8)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    shown: Sequence[str] = [in_drawing(label) for label in labels]
    figure.legend(handles, shown, **LEGEND, ncols=beside(list(names.values())))
    return figure
