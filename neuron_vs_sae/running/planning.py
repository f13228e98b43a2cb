"""What a study runs, made and checked before anything long runs: its model, tasks, bases and every discovery."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from neuron_vs_sae.analyses.circuits.options import EvaluationOptions
from neuron_vs_sae.analyses.circuits.roles import n_candidates
from neuron_vs_sae.catalog.dictionaries.streaming import Shelf
from neuron_vs_sae.core.basis import Basis
from neuron_vs_sae.core.building import check_bos, check_positions, layouts
from neuron_vs_sae.core.conventions import ErrorPolicy
from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.core.lookup import bound, takes
from neuron_vs_sae.core.pairs import PromptPairs
from neuron_vs_sae.core.sizes import size_grid
from neuron_vs_sae.models.loading import load_model
from neuron_vs_sae.running.machine import Machine
from neuron_vs_sae.statistics.resampling import Groups, groups_of
from neuron_vs_sae.studies.study import Study, looks_like_file


@dataclass(frozen=True, eq=False)
class Task:
    """A task under one seed: its name, the discovery pairs that the seed drew, and the evaluation pairs of all seeds."""

    name: str
    seed: int
    discovery: PromptPairs
    evaluation: PromptPairs
    split_by: str


@dataclass(frozen=True, eq=False)
class Cell:
    """One discovery (task x seed x basis x method) and the curves that judge it."""

    task: Task
    basis_text: str
    basis: Basis
    method: str

    @property
    def names(self) -> dict[str, Any]:
        """What tells it from the study's other discoveries, by the names of the columns."""
        return {"task": self.task.name, "basis": self.basis_text, "method": self.method, "seed": self.task.seed}

    @property
    def label(self) -> str:
        return "/".join(map(str, self.names.values()))

    @property
    def file(self) -> str:
        return hashlib.sha256(self.label.encode()).hexdigest()[:16]


def load_model_for(study: Study, machine: Machine) -> Any:
    """The study's model. Raises `InputError` for a device that is not there, or a model that cannot be loaded."""
    return load_model(
        study.model,
        dtype=study.dtype,
        device=machine.device,
        backend=study.backend,
        revision=study.revision,
        process_weights=study.process_weights,
        trust_remote_code=machine.trust_remote_code,
        n_devices=machine.n_devices,
    )


def load_tasks(study: Study, model: Any) -> list[Task]:
    """Discovery and evaluation pairs of every task and seed: the evaluation pairs are the first seed's, for all seeds.

    Raises `InputError` where they overlap, or are too few, or where a seed's words lie at other tokens than the first's.
    """
    tasks = [_of_seeds(study, model, i, text) for i, text in enumerate(study.task)]
    names = [first.name for first, *_ in tasks]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"two tasks are called {twice[0]!r} (a file's name without its ending): rename one file")
    return [task for of_one in tasks for task in of_one]


def _of_seeds(study: Study, model: Any, i: int, text: str) -> list[Task]:
    """The study's i-th task under every seed."""
    first = study.seed[0]
    brings_its_own = not looks_like_file(text) and takes("tasks", text, "part")
    if study.eval_task or brings_its_own:
        theirs = study.eval_task[i] if study.eval_task else text
        split_by = "file" if study.eval_task else "task"
        drawn = [_pairs(study, model, text, "discovery", seed) for seed in study.seed]
        evaluation = _pairs(study, model, theirs, "evaluation", first).sample(study.eval_examples, first)
        found = [pairs.sample(study.examples, seed) for pairs, seed in zip(drawn, study.seed, strict=True)]
        shared = max(evaluation.overlap(discovery) for discovery in found)
        if shared and not study.allow_overlap:
            raise InputError(
                f"{shared} of {len(evaluation)} evaluation pairs of {theirs} share a prompt with the discovery "
                f"pairs of {text}: what is found would be judged on what it was found on. Use other files, let one file "
                "be split (no --eval-task), or pass --allow-overlap"
            )
    else:
        split_by = study.split_by
        pairs = _pairs(study, model, text, "discovery", first)
        n = study.examples, study.eval_examples
        halves = [pairs.split(*n, seed=first, by=split_by, discovery_seed=seed) for seed in study.seed]
        evaluation, found = halves[0][1], [discovery for discovery, _ in halves]
    _check_layouts(study, model, found)
    return [Task(pairs.name, seed, pairs, evaluation, split_by) for seed, pairs in zip(study.seed, found, strict=True)]


