"""Graphs of prompts in several bases: traced, checked against the model, scored as a function of their size, compared."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from neuron_vs_sae.analyses.graphs import storing
from neuron_vs_sae.analyses.graphs.graph import Graph
from neuron_vs_sae.analyses.graphs.prompt import prompt_of
from neuron_vs_sae.analyses.graphs.supernodes import check_installed
from neuron_vs_sae.analyses.graphs.targets import parse_unit
from neuron_vs_sae.analyses.graphs.trace import trace
from neuron_vs_sae.core import files
from neuron_vs_sae.core.basis import Basis
from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.core.pairs import PromptPairs
from neuron_vs_sae.execution.cut import check_precision
from neuron_vs_sae.statistics.resampling import clusters_of
from neuron_vs_sae.studies.analysis import Analysis
from neuron_vs_sae.studies.cells import Cell, CellFiles, Outcome, Step
from neuron_vs_sae.studies.corpora import basis_of, check_corpus
from neuron_vs_sae.studies.graph_names import slug
from neuron_vs_sae.studies.graph_scores import scored
from neuron_vs_sae.studies.graph_units import shown_units
from neuron_vs_sae.studies.graph_verdicts import compared, judged_by_family
from neuron_vs_sae.studies.grouped import grouped
from neuron_vs_sae.studies.loaded import Loaded, Task
from neuron_vs_sae.studies.record import finished_record, read_table
from neuron_vs_sae.studies.tracing import TraceStudy

_TABLES = ("graphs", "units", "windows", "supernodes", "members")


@dataclass(frozen=True, eq=False)
class GraphsResult:
    """A finished study of graphs: a row per graph and size, and the graphs themselves, by slug."""

    folder: Path
    record: dict[str, Any]
    study: TraceStudy
    table: pd.DataFrame
    """`graphs.csv`."""
    units: pd.DataFrame
    """The units that pruned graphs show, and the tokens that they promote."""
    windows: pd.DataFrame
    """Where these are active in the corpus; no rows without one."""
    supernodes: pd.DataFrame
    """A row per group of a task and basis; no rows without any."""
    members: pd.DataFrame
    """The units of each group."""

    @property
    def slugs(self) -> list[str]:
        """The names of the graphs, in the order of the settings."""
        return list(dict.fromkeys(self.table["slug"]))

    def graph(self, name: str) -> Graph:
        """The graph of that slug. Raises `FolderError` where its files are damaged."""
        return storing.load_graph(self.folder / "graphs" / name)


def cells(study: TraceStudy) -> tuple[Cell, ...]:
    """One per basis and task, and one per basis and text."""
    of_tasks = [Cell.of(task=t, seed=study.seed[0], basis=b) for t in study.task for b in study.basis]
    return (*of_tasks, *(Cell.of(prompt=p, basis=b) for p in study.prompt for b in study.basis))


def steps(loaded: Loaded[TraceStudy], cell: Cell) -> tuple[Step, ...]:
    """A graph per prompt, then what is said of their units, and groups of them."""
    given, spec = _prompts(loaded, cell), loaded.spec
    basis = _basis(loaded, cell)

    def traced(place: int, prompt: str | PromptPairs) -> Step:
        def compute(_: CellFiles) -> Outcome:
            graph = _trace(spec, loaded.model, basis, prompt)
            about = {
                **_drawn_with(loaded, cell, place),
                "slug": slug(spec, cell, place),
                "task": _task_name(loaded, cell),
                "basis": cell["basis"],
                "index": place,
            }
            rows = scored(loaded, _task(loaded, cell), basis, prompt, graph)
            described = pd.DataFrame({"about": [json.dumps(storing.described(graph))]})
            return Outcome({"scores": rows.assign(**about), "graph": described}, storing.tensors_of(graph))

        return Step(f"graph-{place}", compute)

    names = [f"graph-{place}" for place in given]

    def units(place: CellFiles) -> Outcome:
        return Outcome(shown_units(loaded, basis, [graph_in(place, name) for name in names], str(cell["basis"])))

    def groups(place: CellFiles) -> Outcome:
        about = {"task": _task_name(loaded, cell), "basis": str(cell["basis"])}
        tables = grouped(loaded, basis, [graph_in(place, name) for name in names], _tags(loaded, cell))
        return Outcome({name: table.assign(**about) for name, table in tables.items()})

    traces = [traced(place, prompt) for place, prompt in given.items()]
    is_grouped = spec.supernodes > 0 and cell.get("task") is not None
    return (*traces, Step("units", units), *([Step("groups", groups)] if is_grouped else []))


def graph_in(place: CellFiles, step: str) -> Graph:
    """The graph that a step has written."""
    about = json.loads(str(place.table(step, "graph")["about"][0]))
    return storing.assembled(about, place.tensors(step))


def check(loaded: Loaded[TraceStudy]) -> None:
    """Raises `InputError` for what cannot be traced, before anything long runs."""
    spec = loaded.spec
    if not spec.task and not spec.prompt:
        raise InputError("there is nothing to trace: give a task (--task, --index) or a text (--prompt)")
    if spec.supernodes:
        check_installed()
    if spec.corpus:
        check_corpus(loaded)
    check_precision(loaded.model)
    for task in loaded.tasks:
        if max(spec.index) >= len(task.evaluation):
            raise InputError(
                f"task '{task.name}' has evaluation pairs 0 to {len(task.evaluation) - 1}, and pair {max(spec.index)} is to be traced "
                "(--index): ask for more (--eval-examples)"
            )
        if len(spec.index) > 1:
            tags = [task.evaluation.tags[i] for i in spec.index]
            clusters_of(tags, spec.cluster_by, spec.stratify_by, task.name)
    for cell in cells(spec):
        if (cell.get("task") is None or any(t.text == cell.get("task") for t in loaded.tasks)) and _has_basis(
            loaded, cell
        ):
            basis = _basis(loaded, cell)
            for prompt in _prompts(loaded, cell).values():
                _check_prompt(spec, loaded.model, basis, prompt)


def _check_prompt(spec: TraceStudy, model: Any, basis: Basis, prompt: str | PromptPairs) -> None:
    given = prompt_of(model, prompt)
    positions = given.tokens.shape[1]
    there = positions * sum(dictionary.width for dictionary in basis.dictionaries)
    if spec.nodes > there:
        raise InputError(
            f"a graph of {spec.nodes} units is asked for, and basis '{basis.name}' has {there} on {positions} tokens: ask for 1 to "
            f"{there} (--nodes)"
        )
    if spec.targets == "metric" and given.pair is None:
        raise InputError("a text has no answer, so there is no metric of it: explain its logits (--targets logits)")
    if spec.targets not in ("", "metric", "logits"):
        parse_unit(basis, spec.targets, positions)


def assemble(loaded: Loaded[TraceStudy], finished: Mapping[Cell, CellFiles], folder: Path) -> None:
    """Write each graph's two files and the tables, cell by cell."""
    shutil.rmtree(folder / "graphs", ignore_errors=True)
    tables: dict[str, list[pd.DataFrame]] = {name: [] for name in _TABLES}
    for cell in cells(loaded.spec):
        place = finished[cell]
        for index in _prompts(loaded, cell):
            step = f"graph-{index}"
            about = json.loads(str(place.table(step, "graph")["about"][0]))
            storing.write(folder / "graphs" / slug(loaded.spec, cell, index), about, place.tensors(step))
            tables["graphs"].append(place.table(step, "scores"))
        tables["units"].append(place.table("units", "units"))
        tables["windows"].append(place.table("units", "windows"))
        if place.has("groups"):
            tables["supernodes"].append(place.table("groups", "supernodes"))
            tables["members"].append(place.table("groups", "members"))
    for name, parts in tables.items():
        filled = [part for part in parts if len(part)]
        table = pd.concat(filled, ignore_index=True) if filled else pd.DataFrame({"basis": pd.Series(dtype=str)})
        files.write_table(folder / f"{name}.parquet", table)


