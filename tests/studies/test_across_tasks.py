"""Verdicts over tasks and seeds, and what chance reaches."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from level_curves import Named, curve, finished

from neuron_vs_sae.statistics.size_measures import MEASURES
from neuron_vs_sae.studies import result
from neuron_vs_sae.studies.chance import null_band
from neuron_vs_sae.studies.verdict import ACROSS, across_tasks, verdicts


def rows(verdict: Callable[[str, str], str], difference: dict[tuple[str, int], float]) -> pd.DataFrame:
    """A table of verdicts: one pair, two measures, the tasks and seeds of `difference`."""
    return pd.DataFrame(
        [
            {
                "task": task, "seed": seed, "method": "relp", "ablation": "mean", "errors": "nodes", "metric": "logit_difference",
                "basis_a": "n", "basis_b": "s", "size_measure": measure, "score": "faithfulness", "difference": value,
                "verdict": verdict(task, measure), "family": "exploratory",
            }
            for (task, seed), value in difference.items()
            for measure in ("nodes", "bits")
        ]
    )  # fmt: skip


def test_tasks_are_counted_averaged_and_their_dependence_on_the_measure_is_told() -> None:
    def verdict(task: str, measure: str) -> str:
        return {"t": "a better", "u": "equivalent" if measure == "nodes" else "undecided"}.get(
            task, "b better" if measure == "nodes" else "a better"
        )

    table = across_tasks(rows(verdict, {("t", 0): 2.0, ("u", 0): 4.0, ("v", 0): 9.0}))
    assert list(table.columns) == ACROSS
    nodes, bits = table.to_dict("records")
    assert [nodes[c] for c in ("a_better", "b_better", "equivalent", "undecided")] == [1, 1, 1, 0]
    assert [bits[c] for c in ("a_better", "b_better", "equivalent", "undecided")] == [2, 0, 0, 1]
    for row in (nodes, bits):
        assert (row["mean"], row["n_tasks"], row["n_seeds"]) == (5, 3, 1)
        assert row["high"] - row["mean"] == pytest.approx(
            4.3027 * (13 / 3) ** 0.5, rel=1e-4
        )  # t with 2 degrees of freedom
        assert row["depends_on_size"]
        assert (row["n_depending"], row["n_reversed"]) == (2, 1)
    agreed = across_tasks(rows(lambda task, measure: "a better", {("t", 0): 1.0, ("u", 0): 1.0}))
    assert not agreed["depends_on_size"].any()


def test_a_task_without_every_seed_is_counted_and_not_averaged() -> None:
    table = across_tasks(
        rows(lambda *_: "undecided", {("t", 0): 1.0, ("t", 1): 3.0, ("u", 0): 5.0, ("u", 1): 5.0, ("v", 0): 100.0})
    )
    row = table.to_dict("records")[0]
    assert (row["n_tasks"], row["n_seeds"], row["undecided"], row["mean"]) == (3, 2, 5, 3.5)
    nowhere = across_tasks(rows(lambda *_: "undecided", {("t", 0): 1.0, ("u", 1): 3.0})).to_dict("records")[0]
    assert nowhere["note"] == "no task has every seed"
    assert np.isnan(nowhere["mean"])


def test_seeds_have_verdicts_of_their_own() -> None:
    curves: Named = {("t", "mlp_neurons"): curve(0.8, seed=1), ("t", "mlp_outputs"): curve(0.4, seed=2)}
    first, second = finished(curves), finished({key: curve(0.5, seed=i) for i, key in enumerate(curves)}, seed=1)
    both = result.Result(
        Path(), first.record, pd.concat([first.curves, second.curves], ignore_index=True), first.summary
    )
    table = verdicts(both)
    assert table.groupby("seed").size().to_dict() == {0: 2 * len(MEASURES), 1: 2 * len(MEASURES)}
    assert set(across_tasks(table)["n_seeds"]) == {2}


# What chance reaches.


def test_the_null_band_is_over_the_random_curves_alone() -> None:
    settings = {"method": ["random"]}
    found = finished({("t", "mlp_neurons"): curve(0.2, noise=0)}, **settings)
    levels = [0.0, 0.1, 0.2, 0.3, 0.4]
    tables = [
        finished({("t", "mlp_neurons"): curve(level, noise=0)}, seed=i, **settings).summary
        for i, level in enumerate(levels)
    ]
    other = tables[0].assign(method="relp", faithfulness=0.99)
    several = result.Result(Path(), found.record, found.curves, pd.concat([*tables, other], ignore_index=True))
    band = null_band(several)
    (row,) = band[(band["score"] == "faithfulness") & (band["size"] == 5)].to_dict("records")
    assert (row["mean"], row["n_curves"]) == (pytest.approx(0.2), 5)
    assert (row["low"], row["high"]) == pytest.approx((0.01, 0.39))  # a tenth of a step from the ends
    one = null_band(found)
    assert (one["low"] == one["high"]).all()
    assert len(null_band(finished({("t", "mlp_neurons"): curve(0.2)}))) == 0
