"""What studies of interventions share: tables of cells put together, and estimates of means over prompts."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from neuron_vs_sae.core.pairs import PromptPairs
from neuron_vs_sae.statistics.bootstrap import Estimate, interval, ratio
from neuron_vs_sae.statistics.permutation import sign_flip
from neuron_vs_sae.statistics.resampling import Clusters, Draws, clusters_of, draw
from neuron_vs_sae.studies.cells import Cell, CellFiles
from neuron_vs_sae.studies.paired import judged, pair_rows
from neuron_vs_sae.studies.spec import CommonSpec


def cases(table: pd.DataFrame, columns: Sequence[str]) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """(the columns' values, the rows that have them) of every part of a table, in the order in which they come; absent values are values."""
    for values, part in table.groupby(list(columns), sort=False, dropna=False):
        yield (values if isinstance(values, tuple) else (values,)), part


def joined(finished: Mapping[Cell, CellFiles], cells: Sequence[Cell], step: str, name: str) -> pd.DataFrame:
    """A table of a step, cell by cell; empty where no cell has any row."""
    tables = [finished[cell].table(step, name) for cell in cells]
    filled = [table for table in tables if len(table)]
    return pd.concat(filled, ignore_index=True) if filled else tables[0]


def grouped(spec: CommonSpec, pairs: PromptPairs) -> pd.DataFrame:
    """The cluster and stratum of every pair, by its number: columns that a table of prompts is given to be resampled by."""
    clusters = clusters_of(pairs.tags, spec.cluster_by, spec.stratify_by, pairs.name)
    return pd.DataFrame({"prompt": range(len(pairs)), "cluster": clusters.cluster, "stratum": clusters.stratum})


def draws_of(table: pd.DataFrame, spec: CommonSpec) -> Draws:
    """One set of draws for all that is measured on the prompts of a table (one task's, with the columns of `grouped`)."""
    first = table.drop_duplicates("prompt").sort_values("prompt")
    _, cluster = np.unique(first["cluster"].to_numpy(), return_inverse=True)
    _, stratum = np.unique(first["stratum"].to_numpy(), return_inverse=True)
    return draw(Clusters(cluster, stratum), spec.resamples, spec.seed[0])


def mean_of(values: Float[np.ndarray, " batch"], draws: Draws) -> Estimate:
    """The mean over prompts, in the order of their numbers."""
    return ratio(values[:, None].astype(float), np.ones((len(values), 1)), draws)


def ends_of(estimate: Estimate, confidence: float) -> tuple[float, float]:
    """Lower and upper end of the interval of a single quantity."""
    ends = interval(estimate, confidence)
    return float(ends.low[0]), float(ends.high[0])


def compared(
    values: Mapping[str, Float[np.ndarray, " batch"]], draws: Draws, facts: Mapping[str, object], spec: CommonSpec
) -> pd.DataFrame:
    """A row per pair of bases, from a number per prompt of which more is better: `paired.pair_rows` of the means, with the sign-flip test's p of the
    prompts' differences, which resolves more finely than resamples do."""
    n = len(next(iter(values.values())))
    rows = pair_rows({b: mean_of(v, draws) for b, v in values.items()}, facts, n, spec.confidence, spec.margin)
    if not len(rows):
        return rows
    differences = np.stack([values[a] - values[b] for a, b in zip(rows["basis_a"], rows["basis_b"], strict=True)], 1)
    return rows.assign(p=sign_flip(differences, draws.clusters, flips=spec.sign_flips, seed=spec.seed[0]))


def judged_within(rows: pd.DataFrame, columns: Sequence[str], confidence: float) -> pd.DataFrame:
    """`paired.judged` with a family of its own for every value of the columns: Holm's adjustment is over the rows of one."""
    parts = [judged(part, confidence) for _, part in cases(rows, columns)] if len(rows) else []
    return pd.concat(parts, ignore_index=True) if parts else judged(rows, confidence)
