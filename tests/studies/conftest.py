"""A small study of a toy, run without interruption, for all that is asked of a stored result."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_study import N_EVAL, SIZES

import neuron_vs_sae as nvs
from neuron_vs_sae.models.loading import load_model
from neuron_vs_sae.running.comparison import compare
from neuron_vs_sae.studies.study import Study, make_study


@pytest.fixture(scope="session")
def tiny(checkpoint: Path) -> Any:
    return load_model(checkpoint)


@pytest.fixture(scope="session")
def a_study(checkpoint: Path, task_files: tuple[Path, Path], sae_folder: Path) -> Callable[..., Study]:
    """A small study, with any of its settings changed."""
    settings = {
        "model": str(checkpoint), "task": str(task_files[0]), "eval_task": str(task_files[1]), "examples": 8,
        "eval_examples": N_EVAL, "basis": ["mlp_neurons", f"sae:{sae_folder}"], "errors": ["nodes", "ablate"],
        "sizes": [*SIZES, "all"], "resamples": 100,
    }  # fmt: skip
    return lambda **changed: make_study({**settings, **changed})


@pytest.fixture(scope="session")
def fresh(a_study: Callable[..., Study], tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> nvs.Result:
    """That study, run without interruption. Not to be written to."""
    return compare(a_study(), tmp_path_factory.mktemp("fresh") / "results", model=tiny)


@pytest.fixture(scope="session")
def a_small_study(a_study: Callable[..., Study]) -> Callable[..., Study]:
    """One curve of three points, for what has to be run often."""
    return lambda **changed: a_study(**{"basis": "mlp_neurons", "errors": "nodes", "sizes": [1, 5], **changed})


@pytest.fixture(scope="session")
def small(a_small_study: Callable[..., Study], tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> nvs.Result:
    """That one, run without interruption. Not to be written to."""
    return compare(a_small_study(), tmp_path_factory.mktemp("small") / "results", model=tiny)
