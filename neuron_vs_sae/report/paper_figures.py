"""Figures for papers, at column width, as PDF or PNG: the same rows, colours and markers as in `plots`."""

import math
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from neuron_vs_sae.core import files
from neuron_vs_sae.report.cases import cases, drawable, least_sizes, ranked
from neuron_vs_sae.report.escaping import in_drawing
from neuron_vs_sae.report.labels import labels
from neuron_vs_sae.report.plots.style import colours_of, markers_of
from neuron_vs_sae.studies import result
from neuron_vs_sae.studies.rows import rows_with

COLUMN = 3.25
"""Inches: a column of ICML's, NeurIPS' and ACL's two-column pages is as wide, or a little wider."""
_MARKERS = {
    "circle": ("o", True), "square": ("s", True), "diamond": ("D", True), "circle-open": ("o", False), "triangle-up": ("^", True),
    "triangle-down": ("v", True), "x-thin-open": ("x", True), "cross": ("P", True), "square-open": ("s", False),
}  # fmt: skip
_SMALL, _GREY = 6.5, "#888888"
_LEGEND: dict[str, Any] = {
    "loc": "outside lower center", "fontsize": _SMALL, "frameon": False, "handlelength": 1.6, "columnspacing": 1.0,
}  # fmt: skip


def curves(found: "result.Result", *, task: str, ablation: str, errors: str, method: str | None = None) -> Figure:
    """Faithfulness above completeness against size (log), one method's (the first that is not chance), with its intervals; dotted:
    circuits of random nodes. Raises `KeyError` where the result has no such curve."""
    rows = drawable(cases(found)[task, ablation, errors])
    methods, chance = ranked(rows["method"].unique().tolist())
    shown = methods[0] if method is None else method
    if shown not in methods:
        raise KeyError(f"the result has no curve of method {shown!r}; it has: {methods}")
    bases = found.summary["basis"].unique().tolist()
    names, colours = labels(bases), colours_of(bases)
    figure = Figure(
        figsize=(COLUMN, 3.4 + _legend_height([*map(_short, names.values()), *chance[:1]])), layout="constrained"
    )
    above, below = figure.subplots(2, 1, sharex=True)
    for axes, score, level in ((above, "faithfulness", 1.0), (below, "completeness", 0.0)):
        axes.axhline(level, color=_GREY, linewidth=0.6, linestyle=":")
        for basis in bases:
            of_basis = rows_with(rows, basis=basis)
            for one in chance:
                null = rows_with(of_basis, method=one)
                axes.plot(null["size"], null[score], color=colours[basis], linewidth=0.7, linestyle=":", alpha=0.8)
            line = rows_with(of_basis, method=shown)
            axes.fill_between(
                line["size"], line[f"{score}_low"], line[f"{score}_high"], color=colours[basis], alpha=0.15, lw=0
            )
            axes.plot(
                line["size"], line[score], color=colours[basis], linewidth=1.1, markersize=2.6,
                label=_short(names[basis]), **_marker(bases, basis),
            )  # fmt: skip
        axes.set_xscale("log")
        axes.set_ylabel(score, fontsize=_SMALL + 1)
        _plain(axes)
    below.set_xlabel("nodes in the circuit", fontsize=_SMALL + 1)
    first = rows.iloc[0]
    how = f"{shown}, ablation {ablation}, errors {errors}, {first['n_eval']} prompts"
    figure.suptitle(f"{_short(task)}\n{in_drawing(how)}", fontsize=_SMALL + 0.5)
    handles, entries = above.get_legend_handles_labels()
    if chance:
        handles.append(Line2D([], [], color=_GREY, linewidth=0.7, linestyle=":"))
        entries.append("random circuits")
    figure.legend(handles, entries, ncols=_beside(entries), **_LEGEND)
    return figure


def sizes(found: "result.Result", *, level: float = 0.8) -> Figure:
    """The smallest size run that reaches `level` of faithfulness, by task, of the study's first method that is not chance, first ablation
    and first error policy; no marker where none does."""
    table = found.summary
    method = ranked(table["method"].unique().tolist())[0][0]
    first = table.iloc[0]
    rows = rows_with(table, method=method, ablation=first["ablation"], errors=first["errors"])
    reached = least_sizes(rows, level)
    bases, tasks = table["basis"].unique().tolist(), rows["task"].unique().tolist()
    names, colours = labels(bases), colours_of(bases)
    height = 0.65 + 0.3 * len(tasks) + _legend_height([_short(names[basis]) for basis in bases])
    figure = Figure(figsize=(COLUMN, height), layout="constrained")
    axes = figure.subplots()
    for i, basis in enumerate(bases):
        offset = 0.5 * (i / max(len(bases) - 1, 1) - 0.5)
        least = rows_with(reached, basis=basis)
        x, y = least["size"].tolist(), [tasks.index(task) + offset for task in least["task"]]
        axes.plot(
            x,
            y,
            linestyle="",
            markersize=4,
            color=colours[basis],
            label=_short(names[basis]),
            **_marker(bases, basis),
        )
    axes.set_xscale("log")
    axes.set_yticks(range(len(tasks)), [_short(task, 18) for task in tasks])
    axes.set_ylim(len(tasks) - 0.5, -0.5)
    axes.set_xlabel(f"nodes for a faithfulness of {level:g} ({_short(method)})", fontsize=_SMALL + 1)
    _plain(axes, grid="x")
    figure.legend(ncols=_beside([_short(names[basis]) for basis in bases]), **_LEGEND)
    return figure


def save(figure: Figure, file: Path) -> None:
    """Write the figure in the format of the file's ending (pdf, png at 300 dpi, svg ...): the same figure gives the same bytes."""
    metadata = {"CreationDate": None} if file.suffix == ".pdf" else {}
    files.write(file, lambda temporary: figure.savefig(temporary, format=file.suffix[1:], dpi=300, metadata=metadata))


def write_curves_pdf(found: "result.Result") -> None:
    """`curves.pdf`: a page per task, ablation and error policy, and one of sizes."""

    def put(temporary: Path) -> None:
        with PdfPages(temporary, metadata={"CreationDate": None}) as pages:
            for task, ablation, errors in cases(found):
                pages.savefig(curves(found, task=task, ablation=ablation, errors=errors))
            pages.savefig(sizes(found))

    files.write(found.folder / "curves.pdf", put)


def _short(text: str, most: int = 28) -> str:
    """As much of a name as a column has room for."""
    drawn = in_drawing(text)
    return drawn if len(drawn) <= most else f"{drawn[: most - 1].rstrip(chr(92))}…"


def _beside(names: list[str]) -> int:
    """How many entries of these a legend's row holds."""
    return max(1, min(3, 48 // (max(map(len, names)) + 4)))


def _legend_height(names: list[str]) -> float:
    """Inches that a legend of these takes below its figure."""
    return 0.14 * math.ceil(len(names) / _beside(names))


def _marker(bases: list[str], basis: str) -> dict[str, Any]:
    shape, filled = _MARKERS[markers_of(bases)[basis]]
    return {"marker": shape, "markerfacecolor": None if filled else "white"}


def _plain(axes: Any, grid: str = "both") -> None:
    axes.grid(axis=grid, color="#dddddd", linewidth=0.4)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=_SMALL, width=0.6, length=2.5)
    if grid == "both":
        axes.yaxis.set_major_locator(MaxNLocator(5))
