"""Figures for papers, at column width, as PDF or PNG: the same rows, colours and markers as in `plots`."""

from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from neuron_vs_sae.core import files
from neuron_vs_sae.report.cases import cases, drawable, least_sizes, ranked
from neuron_vs_sae.report.escaping import in_drawing
from neuron_vs_sae.report.names import basis_names, level_name, task_names
from neuron_vs_sae.report.paper_forest import forest
from neuron_vs_sae.report.paper_style import (
    COLUMN,
    FONTS,
    GREY,
    LEGEND,
    SMALL,
    beside,
    legend_height,
    marker,
    plain,
    save,
    short,
)
from neuron_vs_sae.report.plots.style import colours_of
from neuron_vs_sae.report.robust_tables import confirmatory, robust_tables
from neuron_vs_sae.studies.result import Result
from neuron_vs_sae.studies.rows import rows_with

__all__ = ["COLUMN", "curves", "forest", "save", "sizes", "write_curves_pdf"]


def curves(result: Result, *, task: str, ablation: str, errors: str, method: str | None = None) -> Figure:
    """Faithfulness above completeness above the share of error nodes, against size (log): one method's (the first that is not chance),
    with its intervals. Dotted: circuits of random nodes. Without error nodes the last panel is left out. Raises `KeyError` where
    the result has no such curve."""
    rows = drawable(cases(result)[task, ablation, errors])
    methods, chance = ranked(rows["method"].unique().tolist())
    shown = methods[0] if method is None else method
    if shown not in methods:
        raise KeyError(f"the result has no curve of method {shown!r}; it has: {methods}")
    bases = result.summary["basis"].unique().tolist()
    names = {basis: short(name) for basis, name in basis_names(bases).items()}
    lines = rows_with(rows, method=shown)
    with_errors = bool(lines["n_error_nodes"].any())
    heights = [1.0, 1.0, 0.5] if with_errors else [1.0, 1.0]
    entries = [*names.values(), *chance[:1]]
    figure = Figure(figsize=(COLUMN, 0.5 + 1.4 * sum(heights) + legend_height(entries)), layout="constrained")
    panels = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights)
    for axes, score, level in zip(panels, ("faithfulness", "completeness"), (1.0, 0.0), strict=False):
        _scores(axes, rows, score, (shown, chance), names)
        axes.axhline(level, color=GREY, linewidth=0.6, linestyle=":")
    if with_errors:
        _error_shares(panels[2], lines, names)
    for axes in panels:
        axes.set_xscale("log")
        plain(axes)
    panels[-1].set_xlabel("nodes in the circuit", fontsize=SMALL + 0.5)
    how = f"{level_name('method', shown)}, ablation {ablation}, error nodes {level_name('errors', errors)}"
    title = short(task_names(result.summary["task"]).get(task, task))
    figure.suptitle(f"{title}\n{in_drawing(how)}", fontsize=SMALL)
    handles, drawn = panels[0].get_legend_handles_labels()
    if chance:
        handles.append(Line2D([], [], color=GREY, linewidth=0.7, linestyle=":"))
        drawn.append("random circuits")
    figure.legend(handles, drawn, ncols=beside(drawn), **LEGEND)
    return figure


