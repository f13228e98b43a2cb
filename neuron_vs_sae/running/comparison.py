"""Run a study: discover once per task, basis and method, judge under every ablation and error policy, write results."""

import json
import math
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from itertools import combinations
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm.auto import tqdm

from neuron_vs_sae.analyses.circuits import stability
from neuron_vs_sae.analyses.circuits.evaluation import engine_for, evaluate, roles
from neuron_vs_sae.analyses.circuits.folds import Choice, Folds, folds_of
from neuron_vs_sae.catalog.dictionaries.diagnosis import reconstruction
from neuron_vs_sae.core import files
from neuron_vs_sae.core.basis import apart, together
from neuron_vs_sae.core.conventions import ErrorPolicy
from neuron_vs_sae.core.curve import Curve
from neuron_vs_sae.core.errors import InputError, NothingToExplainError
from neuron_vs_sae.core.lookup import bound
from neuron_vs_sae.core.nodes import NodeIndex, NodeScores
from neuron_vs_sae.execution.cache import sharing
from neuron_vs_sae.models.loading import prepare
from neuron_vs_sae.models.presets import same_model
from neuron_vs_sae.report.page import write_page
from neuron_vs_sae.report.paper_figures import write_curves_pdf
from neuron_vs_sae.report.tables import write_tables
from neuron_vs_sae.running.machine import Machine
from neuron_vs_sae.running.planning import Cell, Task, draw_groups, load_model_for, load_tasks, plan, sizes_of
from neuron_vs_sae.running.provenance import check_the_same_commits, identify, provenance, resumable
from neuron_vs_sae.studies import result
from neuron_vs_sae.studies.evidence import evidence
from neuron_vs_sae.studies.per_curve import per_curve
from neuron_vs_sae.studies.rows import to_rows
from neuron_vs_sae.studies.study import Study
from neuron_vs_sae.studies.verdict import write_verdicts

_STABILITY, _CIRCUITS = ".stability.json", ".circuits.parquet"


def compare(
    study: Study, out: Path | str, *, machine: Machine | None = None, overwrite: bool = False, model: Any = None
) -> result.Result:
    """Run the study into the folder `out` and return its result.

    A finished study is loaded, not run again; an interrupted one goes on from what it has and ends with the same
    numbers. `model` is an already loaded model to use instead of loading `study.model`.
    Raises `FolderError` when the folder holds another study (unless `overwrite`), is in use, or cannot be written;
    `InputError` for input that is wrong, before anything long starts.
    """
    folder, machine, inputs = Path(out), machine or Machine(), identify(study)
    with files.locked(folder):
        record = None if overwrite else resumable(folder, study, inputs)
        if record is None or not record["finished"]:
            started = time.time()
            model = load_model_for(study, machine) if model is None else _given(model, study)
            tasks = load_tasks(study, model)
            cells = list(plan(study, model, tasks, machine))
            if record is None:
                result.clear(folder)
            begun, record = (
                record,
                {
                    "study": study.model_dump(mode="json"),
                    "key": study.key,
                    "inputs": inputs,
                    "finished": False,
                    "provenance": provenance(study, model, machine),
                    "bases": _describe(model, cells, machine),
                },
            )
            if begun is not None:
                check_the_same_commits(folder, begun, record)
            files.write_json(folder / "study.json", record)
            with sharing(model, machine.cache, machine.cache_limit):
                _run(study, folder, model, cells, machine)
            _assemble(study, folder, tasks, cells)
            record.update(finished=True, seconds=round(time.time() - started, 1))
            files.write_json(folder / "study.json", record)
        shutil.rmtree(folder / result.UNFINISHED, ignore_errors=True)
        found = result.load(folder)
        write_report(found)
        return found


def report(folder: Path | str) -> result.Result:
    """The result in a folder, its tables and figures written again. Raises `FolderError` as `load` and `compare` do."""
    result.load(folder)  # before a lock makes the folder
    with files.locked(Path(folder)):
        found = result.load(folder)
        write_report(found)
        return found


