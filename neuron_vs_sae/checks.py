"""`nvs check`: everything that can be wrong is looked at, and what the study will cost is measured in miniature."""

import resource
from dataclasses import dataclass
from typing import Any

import torch

from neuron_vs_sae import foretell
from neuron_vs_sae.comparison import Cell, Machine, Task, load_model_for, load_tasks, plan
from neuron_vs_sae.diagnosis import explained_variance, refuse_what_does_not_belong
from neuron_vs_sae.errors import InputError
from neuron_vs_sae.metric import Target, resolve
from neuron_vs_sae.pairs import PromptPairs, listed
from neuron_vs_sae.splice import read, run
from neuron_vs_sae.study import Study


@dataclass(frozen=True)
class Report:
    """What a study is made of and what it will cost: rows for people, and the same as plain data."""

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
        tasks=[describe_task(model, task, study) for task in tasks],
        bases=list(seen.values()),
        seconds=foretell.seconds(study, model, cells, machine),
        peak_gib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    )


def describe_task(model: Any, task: Task, study: Study) -> dict[str, Any]:
    """Sizes, and how well the model does: the share of pairs whose answer beats its foil on both prompts."""
    pairs = task.evaluation
    check_bos(model, task.discovery)
    check_bos(model, pairs)
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


def check_bos(model: Any, pairs: PromptPairs) -> None:
    """Raises `InputError` for prompts that hold BOS more than once, as a second one inside the text would."""
    tokenizer = getattr(model, "tokenizer", None)
    if not pairs.bos or tokenizer is None or tokenizer.bos_token_id is None:
        return
    for tokens, texts in ((pairs.clean, pairs.clean_text), (pairs.corrupt, pairs.corrupt_text)):
        times = ((tokens == tokenizer.bos_token_id) & pairs.real).sum(1)
        wrong = (times != 1).nonzero().flatten().tolist()
        if wrong:
            raise InputError(
                f"the prompt {texts[wrong[0]]!r} of task '{pairs.name}' holds BOS ({tokenizer.bos_token!r}) {int(times[wrong[0]])} "
                "times: it is put before every prompt, once, so leave it out of the text"
            )


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
    basis, pairs = cell.basis, cell.task.discovery.take(range(min(32, len(cell.task.discovery))))
    values = read(model, pairs.clean, pairs.length, basis.hooks)
    features = basis.features(values)
    explained = [
        explained_variance(site.view(values[site.writes]), error, pairs)
        for site, error in zip(basis.sites, features.errors, strict=True)
    ]
    refuse_what_does_not_belong(model, basis, explained, pairs)
    active = [float((units != 0).sum(-1).double().mean()) for units in features.units]
    return {
        "task": cell.task.name,
        "basis": cell.basis_text,
        "sites": [site.name for site in basis.sites],
        "width": [d.width for d in basis.dictionaries],
        "active": active,
        "explained_variance": explained,
    }