def sizes(result: Result, *, level: float = 0.8) -> Figure:
    """The size at which faithfulness first reaches `level` (`Curve.size_at`), by task, of the study's first method that is not
    chance, first ablation and first error policy; beside a marker how many of its nodes are error nodes, where any is. No
    marker where the nodes with a score do not reach it."""
    table = result.summary
    method = ranked(table["method"].unique().tolist())[0][0]
    first = table.iloc[0]
    rows = rows_with(table, method=method, ablation=first["ablation"], errors=first["errors"], metric=first["metric"])
    reached = least_sizes(rows, level)
    bases, tasks = table["basis"].unique().tolist(), task_names(rows["task"])
    names = {basis: short(name) for basis, name in basis_names(bases).items()}
    colours, order = colours_of(bases), list(tasks)
    height = 0.65 + max(0.3, 0.1 * len(bases)) * len(order) + legend_height([*names.values()])
    figure = Figure(figsize=(COLUMN, height), layout="constrained")
    axes = figure.subplots()
    for i, basis in enumerate(bases):
        offset = 0.8 * (i / max(len(bases) - 1, 1) - 0.5)
        least = rows_with(reached, basis=basis)
        heights = [order.index(task) + offset for task in least["task"]]
        style: dict[str, Any] = {
            "markersize": 4,
            "color": colours[basis],
            "label": names[basis],
            **marker(bases, basis),
        }
        axes.plot(least["size"].tolist(), heights, linestyle="", **style)
        for size, errors, y in zip(least["size"], least["n_error_nodes"], heights, strict=True):
            if count := round(errors):
                note = f"{count} error node{'s' if count > 1 else ''}"
                axes.annotate(
                    note, (size, y), (4, 0), textcoords="offset points", fontsize=6, va="center", color=colours[basis]
                )
    axes.set_xscale("log")
    axes.set_yticks(range(len(order)), [short(tasks[task], 18) for task in order])
    axes.set_ylim(len(order) - 0.5, -0.5)
    axes.set_xlabel(
        f"nodes for a faithfulness of {level:g} ({short(level_name('method', method))})", fontsize=SMALL + 0.5
    )
    plain(axes, grid="x")
    figure.legend(ncols=beside([*names.values()]), **LEGEND)
    return figure


def write_curves_pdf(result: Result) -> None:
    """`curves.pdf`: the forest plot where bases were compared, a page per task under the study's first ablation, error policy and
    method (`curves` draws any other), and one of sizes."""
    first = tuple(result.summary[["ablation", "errors"]].iloc[0])

    def put(temporary: Path) -> None:
        with matplotlib.rc_context(FONTS), PdfPages(temporary, metadata={"CreationDate": None}) as pages:
            if robust_tables(result.folder) is not None and confirmatory(result):
                pages.savefig(forest(result))
            for task, ablation, errors in cases(result):
                if (ablation, errors) == first:
                    pages.savefig(curves(result, task=task, ablation=ablation, errors=errors))
            pages.savefig(sizes(result))

    files.write(result.folder / "curves.pdf", put)


def _scores(axes: Any, rows: pd.DataFrame, score: str, methods: tuple[str, list[str]], names: dict[str, str]) -> None:
    """Every basis's line and interval of one method, and dotted those of random circuits; `methods`: (that method, chance)."""
    shown, chance = methods
    bases = list(names)
    colours = colours_of(bases)
    for basis in bases:
        of_basis = rows_with(rows, basis=basis)
        for method in chance:
            null = rows_with(of_basis, method=method)
            axes.plot(null["size"], null[score], color=colours[basis], linewidth=0.7, linestyle=":", alpha=0.8)
        line = rows_with(of_basis, method=shown)
        ends = (line[f"{score}_low"], line[f"{score}_high"])
        axes.fill_between(line["size"], *ends, color=colours[basis], alpha=0.15, lw=0)
        style: dict[str, Any] = {"linewidth": 1.1, "markersize": 2.6, **marker(bases, basis)}
        axes.plot(line["size"], line[score], color=colours[basis], label=names[basis], **style)
    axes.set_ylabel(score, fontsize=SMALL + 0.5)


def _error_shares(axes: Any, lines: pd.DataFrame, names: dict[str, str]) -> None:
    """Which share of each circuit's nodes are error nodes."""
    bases = list(names)
    colours = colours_of(bases)
    for basis in bases:
        line = rows_with(lines, basis=basis)
        if bool(line["n_error_nodes"].any()):
            share = 100 * line["n_error_nodes"] / line["size"]
            axes.plot(line["size"], share, color=colours[basis], linewidth=1.1, markersize=2.6, **marker(bases, basis))
    axes.set_ylim(0, 105)
    axes.set_ylabel("error nodes (%)", fontsize=SMALL + 0.5)
