"""What an analysis provides to the frame that runs every study (`running/runner.py`)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from neuron_vs_sae.core.basis import Basis
from neuron_vs_sae.studies.cells import Cell, CellFiles, Step
from neuron_vs_sae.studies.loaded import Loaded, Task
from neuron_vs_sae.studies.spec import CommonSpec

S = TypeVar("S", bound=CommonSpec)


def nothing_to_check(*_: Any) -> None:
    """An analysis without checks of its own."""


def no_limits(*_: Any) -> list[str]:
    """Nothing is known beforehand that the study could not decide."""
    return []


def no_facts(*_: Any) -> dict[str, Any]:
    """An analysis that adds nothing to the record of a basis."""
    return {}


@dataclass(frozen=True, kw_only=True)
class Analysis(Generic[S]):
    """A question asked of several bases: its settings, its cells, what a cell computes, and how finished cells are put together.

    The frame does the rest: identity, provenance, checks of model, pairs and bases, resuming, locking, atomic writes,
    progress, loading. Its report is a function of the report room, named in the table `running/analyses.py`.
    """

    spec: type[S]
    """Its settings."""
    files: tuple[str, ...]
    """The files of a finished folder beside `study.json`."""
    cells: Callable[[S], tuple[Cell, ...]]
    """The study's cells, from its settings alone."""
    steps: Callable[[Loaded[S], Cell], Sequence[Step]]
    """What one cell computes, in order."""
    assemble: Callable[[Loaded[S], Mapping[Cell, CellFiles], Path], None]
    """Write the finished cells' contents into the folder, in the order of the settings."""
    load: Callable[[Path], Any]
    """The result in a finished folder; it has a `folder` and a `record`. Raises `FolderError` where it is damaged."""
    summarise: Callable[[Any], None]
    """Write into a result's folder what is derived from its values: summaries and verdicts."""
    seconds: Callable[[Loaded[S], Sequence[Cell]], float]
    """How long these cells will take on this machine, from a miniature."""
    check_tasks: Callable[[S, Any, Sequence[Task]], None] = nothing_to_check
    """Raises `InputError` for pairs (of a model) that the analysis cannot take, before bases are built."""
    check: Callable[[Loaded[S]], None] = nothing_to_check
    """Raises `InputError` for anything else that the analysis cannot take, before anything long runs."""
    limits: Callable[[Loaded[S]], Sequence[str]] = no_limits
    """What the study can and cannot decide, a sentence each, known from its pairs and settings before it runs."""
    facts: Callable[[Loaded[S], Basis], dict[str, Any]] = no_facts
    """What the analysis adds to the record of a basis."""
