"""`nvs check`: everything that can be wrong is looked at, and what the study will cost is measured in miniature."""

import resource
from dataclasses import dataclass
from typing import Any

import torch

from neuron_vs_sae.catalog.dictionaries.diagnosis import reconstruction
from neuron_vs_sae.core.building import listed
from neuron_vs_sae.core.metric import Target, resolve
from neuron_vs_sae.core.pairs import PromptPairs
from neuron_vs_sae.execution.splice import run
from neuron_vs_sae.running import cost as foretell
from neuron_vs_sae.running.machine import Machine
from neuron_vs_sae.running.planning import Cell, Task, load_model_for, load_tasks, plan
from neuron_vs_sae.studies.study import Study


@dataclass(frozen=True)
class Report:
    """What a study is made of and what it will cost: rows for people, and the same as plain data.

    `seconds` is scaled up from a timed miniature. `peak_gib` is the miniature's own: it runs whole batches through the same
    models and dictionaries, so the study takes about as much.
    """

    model: dict[str, Any]
    tasks: list[dict[str, Any]]
    bases: list[dict[str, Any]]
    seconds: float
    peak_gib: float


def check(study: Study, machine: Machine | None = None) -> Report:
    """Load and validate all of the study, measure a miniature of it, and run nothing else.

    Raises `InputError` for the first thing that is wrong.
    """
    machine = machine or Machine()
    model = load_model_for(study, machine)
    tasks = load_tasks(study, model)
    cells = list(plan(study, model, tasks, machine))
    seen: dict[tuple[str, str], dict[str, Any]] = {}
    for cell in cells:
        if cell.task.seed != study.seed[0]:
            continue  # costs what the first seed does
        if (cell.task.name, cell.basis_text) not in seen:
            seen[cell.task.name, cell.basis_text] = describe_basis(model, cell)
    return Report(
        model={
            "name": model.cfg.model_name,
            "layers": model.cfg.n_layers,
            "parameters": sum(p.numel() for p in model.parameters()),
            "device": str(next(model.parameters()).device),
            "dtype": str(model.cfg.dtype).removeprefix("torch."),
        },
        tasks=[describe_task(model, task, study) for task in tasks if task.seed == study.seed[0]],
        bases=list(seen.values()),
        seconds=foretell.seconds(study, model, cells, machine),
        peak_gib=peak_gib(next(model.parameters()).device),
    )


def peak_gib(device: torch.device) -> float:
    """The most memory that has been taken so far: of the GPU where the model is on one, else of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def describe_task(model: Any, task: Task, study: Study) -> dict[str, Any]:
    """Sizes, and how well the model does: the share of pairs whose answer beats its foil on both prompts."""
    pairs = task.evaluation
    clean, corrupt = margins(model, pairs)
    return {
        "task": task.name,
        "discovery": len(task.discovery),
        "evaluation": len(pairs),
        "tokens": pairs.positions,
        "bos": study.prepend_bos,
        "accuracy": float(((clean > 0) & (corrupt < 0)).double().mean()),
        "clean": float(clean.mean()),
        "corrupt": float(corrupt.mean()),
        "dropped": listed(task.discovery.dropped),
    }


def margins(model: Any, pairs: PromptPairs) -> tuple[torch.Tensor, torch.Tensor]:
    """The logit difference (answer over foil) of every pair's clean and corrupt prompt."""
    found: list[list[torch.Tensor]] = [[], []]
    for batch in pairs.batches(64):
        for into, tokens in zip(found, (batch.clean, batch.corrupt), strict=True):
            logits = run(model, tokens, batch.length)
            target = Target(batch.answer, batch.foil, lambda logits=logits: logits)
            into.append(resolve("logit_difference")(logits, target))
    return torch.cat(found[0]), torch.cat(found[1])


def describe_basis(model: Any, cell: Cell) -> dict[str, Any]:
    """Sites, widths, and on the task's own prompts the active units and the explained variance of every site."""
    basis = cell.basis
    found = reconstruction(model, basis, cell.task.discovery)
    return {
        "task": cell.task.name,
        "basis": cell.basis_text,
        "sites": [site.name for site in basis.sites],
        "width": [d.width for d in basis.dictionaries],
        "active": found.active,
        "explained_variance": found.explained,
    }
