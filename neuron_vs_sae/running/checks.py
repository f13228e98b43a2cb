"""`nvs check`: validates everything about a study and measures its cost in miniature."""

import resource
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from neuron_vs_sae.catalog.dictionaries.diagnosis import reconstruction
from neuron_vs_sae.core.basis import Basis
from neuron_vs_sae.core.building import listed
from neuron_vs_sae.core.errors import FolderError
from neuron_vs_sae.core.metric import Target, resolve
from neuron_vs_sae.core.pairs import PromptPairs
from neuron_vs_sae.execution.splice import run
from neuron_vs_sae.running.analyses import analysis_called
from neuron_vs_sae.running.machine import Machine
from neuron_vs_sae.running.planning import load_study
from neuron_vs_sae.running.provenance import identify, resumable
from neuron_vs_sae.studies.loaded import Task
from neuron_vs_sae.studies.spec import CommonSpec


@dataclass(frozen=True)
class Report:
    """What a study is made of, what it cannot decide and what it will cost, as plain data.

    `limits` are sentences, none where every question of the study can be answered; `folder` is one on what `--out` already
    holds, empty where that is nothing.
    `seconds` is scaled up from a timed miniature. `peak_gib` is the miniature's own peak: it runs whole batches through the same
    model and dictionaries, so the study takes about as much.
    """

    model: dict[str, Any]
    tasks: list[dict[str, Any]]
    bases: list[dict[str, Any]]
    limits: list[str]
    folder: str
    seconds: float
    peak_gib: float


def check(study: CommonSpec, machine: Machine | None = None, out: Path | str | None = None) -> Report:
    """Load and validate all of a study, of whichever analysis, measure a miniature of it, and run nothing else.

    The folder `out` is looked at and not touched. Raises `InputError` for the first thing that is wrong.
    """
    machine = machine or Machine()
    analysis = analysis_called(study.analysis)
    loaded = load_study(analysis, study, machine)
    model = loaded.model
    # Another seed costs what the first does.
    of_first_seed = {
        key: basis for key, basis in loaded.bases.items() if key[0] is None or key[0].seed == study.seed[0]
    }
    return Report(
        model={
            "name": model.cfg.model_name,
            "layers": model.cfg.n_layers,
            "parameters": count_parameters(model),
            "device": str(next(model.parameters()).device),
            "dtype": str(model.cfg.dtype).removeprefix("torch."),
        },
        tasks=[describe_task(model, task, study) for task in loaded.tasks if task.seed == study.seed[0]],
        bases=[
            describe_basis(model, task, text, basis, strict=not study.accept_poor_sae)
            for (task, text), basis in of_first_seed.items()
        ],
        limits=list(analysis.limits(loaded)),
        folder="" if out is None else state_of(Path(out), study),
        seconds=analysis.seconds(loaded, analysis.cells(study)),
        peak_gib=peak_gib(next(model.parameters()).device),
    )


def state_of(folder: Path, study: CommonSpec) -> str:
    """What running the study into the folder would meet there, as a sentence; empty where it would begin anew."""
    try:
        record = resumable(folder, study, identify(study), analysis_called(study.analysis).files)
    except FolderError as error:
        return str(error)
    if record is None:
        return ""
    if record["finished"]:
        return f"{folder} holds this study, finished: the same command loads it"
    return f"{folder} holds this study, unfinished: the same command goes on with it"


def count_parameters(model: Any) -> int:
    """As transformers counts them, tied weights once; of a model that was not loaded through it, those of its own tensors."""
    published = getattr(model, "n_parameters", None)
    return sum(p.numel() for p in model.parameters()) if published is None else int(published)


def peak_gib(device: torch.device) -> float:
    """The most memory taken so far: on the GPU, if the model is on one, else by the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def describe_task(model: Any, task: Task, study: CommonSpec) -> dict[str, Any]:
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


def margins(model: Any, pairs: PromptPairs) -> tuple[Float[Tensor, " batch"], Float[Tensor, " batch"]]:
    """The logit difference (answer over foil) of every pair's clean and corrupt prompt."""
    clean: list[Tensor] = []
    corrupt: list[Tensor] = []
    for batch in pairs.batches(64):
        for values, tokens in ((clean, batch.clean), (corrupt, batch.corrupt)):
            logits = run(model, tokens, batch.length)
            target = Target(batch.answer, batch.foil, lambda logits=logits: logits)
            values.append(resolve("logit_difference")(logits, target))
    return torch.cat(clean), torch.cat(corrupt)


def describe_basis(model: Any, task: Task | None, text: str, basis: Basis, *, strict: bool = True) -> dict[str, Any]:
    """Sites, widths, and on the task's own prompts (where there are some) the active units and the explained variance of
    every site."""
    seen = None if task is None else reconstruction(model, basis, task.discovery, strict=strict)
    return {
        "task": "" if task is None else task.name,
        "basis": text,
        "sites": [site.name for site in basis.sites],
        "width": [dictionary.width for dictionary in basis.dictionaries],
        "active": None if seen is None else seen.active,
        "explained_variance": None if seen is None else seen.explained,
    }
