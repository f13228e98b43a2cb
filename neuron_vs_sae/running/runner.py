"""Runs a study of any analysis into a folder: checked before anything long, computed cell by cell, resumed where it stopped."""

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from neuron_vs_sae.core import files
from neuron_vs_sae.execution.cache import sharing
from neuron_vs_sae.running.analyses import analysis_called, glimpse_of
from neuron_vs_sae.running.describing import describe_bases
from neuron_vs_sae.running.finishing import assembled, finish
from neuron_vs_sae.running.machine import Machine
from neuron_vs_sae.running.planning import load_study
from neuron_vs_sae.running.provenance import (
    check_out,
    check_the_same_commits,
    identify,
    identity,
    provenance,
    resumable,
)
from neuron_vs_sae.studies.analysis import Analysis
from neuron_vs_sae.studies.cells import Cell, CellFiles, Step, cell_named
from neuron_vs_sae.studies.loaded import Loaded
from neuron_vs_sae.studies.record import (
    LAYOUT,
    RECORD,
    UNFINISHED,
    check_no_links,
    clear,
    discard_unfinished,
    unsound,
)
from neuron_vs_sae.studies.spec import CommonSpec

_LOG = logging.getLogger(__name__)
PROGRESS = logging.getLogger("neuron_vs_sae.progress")
"""A debug line per step that was computed, and an info line per cell that says something already."""


def run(
    spec: CommonSpec, out: Path | str, *, machine: Machine | None = None, overwrite: bool = False, model: Any = None
) -> Any:
    """Run the study into the folder `out` and return its result, of the type that its analysis loads.

    A finished study is loaded, not run again; an interrupted one goes on from what it has and ends with the same
    numbers. A file of values that is missing or damaged is computed again, with all others. `model` is an already loaded
    model to use instead of loading the study's.
    Raises `FolderError` when the folder holds another study (unless `overwrite`), is in use, or cannot be written;
    `InputError` for input that is wrong, before anything long starts.
    """
    folder, machine, inputs = Path(out), machine or Machine(), identify(spec)
    analysis = analysis_called(spec.analysis)
    check_out(spec, folder)
    with files.locked(folder):
        begun = None if overwrite else resumable(folder, spec, inputs, analysis.files)
        lost = [] if begun is None else unsound(folder, begun["primary"])
        for name in lost:
            _LOG.warning("%s is missing or damaged: it is computed again", folder / name)
        if begun is None or not begun["primary"] or lost:
            started = time.time()
            loaded = load_study(analysis, spec, machine, model=model)
            record = _record(analysis, loaded, machine, inputs)
            if begun is not None:
                check_the_same_commits(folder, begun, record)
            elif overwrite:
                clear(folder, analysis.files)
            check_no_links(folder)
            files.write_json(folder / RECORD, record)
            places = cell_files(spec, folder, inputs)
            compute_cells(analysis, loaded, places, machine)
            primary = assembled(analysis, loaded, places, folder)
            files.write_json(folder / RECORD, record | {"primary": primary, "seconds": round(time.time() - started, 1)})
        discard_unfinished(folder)
        return finish(spec.analysis, folder)


def compute(
    spec: CommonSpec, cell: Cell | str, out: Path | str, *, machine: Machine | None = None, model: Any = None
) -> CellFiles:
    """Compute one cell of a study alone and return its files: the unit of work that processes or machines can share.

    `cell` is one of `cells(spec)`, its id or its label. Only what it needs is loaded. Its files lie where `run` of the same
    study into the same folder looks for them (those that are there are kept), and hold the same bytes whoever computes
    them, in whatever order, with equal threads and one type of processor. Raises `InputError` for a cell that the study
    does not have, and as `run` does.
    """
    machine, analysis = machine or Machine(), analysis_called(spec.analysis)
    everything = analysis.cells(spec)
    chosen = cell_named(everything, cell) if isinstance(cell, str) else cell_named(everything, cell.id)
    check_out(spec, Path(out))
    place = cell_files(spec, Path(out), identify(spec))[chosen]
    loaded = load_study(analysis, spec, machine, cells=[chosen], model=model)
    compute_cells(analysis, loaded, {chosen: place}, machine)
    return place


def cells(spec: CommonSpec) -> tuple[Cell, ...]:
    """The cells of a study, known from its settings alone."""
    return analysis_called(spec.analysis).cells(spec)


def cell_files(spec: CommonSpec, folder: Path, inputs: dict[str, str]) -> dict[Cell, CellFiles]:
    """Where each cell's files lie until the study is finished: below the identity of the study and of what it reads."""
    unfinished = folder / UNFINISHED / identity(spec, inputs)
    return {cell: CellFiles(unfinished / cell.id) for cell in cells(spec)}


def compute_cells(
    analysis: Analysis[Any], loaded: Loaded[Any], places: Mapping[Cell, CellFiles], machine: Machine
) -> None:
    """Compute the steps of these cells that have not been computed yet, and log what they show (`PROGRESS`)."""
    steps = [(step, cell) for cell in places for step in analysis.steps(loaded, cell)]
    last = {cell: step.name for step, cell in steps}
    glimpse = glimpse_of(loaded.spec.analysis)
    with sharing(loaded.model, machine.cache, machine.cache_limit):
        for done, (step, cell) in enumerate(tqdm(steps, desc=loaded.spec.command, unit="step"), 1):
            place = places[cell]
            if place.has(step.name):
                continue
            compute_step(step, place)
            PROGRESS.debug("%d of %d steps: %s", done, len(steps), cell.label)
            if step.name == last[cell] and (line := glimpse(loaded, cell, place)):
                PROGRESS.info("%s", line)


def compute_step(step: Step, place: CellFiles) -> None:
    """Compute one step and store its outcome."""
    place.write(step.name, step.compute(place))


def _record(analysis: Analysis[Any], loaded: Loaded[Any], machine: Machine, inputs: dict[str, str]) -> dict[str, Any]:
    """`study.json` of a study that begins now. Raises `InputError` for SAEs that are found to belong elsewhere."""
    spec = loaded.spec
    return {
        "layout": LAYOUT,
        "analysis": spec.analysis,
        "study": spec.model_dump(mode="json"),
        "key": spec.key,
        "inputs": inputs,
        "finished": False,
        "primary": {},
        "derived": {},
        "provenance": provenance(spec, loaded.model, machine),
        "bases": describe_bases(analysis, loaded),
    }
