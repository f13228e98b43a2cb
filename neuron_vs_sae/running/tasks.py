"""The pairs of a study's tasks, drawn by seed and split into discovery and evaluation."""

from collections.abc import Sequence
from typing import Any, Literal

from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.core.lookup import bound, takes
from neuron_vs_sae.core.pairs import PromptPairs
from neuron_vs_sae.studies.loaded import Task
from neuron_vs_sae.studies.spec import CommonSpec, looks_like_file


def load_tasks(spec: CommonSpec, model: Any, texts: Sequence[str] | None = None) -> list[Task]:
    """Discovery and evaluation pairs of every task (or of the tasks `texts`) under every seed. All seeds share the evaluation
    pairs that the first seed draws.

    Raises `InputError` where they overlap, are too few, or where two tasks have one name.
    """
    wanted = spec.task if texts is None else texts
    by_task = [_of_seeds(spec, model, i, text) for i, text in enumerate(spec.task) if text in wanted]
    names = [first.name for first, *_ in by_task]
    if "all" in names:
        raise InputError("a task is called 'all', which is what the tables call the mean over tasks: rename its file")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"two tasks are called {twice[0]!r} (a file's name without its ending): rename one file")
    return [task for tasks in by_task for task in tasks]


def _of_seeds(spec: CommonSpec, model: Any, i: int, text: str) -> list[Task]:
    """The study's i-th task under every seed."""
    first = spec.seed[0]
    brings_its_own = not looks_like_file(text) and takes("tasks", text, "part")
    if spec.eval_task or brings_its_own:
        held_out = spec.eval_task[i] if spec.eval_task else text
        split_by = "file" if spec.eval_task else "task"
        drawn = [_pairs(spec, model, text, "discovery", seed) for seed in spec.seed]
        evaluation = _pairs(spec, model, held_out, "evaluation", first).sample(spec.eval_examples, first)
        discoveries = [pairs.sample(spec.examples, seed) for pairs, seed in zip(drawn, spec.seed, strict=True)]
        shared = max(evaluation.overlap(discovery) for discovery in discoveries)
        if shared and not spec.allow_overlap:
            raise InputError(
                f"{shared} of {len(evaluation)} evaluation pairs of {held_out} share a prompt with the discovery "
                f"pairs of {text}: what is found would be judged on what it was found on. Use other files, let one file "
                "be split (no --eval-task), or pass --allow-overlap"
            )
    else:
        split_by = spec.split_by
        pairs = _pairs(spec, model, text, "discovery", first)
        n = spec.examples, spec.eval_examples
        halves = [pairs.split(*n, seed=first, by=split_by, discovery_seed=seed) for seed in spec.seed]
        evaluation, discoveries = halves[0][1], [discovery for discovery, _ in halves]
    drawn_by = zip(spec.seed, discoveries, strict=True)
    return [Task(text, pairs.name, seed, pairs, evaluation, split_by) for seed, pairs in drawn_by]


def _pairs(spec: CommonSpec, model: Any, text: str, part: Literal["discovery", "evaluation"], seed: int) -> PromptPairs:
    """A task's pairs without repetitions: a prompt counted twice would make intervals too narrow."""
    if looks_like_file(text):
        pairs = bound("tasks", "from_file", path=text, prepend_bos=spec.prepend_bos)(model)
    else:
        n = spec.examples if part == "discovery" else spec.eval_examples
        pairs = bound("tasks", text, prepend_bos=spec.prepend_bos, seed=seed, part=part, n=n)(model)
    return pairs.deduplicated()
