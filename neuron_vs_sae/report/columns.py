"""The columns of result tables: one specification of header, digits and direction for Markdown, LaTeX and CSV."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import pandas as pd

from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.studies.rows import rows_with


@dataclass(frozen=True)
class Column:
    """How a column is shown. `digits`: decimals of a number (0: a whole one), None for text.

    `better` says which end is best and `test` which verdict decides it: (size measure, score) of `verdicts.csv`; a column
    without a test is never set in bold. `absent` is what an empty cell means, `meaning` what a caption must say of it, `short` its
    header where there is little room.
    """

    name: str
    header: str
    digits: int | None = None
    better: Literal["low", "high"] | None = None
    test: tuple[str, str] | None = None
    absent: str = "not run"
    meaning: str = ""
    short: str = ""

    def text(self, value: Any) -> str:
        """The value in words or digits; for a missing value, the reason."""
        if pd.isna(value):
            return self.absent
        if self.digits is None:
            return str(value)
        least = 10**-self.digits
        if self.name.startswith("p") and self.name.partition("_")[0] == "p" and 0 <= value < least:
            return f"< {least:.{self.digits}f}"
        return f"{value:.{self.digits}f}"


def _score(name: str, header: str, **options: Any) -> Column:
    return Column(name, header, digits=3, **options)


def _size(name: str, header: str, **options: Any) -> Column:
    return Column(name, header, digits=0, absent="not reached", **options)


COLUMNS = {
    column.name: column
    for column in (
        Column("task", "task"),
        Column("basis", "basis"),
        Column("site", "site"),
        Column("method", "method"),
        Column("ablation", "ablation"),
        Column("errors", "errors"),
        Column("metric", "metric"),
        Column("seed", "seed", digits=0),
        Column("n_total", "nodes", digits=0),
        Column("n_eval", "prompts", digits=0),
        Column("n_clusters", "clusters", digits=0),
        _score("f_model", "F(model)"),
        _score("f_empty", "F(empty)"),
        _score("f_circuit", "F(circuit)"),
        _score("f_complement", "F(complement)"),
        _size(
            "size_at_level",
            "nodes for 80 %",
            short="80 %",
            meaning="80 %: the size, in nodes, at which faithfulness first reaches 0.8",
        ),
        _size("error_nodes_at_level", "of them errors", short="errors", meaning="errors: its error nodes"),
        _size("bits_at_level", "bits", meaning="bits: log2 of the number of circuits of that size"),
        _size("size_at_level_stable", "stays", meaning="stays: from there on at every size run"),
        _size("size_faithful_and_complete", "both", meaning="both: with a completeness of at most 0.2 too"),
        _score(
            "area_faithfulness",
            "area F",
            better="high",
            test=("nodes", "faithfulness"),
            meaning="area F: mean faithfulness (1 is the model) over log size",
        ),
        _score("area_unfaithfulness", "area |1-F|", meaning="area |1-F|: mean distance of faithfulness from 1"),
        _score(
            "area_completeness",
            "area C",
            better="low",
            test=("nodes", "completeness"),
            meaning="area C: mean completeness (what is left without the circuit: 0 is best) over log size",
        ),
        Column("n_scored", "with a score", digits=0),
        _size("values_at_level", "values", meaning="values: the numbers that those nodes carry"),
        _score("cpr", "CPR"),
        _score("cmd", "CMD"),
        Column("size", "size", digits=0),
        Column("n_units", "units", digits=0),
        Column("n_error_nodes", "error nodes", digits=0),
        Column("fraction", "fraction", digits=4),
        Column("bits", "bits", digits=0),
        _score("faithfulness", "faithfulness"),
        _score("completeness", "completeness"),
        Column("basis_a", "a"),
        Column("basis_b", "b"),
        Column("size_measure", "size by"),
        Column("score", "score"),
        _score("a", "of a"),
        _score("b", "of b"),
        _score("difference", "a - b"),
        _score("low", "low"),
        _score("high", "high"),
        Column("p", "p", digits=4),
        Column("p_holm", "p (Holm)", digits=4),
        Column("p_bh", "p (BH)", digits=4),
        Column("p_equivalence", "p (equivalence)", digits=4),
        _score("margin", "margin"),
        _score("minimum_detectable", "detectable"),
        Column("n", "prompts", digits=0),
        Column("verdict", "verdict"),
    )
}

_CASE = ("task", "method", "ablation", "errors", "metric", "seed")
IDENTITY = (
    "task", "basis", "basis_a", "basis_b", "method", "ablation", "errors", "metric", "seed", "size_measure", "score", "size",
)  # fmt: skip
"""What a row is of: rows that agree in all of these columns cannot be told apart."""

# The columns that are shown by default.
USUAL = (
    "task", "basis", "method", "n_total", "size_at_level", "error_nodes_at_level", "bits_at_level", "area_faithfulness",
    "area_faithfulness_interval", "area_completeness", "area_completeness_interval",
)  # fmt: skip
USUAL_OF_SIZES = (
    "task", "basis", "method", "size", "n_error_nodes", "faithfulness", "faithfulness_interval", "completeness",
    "completeness_interval",
)  # fmt: skip
USUAL_OF_VERDICTS = (
    "task", "basis_a", "basis_b", "method", "size_measure", "score", "difference", "difference_interval", "p_holm", "verdict",
)  # fmt: skip


def with_intervals(table: pd.DataFrame, digits: int = 3) -> pd.DataFrame:
    """The table, with a text column `X_interval` (`[0.612, 0.701]`) for every pair `X_low`, `X_high`.

    Verdicts' `low` and `high` are those of `difference`.
    """
    scores = [name.removesuffix("_low") for name in table.columns if name.endswith("_low")]
    pairs = {name: (f"{name}_low", f"{name}_high") for name in scores if f"{name}_high" in table.columns}
    if {"difference", "low", "high"} <= set(table.columns):
        pairs["difference"] = ("low", "high")
    intervals = {
        f"{name}_interval": [
            None if pd.isna(a) or pd.isna(b) else f"[{a:.{digits}f}, {b:.{digits}f}]"
            for a, b in zip(table[low], table[high], strict=True)
        ]
        for name, (low, high) in pairs.items()
    }
    return table.assign(**intervals)


def chosen(table: pd.DataFrame, names: Sequence[str]) -> list[Column]:
    """The columns of these names, in that order. Raises `InputError`, listing what there is, for a name not in the table."""
    missing = [name for name in names if name not in table.columns]
    if missing:
        raise InputError(f"the table has no column {missing[0]!r}; it has: {', '.join(table.columns)}")
    return [_column(table, name) for name in names]


def usual(table: pd.DataFrame, names: Sequence[str]) -> list[Column]:
    """Those of `names` that the table has."""
    return chosen(table, [name for name in names if name in table.columns])


def told_apart(table: pd.DataFrame, columns: Sequence[Column]) -> list[Column]:
    """The columns, plus those of `IDENTITY` that are needed to tell rows apart, inserted after the last one that is there."""
    names = [column.name for column in columns]
    known = [name for name in IDENTITY if name in names]
    added = []
    for name in IDENTITY:
        alike = bool(table.duplicated([*known, *added]).any()) if known or added else len(table) > 1
        if alike and name in table and name not in names and len(set(table[name])) > 1:
            added.append(name)
    at = max((names.index(name) + 1 for name in known), default=0)
    return [*columns[:at], *(_column(table, name) for name in added), *columns[at:]]


def _column(table: pd.DataFrame, name: str) -> Column:
    """The specification of a column: its own, that of its score for the end of an interval, or else by its type."""
    if name in COLUMNS:
        return COLUMNS[name]
    if name.endswith("_interval"):
        return Column(name, "interval")
    if name.endswith(("_low", "_high")) and name.rpartition("_")[0] in COLUMNS:
        score = COLUMNS[name.rpartition("_")[0]]
        return replace(score, name=name, header=f"{score.header}, {name.rpartition('_')[2]}", better=None, test=None)
    whole = pd.api.types.is_integer_dtype(table[name])
    number = pd.api.types.is_numeric_dtype(table[name]) and not pd.api.types.is_bool_dtype(table[name])
    return Column(name, name.replace("_", " "), digits=None if not number else 0 if whole else 3)


def significantly_best(table: pd.DataFrame, column: Column, verdicts: pd.DataFrame | None) -> set[int]:
    """Positions of the rows whose value may be set in bold: the best among the bases that the table shows of one task, method,
    ablation, error policy, metric and seed, and called better than each of the others by the verdict of the column's test. A pair that
    was not tested leaves its case without bold."""
    if verdicts is None or column.test is None or "basis" not in table.columns:
        return set()
    case = [name for name in _CASE if name in table.columns and name in verdicts.columns]
    measure, score = column.test
    tested = rows_with(verdicts, size_measure=measure, score=score)
    beaten = set()
    # Plain lists: a table is thousands of rows, and is looked through once per column that may be bold.
    columns = [tested[name].tolist() for name in (*case, "basis_a", "basis_b", "verdict")]
    for *where, a, b, verdict in zip(*columns, strict=True):
        if verdict == "a better":
            beaten.add((tuple(where), a, b))
        elif verdict == "b better":
            beaten.add((tuple(where), b, a))
    rows = table.reset_index(drop=True)
    best = set()
    cases: Any = rows.groupby(case, sort=False)
    for key, part in cases:
        values = part[column.name].dropna()
        if values.empty or part["basis"].duplicated().any():
            continue
        first = values.idxmin() if column.better == "low" else values.idxmax()
        others = set(part["basis"]) - {part["basis"][first]}
        if others and all((key, part["basis"][first], other) in beaten for other in others):
            best.add(int(first))
    return best
