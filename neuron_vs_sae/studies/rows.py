"""Curves as long tables, a row per run, size and prompt, and back."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from neuron_vs_sae.core.curve import Curve
from neuron_vs_sae.statistics.resampling import Draws, Groups, draw, independent

# One curve is what has one value of each of these.
CURVE = ["task", "basis", "method", "seed", "ablation", "errors"]


def to_rows(curve: Curve, labels: dict[str, Any], groups: Groups | None = None) -> pd.DataFrame:
    """The curve as long rows: one per run, size and prompt, with `labels` (conventions included) in every row.

    `cluster` and `stratum` number the prompts' groups (default: every prompt is a cluster).
    """
    n = len(curve.whole)
    groups = groups or independent(n)
    parts = []
    for run, values in (("whole", curve.whole), ("empty", curve.empty)):
        parts.append(pd.DataFrame({"run": run, "prompt": range(n), "value": values.numpy()}))
    by_size = [("circuit", curve.circuit), ("complement", curve.complement), ("change", curve.change)]
    for run, values in [(run, values) for run, values in by_size if values is not None]:
        for size, error_nodes, row in zip(curve.sizes, curve.n_error_nodes, values.numpy(), strict=True):
            parts.append(
                pd.DataFrame({"run": run, "size": size, "n_error_nodes": error_nodes, "prompt": range(n), "value": row})
            )
    rows = pd.concat(parts, ignore_index=True)
    for column in ("size", "n_error_nodes"):
        rows[column] = rows[column].astype("Int64")
    rows["n_total"] = curve.n_total
    rows["cluster"], rows["stratum"] = groups.cluster[rows["prompt"]], groups.stratum[rows["prompt"]]
    rows["n_clusters"] = groups.n_clusters
    return pd.concat([pd.DataFrame({k: [v] * len(rows) for k, v in labels.items()}), rows], axis=1)


def to_curve(rows: pd.DataFrame) -> Curve:
    """The curve of the long rows of one task x basis x method x seed x ablation x errors."""

    runs: dict[Any, pd.DataFrame] = dict(iter(rows.groupby("run")))

    def one(run: str) -> Tensor:
        return torch.tensor(runs[run].sort_values("prompt")["value"].to_numpy(np.float64))

    def many(run: str) -> Tensor:
        table = runs[run].pivot(index="size", columns="prompt", values="value").sort_index()
        return torch.tensor(table.to_numpy(np.float64))

    kept = runs["circuit"].drop_duplicates("size").sort_values("size")
    return Curve(
        sizes=tuple(int(k) for k in kept["size"]),
        n_error_nodes=tuple(int(k) for k in kept["n_error_nodes"]),
        n_total=int(rows["n_total"].iloc[0]),
        whole=one("whole"),
        empty=one("empty"),
        circuit=many("circuit"),
        complement=many("complement"),
        change=many("change") if "change" in runs else None,
    )


def to_groups(rows: pd.DataFrame) -> Groups:
    """The clusters and strata of the prompts of one curve's rows."""
    prompts = dict(iter(rows.groupby("run")))["whole"].sort_values("prompt")
    return Groups(prompts["cluster"].to_numpy(np.int64), prompts["stratum"].to_numpy(np.int64))


def draws_of(curves: pd.DataFrame, resamples: int) -> Callable[[Groups], Draws]:
    """The draws of prompts in these groups: one set for all curves, by the study's (first) seed, so that all are paired."""
    seed = int(curves["seed"].iloc[0])
    known: dict[bytes, Draws] = {}

    def drawn(groups: Groups) -> Draws:
        key = groups.cluster.tobytes() + groups.stratum.tobytes()
        if key not in known:
            known[key] = draw(groups, resamples, seed)
        return known[key]

    return drawn


def each_curve(curves: pd.DataFrame) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    """The task, basis, method, seed, ablation and error policy of every curve, in the order of the rows, and its rows."""
    for _, rows in curves.groupby(CURVE, sort=False):
        yield {column: rows[column].iloc[0] for column in CURVE}, rows


def rows_with(table: pd.DataFrame, **values: Any) -> pd.DataFrame:
    """The rows that have these values: `rows_with(summary, method="relp", seed=0)`."""
    kept = np.ones(len(table), dtype=bool)
    for column, value in values.items():
        kept &= (table[column] == value).to_numpy(dtype=bool)
    return table.loc[kept]
