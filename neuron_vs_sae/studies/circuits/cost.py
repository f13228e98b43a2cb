"""How long a study will take: its parts are timed in miniature and multiplied.

Discovery is shared by the bases of a task and method and is timed that way: on a few pairs and on some more, with a line through
the two. Curves are timed at sizes from none to the largest that the study asks for, because a run's cost grows with its circuit
in the fast engine (in the exact one it does not); sizes in between are interpolated. Tasks of equal shape are timed once.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from math import log1p
from typing import Any

import numpy as np
import torch

from neuron_vs_sae.analyses.circuits.options import EvaluationOptions
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
from neuron_vs_sae.studies.circuits.sizes import alike, index_of
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


def curve_seconds(sizes: Sequence[int], measured: dict[int, float]) -> float:
    """Seconds for a curve of these sizes, given those of curves of one size each, size 0 among them.

    Every curve takes once what a curve of size 0 takes; what another size adds is interpolated linearly in log(1 + size).
    """
    known = sorted(measured)
    beside = [max(0.0, measured[k] - measured[0]) for k in known]
    return measured[0] + float(np.interp([log1p(k) for k in sizes], [log1p(k) for k in known], beside).sum())


class _Timed:
    """Timings, by the shape of the task."""

    def __init__(self, loaded: Loaded[Study]):
        self.loaded = loaded
        self.known: dict[tuple[Any, ...], float] = {}
        self.rankings: dict[tuple[Any, ...], NodeScores] = {}

    def cell(self, task: Task, method: str) -> float:
        """Seconds for a task, seed and method: discovery once, and the curves of every basis."""
        return self.discovery(task, method) + sum(self.curves(task, text, method) for text in self.loaded.spec.basis)

    def discovery(self, task: Task, method: str) -> float:
        key = ("discovery", method, _shape(task))
        if key not in self.known:
            self.known[key] = self._discovery(task, method)
        return self.known[key]

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
            self.rankings[_ranking(task, text, method)] = scores
        few, more = _seconds(lambda: discover(min(FEW, n))), _seconds(lambda: discover(n))
        return batches_seconds(len(pairs), batch_size, (min(FEW, n), few), (n, more))

    def curves(self, task: Task, text: str, method: str) -> float:
        """Seconds for the curves of a basis: error policies whose circuits are the same are run once."""
        study, basis = self.loaded.spec, self.loaded.basis(task, text)
        index = index_of(study, basis, task.evaluation)
        return sum(
            self._curves_of(task, text, method, ablation, policies[0])
            for ablation in study.ablation
            for policies in alike(study, basis, index)
        )

    def _curves_of(self, task: Task, text: str, method: str, ablation: str, errors: ErrorPolicy) -> float:
        """Seconds for the curves of all metrics under one ablation and error policy: they share their passes."""
        ranking = _ranking(task, text, method)
        key = ("curve", ablation, errors, ranking)
        if key not in self.known:
            study, basis, held_out = self.loaded.spec, self.loaded.basis(task, text), task.evaluation
            scores = self.rankings.get(ranking)
            if scores is None:
                scores = find("attribution", "random")(self.loaded.model, basis, held_out, positions=study.positions)
            among = candidates(basis, scores.index, errors)
            n_scored = len(scores.order(among=among))
            sizes = size_grid(study.sizes, int(among.sum()), n_scored, text).ranked
            options = options_of(study, task, ablation, errors)

            def judged(at: Sequence[int]) -> tuple[Curve, ...]:
                return judge(self.loaded, task, text, scores, replace(options, sizes=lambda _: at))

            probes = sorted({0, sizes[len(sizes) // 4], sizes[len(sizes) // 2], sizes[3 * len(sizes) // 4], sizes[-1]})
            curves = judged(probes)  # and everything is warm
            measured = {k: _seconds(lambda k=k: judged([k])) for k in probes}
            written = sum(
                _seconds(lambda curve=curve, metric=metric: self._write(task, text, method, options, metric, curve))
                for curve, metric in zip(curves, study.metric, strict=True)
            )
            self.known[key] = curve_seconds(sizes, measured) + written * len(sizes) / len(probes)
        return self.known[key]

    def _write(self, task: Task, text: str, method: str, options: EvaluationOptions, metric: str, curve: Curve) -> None:
        """What a curve costs once it has been run: its rows and their summary."""
        ablation, errors = options.ablation, options.errors
        labels = curve_labels(self.loaded, task, text, method, ablation=ablation, errors=errors, metric=metric)
        summarise(to_rows(curve, labels, evaluation_clusters(self.loaded.spec, task)), self.loaded.spec)


def _shape(task: Task) -> tuple[Any, ...]:
    """A key that tasks of equal cost share; a task with several prompt lengths shares it with no other."""
    pairs = task.discovery, task.evaluation
    of = tuple((len(p), p.positions) for p in pairs)
    return (*of, None if all(p.same_length for p in pairs) else task.name)


def _ranking(task: Task, text: str, method: str) -> tuple[Any, ...]:
    """A key for where a circuit's nodes lie: random ones anywhere, all others where the prompts differ."""
    name = parse("attribution", method).name
    return (text, _shape(task), name if name in ("random", "activation_patching") else None)


def _seconds(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started