def load(folder: Path) -> GraphsResult:
    """Raises `FolderError` where the folder holds no finished study of graphs."""
    record, study = finished_record(folder, TraceStudy)
    return GraphsResult(folder, record, study, *(read_table(folder / f"{name}.parquet") for name in _TABLES))


def summarise(result: GraphsResult) -> None:
    """Write `graphs.csv`, `supernodes.csv` and `verdicts.csv`."""
    verdicts = judged_by_family(compared(result.table, result.study), result.study.confidence)
    files.write(result.folder / "graphs.csv", lambda file: result.table.to_csv(file, index=False))
    files.write(result.folder / "supernodes.csv", lambda file: result.supernodes.to_csv(file, index=False))
    files.write(result.folder / "verdicts.csv", lambda file: verdicts.to_csv(file, index=False))


def seconds(loaded: Loaded[TraceStudy], some: Any) -> float:
    """A batched backward pass of a small model takes about half a millisecond per unit of a graph."""
    prompts = sum(len(_prompts(loaded, cell)) for cell in some)
    return prompts * (0.2 + 1e-3 * loaded.spec.nodes)


def _trace(spec: TraceStudy, model: Any, basis: Basis, prompt: str | PromptPairs) -> Graph:
    return trace(
        model, basis, prompt, spec.metric, nodes=spec.nodes, slope=spec.slope, targets=spec.targets or None, attention=spec.attention
    )  # fmt: skip


