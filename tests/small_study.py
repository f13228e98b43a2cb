"""Small studies of a toy: their sizes, what their folders hold, and how one is interrupted."""

from pathlib import Path

import pytest

from neuron_vs_sae.running import runner
from neuron_vs_sae.studies.cells import CellFiles, Step

SIZES = (0, 1, 5)
N_EVAL = 6


def curves_of(folder: Path) -> bytes:
    return (folder / "curves.parquet").read_bytes()


def left_over(folder: Path) -> list[str]:
    return [str(f.relative_to(folder)) for f in folder.rglob("*.partial")]


def interrupt(monkeypatch: pytest.MonkeyPatch, error: BaseException, after: int = 1) -> list[str]:
    """Raise in the step after `after` of them; returns the names of those begun."""
    begun: list[str] = []
    compute = runner.compute_step

    def breaking(step: Step, place: CellFiles) -> None:
        if len(begun) == after:
            raise error
        begun.append(step.name)
        compute(step, place)

    monkeypatch.setattr(runner, "compute_step", breaking)
    return begun
