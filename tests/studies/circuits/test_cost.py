"""The arithmetic of what a study will take; how near it comes is measured by `benchmarks/speed.py --only study`."""

from pathlib import Path
from typing import Any

import pytest

import neuron_vs_sae as nvs
from neuron_vs_sae.models.loading import load_model
from neuron_vs_sae.running.planning import load_study
from neuron_vs_sae.studies.circuits import cost
from neuron_vs_sae.studies.circuits.analysis import CIRCUITS, cells
from neuron_vs_sae.studies.circuits.cost import batches_seconds, curve_seconds


def test_discovery_is_a_line_through_two_timings_once_for_every_batch() -> None:
    """Worked by hand: 3 s for 4 pairs and 5 s for 8 are 1 s per batch and half a second per pair."""
    assert batches_seconds(100, 64, (4, 3.0), (8, 5.0)) == pytest.approx(2 * 1 + 100 * 0.5)
    assert batches_seconds(64, 64, (4, 3.0), (8, 5.0)) == pytest.approx(1 + 64 * 0.5)
    assert batches_seconds(3, 64, (3, 6.0), (3, 6.0)) == pytest.approx(6), "one timing: all of it is the pairs'"
    assert batches_seconds(100, 64, (4, 3.0), (8, 2.0)) == pytest.approx(2 * 3), "more in less time is noise"


def test_a_curve_takes_its_fixed_part_once_and_every_size_beside_it() -> None:
    """Worked by hand: 2 s for the curve of no node, and 8 s for one of 4 sizes: a size takes 1.5 s beside the fixed part."""
    assert curve_seconds(10, 2.0, (4, 8.0)) == pytest.approx(2 + 10 * 1.5)
    assert curve_seconds(10, 2.0, (4, 1.0)) == pytest.approx(2), "less than nothing is noise"


def study_of(checkpoint: Path, task_files: tuple[Path, Path], **settings: Any) -> nvs.Study:
    given: dict[str, Any] = {
        "task": (str(task_files[0]),), "eval_task": (str(task_files[1]),), "basis": ("mlp_neurons", "mlp_outputs"),
        "examples": 12, "eval_examples": 12, "sizes": (0, 3), "resamples": 100, "method": ("relp", "random"),
    }  # fmt: skip
    return nvs.Study(model=str(checkpoint), **{**given, **settings})


@pytest.mark.parametrize("engine", ["fast", "exact"])
def test_discovery_is_counted_once_for_all_bases_and_curves_once_for_each(
    engine: Any, checkpoint: Path, task_files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a clock that ticks a second for every look: each thing timed takes one."""
    ticks = iter(range(10_000))
    monkeypatch.setattr(cost.time, "perf_counter", lambda: float(next(ticks)))
    estimated = {}
    for name, settings in {
        "two bases": {}, "one": {"basis": ("mlp_neurons",)}, "more": {"ablation": ("mean", "zero_site", "counterfactual")},
        "policies": {"errors": ("nodes", "keep", "ablate")},
    }.items():  # fmt: skip
        study, machine = study_of(checkpoint, task_files, **settings), nvs.Machine(engine=engine)
        loaded = load_study(CIRCUITS, study, machine, model=load_model(study.model))
        estimated[name] = cost.seconds(loaded, cells(study))
    # A method's 12 pairs are one batch of a second. A curve is a second for size 0 and none more for others; two of its three
    # sizes (0, 3 and all with a score) are timed, and written in a second.
    methods, curve = 2, 1 + 3 / 2
    assert estimated == pytest.approx({
        "one": methods * (1 + curve),
        "two bases": methods * (1 + 2 * curve),
        "more": methods * (1 + 2 * 3 * curve),
        "policies": methods * (1 + 2 * curve),  # neither basis loses anything: all policies' circuits are the same
    })  # fmt: skip
