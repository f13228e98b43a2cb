"""What seeds change: mean and spread of the scores of curves that differ only in their seed."""

from typing import Any

import pandas as pd

from neuron_vs_sae.studies.rows import curve_columns

OF_ALL_SEEDS = curve_columns(without=["seed"])
AREAS = ["area_faithfulness", "area_unfaithfulness", "area_completeness"]


def over_seeds(table: pd.DataFrame) -> pd.DataFrame:
    """One row per curve but for its seed, from `per_curve`: the number of seeds, and over them the mean and standard
    deviation (n - 1; missing for one seed) of every area, the median, least and largest size at the level, and how many seeds
    reach it (`reached`; sizes are of those that do).

    The evaluation prompts are the same for all seeds, so the spread is that of discovery (of a random method: of chance),
    and does not include the variation of evaluation prompts, which the intervals of each curve show.
    """
    rows = []
    for _, curves in table.groupby(OF_ALL_SEEDS, sort=False):
        sizes = curves["size_at_level"].dropna().astype("float64")
        row = {name: curves[name].iloc[0] for name in OF_ALL_SEEDS} | {"n_seeds": len(curves)}
        for area in AREAS:
            values = curves[area].astype("float64")
            row |= {f"{area}_mean": values.mean(), f"{area}_sd": values.std()}
        row |= {"reached": len(sizes), "size_median": sizes.median(), "size_min": sizes.min(), "size_max": sizes.max()}
        rows.append(row)
    return pd.DataFrame(rows)


def sizes_told(row: dict[str, Any]) -> str:
    """The sizes at the level in words: `50 (20 to 100)`, with how many seeds reach it where not all do."""
    if not row["reached"]:
        return "not reached"
    median, least, largest = (f"{row[f'size_{name}']:.3g}" for name in ("median", "min", "max"))
    text = f"{median} ({least} to {largest})"
    return text if row["reached"] == row["n_seeds"] else f"{text}, reached by {row['reached']} of {row['n_seeds']}"
