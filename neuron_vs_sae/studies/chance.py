"""What circuits of random nodes reach: the band that a ranking has to exceed."""

import numpy as np
import pandas as pd

from neuron_vs_sae.core.lookup import parse
from neuron_vs_sae.statistics.estimates import SCORES
from neuron_vs_sae.studies.result import Result
from neuron_vs_sae.studies.rows import curve_columns


def null_band(result: Result, confidence: float = 0.95) -> pd.DataFrame:
    """Faithfulness and completeness of random circuits: one row per case (a curve's columns but method and seed), score and size.

    From every curve of method `random`, whatever its options and seed: `mean`, and `low` and `high`, quantiles over the
    `n_curves` curves (with few curves, close to the smallest and largest). The band covers random rankings, not prompts.
    There are no rows without such a curve.
    """
    random = [method for method in result.study.method if parse("attribution", method).name == "random"]
    rows = result.summary[result.summary["method"].isin(random)]
    tail, case = (1 - confidence) / 2, curve_columns(without=["method", "seed"])
    tables = []
    for score in SCORES:
        values = rows.groupby([*case, "size"], sort=False)[score]
        table = values.agg(
            mean="mean",
            low=lambda v: np.quantile(v, tail),
            high=lambda v: np.quantile(v, 1 - tail),
            n_curves="size",
        ).reset_index()
        table.insert(len(case), "score", score)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)
