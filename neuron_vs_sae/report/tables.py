"""Tables of a result: one row per curve, per size or per verdict, as CSV, Markdown and LaTeX."""

from collections.abc import Sequence
from typing import Any, Literal

import pandas as pd

from neuron_vs_sae.core import files
from neuron_vs_sae.core.errors import InputError, check_choice
from neuron_vs_sae.report.caption import accepted, conventions
from neuron_vs_sae.report.columns import (
    USUAL,
    USUAL_OF_SIZES,
    USUAL_OF_VERDICTS,
    Column,
    chosen,
    significantly_best,
    told_apart,
    usual,
    with_intervals,
)
from neuron_vs_sae.report.escaping import in_latex, in_markdown
from neuron_vs_sae.report.latex import PREAMBLE, latex
from neuron_vs_sae.report.names import basis_names
from neuron_vs_sae.report.robust_tables import robust_tables
from neuron_vs_sae.report.words import answers
from neuron_vs_sae.studies.per_curve import per_curve
from neuron_vs_sae.studies.result import Result
from neuron_vs_sae.studies.seeds import over_seeds, sizes_told

Format = Literal["markdown", "latex", "csv"]


Rows = Literal["curves", "sizes", "verdicts"]


_BLOCK = (
    "basis", "site", "method", "f_empty", "n_total", "size_at_level", "error_nodes_at_level", "bits_at_level",
    "size_at_level_stable", "size_faithful_and_complete", "area_faithfulness", "area_unfaithfulness", "area_completeness",
)  # fmt: skip


def write_tables(result: Result, table: pd.DataFrame, verdicts: pd.DataFrame | None = None) -> None:
    """`table.md` and `table.tex` for readers and `per_curve.csv` for programs: one row per curve; `table` is `per_curve(result)`."""
    files.write(result.folder / "per_curve.csv", lambda file: table.to_csv(file, index=False))
    files.write_text(result.folder / "table.md", markdown(table, result, verdicts))
    files.write_text(result.folder / "table.tex", paper_tables(result, table, verdicts))


def paper_tables(result: Result, table: pd.DataFrame, verdicts: pd.DataFrame | None) -> str:
    """`table.tex`: a LaTeX table per method, ablation and error policy, with the usual columns."""
    parts = [PREAMBLE]
    table = table.loc[table["seed"] == result.study.seed[0]]
    for i, (_, rows) in enumerate(
        table.groupby([name for name in ("method", "ablation", "errors", "metric") if name in table], sort=False), 1
    ):
        columns = [column for column in usual(with_intervals(rows), USUAL) if column.name != "method"]
        parts.append(_as_latex(result, with_intervals(rows), columns, verdicts, f"tab:nvs-{result.study.key}-{i}"))
    return "\n".join(parts)


def table_of(
    result: Result,
    *,
    rows: str = "curves",
    columns: Sequence[str] = (),
    form: str = "markdown",
    verdicts: pd.DataFrame | None = None,
    **only: Sequence[str],
) -> str:
    """A result's table of the columns named (or the usual ones), in Markdown, LaTeX or CSV.

    `rows`: one per curve, per curve and size, or per verdict. `only` keeps the rows with these values: `method=["relp"]`. A score's
    interval is the column `SCORE_interval`. In Markdown and LaTeX a value is bold where it is the best of its task and a verdict says that
    it is better than every other that is shown. Where rows could not be told apart, the columns that
    distinguish them are added. Raises `InputError` for an unknown column, value or kind of row.
    """
    check_choice("rows", rows, Rows)
    check_choice("form", form, Format)
    if rows == "verdicts" and verdicts is None:
        raise InputError("the result holds no verdicts: they need two bases and two prompts (`nvs report` writes them)")
    whole = {"curves": lambda: per_curve(result), "sizes": lambda: result.summary, "verdicts": lambda: verdicts}[rows]()
    assert whole is not None
    table = with_intervals(whole)
    for name, values in only.items():
        unknown = [value for value in values if value not in set(table[name])] if name in table else list(values)
        if unknown:
            there = ", ".join(map(str, table[name].unique())) if name in table else "no such column"
            raise InputError(f"the table has no {name} {unknown[0]!r}; it has: {there}")
        table = table.loc[table[name].isin(list(values))] if values else table
    shown = {"curves": USUAL, "sizes": USUAL_OF_SIZES, "verdicts": USUAL_OF_VERDICTS}[rows]
    specs = told_apart(table, chosen(table, columns) if columns else usual(table, shown))
    if form == "csv":
        return table[[column.name for column in specs]].to_csv(index=False)
    if form == "latex":
        return f"{PREAMBLE}\n{_as_latex(result, table, specs, verdicts, f'tab:nvs-{result.study.key}')}"
    bold = {column.name: significantly_best(table, column, verdicts) for column in specs}
    caption = " ".join(conventions(result, table, verdicts))
    return f"{in_markdown(caption)}\n\n{_as_markdown(_named(result, table), specs, bold)}"


def _as_latex(
    result: Result,
    table: pd.DataFrame,
    columns: Sequence[Column],
    verdicts: pd.DataFrame | None,
    label: str,
) -> str:
    bold = {column.name: significantly_best(table, column, verdicts) for column in columns}
    rule = (
        "Bold: the best of its task, and better than every other basis shown by its verdict."
        if any(bold.values())
        else "No value is bold: none is better than every other of its task by a verdict."
    )
    meanings = "; ".join(column.meaning for column in columns if column.meaning)
    said = ["Circuits by basis.", *conventions(result, table, verdicts), *([f"{meanings}."] if meanings else []), rule]
    caption = in_latex(" ".join(said))
    return latex(_named(result, table), columns, bold=bold, caption=caption, label=label)


