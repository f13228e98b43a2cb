"""The comparison under every convention, as the result folder's tables hold it, and the few rows that figures show of it."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from neuron_vs_sae.report.cases import ranked
from neuron_vs_sae.report.names import with_role
from neuron_vs_sae.studies.result import Result
from neuron_vs_sae.studies.rows import rows_with

FACTORS = ("errors", "ablation", "method", "metric", "size_measure")
"""The conventions that a specification chooses, in the order in which figures list them."""
ALL_TASKS = "all"
"""The value of `task` in a row over all tasks."""
SCORE = "faithfulness"
"""The score that sentences and the forest plot are about."""


@dataclass(frozen=True, eq=False)
class RobustTables:
    """`specifications`: a row per task, pair, score and specification; `robustness`: what they say together, a row per task, pair
    and score."""

    specifications: pd.DataFrame
    robustness: pd.DataFrame


def robust_tables(folder: Path) -> RobustTables | None:
    """`specifications.parquet` and `robustness.csv` of a finished folder; None where nothing was compared."""
    specifications, robustness = folder / "specifications.parquet", folder / "robustness.csv"
    if not specifications.exists() or not robustness.exists():
        return None
    tables = RobustTables(pd.read_parquet(specifications), pd.read_csv(robustness))
    return tables if len(tables.specifications) and len(tables.robustness) else None


def flagged(rows: pd.DataFrame) -> list[bool]:
    """Which rows are wins of a dictionary that its control matches; none where there is no control."""
    return [value is True or value == 1 for value in rows["control_wins"].tolist()]


def confirmatory(result: Result) -> list[tuple[str, str]]:
    """The pairs that the study is about: neurons with each trained dictionary; none where it lacks either."""
    neurons = with_role(result.study.basis, "neurons")
    return [(neurons[0], basis) for basis in with_role(result.study.basis, "trained")] if neurons else []


def usual_levels(result: Result) -> dict[str, str]:
    """The choices that a figure of one specification shows: the study's first of each convention, with size counted in nodes."""
    study = result.study
    method = ranked(list(study.method))[0][0]
    metric = str(result.summary["metric"].iloc[0])
    return {
        "errors": study.errors[0], "ablation": study.ablation[0], "method": method, "metric": metric, "size_measure": "nodes",
    }  # fmt: skip


def of_pair(table: pd.DataFrame, pair: tuple[str, str], score: str = SCORE) -> pd.DataFrame:
    """The rows of one pair of bases and one score; of several seeds the first's."""
    rows = rows_with(table, basis_a=pair[0], basis_b=pair[1], score=score)
    return rows_with(rows, seed=rows["seed"].iloc[0]) if "seed" in rows and len(rows) else rows


def forest_rows(result: Result, tables: RobustTables, pair: tuple[str, str], score: str = SCORE) -> pd.DataFrame:
    """The specifications of the usual choices under each error policy: a row per task and error policy."""
    fixed = {name: level for name, level in usual_levels(result).items() if name != "errors"}
    rows = rows_with(of_pair(tables.specifications, pair, score), **fixed)
    return rows.drop_duplicates(["task", "errors"])


def error_ranked_first(result: Result, basis: str) -> list[str]:
    """The tasks on which the basis's first-ranked node, under the usual method and errors as nodes, is an error node: of those whose
    circuit of one node was run."""
    usual = usual_levels(result)
    first = rows_with(
        result.summary, basis=basis, method=usual["method"], errors="nodes", size=1, seed=result.study.seed[0]
    )
    return first.loc[first["n_error_nodes"] == 1, "task"].drop_duplicates().tolist()
