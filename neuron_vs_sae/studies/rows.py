"""Curves as long tables, a row per run, size and prompt, and back."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from neuron_vs_sae.core.curve import Curve
from neuron_vs_sae.statistics.resampling import Clusters, Draws, draw, independent

CURVE = ["task", "basis", "method", "seed", "ablation", "errors", "metric"]
"""The columns that identify a curve: one curve has one value of each."""


def curve_columns(*, without: Sequence[str]) -> list[str]:
    """The columns of `CURVE` but for some: `curve_columns(without=["basis"])` is a case in which bases are compared."""
    return [column for column in CURVE if column not in without]


def to_rows(curve: Curve, labels: dict[str, Any], clusters: Clusters | None = None) -> pd.DataFrame:
    """The curve as long rows: one per run, size and prompt, with `labels` (conventions included) in every row.

    `run` is whole, empty or all (all nodes kept), or, per size, circuit, complement or change. `tied` marks the circuits that are
    filled up with nodes of score 0. `cluster` and `stratum` number the prompts' clusters and strata (default: every prompt is a cluster).
    """
    n = len(curve.whole)
    clusters = clusters or independent(n)
    stretches = [
        _Stretch(run, values.numpy()[None], (None,), (None,), (np.nan,))
        for run, values in (("whole", curve.whole), ("empty", curve.empty), ("all", curve.all_nodes))
        if values is not None
    ]
    stretches += _by_size(curve, tied=False)
    if curve.tied is not None:
        stretches += _by_size(curve.tied, tied=True)
    prompt = np.tile(np.arange(n), sum(len(stretch.values) for stretch in stretches))

    def each(of: Callable[[_Stretch], Sequence[Any]]) -> list[Any]:
        return [item for stretch in stretches for item in of(stretch)]

    # Scalars are spread by pandas: thousands of curves of a thousand rows are built.
    return pd.DataFrame(
        {
            **labels,
            "run": np.repeat(np.array(each(lambda s: [s.run] * len(s.values)), dtype=object), n),
            "prompt": prompt,
            "value": np.concatenate([stretch.values.reshape(-1) for stretch in stretches]),
            "size": pd.array(each(lambda s: s.sizes), dtype="Int64").repeat(n),
            "n_error_nodes": pd.array(each(lambda s: s.n_error_nodes), dtype="Int64").repeat(n),
            "values": np.repeat(np.array(each(lambda s: s.counts), dtype=np.float64), n),
            "tied": np.repeat(np.array(each(lambda s: [s.tied] * len(s.values)), dtype=bool), n),
            "n_scored": curve.n_scored,
            "n_total": curve.n_total,
            "cluster": clusters.cluster[prompt],
            "stratum": clusters.stratum[prompt],
            "n_clusters": clusters.n_clusters,
        },
        index=range(len(prompt)),
    )


@dataclass(frozen=True, eq=False)
class _Stretch:
    """Runs of one kind, a row of `values` each, with the size of each and what is counted of it."""

    run: str
    values: Float[np.ndarray, "runs batch"]
    sizes: Sequence[int | None]
    n_error_nodes: Sequence[int | None]
    counts: Sequence[float]
    tied: bool = False


def _by_size(curve: Curve, tied: bool) -> list[_Stretch]:
    counts = curve.values or (np.nan,) * len(curve.sizes)
    return [
        _Stretch(run, table.numpy(), curve.sizes, curve.n_error_nodes, counts, tied)
        for run, table in (("circuit", curve.circuit), ("complement", curve.complement), ("change", curve.change))
        if table is not None and len(table)
    ]


def to_curve(rows: pd.DataFrame) -> Curve:
    """The curve of the long rows of one curve (`CURVE`): what `to_rows` was given."""
    run, prompt, tied = rows["run"].to_numpy(), rows["prompt"].to_numpy(), rows["tied"].to_numpy(bool)
    size = rows["size"].to_numpy(np.float64, na_value=np.nan)
    value = rows["value"].to_numpy(np.float64)
    n_prompts = int((run == "whole").sum())

    def of_prompts(name: str) -> Tensor:
        places = np.flatnonzero(run == name)
        return torch.tensor(value[places[np.argsort(prompt[places])]])

    whole, empty = of_prompts("whole"), of_prompts("empty")

    def of_sizes(*, beyond: bool, **others: Any) -> Curve:
        def places(name: str) -> np.ndarray:
            """Rows of the table by size and prompt."""
            chosen = np.flatnonzero((run == name) & (tied == beyond))
            return chosen[np.lexsort((prompt[chosen], size[chosen]))].reshape(-1, n_prompts)

        def by_size(name: str) -> Tensor:
            return torch.tensor(value[places(name)])

        first = rows.iloc[places("circuit")[:, 0]]
        return Curve(
            sizes=tuple(int(k) for k in first["size"]),
            n_error_nodes=tuple(int(k) for k in first["n_error_nodes"]),
            n_total=int(rows["n_total"].iloc[0]),
            whole=whole,
            empty=empty,
            circuit=by_size("circuit"),
            complement=by_size("complement"),
            change=by_size("change") if len(places("change")) else None,
            values=None if bool(first["values"].isna().any()) else tuple(float(v) for v in first["values"]),
            **others,
        )

    tied_curve = of_sizes(beyond=True) if bool(tied.any()) else None
    return of_sizes(beyond=False, all_nodes=of_prompts("all") if "all" in run else None, tied=tied_curve)


def content(rows: pd.DataFrame) -> bytes:
    """What the numbers of one curve's rows are made of: two curves of one content differ in their labels alone.

    A basis that loses nothing has one curve under every error policy: what it says is computed once.
    """
    numbers = rows[["value", "prompt", "values", "cluster", "stratum", "n_total", "tied"]].to_numpy(np.float64)
    counts = rows[["size", "n_error_nodes"]].to_numpy(np.float64, na_value=np.nan)
    return hashlib.sha256(numbers.tobytes() + counts.tobytes() + "".join(rows["run"]).encode()).digest()


def to_clusters(rows: pd.DataFrame) -> Clusters:
    """The clusters and strata of the prompts of one curve's rows."""
    prompts = rows.loc[rows["run"] == "whole", ["prompt", "cluster", "stratum"]].sort_values("prompt")
    return Clusters(prompts["cluster"].to_numpy(np.int64), prompts["stratum"].to_numpy(np.int64))


def draws_of(curves: pd.DataFrame, resamples: int) -> Callable[[Clusters], Draws]:
    """The draws of prompts in these clusters: one set for all curves, by the study's (first) seed, so that all are paired."""
    seed = int(curves["seed"].iloc[0])
    known: dict[bytes, Draws] = {}

    def drawn(clusters: Clusters) -> Draws:
        key = clusters.cluster.tobytes() + clusters.stratum.tobytes()
        if key not in known:
            known[key] = draw(clusters, resamples, seed)
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