def _check_layouts(study: Study, model: Any, found: list[PromptPairs]) -> None:
    """Where the first seed's prompts all have their words at the same tokens, so must every other seed's: a generated
    task draws its candidates, and with them its layout, by seed."""
    if len(found) == 1 or study.positions == "pooled":
        return
    first, *others = (set(layouts(model.tokenizer, pairs.clean_text)) for pairs in found)
    for seed, theirs in zip(study.seed[1:], others, strict=True):
        if len(first) == 1 and theirs != first:
            raise InputError(
                f"under seed {seed} the words of task '{found[0].name}' lie at other tokens than under seed {study.seed[0]}, so a "
                "position would not mean the same: choose another seed, or --positions pooled"
            )


def _pairs(study: Study, model: Any, text: str, part: Literal["discovery", "evaluation"], seed: int) -> PromptPairs:
    """A task's pairs, identical ones once: a prompt counted twice would make intervals too narrow."""
    if looks_like_file(text):
        made = bound("tasks", "from_file", path=text, prepend_bos=study.prepend_bos)(model)
    else:
        n = study.examples if part == "discovery" else study.eval_examples
        made = bound("tasks", text, prepend_bos=study.prepend_bos, seed=seed, part=part, n=n)(model)
    return made.deduplicated()


def plan(study: Study, model: Any, tasks: list[Task], machine: Machine) -> Iterator[Cell]:
    """Every discovery of the study, with bases built and sizes, methods and lengths checked: nothing long has run."""
    built: dict[tuple[str, Task | None], Basis] = {}
    given: dict[str, Any] = {"batch_size": machine.batch_size}
    if machine.max_memory is not None:
        given["shelf"] = Shelf(machine.max_memory)
    for task in tasks:
        _check_prompts(study, task, model)
        draw_groups(study, task)
        for text in study.basis:
            key = (text, task if takes("bases", text, "prompts") else None)
            if key not in built:
                built[key] = bound("bases", text, prompts=task.discovery, **given)(model)
            basis = built[key]
            positions = None if study.positions == "pooled" else task.evaluation.positions
            for errors in study.errors:
                total = n_candidates(basis, positions, errors)
                size_grid(study.sizes, total, total, text)
            for method in study.method:
                bound("attribution", method, seed=task.seed)
                yield Cell(task, text, basis, method)


def draw_groups(study: Study, task: Task) -> Groups:
    """How the task's evaluation prompts are drawn again. Raises `InputError` for a tag that cannot say so."""
    return groups_of(task.evaluation.tags, study.cluster_by, study.stratify_by, task.name)


def _check_prompts(study: Study, task: Task, model: Any) -> None:
    for pairs in (task.discovery, task.evaluation):
        check_bos(model.tokenizer, pairs)
        check_positions(pairs, study.positions)
        if pairs.positions > model.cfg.n_ctx:
            longest = pairs.clean_text[int(pairs.length.argmax())]
            raise InputError(
                f"task '{task.name}' has a prompt of {pairs.positions} tokens, and the model is loaded for at most {model.cfg.n_ctx}: "
                f"leave it out ({longest[:60]!r}...)"
            )
    lengths = task.discovery.positions, task.evaluation.positions
    if study.mean_source == "discovery" and "mean" in study.ablation and lengths[0] != lengths[1]:
        raise InputError(
            f"ablation 'mean' would average discovery prompts of {lengths[0]} tokens, position by position, for evaluation "
            f"prompts of {lengths[1]} (task '{task.name}'): use --ablation mean_global or --mean-source evaluation"
        )
    if study.positions == "separate" and lengths[0] != lengths[1]:
        raise InputError(
            f"the discovery prompts of task '{task.name}' have {lengths[0]} tokens and its evaluation prompts {lengths[1]}; with "
            "separate positions a node is a unit at one position, so both need one length. Use prompts of one length, or "
            "--positions pooled"
        )


def options_for(study: Study, task: Task, ablation: str, errors: ErrorPolicy) -> EvaluationOptions:
    """How the task's circuits are judged under one ablation and error policy."""
    return EvaluationOptions(
        sizes=study.sizes,
        metrics=(study.metric,),
        ablation=ablation,
        errors=errors,
        rank_by=study.rank_by,
        source=task.discovery if study.mean_source == "discovery" else None,
        seed=task.seed,
        measure_change=True,
    )
