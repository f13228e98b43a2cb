"""A page of sections, each a figure with its caption and a table: it needs no network, and draws nothing by script."""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.figure import Figure

from neuron_vs_sae.report.escaping import visible

_ROWS = 60


@dataclass(frozen=True, eq=False)
class Section:
    """A heading, a sentence that says what is drawn, and what is shown below it."""

    heading: str
    caption: str
    figure: Figure | None = None
    table: pd.DataFrame | None = None


def render(title: str, answer: Sequence[str], sections: Sequence[Section], limits: Sequence[str]) -> str:
    """The HTML: the answer in sentences, the sections, and what they do not show."""
    environment = Environment(
        loader=PackageLoader("neuron_vs_sae.report", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    shown = [
        {
            "heading": section.heading, "caption": section.caption,
            "svg": None if section.figure is None else Markup(svg(section.figure, section.heading)),
            "columns": [] if section.table is None else list(section.table.columns),
            "rows": [] if section.table is None else [[cell(value) for value in row] for row in section.table.head(_ROWS).to_numpy().tolist()],
            "more": 0 if section.table is None else max(0, len(section.table) - _ROWS),
        }
        for section in sections
    ]  # fmt: skip
    return environment.get_template("interventions.html.jinja").render(
        title=visible(title), answer=answer, sections=shown, limits=limits
    )


def svg(figure: Figure, label: str) -> str:
    """The figure as an element of a page, the same bytes for the same figure, its text as text."""
    out = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": label}):
        figure.savefig(out, format="svg", metadata={"Date": None})
    text = out.getvalue()
    return text[text.index("<svg") :]


def cell(value: object) -> str:
    """A number with three digits, an absent one as a dash, text with what would not be seen made visible."""
    if isinstance(value, float):
        return "–" if value != value else f"{value:.3g}"
    return "–" if value is None else visible(str(value))
