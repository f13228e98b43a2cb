"""The page: figures as data that it draws itself, tables as HTML, everything else as text."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from neuron_vs_sae.core import files
from neuron_vs_sae.report import plots
from neuron_vs_sae.report.again import commands, config
from neuron_vs_sae.report.caption import conventions, dictionaries
from neuron_vs_sae.report.citation import bibtex
from neuron_vs_sae.report.columns import (
    USUAL,
    USUAL_OF_VERDICTS,
    Column,
    chosen,
    significantly_best,
    usual,
    with_intervals,
)
from neuron_vs_sae.report.escaping import visible
from neuron_vs_sae.report.labels import labels
from neuron_vs_sae.report.plots.against_size import cases, ranked
from neuron_vs_sae.report.plots.estimates import exact_method
from neuron_vs_sae.report.plots.style import NARROW, THEMES, narrow
from neuron_vs_sae.report.words import question, usual_case, verdict
from neuron_vs_sae.studies import result
from neuron_vs_sae.studies.evidence import Evidence
from neuron_vs_sae.studies.rows import rows_with

_HERE = Path(__file__).parent
_ACROSS = (
    "basis_a", "basis_b", "score", "n_tasks", "n_seeds", "a_better", "b_better", "equivalent", "undecided", "mean", "low", "high",
    "depends_on_size", "note",
)  # fmt: skip
_OVERLAP = ("task", "basis", "errors", "seed", "mean", "low", "high", "chance", "core", "contingent")


@dataclass(frozen=True)
class HtmlTable:
    """Headers and cells, each with whether it is a number and whether it is bold."""

    name: str
    headers: list[tuple[str, bool]]
    rows: list[list[tuple[str, bool, bool]]]


@dataclass(frozen=True)
class Figure:
    """A figure for the page: its words, and its data as JSON that holds no `<`."""

    title: Markup
    subtitle: Markup
    data: Markup


@dataclass(frozen=True)
class Section:
    """What the page shows of one task."""

    task: str
    figures: list[Figure]


def write_page(found: "result.Result", evidence: Evidence, curves: pd.DataFrame) -> None:
    """`report.html` in the result's folder; `curves` is `tables.per_curve(found)`."""
    files.write_text(found.folder / "report.html", page(found, evidence, curves))


def page(found: "result.Result", evidence: Evidence, curves: pd.DataFrame) -> str:
    """The page: question, verdict, figures, tables, settings, what made the numbers, how to run it again, how to cite.

    Where nothing was tested between bases it says so and why.
    """
    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        finalize=lambda value: value if isinstance(value, Markup) else visible_lines(value),
    )  # fmt: skip
    table = with_intervals(curves)
    return environment.get_template("page.html.jinja").render(
        model=found.summary["model"].iloc[0],
        question=question(found),
        verdict=verdict(found, evidence.verdicts, curves),
        verdict_tables=_verdict_tables(found, evidence),
        overview=figure(plots.sizes(found)),
        sections=_sections(found),
        tables=_curve_tables(found, table, evidence),
        stability=_stability(found, evidence),
        conventions=conventions(found, table, evidence.verdicts),
        dictionaries={labels(found.study.basis)[basis]: text for basis, text in dictionaries(found).items()},
        settings=_settings(found),
        provenance=_provenance(found),
        commands=commands(found),
        config=config(found.study),
        bibtex=bibtex(found),
        narrow=NARROW,
        themes=THEMES,
        css=Markup((_HERE / "page.css").read_text(encoding="utf-8")),
        script=Markup((_HERE / "page.js").read_text(encoding="utf-8")),
        plotly=Markup(get_plotlyjs()),
    )


def visible_lines(value: Any) -> Any:
    """Text with what would not be seen, or would turn its direction, made visible, line by line."""
    return "\n".join(visible_spaced(line) for line in value.split("\n")) if isinstance(value, str) else value


def visible_spaced(line: str) -> str:
    """`visible`, with the line's spaces kept."""
    return " ".join(visible(word) for word in line.split(" "))


def figure(drawn: go.Figure) -> Figure:
    """A figure for the page, which writes its title, chooses its colours, and stacks its panels where it is narrow."""
    layout: Any = drawn.layout
    meta = {**layout.meta, **narrow(drawn)}
    content = drawn.to_plotly_json()
    for name in ("title", "template", "updatemenus", "height", "margin"):
        content["layout"].pop(name, None)
    content["layout"]["meta"] = meta
    return Figure(
        Markup(meta["title"]), Markup(meta["subtitle"]), Markup(json.dumps(_rounded(content)).replace("<", "\\u003c"))
    )


