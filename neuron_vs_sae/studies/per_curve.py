"""One row per curve: areas, sizes at a level, and their intervals."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from neuron_vs_sae.core.curve import Curve
from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.core.sizes import bits
from neuron_vs_sae.statistics.bootstrap import interval
from neuron_vs_sae.statistics.estimates import estimates, size_at
from neuron_vs_sae.statistics.resampling import Draws
from neuron_vs_sae.statistics.size_measures import area_weights
from neuron_vs_sae.studies.result import Result
from neuron_vs_sae.studies.rows import content, draws_of, each_curve, to_clusters, to_curve


def per_curve(result: Result, level: float = 0.8) -> pd.DataFrame:
    """One row per curve: areas over log size, the size that reaches `level`, CPR and CMD where their sizes were run.

    Areas are the curve's own, from 1 node to its last with a score (`n_scored`): other bases have no say in them, and two
    curves' areas are not over one range (those of `verdicts` are). `size_at_level` is `Curve.size_at`, `values_at_level` how
    many numbers that circuit carries and `error_nodes_at_level` how many of its nodes are error nodes, both between the sizes that
    were run as the size is. What was not reached or not run is missing. Intervals are over prompts (their clusters);
    `size_at_level_not_reached` is the share of resamples that do not reach it. `faithfulness_all_nodes` is that of all
    `n_total` nodes: 1 but where errors are ablated.
    """
    drawn = draws_of(result.curves, result.study.resamples)
    rows = []
    known: dict[bytes, dict[str, Any]] = {}
    for names, part in each_curve(result.curves):
        key = content(part)
        if key not in known:
            known[key] = _numbers(to_curve(part), drawn(to_clusters(part)), level, result.study.confidence)
        poor = {"accept_poor_sae": True} if result.study.accept_poor_sae else {}
        rows.append(
            {**names, "site": part["site"].iloc[0], **poor, **known[key], "n_clusters": part["n_clusters"].iloc[0]}
        )
    table = pd.DataFrame(rows)
    floats = [column for column in table.columns if "at_level" in column or column.startswith(("area_", "size_"))]
    return table.astype(dict.fromkeys([*floats, "cpr", "cmd", "faithfulness_all_nodes"], "float64"))


def _numbers(curve: Curve, draws: Draws, level: float, confidence: float) -> dict[str, Any]:
    """The columns that come of a curve's values."""
    return {
        "n_total": curve.n_total,
        "n_scored": curve.n_scored,
        **_at_level(curve, level),
        "area_faithfulness": _if_run(curve.area, "faithfulness"),
        "area_unfaithfulness": _if_run(curve.area, "unfaithfulness"),
        "area_completeness": _if_run(curve.area, "completeness"),
        "cpr": _if_run(curve.cpr),
        "cmd": _if_run(curve.cmd),
        "f_model": float(curve.whole.mean()),
        "f_empty": float(curve.empty.mean()),
        "faithfulness_all_nodes": _of_all_nodes(curve),
        "n_eval": len(curve.whole),
        **_intervals(curve, draws, level, confidence),
    }


def _at_level(curve: Curve, level: float) -> dict[str, float | None]:
    """The sizes of the circuit that first reaches the level, by several counts."""
    size = curve.size_at(level)
    return {
        "size_at_level": size,
        "values_at_level": None if curve.values is None else curve.values_at(level),
        "error_nodes_at_level": None if size is None else float(np.interp(size, curve.sizes, curve.n_error_nodes)),
        "size_at_level_stable": curve.size_at(level, stable=True),
        "bits_at_level": None if size is None else bits(curve.n_total, size),
        "size_faithful_and_complete": curve.size_at(level, 1 - level),
    }


def _of_all_nodes(curve: Curve) -> float | None:
    if curve.all_nodes is None:
        return None
    return (float(curve.all_nodes.mean()) - float(curve.empty.mean())) / curve.denominator


def _intervals(curve: Curve, draws: Draws, level: float, confidence: float) -> dict[str, Any]:
    """The ends of a curve's intervals: of its areas where their sizes were run, and of its size at the level."""
    by_score = estimates(curve, draws)
    size = size_at(curve, by_score["faithfulness"], level, confidence)
    ends: dict[str, Any] = {
        "size_at_level_low": size.low,
        "size_at_level_high": size.high,
        "size_at_level_not_reached": size.not_reached,
    }
    for score, estimate in by_score.items():
        if _if_run(curve.area, score) is not None:
            weights = area_weights(curve, "nodes", 1.0, float(curve.n_scored))
            area = interval(estimate.weighted(weights[:, None]), confidence)
            ends |= {f"area_{score}_low": area.low[0], f"area_{score}_high": area.high[0]}
    return ends


def _if_run(score: Callable[..., float], *args: Any) -> float | None:
    try:
        return score(*args)
    except InputError:
        return None  # its sizes were not run
