"""How long a study will take: what it does is timed in miniature, and counted.

Discovery is shared by the bases of a task and method, so it is timed so: on a few pairs and on some more, a line through
the two. Curves are timed at no node, a few, some and the most that the study asks for: a run's cost grows with its circuit
in the fast engine and does not in the exact one; sizes between are interpolated. Tasks of equal shape are timed once.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from math import log1p
from typing import Any

import numpy as np
import torch

from neuron_vs_sae.analyses.circuits.evaluation import evaluate
from neuron_vs_sae.analyses.circuits.roles import candidates
from neuron_vs_sae.core.basis import apart, together
from neuron_vs_sae.core.curve import Curve
from neuron_vs_sae.core.lookup import bound, find, parse
from neuron_vs_sae.core.nodes import NodeScores
from neuron_vs_sae.core.sizes import size_grid
from neuron_vs_sae.execution.cache import sharing
from neuron_vs_sae.execution.splice import run
from neuron_vs_sae.running.comparison import curve_labels
from neuron_vs_sae.running.machine import Machine
from neuron_vs_sae.running.planning import Cell, Task, draw_groups, options_for
from neuron_vs_sae.studies.rows import to_rows
from neuron_vs_sae.studies.study import Study
from neuron_vs_sae.studies.summary import summarise

FEW, MORE = 4, 12


def seconds(study: Study, model: Any, cells: Sequence[Cell], machine: Machine) -> float:
    """What running the cells will take here and now, after loading: within a factor of two (`benchmarks/studies.py`)."""
    total, timed = 0.0, _Timed(study, model, machine)
    with sharing(model):
        for task in dict.fromkeys(cell.task for cell in cells):
            for method in dict.fromkeys(cell.method for cell in cells):
                theirs = [cell for cell in cells if cell.task is task and cell.method == method]
                total += timed.discovery(task, method, theirs)
                total += sum(timed.curves(cell) for cell in theirs)
    return total


def batches_seconds(pairs: int, batch_size: int, few: tuple[int, float], more: tuple[int, float]) -> float:
    """Seconds for that many pairs in batches: each costs what a line through two timed (pairs, seconds) says."""
    each = max(0.0, (more[1] - few[1]) / (more[0] - few[0])) if more[0] > few[0] else few[1] / few[0]
    once = max(0.0, few[1] - each * few[0])
    return -(-pairs // batch_size) * once + pairs * each


def curve_seconds(sizes: Sequence[int], measured: dict[int, float]) -> float:
    """Seconds for a curve of these sizes, given those of curves of one size each, size 0 among them.

    What a curve of size 0 takes, every curve takes once; what another takes beside that is its size's, linear in
    log(1 + size) between those measured.
    """
    known = sorted(measured)
    beside = [max(0.0, measured[k] - measured[0]) for k in known]
    return measured[0] + float(np.interp([log1p(k) for k in sizes], [log1p(k) for k in known], beside).sum())


class _Timed:
    """What has been timed, by the shape of its task."""

    def __init__(self, study: Study, model: Any, machine: Machine):
        self.study, self.model, self.machine = study, model, machine
        self.known: dict[tuple[Any, ...], float] = {}
        self.rankings: dict[tuple[Any, ...], NodeScores] = {}

    def discovery(self, task: Task, method: str, cells: Sequence[Cell]) -> float:
        key = ("discovery", method, _shape(task))
        if key not in self.known:
            self.known[key] = self._discovery(task, method, cells)
        return self.known[key]

    def _discovery(self, task: Task, method: str, cells: Sequence[Cell]) -> float:
        pairs, study = task.discovery, self.study
        if parse("attribution", method).name == "activation_patching":
            # One pair of it is a run per node, too long for a miniature: its runs are counted instead.
            few = pairs.take([i % len(pairs) for i in range(self.machine.batch_size)])
            positions = 1 if study.positions == "pooled" else pairs.positions
            nodes = sum(d.width + 1 for cell in cells for d in cell.basis.dictionaries) * positions
            return _seconds(lambda: run(self.model, few.clean, few.length)) * len(pairs) * nodes / len(few)
        bases = together([cell.basis for cell in cells])

        def discover(n: int) -> NodeScores:
            some = pairs.take([i % len(pairs) for i in range(n)])
            return bound("attribution", method, seed=task.seed)(
                self.model, bases, some, study.explained_metric, pairing=study.pairing, positions=study.positions,
                batch_size=n,
            )  # fmt: skip

        n = min(MORE, len(pairs), self.machine.batch_size)
        for cell, scores in zip(cells, apart(discover(n), bases), strict=True):  # and everything is warm
            self.rankings[_ranking(cell)] = scores
        few, more = _seconds(lambda: discover(min(FEW, n))), _seconds(lambda: discover(n))
        return batches_seconds(len(pairs), self.machine.batch_size, (min(FEW, n), few), (n, more))

    def curves(self, cell: Cell) -> float:
        return sum(self._curve(cell, a, e) for a in self.study.ablation for e in self.study.errors)

    def _curve(self, cell: Cell, ablation: str, errors: Any) -> float:
        ranking = _ranking(cell)
        key = ("curve", ablation, errors, ranking)
        if key not in self.known:
            held_out, study = cell.task.evaluation, self.study
            scores = self.rankings.get(ranking)
            if scores is None:
                scores = find("attribution", "random")(self.model, cell.basis, held_out, positions=study.positions)
            among = candidates(cell.basis, scores.index, errors)
            n_scored = len(scores.order(among=among))
            sizes = size_grid(study.sizes, int(among.sum()), n_scored, cell.basis_text).ranked
            options = options_for(study, cell.task, ablation, errors)

            def judge(asked: Sequence[int]) -> Curve:
                exactly = replace(options, sizes=lambda _: asked)
                return evaluate(
                    self.model, cell.basis, scores, held_out, exactly, batch_size=self.machine.batch_size,
                    engine=self.machine.engine,
                )  # fmt: skip

            probes = sorted({0, sizes[len(sizes) // 4], sizes[len(sizes) // 2], sizes[3 * len(sizes) // 4], sizes[-1]})
            curve = judge(probes)  # and everything is warm
            measured = {k: _seconds(lambda k=k: judge([k])) for k in probes}
            written = _seconds(lambda: self._write(cell, ablation, errors, curve))
            self.known[key] = curve_seconds(sizes, measured) + written * len(sizes) / len(probes)
        return self.known[key]

    def _write(self, cell: Cell, ablation: str, errors: str, curve: Curve) -> None:
        """What becomes of a curve: its rows, its scores and their intervals."""
        labels = curve_labels(self.study, self.model, cell, ablation, errors)
        summarise(to_rows(curve, labels, draw_groups(self.study, cell.task)), self.study)


def _shape(task: Task) -> tuple[Any, ...]:
    """What two tasks have in common that cost the same; one of several prompt lengths has it with no other."""
    pairs = task.discovery, task.evaluation
    of = tuple((len(p), p.positions) for p in pairs)
    return (*of, None if all(p.same_length for p in pairs) else task.name)


def _ranking(cell: Cell) -> tuple[Any, ...]:
    """What decides where a circuit's nodes lie: random ones are everywhere, all others where the prompts differ."""
    name = parse("attribution", cell.method).name
    return (cell.basis_text, _shape(cell.task), name if name in ("random", "activation_patching") else None)


def _seconds(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started
