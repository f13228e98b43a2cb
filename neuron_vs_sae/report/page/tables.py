"""The page's tables: headers and cells, of the rows that a reader wants; the files have the rest."""

from dataclasses import dataclass
from typing import Any

import pandas as pd

from neuron_vs_sae.report.columns import USUAL, chosen, significantly_best, usual, with_intervals
from neuron_vs_sae.report.names import basis_names, factor_name, heading, level_name, task_names
from neuron_vs_sae.report.robust_tables import SCORE, RobustTables, confirmatory, usual_levels
from neuron_vs_sae.studies.evidence import Evidence
from neuron_vs_sae.studies.result import Result
from neuron_vs_sae.studies.rows import rows_with

_ROBUSTNESS = (
    "task", "basis_a", "basis_b", "verdict", "decided_by", "decided_share", "median_difference_interval", "p_joint_holm",
    "share_a_better", "share_b_better", "share_equivalent", "disqualified_by", "median_difference", "n_specifications",
)  # fmt: skip
_OVERLAP = ("task", "basis", "errors", "mean", "low", "high", "chance", "core", "contingent")
_BETWEEN_METHODS = ("task", "basis", "errors", "other", "mean", "chance", "jaccard", "jaccard_chance")
_SIZE = 100


@dataclass(frozen=True)
class HtmlTable:
    """Headers and cells, each with whether it is a number and whether it is bold."""

    name: str
    headers: list[tuple[str, bool]]
    rows: list[list[tuple[str, bool, bool]]]


def of_page(
    result: Result, evidence: Evidence, curves: pd.DataFrame, compared: RobustTables | None
) -> dict[str, list[HtmlTable]]:
    """The tables by the part of the page that shows them: `survives`, `pairs`, `curves`, `overlap`, `stability`."""
    stability = evidence.stability
    return {
        "survives": [] if compared is None else [_robustness(result, evidence, compared, confirmatory(result), SCORE)],
        "pairs": [] if compared is None else _all_pairs(result, evidence, compared),
        "curves": _curves(result, evidence, curves),
        "overlap": _stability(result, evidence, stability, "method", _BETWEEN_METHODS),
        "stability": _stability(result, evidence, stability, "resamples", _OVERLAP),
    }


def _robustness(
    result: Result, evidence: Evidence, compared: RobustTables, pairs: list[tuple[str, str]], score: str
) -> HtmlTable:
    rows = rows_with(compared.robustness, score=score)
    rows = rows.loc[[pair in pairs for pair in zip(rows["basis_a"], rows["basis_b"], strict=True)]]
    rows = rows.rename(columns={"low": "median_difference_low", "high": "median_difference_high"})
    rows = with_intervals(rows.assign(decided_by=[_decided(factor) for factor in rows["decided_by"]]))
    return _html(result, rows, usual(rows, _ROBUSTNESS), evidence, f"All specifications together, {score}")


def _decided(factor: Any) -> str | None:
    return factor_name(factor) if isinstance(factor, str) and factor else None


def _all_pairs(result: Result, evidence: Evidence, compared: RobustTables) -> list[HtmlTable]:
    pairs = list(dict.fromkeys(zip(compared.robustness["basis_a"], compared.robustness["basis_b"], strict=True)))
    scores = compared.robustness["score"].drop_duplicates().tolist()
    return [_robustness(result, evidence, compared, pairs, score) for score in scores]


def _curves(result: Result, evidence: Evidence, curves: pd.DataFrame) -> list[HtmlTable]:
    """A table per task and error policy, under the study's first ablation, of its first seed."""
    first = usual_levels(result)
    rows = with_intervals(rows_with(curves, ablation=first["ablation"], seed=result.study.seed[0]))
    shown = [name for name in USUAL if name != "task"]
    tasks = task_names(result.summary["task"])
    cases: Any = rows.groupby(["task", "errors"], sort=False)
    return [
        _html(
            result, part, usual(part, shown), evidence,
            f"{tasks[task]}, {heading('errors')} {level_name('errors', errors)}, {heading('ablation')} {level_name('ablation', first['ablation'])}",
        )
        for (task, errors), part in cases
    ]  # fmt: skip


def _stability(
    result: Result, evidence: Evidence, rows: pd.DataFrame | None, against: str, wanted: tuple[str, ...]
) -> list[HtmlTable]:
    """How much circuits of about a hundred nodes have in common with those of resampled prompts or of other methods."""
    if rows is None or not {"method", "against", "size"} <= set(rows):
        return []
    rows = rows_with(rows, method=usual_levels(result)["method"], against=against, seed=result.study.seed[0])
    if rows.empty:
        return []
    near = min(rows["size"].unique().tolist(), key=lambda size: abs(size - _SIZE))
    rows = rows_with(rows, size=near)
    what = {"resamples": "circuits of resampled prompts", "method": "circuits of other methods"}[against]
    columns = chosen(rows, [column for column in wanted if column in rows])
    return [_html(result, rows, columns, evidence, f"Circuits of {near} nodes beside {what}")]


def _html(result: Result, table: pd.DataFrame, columns: list[Any], evidence: Evidence, name: str) -> HtmlTable:
    bases, tasks = basis_names(result.study.basis), task_names(result.summary["task"])
    shown = {"basis": bases, "basis_a": bases, "basis_b": bases, "task": tasks}
    bold = {column.name: significantly_best(table, column, evidence.verdicts) for column in columns}
    rows = [
        [
            (str(shown.get(column.name, {}).get(text, text)), column.digits is not None, i in bold[column.name])
            for column in columns
            for text in [column.text(row[column.name])]
        ]
        for i, row in enumerate(table.to_dict("records"))
    ]
    return HtmlTable(name, [(column.header, column.digits is not None) for column in columns], rows)
