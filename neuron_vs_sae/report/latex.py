"""A table in LaTeX (booktabs, siunitx) that can go into a paper as it is."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from neuron_vs_sae.report.columns import Column
from neuron_vs_sae.report.escaping import in_latex

PREAMBLE = "% Needs \\usepackage{booktabs} and \\usepackage{siunitx}."
_SETUP = "\\sisetup{detect-weight=true}\\setlength{\\tabcolsep}{4pt}"


def latex(
    table: pd.DataFrame, columns: Sequence[Column], *, bold: dict[str, set[int]], caption: str, label: str
) -> str:
    """The table as a LaTeX float in ASCII; all text in it is escaped.

    Numbers stand in `S` columns, aligned at the decimal point. `bold`: positions of the rows in bold, by column. `caption` is
    LaTeX already. Rows of one task form a block that names the task once; an empty cell is a dash, explained in a note.
    """
    rows = table.reset_index(drop=True).to_dict("records")
    lines = [
        "\\begin{table}",
        "\\centering\\footnotesize",
        _SETUP,
        f"\\caption{{{caption}{_note(columns, rows)}}}",
        f"\\label{{{label}}}",
        f"\\begin{{tabular}}{{@{{}}{''.join(_kind(column, rows) for column in columns)}@{{}}}}",
        "\\toprule",
        " & ".join(_head(column) for column in columns) + " \\\\",
    ]
    for i, row in enumerate(rows):
        again = i > 0 and "task" in row and rows[i - 1]["task"] == row["task"]
        if not again:
            lines.append("\\midrule")
        cells = [
            "" if again and column.name == "task" else _cell(column, row[column.name], i in bold.get(column.name, ()))
            for column in columns
        ]
        lines.append(" & ".join(cells) + " \\\\")
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", "\\end{table}"]) + "\n"


def _kind(column: Column, rows: list[dict[Any, Any]]) -> str:
    """`l` for text, and for numbers an `S` that is as wide as they need."""
    if column.digits is None:
        return "l"
    texts = [column.text(row[column.name]) for row in rows if not pd.isna(row[column.name])]
    whole = max((len(text.lstrip("-").partition(".")[0]) for text in texts), default=1)
    sign = "-" if any(text.startswith("-") for text in texts) else ""
    return f"S[table-format={sign}{whole}.{column.digits}]"


def _head(column: Column) -> str:
    text = in_latex(column.short or column.header)
    return text if column.digits is None else f"{{{text}}}"


def _cell(column: Column, value: Any, bold: bool) -> str:
    if pd.isna(value):
        return "--" if column.digits is None else "{--}"
    text = column.text(value)
    if column.digits is None:
        return f"\\textbf{{{in_latex(text)}}}" if bold else in_latex(text)
    return f"\\bfseries {text}" if bold else text


def _note(columns: Sequence[Column], rows: list[dict[Any, Any]]) -> str:
    reasons = {column.absent for column in columns for row in rows if pd.isna(row[column.name])}
    return f" --: {in_latex(' or '.join(sorted(reasons)))}." if reasons else ""
