"""A study's settings and everything that they name, loaded: what an analysis computes from."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from neuron_vs_sae.core.basis import Basis
from neuron_vs_sae.core.conventions import Engine
from neuron_vs_sae.core.pairs import PromptPairs
from neuron_vs_sae.studies.spec import CommonSpec

S = TypeVar("S", bound=CommonSpec)


@dataclass(frozen=True, eq=False)
class Task:
    """A task under one seed: how the study writes it, its name, the discovery pairs that the seed drew, and the evaluation
    pairs of all seeds."""

    text: str
    name: str
    seed: int
    discovery: PromptPairs
    evaluation: PromptPairs
    split_by: str


@dataclass(frozen=True, eq=False)
class Loaded(Generic[S]):
    """A study whose model, pairs and bases are loaded and checked; `batch_size` and `engine` change numbers by rounding only.

    `bases` has a basis per task (under a seed; None in a study without tasks) and text: one that is not fitted to prompts is
    the same object for all of them.
    """

    spec: S
    model: Any
    tasks: tuple[Task, ...]
    bases: Mapping[tuple[Task | None, str], Basis]
    batch_size: int
    engine: Engine

    def task(self, text: str, seed: int) -> Task:
        """The task that the study writes so, under that seed. Raises `KeyError` where it is not loaded."""
        for task in self.tasks:
            if (task.text, task.seed) == (text, seed):
                return task
        raise KeyError(f"task {text!r} under seed {seed} is not loaded")

    def basis(self, task: Task | None, text: str) -> Basis:
        """The basis of that text on that task. Raises `KeyError` where it is not loaded."""
        return self.bases[task, text]