def _prompts(loaded: Loaded[TraceStudy], cell: Cell) -> dict[int, str | PromptPairs]:
    """The prompts of a cell by their place among the task's evaluation pairs; a text is the 0th."""
    if cell.get("task") is None:
        return {0: str(cell["prompt"])}
    pairs = loaded.task(str(cell["task"]), int(cell["seed"])).evaluation
    return {i: pairs.take([i]) for i in loaded.spec.index}


def _drawn_with(loaded: Loaded[TraceStudy], cell: Cell, place: int) -> dict[str, str]:
    """The tags by which a task's prompts are drawn again together; empty where there are none."""
    task, spec = _task(loaded, cell), loaded.spec
    tags = {} if task is None else task.evaluation.tags[place]
    return {"cluster": tags.get(spec.cluster_by, ""), "stratum": tags.get(spec.stratify_by, "")}


def _task(loaded: Loaded[TraceStudy], cell: Cell) -> Task | None:
    return None if cell.get("task") is None else loaded.task(str(cell["task"]), int(cell["seed"]))


def _task_name(loaded: Loaded[TraceStudy], cell: Cell) -> str:
    task = _task(loaded, cell)
    return "" if task is None else task.name


def _tags(loaded: Loaded[TraceStudy], cell: Cell) -> list[dict[str, str]]:
    task = _task(loaded, cell)
    return [] if task is None else [task.evaluation.tags[i] for i in loaded.spec.index]


def _basis(loaded: Loaded[TraceStudy], cell: Cell) -> Basis:
    """The cell's basis; of a text, one that is fitted to prompts is the first task's."""
    task, text = _task(loaded, cell), str(cell["basis"])
    return basis_of(loaded, text) if task is None else loaded.basis(task, text)


def _has_basis(loaded: Loaded[TraceStudy], cell: Cell) -> bool:
    return any(text == cell["basis"] for _, text in loaded.bases)


GRAPHS = Analysis(
    spec=TraceStudy, files=(*(f"{name}.parquet" for name in _TABLES), "graphs.csv", "supernodes.csv", "verdicts.csv", "graph.html"),
    cells=cells, steps=steps, assemble=assemble, load=load, summarise=summarise, seconds=seconds, check=check,
)  # fmt: skip
