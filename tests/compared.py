"""Tables of robustness by hand, in the columns that a result's folder has."""

from itertools import product
from typing import Any

import pandas as pd

from neuron_vs_sae.report.robust_tables import RobustTables


def robust_row(task: str, verdict: str, **values: Any) -> dict[str, Any]:
    """A row of `robustness.csv` on neurons and SAE features; `values` replace its own."""
    return {
        "task": task, "basis_a": "mlp_neurons", "basis_b": "sae", "score": "faithfulness", "n_specifications": 60, "share_a_better": 0.5,
        "share_b_better": 0.25, "share_equivalent": 0.0, "median_difference": 0.086, "low": 0.05, "high": 0.12, "p_joint": 0.001,
        "p_joint_holm": 0.004, "decided_by": "errors" if verdict == "depends" else "", "decided_share": 0.72 if verdict == "depends" else 0.0,
        "verdict": verdict, "turn_factor": "", "turn_from": "", "turn_to": "", "turn_share": 0.0, **values,
    }  # fmt: skip


def compared(result: Any, *, verdict: str = "depends", wins: str = "b better", control: bool = False) -> RobustTables:
    """Neurons against every other basis of the study under its error policies, by nodes and by bits: every row has the same verdicts."""
    study, first = result.study, result.summary.iloc[0]
    neurons, *others = study.basis
    tasks = result.summary["task"].unique().tolist()
    rows = [
        {
            "task": task, "seed": study.seed[0], "basis_a": neurons, "basis_b": other, "score": score, "errors": errors,
            "ablation": study.ablation[0], "method": study.method[0], "metric": first["metric"], "size_measure": measure, "summary": "area",
            "estimate": -0.1, "low": -0.15, "high": 0.15, "p": 0.01,
            "verdict": wins, "control_wins": control, "control": "random_sae" if control else "",
            "range_low": 1.0, "range_high": 50.0,
        }
        for task, other, score, errors, measure in product(
            tasks, others, ("faithfulness", "completeness"), study.errors, ("nodes", "bits")
        )
    ]  # fmt: skip
    robust = [
        robust_row(task, verdict, basis_a=neurons, basis_b=other, score=score)
        for task, other, score in product([*tasks, "all"], others, ("faithfulness", "completeness"))
    ]
    return RobustTables(pd.DataFrame(rows), pd.DataFrame(robust))