def _as_markdown(table: pd.DataFrame, columns: Sequence[Column], bold: dict[str, set[int]]) -> str:
    lines = [
        f"| {' | '.join(in_markdown(column.header) for column in columns)} |",
        f"|{'|'.join('---' if column.digits is None else '---:' for column in columns)}|",
    ]
    for i, row in enumerate(table.to_dict("records")):
        texts = [in_markdown(column.text(row[column.name])) for column in columns]
        cells = [
            f"**{text}**" if i in bold.get(column.name, ()) else text
            for column, text in zip(columns, texts, strict=True)
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _named(result: Result, table: pd.DataFrame) -> pd.DataFrame:
    """The table with bases by their short names."""
    names = basis_names(result.study.basis)
    columns = [column for column in ("basis", "basis_a", "basis_b") if column in table]
    return table.assign(**{column: [names.get(text, text) for text in table[column]] for column in columns})


def markdown(table: pd.DataFrame, result: Result, verdicts: pd.DataFrame | None = None) -> str:
    """The table as Markdown, a block per task, ablation and error policy, under the conventions that made it.

    Bold as in `table_of`."""
    study = result.study
    first = result.summary.iloc[0]
    averaged = sorted({"mean", "mean_global"} & set(study.ablation))
    source = f"; ablation {' and '.join(averaged)} over {study.mean_source} prompts" if averaged else ""
    lines = [
        f"# Circuits of {in_markdown(first['model'])}",
        "",
        f"{first['n_discovery']} pairs for discovery, {first['n_eval']} for evaluation; metric {', '.join(study.metric)}; positions "
        f"{study.positions}; ranked by {study.rank_by} score; {study.pairing} attribution of {first['attribution_metric']}"
        f"{source}; {study.dtype}; {_seeds(study.seed)}; study {study.key}.",
        *(in_markdown(sentence) for sentence in accepted(result)),
        "",
        "Sizes count units and error nodes. *nodes for 80 %*: the size at which faithfulness first reaches 0.8, linear in log size "
        "between two that were run, how many of its nodes are error nodes, and its bits (log2 of the number of circuits of that size). *stays*: the smallest size from "
        "which on faithfulness is at least 0.8 at every size run. *both*: 80 % with a completeness of at most 0.2. *area F*, *area "
        "\\|1-F\\|*, *area C*: mean faithfulness (1 is the model), distance from 1, and completeness (0 is best: what is left when the "
        "circuit is removed; below 0, removing it overshoots) over log size, up to the last node that has a score. "
        "*not reached*: by the nodes that have a score. Under errors ablate and resid_only the error is missing from the complement too, "
        "so completeness begins below 1. Intervals of every point are in summary.csv; a difference without one is no finding.",
    ]
    for _, rows in table.loc[table["seed"] == study.seed[0]].groupby(["task", "ablation", "errors"], sort=False):
        case, columns = rows.iloc[0], chosen(rows, _BLOCK)
        bold = {column.name: significantly_best(rows, column, verdicts) for column in columns}
        lines += [
            "",
            f"## {in_markdown(case['task'])} (ablation {case['ablation']}, errors {case['errors']})",
            "",
            f"F(model) {case['f_model']:.3f}; areas from 1 node to each curve's last that has a score.",
            "",
            _as_markdown(_named(result, rows), columns, bold).rstrip("\n"),
        ]
        if len(study.seed) > 1:
            lines += _spread(rows.iloc[0], table, basis_names(study.basis))
    for answer in answers(result, robust_tables(result.folder)):
        lines += ["", in_markdown(" ".join(answer.sentences))]
    return "\n".join(lines) + "\n"


def _seeds(seeds: tuple[int, ...]) -> str:
    if len(seeds) == 1:
        return f"seed {seeds[0]}"
    return f"seed {seeds[0]} where no other is named, of {', '.join(map(str, seeds))}: discovery prompts differ, evaluation's do not"


def _spread(first: pd.Series, table: pd.DataFrame, names: dict[str, str]) -> list[str]:
    """A table of mean and standard deviation over seeds, for the curves of one task, ablation and error policy."""
    case = ["task", "ablation", "errors"]
    mine = table.loc[(table[case] == first[case]).all(axis=1)]
    areas = ("area_faithfulness", "area_unfaithfulness", "area_completeness")
    rows = [
        [
            in_markdown(names[row["basis"]]), in_markdown(row["method"]), in_markdown(sizes_told(row)),
            *(f"{number(row[f'{area}_mean'], 3)} ± {number(row[f'{area}_sd'], 3)}" for area in areas),
        ]
        for row in over_seeds(mine).to_dict("records")
    ]  # fmt: skip
    head = ["basis", "method", "nodes for 80 %: median (range)", "area F", "area \\|1-F\\|", "area C"]
    return [
        "",
        f"Over {mine['seed'].nunique()} seeds (areas: mean ± standard deviation):",
        "",
        *("| " + " | ".join(cells) + " |" for cells in [head, ["---", "---", *["---:"] * 4], *rows]),
    ]


def number(value: Any, digits: int | None = None) -> str:
    """A size or score as text; a missing value is a size that is not reached, or an area that was not run."""
    if pd.isna(value):
        return "not reached" if digits in (None, 0) else "not run"
    if digits is None:
        return f"{value:.1f}" if value % 1 and value < 100 else f"{value:.0f}"
    return f"{value:.{digits}f}"
