"""Run a study: discover once per task, basis and method, judge under every ablation and error policy, write results."""

import hashlib
import json
import math
import platform
import shutil
import subprocess
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import torch
from tqdm.auto import tqdm

from neuron_vs_sae import result, stability
from neuron_vs_sae.attribution._contraction import check_positions
from neuron_vs_sae.basis import Basis, apart, together
from neuron_vs_sae.cache import sharing
from neuron_vs_sae.curve import Curve
from neuron_vs_sae.diagnosis import reconstruction
from neuron_vs_sae.errors import FolderError, InputError, NothingToExplainError
from neuron_vs_sae.evaluation import engine_for, evaluate, roles
from neuron_vs_sae.evidence import evidence
from neuron_vs_sae.folds import Choice, Folds, folds_of
from neuron_vs_sae.lookup import bound, parse, takes
from neuron_vs_sae.machine import Machine
from neuron_vs_sae.models import load_model, model_commit, prepare, same_model
from neuron_vs_sae.nodes import NodeIndex, NodeScores, log_sizes, mib_sizes
from neuron_vs_sae.pairs import PromptPairs, check_bos, layouts
from neuron_vs_sae.paper_figures import write_curves_pdf
from neuron_vs_sae.plots import write_curves_html
from neuron_vs_sae.presets import located
from neuron_vs_sae.report import write_page
from neuron_vs_sae.resampling import Groups, groups_of
from neuron_vs_sae.shelf import Shelf
from neuron_vs_sae.study import ErrorPolicy, Study, looks_like_file
from neuron_vs_sae.tables import per_curve, write_tables
from neuron_vs_sae.verdict import write_verdicts

_STABILITY, _CIRCUITS = ".stability.json", ".circuits.parquet"
_NUMBERS_COME_FROM = ("neuron_vs_sae", "torch", "transformer-lens", "sae-lens")


@dataclass(frozen=True, eq=False)
class Task:
    """A task under one seed: its name, the discovery pairs that the seed drew, and the evaluation pairs of all seeds."""

    name: str
    seed: int
    discovery: PromptPairs
    evaluation: PromptPairs
    split_by: str


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
    with result.locked(folder):
        record = None if overwrite else _resume(folder, study, inputs)
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
                _check_the_same(folder, begun, record)
            result.write_json(folder / "study.json", record)
            with sharing(model, machine.cache, machine.cache_limit):
                _run(study, folder, model, cells, machine)
            _assemble(study, folder, tasks, cells)
            record.update(finished=True, seconds=round(time.time() - started, 1))
            result.write_json(folder / "study.json", record)
        shutil.rmtree(folder / result.UNFINISHED, ignore_errors=True)
        found = result.load(folder)
        write_report(found)
        return found


def report(folder: Path | str) -> result.Result:
    """The result in a folder, its tables and figures written again. Raises `FolderError` as `load` and `compare` do."""
    result.load(folder)  # before a lock makes the folder
    with result.locked(Path(folder)):
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
    result.write(found.folder / "summary.csv", lambda file: found.summary.to_csv(file, index=False))
    write_verdicts(found)
    curves, tested = per_curve(found), evidence(found.folder)
    write_tables(found, curves, tested.verdicts)
    write_curves_html(found)
    write_curves_pdf(found)
    write_page(found, tested, curves)


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
            index = basis.index(positions)
            for errors in study.errors:
                total = int(roles(basis, index, errors, (None,) * len(basis.sites))[0].sum())
                sizes_of(study, total, text)
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


def sizes_of(study: Study, total: int, basis: str) -> tuple[int, ...]:
    """The study's sizes for a basis of `total` nodes. Raises `InputError` for one beyond them."""
    sizes: set[int] = set()
    for size in study.sizes:
        grids = {"all": (total,), "log": log_sizes(total), "mib": mib_sizes(total)}
        chosen = grids[size] if size in grids else (int(size),)
        if max(chosen) > total:
            raise InputError(
                f"a circuit of {max(chosen)} nodes is asked for (--sizes), and basis {basis!r} has {total}: ask for at "
                f"most {total}, or 'all'"
            )
        sizes.update(chosen)
    return tuple(sorted(sizes))


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
                result.to_rows(curve, curve_labels(study, model, cell, ablation, errors), draw_groups(study, cell.task))
                for ablation, errors, curve in _curves(study, model, cell, scores, machine)
            ]
            result.write_table(curves_file, pd.concat(rows, ignore_index=True))


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
    result.write_json(file.with_name(cell.file + _STABILITY), rows)
    result.write_table(file.with_name(cell.file + _CIRCUITS), _below(circuits))
    result.write_tensors(
        file, {cell.label: scores.values}, {"index": json.dumps({cell.label: _described(study, cell)})}
    )


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
    result.write_table(folder / "curves.parquet", pd.concat(parts, ignore_index=True))
    _assemble_stability(study, folder, cells)
    tensors, index = {}, {}
    for cell in cells:
        tensors.update(result.read_tensors(folder / result.UNFINISHED / study.key / f"{cell.file}.safetensors"))
        index[cell.label] = _described(study, cell)
    result.write_tensors(folder / "scores.safetensors", tensors, {"index": json.dumps(index)})
    result.write_table(folder / "prompts.parquet", _prompts(study, tasks))


