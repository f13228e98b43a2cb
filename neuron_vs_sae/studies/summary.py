"""One row per curve and size: scores with their intervals, and every convention that made them."""

from typing import Any

import numpy as np
import pandas as pd

from neuron_vs_sae.core.curve import Curve
from neuron_vs_sae.core.sizes import bits
from neuron_vs_sae.statistics.bootstrap import band, interval
from neuron_vs_sae.statistics.estimates import estimates
from neuron_vs_sae.statistics.resampling import Draws
from neuron_vs_sae.studies.rows import content, draws_of, each_curve, to_clusters, to_curve
from neuron_vs_sae.studies.study import Study

SUMMARY = [
    "model", "task", "basis", "site", "method", "ablation", "errors", "positions", "rank_by", "metric", "n_discovery",
    "n_eval", "size", "n_units", "n_error_nodes", "n_total", "fraction", "bits", "f_model", "f_empty", "f_circuit",
    "f_complement", "faithfulness", "completeness", "faithfulness_low", "faithfulness_high", "completeness_low",
    "completeness_high", "seed",
]  # fmt: skip


_OF_A_ROW = {
    "run", "size", "prompt", "value", "n_error_nodes", "values", "tied", "n_scored", "n_total", "cluster", "stratum",
}  # fmt: skip
"""Columns of the curves' rows that are not the same in all rows of a curve, or are counted here."""


def summarise(curves: pd.DataFrame, study: Study) -> pd.DataFrame:
    """One row per curve and size up to `n_scored`: F's, scores, intervals and bands, sizes, and every convention that made them.

    `f_all` is the metric with all `n_total` nodes kept.
    """
    tables, drawn = [], draws_of(curves, study.resamples)
    known: dict[bytes, dict[str, Any]] = {}
    for _, rows in each_curve(curves):
        key = content(rows)
        if key not in known:
            known[key] = _numbers(to_curve(rows), drawn(to_clusters(rows)), study.confidence)
        labels = {c: rows[c].iloc[0] for c in rows.columns if c not in _OF_A_ROW}
        tables.append(pd.DataFrame({**labels, **known[key]}))
    summary = pd.concat(tables, ignore_index=True)
    return summary.reindex(columns=[*SUMMARY, *(c for c in summary.columns if c not in SUMMARY)])


def _numbers(curve: Curve, draws: Draws, confidence: float) -> dict[str, Any]:
    """The columns that come of a curve's values, a number for all sizes or one for each."""
    columns: dict[str, Any] = {
        "n_eval": len(curve.whole),
        "size": list(curve.sizes),
        "n_units": [k - e for k, e in zip(curve.sizes, curve.n_error_nodes, strict=True)],
        "n_error_nodes": list(curve.n_error_nodes),
        "values": np.nan if curve.values is None else list(curve.values),
        "n_scored": curve.n_scored,
        "n_total": curve.n_total,
        "fraction": curve.fraction,
        "bits": [bits(curve.n_total, k) for k in curve.sizes],
        "f_model": float(curve.whole.mean()),
        "f_empty": float(curve.empty.mean()),
        "f_all": np.nan if curve.all_nodes is None else float(curve.all_nodes.mean()),
        "f_circuit": curve.circuit.mean(1).numpy(),
        "f_complement": curve.complement.mean(1).numpy(),
        "faithfulness": curve.faithfulness.numpy(),
        "completeness": curve.completeness.numpy(),
        "confidence": confidence,
    }
    if curve.change is not None:
        columns["change"] = curve.change.mean(1).numpy()
    for score, estimate in estimates(curve, draws).items():
        pointwise, simultaneous = interval(estimate, confidence), band(estimate, confidence)
        columns[f"{score}_low"], columns[f"{score}_high"] = pointwise.low, pointwise.high
        columns[f"{score}_band_low"], columns[f"{score}_band_high"] = simultaneous.low, simultaneous.high
    return columns
