"""One row per curve: areas, sizes at a level, and their intervals."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pandas as pd

from neuron_vs_sae.core.curve import Curve
from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.core.nodes import bits
from neuron_vs_sae.statistics.bootstrap import interval
from neuron_vs_sae.statistics.estimates import estimates, size_at
from neuron_vs_sae.statistics.resampling import Draws
from neuron_vs_sae.statistics.size_measures import area_weights
from neuron_vs_sae.studies import result
from neuron_vs_sae.studies.rows import draws_of, each_curve, to_curve, to_groups


def per_curve(found: "result.Result", level: float = 0.8) -> pd.DataFrame:
    """One row per curve: areas over log size, the size that reaches `level`, CPR and CMD where their sizes were run.

    Areas of one task share a range, 1 to its smallest basis's number of nodes. What was not reached or not run is empty.
    Intervals are over prompts (their clusters); `size_at_level_not_reached` is the share of resamples that do not reach it.
    """
    curves = [(names, part, to_curve(part)) for names, part in each_curve(found.curves)]
    drawn = draws_of(found.curves, found.study.resamples)
    rows = []
    for names, part, curve in curves:
        smallest = min(other.n_total for theirs, _, other in curves if theirs["task"] == names["task"])
        area = partial(_if_run, curve.area, up_to=smallest)
        size = curve.size_at(level)
        rows.append(
            {
                **names,
                "site": part["site"].iloc[0],
                "n_total": curve.n_total,
                "size_at_level": size,
                "error_nodes_at_level": None if size is None else curve.n_error_nodes[curve.sizes.index(size)],
                "size_at_level_stable": curve.size_at(level, stable=True),
                "bits_at_level": None if size is None else bits(curve.n_total, size),
                "size_faithful_and_complete": curve.size_at(level, 1 - level),
                "area_up_to": smallest,
                "area_faithfulness": area("faithfulness"),
                "area_unfaithfulness": area("unfaithfulness"),
                "area_completeness": area("completeness"),
                "cpr": _if_run(curve.cpr),
                "cmd": _if_run(curve.cmd),
                "f_model": float(curve.whole.mean()),
                "f_empty": float(curve.empty.mean()),
                "n_eval": len(curve.whole),
                "n_clusters": part["n_clusters"].iloc[0],
                **_intervals(curve, drawn(to_groups(part)), smallest, level, found.study.confidence),
            }
        )
    table = pd.DataFrame(rows)
    sizes = ("size_at_level", "error_nodes_at_level", "size_at_level_stable", "size_faithful_and_complete")
    for column in (*sizes, "size_at_level_low", "size_at_level_high"):
        table[column] = table[column].astype("Int64")
    return table


def _intervals(curve: Curve, draws: Draws, smallest: int, level: float, confidence: float) -> dict[str, Any]:
    """The ends of a curve's intervals: of its areas where their sizes were run, and of its size at the level."""
    both = estimates(curve, draws)
    size = size_at(curve, both["faithfulness"], level, confidence)
    ends: dict[str, Any] = {
        "size_at_level_low": size.low,
        "size_at_level_high": size.high,
        "size_at_level_not_reached": size.not_reached,
    }
    for score, estimate in both.items():
        if _if_run(curve.area, score, up_to=smallest) is not None:
            told = interval(estimate.weighted(area_weights(curve, "nodes", 1.0, float(smallest))[:, None]), confidence)
            ends |= {f"area_{score}_low": told.low[0], f"area_{score}_high": told.high[0]}
    return ends


def _if_run(score: Callable[..., float], *args: Any, **options: Any) -> float | None:
    try:
        return score(*args, **options)
    except InputError:
        return None  # its sizes were not run
