"""The rows that figures and tables show: by case, by curve, and of random circuits."""

import numpy as np
import pandas as pd

from neuron_vs_sae.core.lookup import parse
from neuron_vs_sae.studies import result
from neuron_vs_sae.studies.rows import rows_with


def drawable(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of the first seed at sizes that a log axis has."""
    return rows.loc[(rows["seed"] == rows["seed"].iloc[0]) & (rows["size"] >= 1)]


def least_sizes(rows: pd.DataFrame, level: float) -> pd.DataFrame:
    """Of each basis and task, the row of the smallest size whose faithfulness is at least `level`, if there is one."""
    reached = drawable(rows).loc[lambda row: row["faithfulness"] >= level].sort_values("size", kind="stable")
    return reached.drop_duplicates(["basis", "task"]).sort_index()


def cases(found: "result.Result") -> dict[tuple[str, str, str], pd.DataFrame]:
    """The summary's rows of its first metric by (task, ablation, error policy), in their order."""
    columns = ["task", "ablation", "errors"]
    summary = rows_with(found.summary, metric=found.summary["metric"].iloc[0])
    return {tuple(rows[columns].iloc[0]): rows for _, rows in summary.groupby(columns, sort=False)}


def ranked(methods: list[str]) -> tuple[list[str], list[str]]:
    """(methods to draw, methods that are chance): `random` of any seed is chance where there is anything else."""
    chance = [method for method in methods if parse("attribution", method).name == "random"]
    drawn = [method for method in methods if method not in chance]
    return (drawn, chance) if drawn else (chance, [])


def chance_envelope(rows: pd.DataFrame, score: str) -> list[list[float]]:
    """`[size, low, high]` of random circuits: from the lowest to the highest end of the intervals of the curves in `rows` (of the curves
    themselves, where they have none), on straight lines in log size between the sizes run, as far as all of them reach."""
    ends = rows.assign(low=rows[f"{score}_low"].fillna(rows[score]), high=rows[f"{score}_high"].fillna(rows[score]))
    curves = [
        curve.sort_values("size") for _, curve in ends.groupby(["basis", "method", "errors", "ablation"], sort=False)
    ]
    last = min(int(curve["size"].iloc[-2:].iloc[0]) for curve in curves)
    sizes = np.unique(np.concatenate([curve["size"].to_numpy(np.float64) for curve in curves]))
    sizes = sizes[sizes <= last]
    low, high = (
        [np.interp(np.log(sizes), np.log(curve["size"].to_numpy(np.float64)), curve[end]) for curve in curves]
        for end in ("low", "high")
    )
    return np.stack([sizes, np.min(low, 0), np.max(high, 0)], 1).tolist()
