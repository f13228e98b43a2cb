"""Every convention that a sensible author might have chosen, each with its own answer: one row per specification."""

import numpy as np
import pandas as pd

from neuron_vs_sae.studies.families import baselines, family
from neuron_vs_sae.studies.findings import Finding, findings
from neuron_vs_sae.studies.result import Result

SUMMARY = "area"
"""What a specification's estimate summarises a curve by."""
COLUMNS = [
    "task", "seed", "basis_a", "basis_b", "score", "errors", "ablation", "method", "metric", "size_measure", "summary",
    "estimate", "low", "high", "p", "verdict", "control_wins", "range_low", "range_high", "control", "family",
]  # fmt: skip


def specifications(result: Result) -> pd.DataFrame:
    """One row per task, seed, pair of bases, score and specification (error policy, ablation, method, metric, size measure).

    `estimate` is the difference of areas, a less b, over the pair's own range of sizes (`range_low` to `range_high`), with its
    BCa interval; `p` the sign-flip test's. `verdict` is what this specification alone would say: nothing is adjusted.
    `control_wins`: the basis that wins here does not beat its control (`control`: those it was tested against; empty where it has
    none, which holds for neurons without `rotation`) by the same test on the same range. Baseline methods are left out.
    """
    tables = [rows_of(finding) for pair in findings(result) for finding in pair]
    return joined(tables)


def joined(tables: list[pd.DataFrame]) -> pd.DataFrame:
    """The rows of several comparisons, with all columns even where there is no row."""
    filled = [table for table in tables if len(table)]
    return pd.concat(filled, ignore_index=True) if filled else pd.DataFrame(columns=COLUMNS)


def rows_of(finding: Finding) -> pd.DataFrame:
    """The specifications of one comparison."""
    comparison, rows = finding.comparison, finding.rows
    names = [""] * len(rows)
    for control in comparison.controls:
        for i in np.flatnonzero(finding.alone == ("a better" if control.of == comparison.basis_a else "b better")):
            names[i] += f"; {control.basis}" if names[i] else control.basis
    whole = rows.assign(
        summary=SUMMARY,
        estimate=rows["difference"],
        verdict=finding.alone,
        control_wins=np.any([np.zeros(len(rows), dtype=bool), *finding.unbeaten], axis=0),
        control=names,
        family=family(comparison.basis_a, comparison.basis_b),
    )
    return whole.loc[~baselines(rows["method"]), COLUMNS]
