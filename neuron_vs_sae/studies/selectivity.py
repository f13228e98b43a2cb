"""Whether a basis has units of one task that another can do without: ablations of both, at as many units and at as large a norm."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from neuron_vs_sae.analyses.interventions.selectivity import Ablating, Effect, Halves, estimate, selectivity
from neuron_vs_sae.analyses.interventions.subjects import check_finite
from neuron_vs_sae.analyses.interventions.templates import DESIGNS, telling
from neuron_vs_sae.core import files
from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.studies.analysis import Analysis
from neuron_vs_sae.studies.cells import Cell, CellFiles, Outcome, Step
from neuron_vs_sae.studies.intervening import SelectivityStudy
from neuron_vs_sae.studies.loaded import Loaded, Task
from neuron_vs_sae.studies.paired import pair_rows
from neuron_vs_sae.studies.per_prompt import cases, ends_of, joined, judged_within
from neuron_vs_sae.studies.record import finished_record, read_table

_CASE = ["basis", "seed", "own", "matched", "size", "control"]
_ABOVE = (0.9, 0.95, 0.98)


@dataclass(frozen=True, eq=False)
class SelectivityResult:
    """A finished study of selectivity: a row per ablation, task and prompt, and how many units tell the tasks apart."""

    folder: Path
    record: dict[str, Any]
    study: SelectivityStudy
    falls: pd.DataFrame
    templates: pd.DataFrame

    @property
    def table(self) -> pd.DataFrame:
        """`selectivity.csv`."""
        return _rows(self.falls, self.study)

    @property
    def verdicts(self) -> pd.DataFrame:
        """`verdicts.csv`."""
        rows = _verdicts(self.falls, self.study)
        return judged_within(rows, ["seed", "task", "specification"], self.study.confidence)


def cells(study: SelectivityStudy) -> tuple[Cell, ...]:
    """One per seed and basis."""
    return tuple(Cell.of(seed=s, basis=b) for s in study.seed for b in study.basis)


def steps(loaded: Loaded[SelectivityStudy], cell: Cell) -> tuple[Step, ...]:
    """The ablations, and the units that tell the tasks apart."""
    spec, seed, text = loaded.spec, int(cell["seed"]), str(cell["basis"])
    both = _tasks(loaded, seed)
    basis = loaded.basis(both[0], text)

    def ablated(_: CellFiles) -> Outcome:
        options = Ablating(spec.metric, spec.budget, spec.trials, seed)
        halves = {task.name: Halves(task.discovery, task.evaluation) for task in both}
        effects = selectivity(loaded.model, basis, halves, k=spec.k, options=options, engine=loaded.engine)
        return Outcome(
            {"falls": pd.concat([_table(e) for e in effects], ignore_index=True).assign(basis=text, seed=seed)}
        )

    def wordings(_: CellFiles) -> Outcome:
        if not all(spec.template_tag in tags for task in both for tags in task.discovery.tags):
            return Outcome(
                {"templates": pd.DataFrame(columns=["basis", "seed", "design", "above", "share", "median", "units"])}
            )
        result = telling(loaded.model, basis, both[0].discovery, both[1].discovery, tag=spec.template_tag, seed=seed)
        rows = [
            {
                "basis": text, "seed": seed, "design": design, "above": above, "share": result.share(design, above),
                "median": float(np.median(result.auroc[design][result.varies])), "units": int(result.varies.sum()),
            }
            for design in DESIGNS
            for above in _ABOVE
        ]  # fmt: skip
        return Outcome({"templates": pd.DataFrame(rows)})

    return Step("falls", ablated), Step("templates", wordings)


def _tasks(loaded: Loaded[SelectivityStudy], seed: int) -> tuple[Task, Task]:
    spec = loaded.spec
    return loaded.task(spec.task_a, seed), loaded.task(spec.task_b, seed)


def _table(effect: Effect) -> pd.DataFrame:
    """A row per prompt of both tasks."""
    parts = []
    for of, fall, plain in (
        ("own", effect.fall_own, effect.plain_own),
        ("other", effect.fall_other, effect.plain_other),
    ):
        parts.append(pd.DataFrame({"of": of, "prompt": range(len(fall)), "fall": fall.numpy(), "plain": plain.numpy()}))
    labels = {name: getattr(effect, name) for name in ("own", "matched", "size", "k", "norm", "control")}
    return pd.concat(parts, ignore_index=True).assign(**labels)


def _effect(part: Any) -> Effect:
    first = part.iloc[0]
    sides = {}
    for of in ("own", "other"):
        rows = part.loc[part["of"] == of].sort_values("prompt")
        for name in ("fall", "plain"):
            sides[f"{name}_{of}"] = torch.from_numpy(rows[name].to_numpy(dtype=float).copy())
    return Effect(
        own=str(first["own"]), matched=first["matched"], size=float(first["size"]), k=int(first["k"]), norm=float(first["norm"]),
        control=str(first["control"]), **sides,
    )  # fmt: skip


def _rows(falls: pd.DataFrame, study: SelectivityStudy) -> pd.DataFrame:
    """A row per basis, own task and size (or norm): `selectivity` with its interval, and what both tasks lose, as shares of their plain metric."""
    rows = []
    for names, part in cases(falls, _CASE):
        effect = _effect(part)
        result = estimate(effect, study.resamples, study.seed[0])
        low, high = ends_of(result, study.confidence)
        rows.append({
            **dict(zip(_CASE, names, strict=True)), "method": "attribution_patching", "k": effect.k, "norm": effect.norm,
            "selectivity": float(result.value[0]), "low": low, "high": high, "loss_own": float(effect.fall_own.sum() / effect.plain_own.sum()),
            "loss_other": float(effect.fall_other.sum() / effect.plain_other.sum()), "n_own": len(effect.fall_own), "n_other": len(effect.fall_other),
        })  # fmt: skip
    return pd.DataFrame(rows)


def _verdicts(falls: pd.DataFrame, study: SelectivityStudy) -> pd.DataFrame:
    """Bases compared at every size and norm that all of them have."""
    tables = [pd.DataFrame(columns=["p"])]
    main = falls.loc[falls["control"] == ""]
    for (seed, own, matched, size), cell in cases(main, ["seed", "own", "matched", "size"]):
        effects = {str(basis): _effect(part) for (basis,), part in cases(cell, ["basis"])}
        if len(effects) < 2:
            continue
        scores = {basis: estimate(effect, study.resamples, study.seed[0]) for basis, effect in effects.items()}
        facts = {
            "question": "selectivity", "task": own, "seed": seed, "method": "attribution_patching", "score": "selectivity",
            "size_measure": "units" if matched == "k" else "relative norm", "specification": f"{matched} {size:g}",
        }  # fmt: skip
        n = sum(len(x) for x in (next(iter(effects.values())).fall_own, next(iter(effects.values())).fall_other))
        tables.append(pair_rows(scores, facts, n, study.confidence, study.margin))
    return pd.concat([t for t in tables if len(t)] or tables, ignore_index=True)


def check(loaded: Loaded[SelectivityStudy]) -> None:
    """Raises `InputError` for sizes and norms that are none."""
    spec = loaded.spec
    check_finite("relative norm", spec.budget)
    if min(spec.k) < 1 or min(spec.budget) <= 0:
        raise InputError(f"k of {list(spec.k)} and norms of {list(spec.budget)}: give numbers above 0 (--k, --budget)")


def assemble(loaded: Loaded[SelectivityStudy], finished: Mapping[Cell, CellFiles], folder: Path) -> None:
    """Write `falls.parquet` and `templates.parquet`."""
    for name in ("falls", "templates"):
        files.write_table(folder / f"{name}.parquet", joined(finished, cells(loaded.spec), name, name))


def load(folder: Path) -> SelectivityResult:
    """Raises `FolderError` where the folder holds no finished study of selectivity."""
    record, study = finished_record(folder, SelectivityStudy)
    return SelectivityResult(
        folder, record, study, read_table(folder / "falls.parquet"), read_table(folder / "templates.parquet")
    )


def summarise(result: SelectivityResult) -> None:
    """Write `selectivity.csv`, `templates.csv` and `verdicts.csv`."""
    for name, table in (("selectivity", result.table), ("templates", result.templates), ("verdicts", result.verdicts)):
        files.write(result.folder / f"{name}.csv", lambda file, table=table: table.to_csv(file, index=False))


def seconds(loaded: Loaded[SelectivityStudy], some: Any) -> float:
    """A run per size, trial and prompt of both tasks."""
    spec = loaded.spec
    runs = 4 * (len(spec.k) + len(spec.budget)) * (1 + spec.trials) * spec.eval_examples
    return 1e-3 * loaded.model.cfg.n_layers * runs * len(some)


SELECTIVITY = Analysis(
    spec=SelectivityStudy,
    files=("falls.parquet", "templates.parquet", "selectivity.csv", "templates.csv", "verdicts.csv", "report.html"),
    cells=cells, steps=steps, assemble=assemble, load=load, summarise=summarise, seconds=seconds, check=check,
)  # fmt: skip