def _given(model: Any, study: Study) -> Any:
    """A model that the caller has loaded, made ready. Raises `InputError` where it is not the study's."""
    name, dtype = Path(study.model).name, str(model.cfg.dtype).removeprefix("torch.")
    if not same_model(name, str(model.cfg.model_name)) or dtype != study.dtype:
        raise InputError(
            f"the study's model is {study.model!r} in {study.dtype}, and the one given is '{model.cfg.model_name}' in {dtype}: "
            "give the study's, or none to have it loaded"
        )
    return prepare(model)


def write_report(found: result.Result) -> None:
    """(Re)write what is derived from the per-prompt values: tables, figures, and the page of all."""
    files.write(found.folder / "summary.csv", lambda file: found.summary.to_csv(file, index=False))
    write_verdicts(found)
    curves, tested = per_curve(found), evidence(found.folder)
    write_tables(found, curves, tested.verdicts)
    write_curves_pdf(found)
    write_page(found, tested, curves)


def _describe(model: Any, cells: list[Cell], machine: Machine) -> dict[str, dict[str, Any]]:
    """What each basis is on each task, and how well it reconstructs the task's prompts.

    Raises `InputError` for SAEs that are found to belong elsewhere.
    """
    found: dict[str, dict[str, Any]] = {}
    for cell in cells:
        name = f"{cell.task.name}/{cell.basis_text}"
        if name not in found:
            seen = reconstruction(model, cell.basis, cell.task.discovery, strict=False)
            found[name] = {
                "sites": [site.name for site in cell.basis.sites],
                "widths": [d.width for d in cell.basis.dictionaries],
                "active": [round(n, 2) for n in seen.active],
                "explained_variance": [round(r, 4) if math.isfinite(r) else None for r in seen.explained],
                "engine": engine_for(model, cell.basis, machine.engine),
                **cell.basis.provenance,
            }
    return found


def _run(study: Study, folder: Path, model: Any, cells: list[Cell], machine: Machine) -> None:
    for cell in tqdm(cells, desc="compare", unit="discovery"):
        curves_file = folder / result.UNFINISHED / study.key / f"{cell.file}.parquet"
        if not curves_file.exists():
            scores = _scores(study, folder, model, cell, cells, machine)
            rows = [
                to_rows(curve, curve_labels(study, model, cell, ablation, errors), draw_groups(study, cell.task))
                for ablation, errors, curve in _curves(study, model, cell, scores, machine)
            ]
            files.write_table(curves_file, pd.concat(rows, ignore_index=True))


def _scores(study: Study, folder: Path, model: Any, cell: Cell, cells: list[Cell], machine: Machine) -> NodeScores:
    """The cell's scores, read from its file; where there is none yet, every basis's of this task and method are made.

    They share their passes: a unit's gradient is its site's times its decoder row.
    """
    unfinished = folder / result.UNFINISHED / study.key
    file = unfinished / f"{cell.file}.safetensors"
    if not file.exists():
        alike = [c for c in cells if c.task is cell.task and c.method == cell.method]
        alike = [c for c in alike if not (unfinished / f"{c.file}.safetensors").exists()]
        bases = together([c.basis for c in alike])
        groups = folds_of(cell.task.discovery, study.folds, cell.task.seed)
        found = bound("attribution", cell.method, seed=cell.task.seed)(
            model,
            bases,
            groups.marked(cell.task.discovery),
            study.explained_metric,
            pairing=study.pairing,
            positions=study.positions,
            batch_size=machine.batch_size,
        )
        for one, scores in zip(alike, apart(found, bases), strict=True):
            _keep(study, unfinished / f"{one.file}.safetensors", one, scores, groups)
    return _stored(study, unfinished, cell)


