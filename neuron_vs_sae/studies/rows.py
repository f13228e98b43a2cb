"""Curves as long tables, a row per run, size and prompt, and back."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from neuron_vs_sae.core.curve import Curve
from neuron_vs_sae.statistics.resampling import Draws, Groups, draw, independent

CURVE = ["task", "basis", "method", "seed", "ablation", "errors", "metric"]
"""What tells a study's curves apart: one curve has one value of each of these columns."""


def curve_columns(*, without: Sequence[str]) -> list[str]:
    """The columns of `CURVE` but for some: `curve_columns(without=["basis"])` is a case in which bases are compared."""
    return [column for column in CURVE if column not in without]


def to_rows(curve: Curve, labels: dict[str, Any], groups: Groups | None = None) -> pd.DataFrame:
    """The curve as long rows: one per run, size and prompt, with `labels` (conventions included) in every row.

    `run` is whole, empty and all (all nodes kept), or of a size: circuit, complement, change. `tied` marks the circuits that are
    filled up with nodes of score 0. `cluster` and `stratum` number the prompts' groups (default: every prompt is a cluster).
    """
    n = len(curve.whole)
    groups = groups or independent(n)
    parts = []
    for run, values in (("whole", curve.whole), ("empty", curve.empty), ("all", curve.all_nodes)):
        if values is not None:
            parts.append(pd.DataFrame({"run": run, "prompt": range(n), "value": values.numpy()}))
    parts += _by_size(curve, tied=False)
    if curve.tied is not None:
        parts += _by_size(curve.tied, tied=True)
    rows = pd.concat(parts, ignore_index=True)
    for column in ("size", "n_error_nodes"):
        rows[column] = rows[column].astype("Int64")
    rows["tied"] = rows["tied"].astype("boolean").fillna(value=False).astype(bool)
    rows["n_scored"], rows["n_total"] = curve.n_scored, curve.n_total
    rows["cluster"], rows["stratum"] = groups.cluster[rows["prompt"]], groups.stratum[rows["prompt"]]
    rows["n_clusters"] = groups.n_clusters
    return pd.concat([pd.DataFrame({k: [v] * len(rows) for k, v in labels.items()}), rows], axis=1)


def _by_size(curve: Curve, tied: bool) -> list[pd.DataFrame]:
    parts = []
    counts = curve.values or (np.nan,) * len(curve.sizes)
    for run, table in (("circuit", curve.circuit), ("complement", curve.complement), ("change", curve.change)):
        for i, row in enumerate([] if table is None else table.numpy()):
            columns = {
                "size": curve.sizes[i],
                "n_error_nodes": curve.n_error_nodes[i],
                "values": counts[i],
                "tied": tied,
            }
            parts.append(pd.DataFrame({"run": run, **columns, "prompt": range(len(row)), "value": row}))
    return parts


def to_curve(rows: pd.DataFrame) -> Curve:
    """The curve of the long rows of one curve (`CURVE`): what `to_rows` was given."""
    runs: dict[Any, pd.DataFrame] = dict(iter(rows.groupby("run")))

    def of_prompts(run: str) -> Tensor:
        return torch.tensor(runs[run].sort_values("prompt")["value"].to_numpy(np.float64))

    whole, empty = of_prompts("whole"), of_prompts("empty")

    def of_sizes(tied: bool, all_nodes: Tensor | None = None, beyond: Curve | None = None) -> Curve:
        tables = {run: part.loc[part["tied"] == tied] for run, part in runs.items()}

        def by_size(run: str) -> Tensor:
            table = tables[run].pivot(index="size", columns="prompt", values="value").sort_index()
            return torch.tensor(table.to_numpy(np.float64))

        kept = tables["circuit"].drop_duplicates("size").sort_values("size")
        return Curve(
            sizes=tuple(int(k) for k in kept["size"]),
            n_error_nodes=tuple(int(k) for k in kept["n_error_nodes"]),
            n_total=int(rows["n_total"].iloc[0]),
            whole=whole,
            empty=empty,
            circuit=by_size("circuit"),
            complement=by_size("complement"),
            change=by_size("change") if len(tables.get("change", [])) else None,
            values=None if bool(kept["values"].isna().any()) else tuple(float(v) for v in kept["values"]),
            all_nodes=all_nodes,
            tied=beyond,
        )

    beyond = of_sizes(tied=True) if bool(rows["tied"].any()) else None
    return of_sizes(tied=False, all_nodes=of_prompts("all") if "all" in runs else None, beyond=beyond)


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
    """What every curve is of (`CURVE`), in the order of the rows, and its rows."""
    for _, rows in curves.groupby(CURVE, sort=False):
        yield {column: rows[column].iloc[0] for column in CURVE}, rows


def rows_with(table: pd.DataFrame, **values: Any) -> pd.DataFrame:
    """The rows that have these values: `rows_with(summary, method="relp", seed=0)`."""
    kept = np.ones(len(table), dtype=bool)
    for column, value in values.items():
        kept &= (table[column] == value).to_numpy(dtype=bool)
    return table.loc[kept]
