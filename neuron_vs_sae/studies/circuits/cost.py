"""How long a study will take: its parts are timed in miniature and multiplied.

Discovery is shared by the bases of a task and method, so it is timed so: on a few pairs and on some more, a line through
the two. A curve is timed at no node, and at every third of its sizes: a run's cost grows with its circuit in the fast engine
and does not in the exact one. All this is done on one task under one ablation, and counted for the others by their tokens.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch

from neuron_vs_sae.analyses.circuits.roles import candidates
from neuron_vs_sae.core.basis import apart, together
from neuron_vs_sae.core.conventions import ErrorPolicy
from neuron_vs_sae.core.curve import Curve
from neuron_vs_sae.core.lookup import bound, find, parse
from neuron_vs_sae.core.nodes import NodeScores
from neuron_vs_sae.core.sizes import size_grid
from neuron_vs_sae.execution.cache import sharing
from neuron_vs_sae.execution.splice import run
from neuron_vs_sae.studies.cells import Cell
from neuron_vs_sae.studies.circuits.judging import curve_labels, evaluation_clusters, judge, options_of
from neuron_vs_sae.studies.circuits.sizes import alike, index_of, sizes_of
from neuron_vs_sae.studies.loaded import Loaded, Task
from neuron_vs_sae.studies.rows import to_rows
from neuron_vs_sae.studies.study import Study
from neuron_vs_sae.studies.summary import summarise

FEW, MORE = 4, 12


def seconds(loaded: Loaded[Study], cells: Sequence[Cell]) -> float:
    """What running the cells will take on this machine, after loading: within a factor of two (`benchmarks/studies.py`)."""
    timed = _Timed(loaded)
    with sharing(loaded.model):
        return sum(timed.cell(loaded.task(str(c["task"]), int(c["seed"])), str(c["method"])) for c in cells)


def batches_seconds(pairs: int, batch_size: int, few: tuple[int, float], more: tuple[int, float]) -> float:
    """Seconds for that many pairs in batches, each by a line through two timed points (pairs, seconds)."""
    each = max(0.0, (more[1] - few[1]) / (more[0] - few[0])) if more[0] > few[0] else few[1] / few[0]
    once = max(0.0, few[1] - each * few[0])
    return -(-pairs // batch_size) * once + pairs * each


def curve_seconds(sizes: int, none: float, some: tuple[int, float]) -> float:
    """Seconds for a curve of so many sizes, given those of a curve of size 0 alone and of one of `some` (sizes, seconds)."""
    return none + max(0.0, some[1] - none) * sizes / some[0]


class _Timed:
    """What has been timed, on the first task that asked."""

    def __init__(self, loaded: Loaded[Study]):
        self.loaded = loaded
        self.known: dict[tuple[Any, ...], float] = {}
        self.rankings: dict[tuple[Any, ...], NodeScores] = {}

    def cell(self, task: Task, method: str) -> float:
        """Seconds for a task, seed and method: discovery once, and the curves of every basis."""
        return self.discovery(task, method) + sum(self.curves(task, text, method) for text in self.loaded.spec.basis)

    def _by_token(self, tokens: int, key: tuple[Any, ...], measure: Callable[[], float]) -> float:
        """The seconds that were measured for that key, once, by the tokens that they were measured on; for so many tokens."""
        if key not in self.known:
            self.known[key] = measure() / tokens
        return self.known[key] * tokens

    def discovery(self, task: Task, method: str) -> float:
        tokens = int(task.discovery.length.sum())
        return self._by_token(tokens, ("discovery", method), lambda: self._discovery(task, method))

    def _discovery(self, task: Task, method: str) -> float:
        pairs, study, batch_size = task.discovery, self.loaded.spec, self.loaded.batch_size
        parts = [self.loaded.basis(task, text) for text in study.basis]
        if parse("attribution", method).name == "activation_patching":
            # One pair of it is a run per node, too long for a miniature: its runs are counted instead.
            few = pairs.take([i % len(pairs) for i in range(batch_size)])
            positions = 1 if study.positions == "pooled" else pairs.positions
            nodes = sum(d.width + 1 for basis in parts for d in basis.dictionaries) * positions
            return _seconds(lambda: run(self.loaded.model, few.clean, few.length)) * len(pairs) * nodes / len(few)
        bases = together(parts)

        def discover(n: int) -> NodeScores:
            some = pairs.take([i % len(pairs) for i in range(n)])
            return bound("attribution", method, seed=task.seed)(
                self.loaded.model, bases, some, study.explained_metric, pairing=study.pairing, positions=study.positions,
                batch_size=n,
            )  # fmt: skip

        n = min(MORE, len(pairs), batch_size)
        for text, scores in zip(study.basis, apart(discover(n), bases), strict=True):  # and everything is warm
            self.rankings[task.name, text, _ranking(method)] = scores
        few, more = _seconds(lambda: discover(min(FEW, n))), _seconds(lambda: discover(n))
        return batches_seconds(len(pairs), batch_size, (min(FEW, n), few), (n, more))

    def curves(self, task: Task, text: str, method: str) -> float:
        """Seconds for the curves of a basis: error policies whose circuits are the same are run once."""
        study, basis = self.loaded.spec, self.loaded.basis(task, text)
        tokens = int(task.evaluation.length.sum())
        of_policies = alike(study, basis, index_of(study, basis, task.evaluation))
        return len(study.ablation) * sum(
            self._by_token(
                tokens, ("curve", text, policies[0], _ranking(method)), lambda e=policies[0]: self._curves_of(task, text, method, e)
            )
            for policies in of_policies
        )  # fmt: skip

    def _curves_of(self, task: Task, text: str, method: str, errors: ErrorPolicy) -> float:
        """Seconds for the curves of all metrics under the first ablation and one error policy: they share their passes."""
        study, basis = self.loaded.spec, self.loaded.basis(task, text)
        scores = self.rankings.get((task.name, text, _ranking(method)))
        if scores is None:
            scores = find("attribution", "random")(self.loaded.model, basis, task.evaluation, positions=study.positions)
        among = candidates(basis, scores.index, errors)
        sizes = size_grid(
            sizes_of(study, method, scores.index), int(among.sum()), len(scores.order(among=among)), text
        ).ranked
        options = options_of(study, task, study.sizes, study.ablation[0])

        def judged(at: Sequence[int]) -> tuple[Curve, ...]:
            return judge(self.loaded, task, text, scores, replace(options, sizes=lambda _: at), [errors])[0]

        some = sorted({0, *sizes[1::3]})
        none = _seconds(lambda: judged([0]))
        curves: list[Curve] = []
        run_some = _seconds(lambda: curves.extend(judged(some)))
        written = sum(
            _seconds(lambda curve=curve, metric=metric: self._write(task, text, method, errors, metric, curve))
            for curve, metric in zip(curves, study.metric, strict=True)
        )
        return curve_seconds(len(sizes), none, (len(some), run_some)) + written * len(sizes) / len(some)

    def _write(self, task: Task, text: str, method: str, errors: ErrorPolicy, metric: str, curve: Curve) -> None:
        """What a curve costs once it has been run: its rows and their summary."""
        study = self.loaded.spec
        labels = curve_labels(self.loaded, task, text, method, ablation=study.ablation[0], errors=errors, metric=metric)
        summarise(to_rows(curve, labels, evaluation_clusters(study, task)), study)


def _ranking(method: str) -> str:
    """What decides where a circuit's nodes lie: random ones are everywhere, all others where the prompts differ."""
    name = parse("attribution", method).name
    return name if name in ("random", "activation_patching") else ""


def _seconds(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started
