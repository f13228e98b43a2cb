"""What a folder holds beyond its curves: verdicts between bases, and how stable the circuits are."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd


@dataclass(frozen=True, eq=False)
class Evidence:
    """Tables of a finished folder, each None where the folder has none (a single prompt or basis has no verdicts)."""

    verdicts: pd.DataFrame | None = None
    across_tasks: pd.DataFrame | None = None
    stability: pd.DataFrame | None = None


def evidence(folder: Path) -> Evidence:
    """`verdicts.csv`, `verdicts_across_tasks.csv` and `stability.csv` of the folder; of several seeds the verdicts of the first."""
    verdicts = _read(folder / "verdicts.csv")
    if verdicts is not None and "seed" in verdicts:
        verdicts = verdicts.loc[verdicts["seed"] == verdicts["seed"].iloc[0]]
    return Evidence(verdicts, _read(folder / "verdicts_across_tasks.csv"), _read(folder / "stability.csv"))


def _read(file: Path) -> pd.DataFrame | None:
    if not file.exists():
        return None
    try:
        table = pd.read_csv(file, keep_default_na=True)
    except pd.errors.EmptyDataError:
        return None
    return None if table.empty else table