def _assemble_stability(study: Study, folder: Path, cells: list[Cell]) -> None:
    """`stability.parquet` and `.csv`: what was found within each cell, and between seeds and methods; `circuits.csv`: the
    nodes of their circuits."""
    unfinished = folder / result.UNFINISHED / study.key
    rows = [row for cell in cells for row in json.loads((unfinished / f"{cell.file}{_STABILITY}").read_text("utf-8"))]
    table = stability.typed([*rows, *_between_cells(study, unfinished, cells)]).assign(key=study.key)
    nodes = _below(pd.read_parquet(unfinished / f"{cell.file}{_CIRCUITS}") for cell in cells)
    result.write_table(folder / "stability.parquet", table)
    result.write(folder / "stability.csv", lambda file: table.to_csv(file, index=False))
    result.write(folder / "circuits.csv", lambda file: nodes.to_csv(file, index=False, float_format="%.6g"))


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
    return NodeScores(_index(study, cell), result.read_tensors(unfinished / f"{cell.file}.safetensors")[cell.label])


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


def _resume(folder: Path, study: Study, inputs: dict[str, str]) -> dict[str, Any] | None:
    """The record of this study in the folder, None where there is none yet. Raises `FolderError` for another's."""
    record = result.read_record(folder)
    if record is None:
        foreign = [name for name in result.FILES if (folder / name).exists()]
        if foreign:
            raise FolderError(
                f"{folder} holds {', '.join(foreign)} without the study that made them (study.json): choose another folder "
                "(--out), or pass --overwrite to replace them"
            )
        return None
    mine, theirs = study.model_dump(mode="json"), record["study"]
    differing = [name for name in mine if mine[name] != theirs.get(name)]
    for name in sorted({*inputs, *record["inputs"]}):
        if inputs.get(name) != record["inputs"].get(name):
            differing.append(f"the {'version' if name in _NUMBERS_COME_FROM else 'contents'} of {name}")
    if differing:
        raise FolderError(
            f"{folder} holds another study (it differs in: {', '.join(differing)}): choose another folder (--out), "
            "or pass --overwrite to replace it"
        )
    return record


def _check_the_same(folder: Path, begun: dict[str, Any], now: dict[str, Any]) -> None:
    """Raises `FolderError` where a study would go on with another model or other SAEs than it began with: a branch of the hub moves."""

    def commits(record: dict[str, Any]) -> dict[str, Any]:
        of_bases = {
            f"{name}, {one['name']}": one.get("commit")
            for name, basis in record["bases"].items()
            for one in basis.get("saes", basis.get("like", []))
        }
        return {"the model": record["provenance"]["model_commit"], **of_bases}

    before, after = commits(begun), commits(now)
    for name in before:
        if before[name] != after.get(name):
            raise FolderError(
                f"{folder} holds this study unfinished, begun with commit {before[name]} of {name}; the hub's is now {after.get(name)}. "
                "Pin the one you want (--revision, or revision= of a basis), choose another folder (--out), or pass --overwrite"
            )


def identify(study: Study) -> dict[str, str]:
    """What the study reads: a hash of every local file's contents, by the name it is given, and the versions that its numbers come from.

    Raises `InputError` for a task's file that is not there.
    """
    files = [text for text in (*study.task, *study.eval_task) if looks_like_file(text)]
    for file in files:
        if not Path(file).is_file():
            raise InputError(f"{file} cannot be read: there is no such file")
    named = [parse("tasks", text) for text in (*study.task, *study.eval_task) if text not in files]
    options = [
        value for spec in (*named, *(parse("bases", text) for text in study.basis)) for value in spec.options.values()
    ]
    found = {package: version(package) for package in _NUMBERS_COME_FROM}
    named_here = [part for text in options for part in dict.fromkeys((text, *text.split("+")))]  # sources joined by +
    places = {text: located(text) for text in (study.model, *files, *named_here)}
    return found | {text: _digest(place) for text, place in places.items() if place.exists()}


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    files = [path] if path.is_file() else sorted(f for f in path.rglob("*") if f.is_file())
    for file in files:
        digest.update(str(file.relative_to(path)).encode())
        with file.open("rb") as stream:
            while chunk := stream.read(1 << 22):
                digest.update(chunk)
    return digest.hexdigest()


def provenance(study: Study, model: Any, machine: Machine) -> dict[str, Any]:
    """When and by what it is run: versions, code revision, the hub's commit of the model where it is known, device, dtype, threads."""
    packages = (*_NUMBERS_COME_FROM, "transformers", "numpy", "scipy")
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {p: version(p) for p in packages},
        "code": _revision(),
        "model_commit": model_commit(study.model, study.revision),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": str(next(model.parameters()).device),
        "dtype": str(model.cfg.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "batch_size": machine.batch_size,
    }


def _revision() -> str | None:
    """The package's git commit, with `+` where files differ from it; None outside a checkout."""
    here = Path(__file__).parent
    try:
        commit = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, timeout=10, check=True
        )
        status = subprocess.run(
            ["git", "status", "--porcelain", "."], cwd=here, capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return commit.stdout.strip() + ("+" if status.stdout.strip() else "")
