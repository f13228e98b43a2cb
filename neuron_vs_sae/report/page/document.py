"""Puts the page together: sentences, figures' data, tables and settings, in one file that loads nothing else."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from neuron_vs_sae.core import files
from neuron_vs_sae.report.again import commands, config
from neuron_vs_sae.report.caption import accepted, conventions, dictionaries
from neuron_vs_sae.report.citation import bibtex
from neuron_vs_sae.report.escaping import visible
from neuron_vs_sae.report.names import basis_names, listed
from neuron_vs_sae.report.page import first_screen, parts, tables
from neuron_vs_sae.report.page.figures import Figure, figures
from neuron_vs_sae.report.robust_tables import RobustTables, confirmatory, robust_tables
from neuron_vs_sae.report.words import answers, why_no_answer
from neuron_vs_sae.studies.evidence import Evidence
from neuron_vs_sae.studies.result import Result

_HERE = Path(__file__).parent
_SCRIPTS = ("svg", "forest", "lines", "circuit", "specifications", "page")
"""Concatenated in this order into the page's one module."""


def write_page(result: Result, evidence: Evidence, curves: pd.DataFrame) -> None:
    """`report.html` in the result's folder; `curves` is `per_curve(result)`. The folder's other tables are written before."""
    files.write_text(result.folder / "report.html", page(result, evidence, curves, robust_tables(result.folder)))


def page(result: Result, evidence: Evidence, curves: pd.DataFrame, compared: RobustTables | None) -> str:
    """The page as HTML. Where nothing was `compared`, it says why, and shows the rest."""
    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        finalize=lambda value: value if isinstance(value, Markup) else visible_lines(value),
    )  # fmt: skip
    names = basis_names(result.study.basis)
    all_answers = answers(result, compared)
    return environment.get_template("page.html.jinja").render(
        title=first_screen.title(result),
        question=first_screen.question(result),
        answer=all_answers[0].sentences if all_answers else (why_no_answer(result),),
        other_answers=[answer.sentences for answer in all_answers[1:]],
        warning=first_screen.warning(result, compared),
        varied=first_screen.conventions_varied(result),
        accepted=accepted(result),
        chips=first_screen.chips(result, compared),
        figures={name: _drawn(figure) for name, figure in figures(result, compared).items()},
        task_names=json.dumps(first_screen.tasks(result), ensure_ascii=False),
        tables=tables.of_page(result, evidence, curves, compared),
        conventions=conventions(result, curves, evidence.verdicts),
        compared_with=listed(names[b] for _, b in confirmatory(result)),
        dictionaries={names[basis]: text for basis, text in dictionaries(result).items()},
        settings=parts.settings(result),
        provenance=parts.provenance(result),
        commands=commands(result),
        config=config(result.study),
        bibtex=bibtex(result),
        files=parts.files_of(result),
        csv="" if compared is None else compared.robustness.to_csv(index=False),
        css=Markup((_HERE / "page.css").read_text(encoding="utf-8")),
        script=Markup("\n".join((_HERE / f"{name}.js").read_text(encoding="utf-8") for name in _SCRIPTS)),
    )


def visible_lines(value: Any) -> Any:
    """Text with invisible and direction-turning characters made visible, line by line."""
    return "\n".join(visible_spaced(line) for line in value.split("\n")) if isinstance(value, str) else value


def visible_spaced(line: str) -> str:
    """`visible`, with the line's spaces kept."""
    return " ".join(visible(word) for word in line.split(" "))


def _drawn(figure: Figure) -> dict[str, Any]:
    """A figure for the template: its kind, title and caption, and its data as JSON that holds no `<`."""
    data = json.dumps(_shown(figure.data), ensure_ascii=False, separators=(",", ":"))
    return {
        "kind": figure.kind, "title": figure.title, "caption": figure.caption, "by_task": figure.by_task,
        "data": Markup(data.replace("<", "\\u003c")),
    }  # fmt: skip


def _shown(value: Any) -> Any:
    """The data with four digits of every number, which is more than a figure shows, and every text visible."""
    if isinstance(value, float):
        return None if value != value else float(f"{value:.4g}")
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, dict):
        return {key: _shown(inner) for key, inner in value.items()}
    return [_shown(inner) for inner in value] if isinstance(value, (list, tuple)) else value
