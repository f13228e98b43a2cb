"""Puts the finished cells of a study of circuits together: the files of per-prompt values, scores, prompts and stability."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import pandas as pd

from neuron_vs_sae.analyses.circuits import stability
from neuron_vs_sae.core import files
from neuron_vs_sae.studies.cells import Cell, CellFiles
from neuron_vs_sae.studies.circuits.discovering import (
    STEP,
    discovery_names,
    label_of,
    one_below_the_other,
    stored_scores,
)
from neuron_vs_sae.studies.circuits.judging import judging_name
from neuron_vs_sae.studies.circuits.sizes import choice_of, index_of, shown_for_stability
from neuron_vs_sae.studies.loaded import Loaded, Task
from neuron_vs_sae.studies.study import Study


@dataclass(frozen=True, eq=False)
class Discovery:
    """One basis's part of a finished cell."""

    task: Task
    basis: str
    method: str
    files: CellFiles

    @property
    def names(self) -> dict[str, str | int]:
        return discovery_names(self.task, self.basis, self.method)


def assemble(loaded: Loaded[Study], finished: Mapping[Cell, CellFiles], folder: Path) -> None:
    """Write `curves.parquet`, `scores.safetensors`, `prompts.parquet`, and the tables of stability."""
    study = loaded.spec
    discoveries = _discoveries(loaded, finished)
    curves = [discovery.files.table(judging_name(study, discovery.basis), "curves") for discovery in discoveries]
    files.write_table(folder / "curves.parquet", pd.concat(curves, ignore_index=True))
    _assemble_stability(loaded, discoveries, finished, folder)
    tensors, index = {}, {}
    for discovery in discoveries:
        label = label_of(discovery.names)
        scores = stored_scores(loaded, discovery.task, discovery.basis, discovery.files)
        tensors[label] = scores.stored
        index[label] = {**discovery.names, "nodes": asdict(scores.index)}
    files.write_tensors(folder / "scores.safetensors", tensors, {"index": json.dumps(index)})
    files.write_table(folder / "prompts.parquet", _prompts(study, loaded.tasks, loaded.model.tokenizer))


def _discoveries(loaded: Loaded[Study], finished: Mapping[Cell, CellFiles]) -> list[Discovery]:
    """Every discovery, in the order of the settings: tasks, their seeds, bases, methods."""
    cells = {
        (str(cell["task"]), cell["seed"], str(cell["method"])): cell_files for cell, cell_files in finished.items()
    }
    return [
        Discovery(task, text, method, cells[task.text, task.seed, method])
        for task in loaded.tasks
        for text in loaded.spec.basis
        for method in loaded.spec.method
    ]


def _assemble_stability(
    loaded: Loaded[Study], discoveries: list[Discovery], finished: Mapping[Cell, CellFiles], folder: Path
) -> None:
    """`stability.parquet`: what was found within each discovery, and between seeds and methods; `circuits.csv`:
    the nodes of their circuits."""
    within = _rows_of(discoveries, finished, "stability")
    between = stability.typed(list(_between(loaded, discoveries))).drop(columns="key")
    table = one_below_the_other([*within, between]).assign(key=loaded.spec.key).astype({"key": "string"})
    table = table.loc[:, stability.COLUMNS]
    nodes = one_below_the_other(_rows_of(discoveries, finished, "circuits"))
    files.write_table(folder / "stability.parquet", table)
    files.write(folder / "circuits.csv", lambda file: nodes.to_csv(file, index=False, float_format="%.6g"))


def _rows_of(discoveries: list[Discovery], finished: Mapping[Cell, CellFiles], name: str) -> Iterator[pd.DataFrame]:
    """Each discovery's rows of a table that its cell has for all bases."""
    tables = {id(cell_files): cell_files.table(STEP, name) for cell_files in finished.values()}
    for discovery in discoveries:
        table = tables[id(discovery.files)]
        yield table.loc[table["basis"] == discovery.basis] if len(table) else table


def _between(loaded: Loaded[Study], discoveries: list[Discovery]) -> Iterator[dict[str, Any]]:
    """Discoveries of one task and basis compared: two seeds of one method, two methods of one seed."""
    study = loaded.spec
    pairs = [
        (a, b)
        for a, b in combinations(discoveries, 2)
        if (a.task.text, a.basis) == (b.task.text, b.basis) and (a.method == b.method) != (a.task.seed == b.task.seed)
    ]
    for errors in study.errors:
        for a, b in pairs:
            same_seed = a.task is b.task
            facts = {
                "against": "method" if same_seed else "seed",
                "other": b.method if same_seed else str(b.task.seed),
                "n_discovery": len(a.task.discovery),
                "n_other": len(b.task.discovery),
                "n_shared": a.task.discovery.shared(b.task.discovery),
            }
            basis = loaded.basis(a.task, a.basis)
            choice = choice_of(study, a.basis, basis, index_of(study, basis, a.task.discovery), errors)
            rankings = [stored_scores(loaded, discovery.task, discovery.basis, discovery.files) for discovery in (a, b)]
            rows = stability.between(shown_for_stability(choice), *rankings)
            yield from ({**row, **facts, **a.names, "errors": errors} for row in rows)


def _prompts(study: Study, tasks: tuple[Task, ...], tokenizer: Any) -> pd.DataFrame:
    """A row per prompt: the discovery prompts of every seed, and the evaluation prompts once, under the seed that drew them.

    `clean_tokens` is a JSON list of the clean prompt's tokens as text, BOS included: what a position of a node is called.
    """
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
            "clean_tokens": json.dumps(
                [tokenizer.decode([token]) for token in pairs.clean[i, : pairs.length[i]].tolist()], ensure_ascii=False
            ),
            "tags": json.dumps(pairs.tags[i], ensure_ascii=False),
        }
        for task in tasks
        for split, pairs in (("discovery", task.discovery), ("evaluation", task.evaluation))
        if split == "discovery" or task.seed == study.seed[0]
        for i in range(len(pairs))
    ]
    return pd.DataFrame(rows)