def _rounded(value: Any) -> Any:
    """Five digits of every number, which no eye can tell from all of them and a page carries more easily."""
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    return [_rounded(one) for one in value] if isinstance(value, (list, tuple)) else value


def _sections(found: "result.Result") -> list[Section]:
    sections = []
    methods, _ = ranked(list(found.study.method))
    method, exact = methods[0], exact_method(found)
    for task in found.summary["task"].unique().tolist():
        drawn = [plots.curves(found, task=t, ablation=a, errors=e) for t, a, e in cases(found) if t == task]
        if len(found.study.basis) > 1:
            first: Any = {"ablation": found.study.ablation[0], "errors": found.study.errors[0]}
            drawn.append(plots.differences(found, task=task, method=method, **first))
        drawn += [
            make(found, task=task, method=method) for make in (plots.shares, plots.concentration, plots.distributions)
        ]
        if len(found.study.method) > 1:
            drawn.append(plots.overlap_of_methods(found, task=task))
        if found.study.positions == "separate":
            drawn.append(plots.overlap_of_positions(found, task=task, method=method))
        if exact is not None and exact != method:
            drawn.append(plots.against_exact(found, task=task, method=method))
        sections.append(Section(task, [figure(one) for one in drawn]))
    return sections


def _curve_tables(found: "result.Result", table: pd.DataFrame, evidence: Evidence) -> list[HtmlTable]:
    shown = [name for name in USUAL if name != "task"]
    groups: Any = table.groupby(["task", "ablation", "errors"], sort=False)
    return [
        _html(found, rows, usual(rows, shown), evidence, f"{task}: ablation {ablation}, errors {errors}")
        for (task, ablation, errors), rows in groups
    ]


def _verdict_tables(found: "result.Result", evidence: Evidence) -> list[HtmlTable]:
    """Of the study's first method, ablation and error policy, with size by nodes; the files have the rest."""
    made = []
    for table, wanted, name in (
        (evidence.across_tasks, _ACROSS, "Across tasks, size by nodes (all: verdicts_across_tasks.csv)"),
        (evidence.verdicts, USUAL_OF_VERDICTS, "By task, size by nodes (by others: verdicts.csv)"),
    ):
        if table is None:
            continue
        rows = with_intervals(usual_case(found, table))
        if "nodes" in set(rows["size_measure"]):
            rows = rows_with(rows, size_measure="nodes")
        made.append(_html(found, rows, usual(rows, wanted), evidence, name))
    return made


def _stability(found: "result.Result", evidence: Evidence) -> HtmlTable | None:
    """How much circuits of about a hundred nodes overlap with those of resampled prompts; the file has the rest."""
    rows = evidence.stability
    if rows is None:
        return None
    name = "Overlap of circuits"
    if {"method", "against", "size"} <= set(rows):
        rows = rows_with(rows, method=found.study.method[0], against="resamples")
        near = min(rows["size"].unique().tolist(), key=lambda size: abs(size - 100), default=100)
        rows = rows_with(rows, size=near)
        name = f"Overlap of circuits of {near} nodes with those of resampled prompts (all: stability.csv)"
    shown = [column for column in _OVERLAP if column in rows] or list(rows.columns)
    return _html(found, rows, chosen(rows, shown), evidence, name)


def _html(
    found: "result.Result", table: pd.DataFrame, columns: list[Column], evidence: Evidence, name: str
) -> HtmlTable:
    names = labels(found.study.basis)
    bold = {column.name: significantly_best(table, column, evidence.verdicts) for column in columns}
    rows = [
        [
            (names.get(text, text), column.digits is not None, i in bold[column.name])
            for column in columns
            for text in [column.text(row[column.name])]
        ]
        for i, row in enumerate(table.to_dict("records"))
    ]
    return HtmlTable(name, [(column.header, column.digits is not None) for column in columns], rows)


def _settings(found: "result.Result") -> dict[str, str]:
    return {name: _words(value) for name, value in found.study.model_dump(mode="json").items()} | {
        "key": found.study.key
    }


def _provenance(found: "result.Result") -> dict[str, str]:
    made = found.record["provenance"]
    rows = {name: _words(value) for name, value in made.items() if name != "versions"}
    rows |= {f"version of {name}": str(value) for name, value in made["versions"].items()}
    rows |= {f"hash or version of {name}": str(value) for name, value in found.record["inputs"].items()}
    return rows | {"seconds": str(found.record.get("seconds", "unknown"))}


def _words(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    if value is None:
        return "not given"
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
