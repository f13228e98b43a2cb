"""The rows that figures and tables show: by case, by curve, and of random circuits."""

import numpy as np
import pandas as pd

from neuron_vs_sae.core.lookup import parse
from neuron_vs_sae.statistics.estimates import crossings
from neuron_vs_sae.studies.result import Result
from neuron_vs_sae.studies.rows import rows_with


def drawable(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of the first seed at sizes that a log axis can show."""
    return rows.loc[(rows["seed"] == rows["seed"].iloc[0]) & (rows["size"] >= 1)]


def least_sizes(rows: pd.DataFrame, level: float) -> pd.DataFrame:
    """A row per basis and task whose faithfulness reaches `level`: the `size` at which it first does, as `Curve.size_at`, and how
    many of its nodes are error nodes, both between the sizes that were run."""
    reached = []
    for _, curve in drawable(rows).groupby(["basis", "task"], sort=False):
        grown = curve.sort_values("size")
        run, scores = (grown[name].to_numpy(float) for name in ("size", "faithfulness"))
        size = float(crossings(run, scores[None], level)[0])
        if np.isfinite(size):
            errors = float(np.interp(size, run, grown["n_error_nodes"]))
            reached.append({**grown[["basis", "task"]].iloc[0], "size": size, "n_error_nodes": errors})
    return pd.DataFrame(reached, columns=["basis", "task", "size", "n_error_nodes"])


def cases(result: Result) -> dict[tuple[str, str, str], pd.DataFrame]:
    """The summary's rows of its first metric by (task, ablation, error policy), in their order."""
    columns = ["task", "ablation", "errors"]
    summary = rows_with(result.summary, metric=result.summary["metric"].iloc[0])
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