def _keep(study: Study, file: Path, cell: Cell, scores: NodeScores, groups: Folds) -> None:
    """Write how stable a cell's circuits are, and then its scores. Raises `InputError` where they rank nothing."""
    if not bool(scores.values.any()):
        raise InputError(
            f"{cell.label}: every score is 0, so nothing can be ranked. The metric '{study.explained_metric}' may not depend on "
            "these sites, or its gradient vanishes at the clean prompt (kl): choose another --attribution-metric"
        )
    rows: list[dict[str, Any]] = []
    circuits: list[pd.DataFrame] = []
    for errors in study.errors:
        choice, names = _choice(study, cell, errors), {**cell.names, "errors": errors}
        found, nodes = stability.within(scores, groups, choice, confidence=study.confidence, seed=cell.task.seed)
        rows += [{**row, **names} for row in found]
        circuits.append(nodes.assign(**names))
    files.write_json(file.with_name(cell.file + _STABILITY), rows)
    files.write_table(file.with_name(cell.file + _CIRCUITS), _below(circuits))
    files.write_tensors(file, {cell.label: scores.values}, {"index": json.dumps({cell.label: _described(study, cell)})})


def _below(tables: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """The tables one below the other; empty ones have no types, and are left out where there is another."""
    tables = list(tables)
    return pd.concat([table for table in tables if len(table)] or tables[:1], ignore_index=True)


def _choice(study: Study, cell: Cell, errors: ErrorPolicy) -> Choice:
    """How the cell's circuits are chosen under an error policy, and at which sizes their stability is told."""
    among, _ = roles(cell.basis, _index(study, cell), errors, (None,) * len(cell.basis.sites))
    total = int(among.sum())
    sizes = stability.sizes_told(sizes_of(study, total, cell.basis_text), total)
    return Choice(among, sizes, study.rank_by)


def _index(study: Study, cell: Cell) -> NodeIndex:
    return cell.basis.index(None if study.positions == "pooled" else cell.task.discovery.positions)


def _described(study: Study, cell: Cell) -> dict[str, Any]:
    """What a stored tensor of scores is of, and the order of its nodes."""
    return {**cell.names, "nodes": asdict(_index(study, cell))}


def _curves(
    study: Study, model: Any, cell: Cell, scores: NodeScores, machine: Machine
) -> Iterator[tuple[str, str, Curve]]:
    for ablation in study.ablation:
        for errors in study.errors:
            source = cell.task.discovery if study.mean_source == "discovery" else None
            curve = evaluate(
                model,
                cell.basis,
                scores,
                cell.task.evaluation,
                sizes=lambda total: sizes_of(study, total, cell.basis_text),
                metric=study.metric,
                ablation=ablation,
                errors=errors,
                rank_by=study.rank_by,
                source=source,
                seed=cell.task.seed,
                batch_size=machine.batch_size,
                engine=machine.engine,
                measure_change=True,
            )
            try:
                _ = curve.denominator  # found out now, not when all the others have run
            except NothingToExplainError as error:
                raise NothingToExplainError(f"{cell.label}, ablation {ablation}, errors {errors}: {error}") from None
            yield ablation, errors, curve


def curve_labels(study: Study, model: Any, cell: Cell, ablation: str, errors: str) -> dict[str, Any]:
    """Columns of every row of a curve: what it is of, and every convention that made it."""
    return {
        "model": model.cfg.model_name,
        "task": cell.task.name,
        "basis": cell.basis_text,
        "site": cell.basis.kind,
        "method": cell.method,
        "ablation": ablation,
        "errors": errors,
        "positions": study.positions,
        "rank_by": study.rank_by,
        "metric": study.metric,
        "n_discovery": len(cell.task.discovery),
        "seed": cell.task.seed,
        "attribution_metric": study.explained_metric,
        "pairing": study.pairing,
        "mean_source": study.mean_source,
        "dtype": study.dtype,
        "backend": study.backend,
        "revision": study.revision or "",
        "prepend_bos": study.prepend_bos,
        "process_weights": study.process_weights,
        "split_by": cell.task.split_by,
        "cluster_by": study.cluster_by,
        "stratify_by": study.stratify_by,
        "n_overlap": cell.task.evaluation.overlap(cell.task.discovery),
        "key": study.key,
    }


def _assemble(study: Study, folder: Path, tasks: list[Task], cells: list[Cell]) -> None:
    parts = [pd.read_parquet(folder / result.UNFINISHED / study.key / f"{cell.file}.parquet") for cell in cells]
    files.write_table(folder / "curves.parquet", pd.concat(parts, ignore_index=True))
    _assemble_stability(study, folder, cells)
    tensors, index = {}, {}
    for cell in cells:
        tensors.update(files.read_tensors(folder / result.UNFINISHED / study.key / f"{cell.file}.safetensors"))
        index[cell.label] = _described(study, cell)
    files.write_tensors(folder / "scores.safetensors", tensors, {"index": json.dumps(index)})
    files.write_table(folder / "prompts.parquet", _prompts(study, tasks))


def _assemble_stability(study: Study, folder: Path, cells: list[Cell]) -> None:
    """`stability.parquet` and `.csv`: what was found within each cell, and between seeds and methods; `circuits.csv`: the
    nodes of their circuits."""
    unfinished = folder / result.UNFINISHED / study.key
    rows = [row for cell in cells for row in json.loads((unfinished / f"{cell.file}{_STABILITY}").read_text("utf-8"))]
    table = stability.typed([*rows, *_between_cells(study, unfinished, cells)]).assign(key=study.key)
    nodes = _below(pd.read_parquet(unfinished / f"{cell.file}{_CIRCUITS}") for cell in cells)
    files.write_table(folder / "stability.parquet", table)
    files.write(folder / "stability.csv", lambda file: table.to_csv(file, index=False))
    files.write(folder / "circuits.csv", lambda file: nodes.to_csv(file, index=False, float_format="%.6g"))


def _between_cells(study: Study, unfinished: Path, cells: list[Cell]) -> Iterator[dict[str, Any]]:
    """Cells of one task and basis compared: two seeds of one method, two methods of one seed."""
    pairs = [
        (one, other)
        for one, other in combinations(cells, 2)
        if (one.task.name, one.basis_text) == (other.task.name, other.basis_text)
        and (one.method == other.method) != (one.task.seed == other.task.seed)
    ]
    for errors in study.errors:
        for one, other in pairs:
            same = one.task is other.task
            facts = {
                "against": "method" if same else "seed",
                "other": other.method if same else str(other.task.seed),
                "n_discovery": len(one.task.discovery),
                "n_other": len(other.task.discovery),
                "n_shared": one.task.discovery.shared(other.task.discovery),
            }
            rankings = [_stored(study, unfinished, cell) for cell in (one, other)]
            rows = stability.between(_choice(study, one, errors), *rankings)
            yield from ({**row, **facts, **one.names, "errors": errors} for row in rows)


def _stored(study: Study, unfinished: Path, cell: Cell) -> NodeScores:
    return NodeScores(_index(study, cell), files.read_tensors(unfinished / f"{cell.file}.safetensors")[cell.label])


def _prompts(study: Study, tasks: list[Task]) -> pd.DataFrame:
    """A row per prompt: the discovery prompts of every seed, and the evaluation prompts once, under the seed that drew them."""
    rows = [
        {
            "task": task.name,
            "seed": task.seed,
            "split": split,
            "prompt": i,
            "clean": pairs.clean_text[i],
            "corrupt": pairs.corrupt_text[i],
            "answer": pairs.answer_text[i],
            "foil": pairs.foil_text[i],
            "tokens": int(pairs.length[i]),
            "tags": json.dumps(pairs.tags[i], ensure_ascii=False),
        }
        for task in tasks
        for split, pairs in (("discovery", task.discovery), ("evaluation", task.evaluation))
        if split == "discovery" or task.seed == study.seed[0]
        for i in range(len(pairs))
    ]
    return pd.DataFrame(rows)
