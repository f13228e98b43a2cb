"""Verdicts by hand, in the columns that `verdicts.csv` has."""

from typing import Any

import pandas as pd


def verdicts(result: Any, said: dict[tuple[str, str], str]) -> pd.DataFrame:
    """A row per pair of bases and score, with size by nodes and by bits, of the study's first method: `said` or undecided."""
    study, bases = result.study, list(result.study.basis)
    rows = [
        {
            "task": task, "method": study.method[0], "ablation": study.ablation[0], "errors": study.errors[0], "basis_a": a, "basis_b": b,
            "size_measure": measure, "score": score, "a": 0.6, "b": 0.5, "difference": 0.1, "low": 0.02, "high": 0.18, "p": 0.01,
            "p_holm": 0.02, "p_bh": 0.02, "p_equivalence": 0.6, "margin": 0.05, "minimum_detectable": 0.1, "n": 6, "n_clusters": 3,
            "verdict": said.get((score, measure), "undecided"),
        }
        for task in result.summary["task"].unique()
        for i, a in enumerate(bases)
        for b in bases[i + 1 :]
        for measure in ("nodes", "bits")
        for score in ("faithfulness", "completeness")
    ]  # fmt: skip
    return pd.DataFrame(rows)
