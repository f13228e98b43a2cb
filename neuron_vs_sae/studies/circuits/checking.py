"""What circuits require of a study's pairs and settings, checked before anything long runs."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

from neuron_vs_sae.core.building import check_positions, layouts
from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.core.lookup import bound, parse
from neuron_vs_sae.studies.circuits.sizes import choice_of, index_of
from neuron_vs_sae.studies.loaded import Loaded, Task
from neuron_vs_sae.studies.study import Study

NODE_BY_NODE = ("activation_patching",)
"""Methods that run the model once per node, without gradients: too dear to try out, and there is no metric that they cannot explain."""


def check_tasks(study: Study, model: Any, tasks: Sequence[Task]) -> None:
    """Raises `InputError` for prompts on which a node would not mean the same everywhere."""
    for _, seeds in groupby(tasks, key=lambda task: task.text):
        check_layouts(study, model, list(seeds))
    for task in tasks:
        for pairs in (task.discovery, task.evaluation):
            check_positions(pairs, study.positions)
        _check_lengths(study, task)


def check_layouts(study: Study, model: Any, tasks: Sequence[Task]) -> None:
    """Raises `InputError` where the first seed's prompts all have their words at the same tokens and another seed's do not: a
    generated task draws its candidates, and with them its layout, by seed."""
    if len(tasks) == 1 or study.positions == "pooled":
        return
    first, *others = (set(layouts(model.tokenizer, task.discovery.clean_text)) for task in tasks)
    for task, places in zip(tasks[1:], others, strict=True):
        if len(first) == 1 and places != first:
            raise InputError(
                f"under seed {task.seed} the words of task '{task.name}' lie at other tokens than under seed {tasks[0].seed}, so a "
                "position would not mean the same: choose another seed, or --positions pooled"
            )


def check(loaded: Loaded[Study]) -> None:
    """Raises `InputError` for a size beyond a basis, a method with an option that it does not have, or a metric that the method
    cannot explain."""
    study = loaded.spec
    for task in loaded.tasks:
        for text in study.basis:
            if (task, text) not in loaded.bases:
                continue  # no cell at hand needs it
            basis = loaded.basis(task, text)
            for errors in study.errors:
                choice_of(study, text, basis, index_of(study, basis, task.evaluation), errors)
        for method in study.method:
            _check_method(loaded, task, method)


def _check_method(loaded: Loaded[Study], task: Task, method: str) -> None:
    """Have the method score one pair at one site, which costs a pass or two, so that what it refuses is refused now."""
    study = loaded.spec
    attribute = bound("attribution", method, seed=task.seed)
    if parse("attribution", method).name in NODE_BY_NODE:
        return
    basis = next(basis for (of_task, _), basis in loaded.bases.items() if of_task is task)
    one_site = replace(basis, sites=basis.sites[-1:], dictionaries=basis.dictionaries[-1:])
    attribute(
        loaded.model, one_site, task.discovery.take([0]), study.explained_metric, pairing=study.pairing, positions=study.positions,
        batch_size=loaded.batch_size,
    )  # fmt: skip


def _check_lengths(study: Study, task: Task) -> None:
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
