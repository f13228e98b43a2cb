"""A folder says what it holds; one of another layout or analysis is refused, and nothing of it is touched."""

import json
from pathlib import Path
from typing import Any

import pytest

import neuron_vs_sae as nvs
from neuron_vs_sae.core.errors import FolderError
from neuron_vs_sae.running import finishing
from neuron_vs_sae.studies.record import LAYOUT
from neuron_vs_sae.studies.study import Study, make_study


@pytest.fixture
def study(checkpoint: Path, task_files: tuple[Path, Path]) -> Study:
    settings = {"model": str(checkpoint), "task": str(task_files[0]), "basis": "mlp_neurons", "examples": 4}
    return make_study({**settings, "eval_examples": 4, "resamples": 100})


def earlier(study: Study, finished: bool) -> dict[str, Any]:
    """What the version before layouts were counted wrote: bases by task and text in one, and one metric."""
    settings = {**study.model_dump(mode="json"), "metric": study.metric[0]}
    return {
        "study": settings, "key": "0123456789abcdef", "inputs": {"torch": "2"}, "finished": finished,
        "provenance": {"model_commit": None}, "bases": {"saw/mlp_neurons": {"sites": ["blocks.0.mlp.hook_post"], "widths": [24]}},
    }  # fmt: skip


@pytest.mark.parametrize("finished", [True, False])
def test_a_study_of_an_earlier_layout_is_refused_finished_or_not(study: Study, finished: bool, tmp_path: Path) -> None:
    text = json.dumps(earlier(study, finished))
    (tmp_path / "study.json").write_text(text)
    for use in (lambda: nvs.load(tmp_path), lambda: finishing.report(tmp_path), lambda: nvs.compare(study, tmp_path)):
        with pytest.raises(
            FolderError,
            match=rf"study.json was written by an earlier version of neuron_vs_sae \(layout 1 of .* layout {LAYOUT}\)",
        ):
            use()
    with pytest.raises(FolderError, match=r"choose another folder \(--out\), or pass --overwrite"):
        nvs.compare(study, tmp_path)
    assert (tmp_path / "study.json").read_text() == text


def test_a_later_layout_is_refused_and_not_called_damaged(study: Study, tmp_path: Path) -> None:
    (tmp_path / "study.json").write_text(json.dumps({**earlier(study, True), "layout": LAYOUT + 1}))
    with pytest.raises(FolderError, match=f"a later version of neuron_vs_sae .layout {LAYOUT + 1} "):
        nvs.load(tmp_path)


def test_an_earlier_layout_is_replaced_where_that_is_asked_for(study: Study, tmp_path: Path) -> None:
    (tmp_path / "study.json").write_text(json.dumps(earlier(study, True)))
    found = nvs.compare(study, tmp_path, overwrite=True)
    assert found.record["layout"] == LAYOUT
    assert found.record["bases"]["saw"]["mlp_neurons"]["widths"] == [24, 24]
