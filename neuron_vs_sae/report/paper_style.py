"""What figures for papers share: column width, legible text, markers, and embeddable fonts."""

import math
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from neuron_vs_sae.core import files
from neuron_vs_sae.report.escaping import in_drawing
from neuron_vs_sae.report.plots.style import markers_of

COLUMN = 3.25
"""Inches: a column of ICML's, NeurIPS' and ACL's two-column pages is as wide, or a little wider."""
SMALL, GREY = 7.0, "#888888"
FONTS: dict[Any, Any] = {"pdf.fonttype": 42, "ps.fonttype": 42}
"""TrueType, which publishers ask for: matplotlib's own Type 3 fonts are refused by some."""
LEGEND: dict[str, Any] = {
    "loc": "outside lower center", "fontsize": SMALL, "frameon": False, "handlelength": 1.6, "columnspacing": 1.0,
}  # fmt: skip
_MARKERS = {
    "circle": ("o", True), "square": ("s", True), "diamond": ("D", True), "circle-open": ("o", False), "triangle-up": ("^", True),
    "triangle-down": ("v", True), "x-thin-open": ("x", True), "cross": ("P", True), "square-open": ("s", False),
}  # fmt: skip


def save(figure: Figure, file: Path) -> None:
    """Write the figure in the format of the file's ending (pdf, png at 300 dpi, svg ...): the same figure gives the same bytes."""
    metadata = {"CreationDate": None} if file.suffix == ".pdf" else {}

    def write(temporary: Path) -> None:
        with matplotlib.rc_context(FONTS):
            figure.savefig(temporary, format=file.suffix[1:], dpi=300, metadata=metadata)

    files.write(file, write)


def short(text: str, most: int = 30) -> str:
    """A name shortened to `most` characters, for a narrow column."""
    drawn = in_drawing(text)
    return drawn if len(drawn) <= most else f"{drawn[: most - 1].rstrip(chr(92))}…"


def beside(names: list[str]) -> int:
    """How many of these entries fit in a row of a legend."""
    return max(1, min(3, 54 // (max(map(len, names)) + 5)))


def legend_height(names: list[str]) -> float:
    """The height in inches of a legend of these entries below its figure."""
    return 0.15 * math.ceil(len(names) / beside(names))


def marker(bases: list[str], basis: str) -> dict[str, Any]:
    """matplotlib's marker of a basis, filled or open."""
    return drawn_marker(markers_of(bases)[basis])


def drawn_marker(shape: str) -> dict[str, Any]:
    """matplotlib's marker for plotly's."""
    symbol, filled = _MARKERS[shape]
    return {"marker": symbol, "markerfacecolor": None if filled else "white"}


def plain(axes: Any, grid: str = "both") -> None:
    """Light grid lines, no box, small ticks."""
    axes.grid(axis=grid, color="#dddddd", linewidth=0.4)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(width=0.6, length=2.5)
    axes.tick_params(which="both", labelsize=SMALL)  # a log axis of less than a decade labels its minor ticks
    if grid == "both":
        axes.yaxis.set_major_locator(MaxNLocator(5))
