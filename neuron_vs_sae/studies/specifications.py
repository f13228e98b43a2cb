"""Every convention that a sensible author might have chosen, each with its own answer: one row per specification."""

import numpy as np
import pandas as pd

from neuron_vs_sae.studies import result
from neuron_vs_sae.studies.families import family, is_baseline
from neuron_vs_sae.studies.findings import MORE_IS_BETTER, Finding, decide, findings, unbeaten
from neuron_vs_sae.studies.study import Study

SUMMARY = "area"
"""What a specification's estimate summarises a curve by."""
COLUMNS = [
    "task", "seed", "basis_a", "basis_b", "score", "errors", "ablation", "method", "metric", "size_measure", "summary",
    "estimate", "low", "high", "p", "verdict", "control_wins", "range_low", "range_high", "control", "family",
]  # fmt: skip


def specifications(found: "result.Result") -> pd.DataFrame:
    """One row per task, seed, pair of bases, score and specification (error policy, ablation, method, metric, size measure).

    `estimate` is the difference of areas, a less b, over the pair's own range of sizes (`range_low` to `range_high`), with its
    BCa interval; `p` the sign-flip test's. `verdict` is what this specification alone would say: nothing is adjusted.
    `control_wins`: the basis that wins here does not beat its control (`control`: those it was tested against; empty where it has
    none, which holds for neurons without `rotation`) by the same test on the same range. Baseline methods are left out.
    """
    tables = [rows_of(one, found.study) for pair in findings(found) for one in pair]
    return joined(tables)


def joined(tables: list[pd.DataFrame]) -> pd.DataFrame:
    """The rows of several comparisons, with all columns even where there is no row."""
    filled = [table for table in tables if len(table)]
    return pd.concat(filled, ignore_index=True) if filled else pd.DataFrame(columns=COLUMNS)


def rows_of(finding: Finding, study: Study) -> pd.DataFrame:
    """The specifications of one comparison."""
    methods = {method: is_baseline(method) for method in finding.rows["method"].unique()}
    kept = ~finding.rows["method"].map(methods).to_numpy(dtype=bool)
    rows = finding.rows.loc[kept]
    one, verdict = finding.comparison, np.array(decide(rows, "p", 1 - study.confidence), dtype=str)
    sign = rows["score"].map(MORE_IS_BETTER).to_numpy(dtype=float)
    flagged, names = np.zeros(len(rows), dtype=bool), np.full(len(rows), "", dtype=object)
    for control in one.controls:
        wins = verdict == ("a better" if control.of == one.basis_a else "b better")
        restricted = type(control)(control.basis, control.of, control.contrasts[:, kept])
        flagged |= unbeaten(restricted, wins, sign, one.groups, study)
        names[wins] = [f"{before}; {control.basis}" if before else control.basis for before in names[wins]]
    return rows.assign(
        summary=SUMMARY,
        estimate=rows["difference"],
        verdict=verdict,
        control_wins=flagged,
        control=names,
        family=family(one.basis_a, one.basis_b),
    )[COLUMNS]
