"""What a study runs on, loaded and checked before anything long runs: its model, the pairs of its tasks, its bases."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from neuron_vs_sae.catalog.dictionaries.streaming import Shelf
from neuron_vs_sae.core.basis import Basis
from neuron_vs_sae.core.building import check_bos
from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.core.lookup import bound, takes
from neuron_vs_sae.execution.memory import free_memory
from neuron_vs_sae.models.loading import load_model, prepare
from neuron_vs_sae.models.presets import same_model
from neuron_vs_sae.running.machine import Machine
from neuron_vs_sae.running.tasks import load_tasks
from neuron_vs_sae.statistics.resampling import clusters_of
from neuron_vs_sae.studies.analysis import Analysis
from neuron_vs_sae.studies.cells import Cell
from neuron_vs_sae.studies.loaded import Loaded, Task
from neuron_vs_sae.studies.spec import CommonSpec, S


def load_study(
    analysis: Analysis[S], spec: S, machine: Machine, *, cells: Sequence[Cell] | None = None, model: Any = None
) -> Loaded[S]:
    """The study, loaded and checked: all of it, or what these cells need. Nothing long is run.

    `model` is an already loaded one to use instead of loading the study's. Raises `InputError` for the first thing that
    is wrong.
    """
    cells = analysis.cells(spec) if cells is None else cells
    texts = [text for text in spec.task if any(cell.get("task") in (None, text) for cell in cells)]
    model = load_model_for(spec, machine) if model is None else given_model(spec, model)
    tasks = tuple(load_tasks(spec, model, texts))
    for task in tasks:
        _check_prompts(spec, task, model)
    analysis.check_tasks(spec, model, tasks)
    loaded = Loaded(
        spec=spec,
        model=model,
        tasks=tasks,
        bases=_load_bases(spec, model, tasks, cells, machine),
        batch_size=machine.batch_size,
        engine=machine.engine,
    )
    analysis.check(loaded)
    return loaded


def load_model_for(spec: CommonSpec, machine: Machine) -> Any:
    """The study's model. Raises `InputError` for a device that is not there, or a model that cannot be loaded."""
    return load_model(
        spec.model,
        dtype=spec.dtype,
        device=machine.device,
        backend=spec.backend,
        revision=spec.revision,
        process_weights=spec.process_weights,
        trust_remote_code=machine.trust_remote_code,
        n_devices=machine.n_devices,
    )


def given_model(spec: CommonSpec, model: Any) -> Any:
    """The caller's model, prepared. Raises `InputError` where it is not the study's."""
    name, dtype = Path(spec.model).name, str(model.cfg.dtype).removeprefix("torch.")
    if not same_model(name, str(model.cfg.model_name)) or dtype != spec.dtype:
        raise InputError(
            f"the study's model is {spec.model!r} in {spec.dtype}, and the one given is '{model.cfg.model_name}' in {dtype}: "
            "give the study's, or none to have it loaded"
        )
    return prepare(model)


def _load_bases(
    spec: CommonSpec, model: Any, tasks: Sequence[Task], cells: Sequence[Cell], machine: Machine
) -> dict[tuple[Task | None, str], Basis]:
    """A basis per task and text that the cells need; one that is not fitted to a task's prompts is made once."""
    given: dict[str, Any] = {"batch_size": machine.batch_size, "shelf": Shelf(machine.max_memory)}
    fitted_bases: dict[tuple[Task | None, str], Basis] = {}
    bases: dict[tuple[Task | None, str], Basis] = {}
    for task in tasks or (None,):
        for text in spec.basis:
            if not any(_needs(cell, task, text) for cell in cells):
                continue
            fitted = task if takes("bases", text, "prompts") else None
            if (fitted, text) not in fitted_bases:
                prompts = {} if task is None else {"prompts": task.discovery}
                fitted_bases[fitted, text] = bound("bases", text, **prompts, **given)(model)
            bases[task, text] = fitted_bases[fitted, text]
    return bases


def _needs(cell: Cell, task: Task | None, text: str) -> bool:
    of_task = task is None or (cell.get("task") in (None, task.text) and cell.get("seed") in (None, task.seed))
    return of_task and cell.get("basis") in (None, text)


def _check_prompts(spec: CommonSpec, task: Task, model: Any) -> None:
    """Raises `InputError` for prompts that the model cannot read, or a tag that does not say how to resample them."""
    for pairs in (task.discovery, task.evaluation):
        check_bos(model.tokenizer, pairs)
        if pairs.positions > model.cfg.n_ctx:
            longest = pairs.clean_text[int(pairs.length.argmax())]
            raise InputError(
                f"task '{task.name}' has a prompt of {pairs.positions} tokens, and the model is loaded for at most {model.cfg.n_ctx}: "
                f"leave it out ({longest[:60]!r}...)"
            )
        largest = max(int(x.max()) for x in (pairs.clean, pairs.corrupt, pairs.answer, pairs.foil))
        if largest >= model.cfg.d_vocab:
            raise InputError(
                f"task '{task.name}' has a token of number {largest} ({model.tokenizer.convert_ids_to_tokens(largest)!r}), and the model's "
                f"vocabulary ends at {model.cfg.d_vocab - 1}: its tokenizer has tokens that the model was not given. Leave out what holds it"
            )
    clusters_of(task.evaluation.tags, spec.cluster_by, spec.stratify_by, task.name)
    _check_room(spec, len(task.evaluation))


def _check_room(spec: CommonSpec, prompts: int) -> None:
    """Raises `InputError` for more resamples or sign flips than memory holds: some three numbers of each per prompt, and one per size."""
    for name, drawn in (("resamples", spec.resamples), ("sign_flips", spec.sign_flips)):
        needed, free = 8 * drawn * (3 * prompts + 100), free_memory(torch.device("cpu"))
        if needed > free:
            raise InputError(
                f"{drawn:,} {name.replace('_', ' ')} (--{name.replace('_', '-')}) of {prompts} prompts take about {needed / 2**30:,.0f} GiB, "
                f"and {free / 2**30:.0f} are free: ask for {max(1000, int(free / 16 / (3 * prompts + 100))):,} or fewer"
            )
