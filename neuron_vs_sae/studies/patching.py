"""How many units must take a donor's values for the answer to flip: every basis on the same prompts, with controls and a verdict."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from neuron_vs_sae.analyses.interventions.directions import delta_directions
from neuron_vs_sae.analyses.interventions.handles import first_units
from neuron_vs_sae.analyses.interventions.patching import Patching, check_patching, patch
from neuron_vs_sae.analyses.interventions.signatures import signatures
from neuron_vs_sae.analyses.interventions.steps import answers_of, check_latent, steps_of, with_known_donor
from neuron_vs_sae.analyses.interventions.subjects import check_finite
from neuron_vs_sae.analyses.interventions.swapping import swap
from neuron_vs_sae.core import files
from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.core.lookup import bound
from neuron_vs_sae.core.pairs import PromptPairs
from neuron_vs_sae.studies.analysis import Analysis
from neuron_vs_sae.studies.cells import Cell, CellFiles, Outcome, Step
from neuron_vs_sae.studies.intervening import PatchStudy
from neuron_vs_sae.studies.loaded import Loaded, Task
from neuron_vs_sae.studies.patched import flips, patch_verdicts, patching_rows, swap_rows
from neuron_vs_sae.studies.per_prompt import grouped, joined, judged_within
from neuron_vs_sae.studies.record import finished_record, read_table

TABLES = ("patches", "swaps", "signatures")
_EMPTY = {
    "swaps": ["task", "seed", "basis", "prompt", "value", "donor", "way", "k", "units", "swap", "hit", "kept", "relation", "unchanged", "norm", "cluster", "stratum"],
    "signatures": ["task", "seed", "basis", "unit", "class"],
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class PatchResult:
    """A finished study of patches: a row per prompt and run, of swaps likewise, and what was said of units."""

    folder: Path
    record: dict[str, Any]
    study: PatchStudy
    patches: pd.DataFrame
    swaps: pd.DataFrame
    signatures: pd.DataFrame

    @property
    def table(self) -> pd.DataFrame:
        """`patching.csv`."""
        return patching_rows(self.patches, self.study)

    @property
    def flips(self) -> pd.DataFrame:
        """`units_to_flip.csv`."""
        return flips(self.patches, self.study)

    @property
    def swapped(self) -> pd.DataFrame:
        """`swaps.csv`."""
        return swap_rows(self.swaps, self.study)

    @property
    def verdicts(self) -> pd.DataFrame:
        """`verdicts.csv`."""
        rows = patch_verdicts(self.patches, self.swaps, self.study)
        return judged_within(rows, ["question"], self.study.confidence)


def cells(study: PatchStudy) -> tuple[Cell, ...]:
    """One per task, seed and basis."""
    return tuple(Cell.of(task=t, seed=s, basis=b) for t in study.task for s in study.seed for b in study.basis)


def options_of(spec: PatchStudy, seed: int) -> Patching:
    """The settings as the analysis takes them."""
    return Patching(
        metric=spec.metric, sign=spec.sign, mass=spec.mass, every=spec.every, steps=spec.steps, trials=spec.trials, at=spec.at, seed=seed
    )  # fmt: skip


def steps(loaded: Loaded[PatchStudy], cell: Cell) -> tuple[Step, ...]:
    """The patches of one basis; its swaps; and its units' signatures."""
    spec, task, text = loaded.spec, loaded.task(str(cell["task"]), int(cell["seed"])), str(cell["basis"])
    basis, pairs = loaded.basis(task, text), task.evaluation
    names = {"task": task.name, "seed": task.seed, "basis": text}

    def patches(_: CellFiles) -> Outcome:
        arguments: dict[str, Any] = {
            "select": spec.select, "k": spec.k, "alpha": spec.alpha, "control": spec.control, "options": options_of(spec, task.seed),
            "engine": loaded.engine,
        }  # fmt: skip
        tables = [patch(loaded.model, basis, pairs, **arguments).values.assign(**names)]
        if spec.directions:
            along = delta_directions(loaded.model, basis, task.discovery, spec.directions)
            result = patch(loaded.model, along, pairs, **{**arguments, "control": ()}).values
            tables.append(result.assign(**{**names, "basis": f"{spec.directions} directions at {basis.kind}"}))
        return Outcome({"patches": _with_groups(pd.concat(tables, ignore_index=True), spec, task)})

    def swaps(_: CellFiles) -> Outcome:
        if not spec.swap:
            return Outcome({"swaps": pd.DataFrame(columns=_EMPTY["swaps"])})
        others = _others(loaded, spec) if spec.isolate else None
        result = swap(
            loaded.model, basis, task.discovery, pairs, latent=spec.swap, k=_swap_ks(spec), ways=spec.way, others=others,
            engine=loaded.engine,
        )  # fmt: skip
        return Outcome({"swaps": _with_groups(result.values.assign(**names), spec, task)})

    def described(_: CellFiles) -> Outcome:
        if not spec.signatures:
            return Outcome({"signatures": pd.DataFrame(columns=_EMPTY["signatures"])})
        handle = first_units(loaded.model, basis, task.discovery, spec.signatures, spec.metric)
        return Outcome({"signatures": signatures(loaded.model, basis, handle, pairs).assign(**names)})

    return Step("patches", patches), Step("swaps", swaps), Step("signatures", described)


def _with_groups(table: pd.DataFrame, spec: PatchStudy, task: Task) -> pd.DataFrame:
    return table.merge(grouped(spec, task.evaluation), on="prompt", how="left")


def _swap_ks(spec: PatchStudy) -> tuple[int, ...]:
    """The sizes up to 50: a value's units are few."""
    return tuple(k for k in spec.k if k <= 50) or (min(spec.k),)


def _others(loaded: Loaded[PatchStudy], spec: PatchStudy) -> PromptPairs:
    given = {"prepend_bos": spec.prepend_bos, "seed": spec.seed[0], "part": "evaluation", "n": spec.eval_examples}
    return bound("tasks", spec.isolate, **given)(loaded.model)


def check(loaded: Loaded[PatchStudy]) -> None:
    """Raises `InputError` for sizes, alphas and shares that are none, and for a step that a task lacks."""
    spec = loaded.spec
    check_patching(spec.select, spec.k, spec.alpha, options_of(spec, spec.seed[0]))
    check_finite("share of the score", spec.mass)
    if spec.isolate and not spec.swap:
        raise InputError("other questions are asked where a step is swapped: name the step (--swap)")
    if not spec.swap:
        return
    for task in loaded.tasks:
        answers = answers_of(spec.swap, task.discovery, task.evaluation)
        for pairs in (task.discovery, task.evaluation):
            steps_of(pairs.take(with_known_donor(pairs, answers)), spec.swap, answers)
    if spec.isolate:
        check_latent(_others(loaded, spec), spec.swap)


def assemble(loaded: Loaded[PatchStudy], finished: Mapping[Cell, CellFiles], folder: Path) -> None:
    """Write the tables of values, cell by cell; directions at one place, which several cells have, once."""
    keys = {"patches": ["task", "seed", "basis", "prompt", "k", "alpha", "control", "trial"]}
    for name in TABLES:
        table = joined(finished, cells(loaded.spec), name, name)
        files.write_table(folder / f"{name}.parquet", table.drop_duplicates(keys.get(name), ignore_index=True))


def load(folder: Path) -> PatchResult:
    """Raises `FolderError` where the folder holds no finished study of patches."""
    record, study = finished_record(folder, PatchStudy)
    return PatchResult(folder, record, study, *(read_table(folder / f"{name}.parquet") for name in TABLES))


def summarise(result: PatchResult) -> None:
    """Write `patching.csv`, `units_to_flip.csv`, `swaps.csv` and `verdicts.csv`."""
    tables = {
        "patching": result.table,
        "units_to_flip": result.flips,
        "swaps": result.swapped,
        "verdicts": result.verdicts,
    }
    for name, table in tables.items():
        files.write(result.folder / f"{name}.csv", lambda file, table=table: table.to_csv(file, index=False))


def seconds(loaded: Loaded[PatchStudy], some: Any) -> float:
    """About two milliseconds per run of a prompt through a small model."""
    spec = loaded.spec
    runs = len(spec.k) * (len(spec.alpha) + len(spec.control) * spec.trials) + (200 if spec.swap else 0)
    return 2e-3 * loaded.model.cfg.n_layers * len(some) * spec.eval_examples * runs / 4


PATCHING = Analysis(
    spec=PatchStudy,
    files=(*(f"{name}.parquet" for name in TABLES), "patching.csv", "units_to_flip.csv", "swaps.csv", "verdicts.csv", "report.html"),
    cells=cells, steps=steps, assemble=assemble, load=load, summarise=summarise, seconds=seconds, check=check,
)  # fmt: skip
