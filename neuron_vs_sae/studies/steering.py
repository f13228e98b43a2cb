"""Doses of a set of units in every basis: what they do to a task, what they cost elsewhere, and which basis gives more for the same price."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from neuron_vs_sae.analyses.interventions.directions import directions
from neuron_vs_sae.analyses.interventions.doses import Handle, check_doses, measure_of
from neuron_vs_sae.analyses.interventions.generation import Sampling, generate
from neuron_vs_sae.analyses.interventions.guards import neutral
from neuron_vs_sae.analyses.interventions.handles import first_units, handle_of
from neuron_vs_sae.analyses.interventions.prediction import correlations, measured_effects
from neuron_vs_sae.analyses.interventions.steering import Steering, steer
from neuron_vs_sae.analyses.units.selection import drawn
from neuron_vs_sae.catalog.corpora import Corpus, corpus
from neuron_vs_sae.core import files
from neuron_vs_sae.core.basis import Basis
from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.core.lookup import bound
from neuron_vs_sae.core.pairs import PromptPairs
from neuron_vs_sae.studies.analysis import Analysis
from neuron_vs_sae.studies.cells import Cell, CellFiles, Outcome, Step
from neuron_vs_sae.studies.intervening import SteerStudy
from neuron_vs_sae.studies.loaded import Loaded, Task
from neuron_vs_sae.studies.paired import judged
from neuron_vs_sae.studies.per_prompt import grouped, joined
from neuron_vs_sae.studies.record import finished_record, read_table
from neuron_vs_sae.studies.steered import frontiers, guard_table, prompt_table, steer_verdicts, steering_rows
from neuron_vs_sae.studies.units import units_of_circuits

TABLES = ("doses", "guards", "prediction", "generated")
_SHOWN = 3
"""Prompts after which text is written."""


@dataclass(frozen=True, eq=False)
class SteerResult:
    """A finished study of doses: a row per dose and prompt, per dose and guard, per predictor, and per text written."""

    folder: Path
    record: dict[str, Any]
    study: SteerStudy
    doses: pd.DataFrame
    guards: pd.DataFrame
    prediction: pd.DataFrame
    generated: pd.DataFrame

    @property
    def table(self) -> pd.DataFrame:
        """`steering.csv`."""
        return steering_rows(self.doses, self.guards, self.study)

    @property
    def frontier(self) -> pd.DataFrame:
        """`frontier.csv`."""
        return frontiers(self.doses, self.guards, self.study)

    @property
    def verdicts(self) -> pd.DataFrame:
        """`verdicts.csv`."""
        return judged(steer_verdicts(self.doses, self.guards, self.study), self.study.confidence)


def cells(study: SteerStudy) -> tuple[Cell, ...]:
    """One per task, seed and basis."""
    return tuple(Cell.of(task=t, seed=s, basis=b) for t in study.task for s in study.seed for b in study.basis)


def steps(loaded: Loaded[SteerStudy], cell: Cell) -> tuple[Step, ...]:
    """The doses of one basis (and of the dense directions where it writes); single units; texts."""
    spec, task, text = loaded.spec, loaded.task(str(cell["task"]), int(cell["seed"])), str(cell["basis"])
    model, basis = loaded.model, loaded.basis(task, text)
    names = {"task": task.name, "seed": task.seed}

    def dosed(_: CellFiles) -> Outcome:
        pairs, discovery = only(spec, task.evaluation), only(spec, task.discovery)
        options = Steering(spec.at, spec.dose_in, spec.metric, _other_tasks(loaded))
        groups, tables, guards = grouped(spec, pairs), [], []
        for label, own, handle in _handles(loaded, basis, text, discovery):
            text_of = _corpus(loaded)
            guard = (
                neutral(model, own, text_of, spec.at, seed=spec.seed[0])
                if text_of and not _in_maximum(spec)
                else text_of
            )
            result = steer(
                model, own, handle, pairs, kind=spec.kind, doses=spec.dose, guard=guard, options=options, engine=loaded.engine
            )  # fmt: skip
            tables.append(prompt_table(result).assign(**names, basis=label).merge(groups, on="prompt"))
            guards.append(guard_table(result).assign(**names, basis=label))
        return Outcome({"doses": pd.concat(tables, ignore_index=True), "guards": pd.concat(guards, ignore_index=True)})

    def predicted(_: CellFiles) -> Outcome:
        text_of = _corpus(loaded)
        if not spec.predict or text_of is None:
            return Outcome(
                {
                    "prediction": pd.DataFrame(
                        columns=["task", "seed", "basis", "predictor", "spearman", "low", "high", "n"]
                    )
                }
            )
        result = measured_effects(
            model, basis, drawn(basis, spec.predict, task.seed), only(spec, task.discovery), only(spec, task.evaluation), text_of,
            engine=loaded.engine,
        )  # fmt: skip
        rows = correlations(result, resamples=spec.resamples, confidence=spec.confidence, seed=spec.seed[0])
        return Outcome({"prediction": rows.assign(**names, basis=text)})

    def written(_: CellFiles) -> Outcome:
        columns = ["task", "seed", "basis", "prompt", "dose", "text", "perplexity", "distinct_1", "distinct_2"]
        if not spec.generate:
            return Outcome({"generated": pd.DataFrame(columns=columns)})
        rows = list(_texts(loaded, basis, text, task))
        return Outcome({"generated": pd.DataFrame(rows, columns=columns[3:]).assign(**names, basis=text)})

    return Step("doses", dosed), Step("prediction", predicted), Step("generated", written)


def only(spec: SteerStudy, pairs: PromptPairs) -> PromptPairs:
    """The pairs with one of the study's tags, or all. Raises `InputError` where none has one, or a tag is not TAG=VALUE."""
    if not spec.only:
        return pairs
    wanted = [tuple(text.split("=", 1)) for text in spec.only]
    if any(len(pair) != 2 for pair in wanted):
        raise InputError(f"cannot read {list(spec.only)}: pairs are kept by TAG=VALUE (--only)")
    kept = [i for i, tags in enumerate(pairs.tags) if any(tags.get(tag) == value for tag, value in wanted)]
    if len(kept) < 2:
        known = sorted({f"{tag}={value}" for tags in pairs.tags for tag, value in tags.items()})
        raise InputError(
            f"{len(kept)} pairs of task '{pairs.name}' have {' or '.join(spec.only)} (--only); there are: {', '.join(known[:12])}"
        )
    return pairs.take(kept)


def _handles(
    loaded: Loaded[SteerStudy], basis: Basis, text: str, discovery: PromptPairs
) -> list[tuple[str, Basis, Handle]]:
    """(what it is called, its basis, its units): the basis's own set, and the dense directions where it writes."""
    spec, model = loaded.spec, loaded.model
    own = _own(loaded, basis, text, discovery)
    result = [] if own is None else [(text, basis, own)]
    for kind in spec.direction:
        dense = directions(model, basis, discovery, kind)
        names = [f"{site.name}/0" for site in dense.sites]
        result.append((f"{kind} at {dense.kind}", dense, handle_of(model, dense, names)))
    return result


def _own(loaded: Loaded[SteerStudy], basis: Basis, text: str, discovery: PromptPairs) -> Handle | None:
    spec, model = loaded.spec, loaded.model
    names = list(spec.unit)
    if spec.from_circuit:
        names += units_of_circuits(Path(spec.from_circuit), text, spec.top)
    if not names:
        return first_units(model, basis, discovery, spec.top, spec.metric, at=spec.at)
    sites = tuple(f"{site.name}/" for site in basis.sites)
    mine = [name for name in names if name.startswith(sites) and "/error" not in name]
    return handle_of(model, basis, list(dict.fromkeys(name.partition("@")[0] for name in mine))) if mine else None


def _corpus(loaded: Loaded[SteerStudy]) -> Corpus | None:
    spec = loaded.spec
    if spec.text is None:
        return None
    return corpus(loaded.model, spec.text, length=spec.guard_length, contexts=spec.guard_contexts, seed=spec.seed[0])


def _in_maximum(spec: SteerStudy) -> bool:
    """Whether doses need the corpus itself, to find the largest values on."""
    return measure_of(spec.kind, spec.dose_in) == "maximum"


def _other_tasks(loaded: Loaded[SteerStudy]) -> dict[str, PromptPairs]:
    spec = loaded.spec
    given = {"prepend_bos": spec.prepend_bos, "seed": spec.seed[0], "part": "evaluation", "n": spec.eval_examples}
    return {text: bound("tasks", text, **given)(loaded.model) for text in spec.guard_task}


def _texts(loaded: Loaded[SteerStudy], basis: Basis, text: str, task: Task) -> Any:
    spec = loaded.spec
    handle = _own(loaded, basis, text, only(spec, task.discovery))
    pairs = only(spec, task.evaluation)
    for dose in check_doses("add", spec.dose):
        for i in range(min(_SHOWN, len(pairs))):
            prompt = pairs.clean[i, : int(pairs.length[i])]
            sampling = Sampling(tokens=spec.generate, seed=spec.seed[0] + i)
            continuation = generate(loaded.model, basis, handle, prompt, dose=dose, sampling=sampling)
            yield {
                "prompt": i, "dose": dose, "text": continuation.text, "perplexity": continuation.perplexity, "distinct_1": continuation.distinct_1,
                "distinct_2": continuation.distinct_2,
            }  # fmt: skip


def check(loaded: Loaded[SteerStudy]) -> None:
    """Raises `InputError` for doses that are none, units that no basis has, tags that no pair has, and text that is none."""
    spec = loaded.spec
    measure_of(spec.kind, spec.dose_in)
    check_doses(spec.kind, spec.dose)
    if _in_maximum(spec) and spec.text is None:
        raise InputError(
            "doses in multiples of the largest value need a corpus to find it on: give one (--guard-corpus)"
        )
    if spec.generate and (spec.kind != "add" or (spec.dose_in or "norm") != "norm"):
        raise InputError("text is written under doses of 'add' in norm: leave out --generate, or --kind and --dose-in")
    text = _corpus(loaded)
    if text is not None:
        next(text.batches(1))
    _other_tasks(loaded)
    for task in loaded.tasks:
        only(spec, task.discovery)
        only(spec, task.evaluation)
        named = (
            [
                _own(loaded, loaded.bases[task, name], name, task.discovery)
                for name in spec.basis
                if (task, name) in loaded.bases
            ]
            if spec.unit
            else []
        )
        if named and all(handle is None for handle in named):
            raise InputError(
                f"no basis of {', '.join(spec.basis)} has any of the units asked for: {', '.join(spec.unit)} (--unit)"
            )


def assemble(loaded: Loaded[SteerStudy], finished: Mapping[Cell, CellFiles], folder: Path) -> None:
    """Write the tables of values, cell by cell; what several cells measured alike (dense directions at one place), once."""
    homes = {"doses": "doses", "guards": "doses", "prediction": "prediction", "generated": "generated"}
    dosed = ["task", "seed", "basis", "dose"]
    keys = {"doses": [*dosed, "prompt"], "guards": [*dosed, "guard", "case"]}
    for name, step in homes.items():
        table = joined(finished, cells(loaded.spec), step, name)
        files.write_table(folder / f"{name}.parquet", table.drop_duplicates(keys.get(name), ignore_index=True))


def load(folder: Path) -> SteerResult:
    """Raises `FolderError` where the folder holds no finished study of doses."""
    record, study = finished_record(folder, SteerStudy)
    return SteerResult(folder, record, study, *(read_table(folder / f"{name}.parquet") for name in TABLES))


def summarise(result: SteerResult) -> None:
    """Write `steering.csv`, `frontier.csv`, `prediction.csv` and `verdicts.csv`."""
    tables = {
        "steering": result.table,
        "frontier": result.frontier,
        "prediction": result.prediction,
        "verdicts": result.verdicts,
    }
    for name, table in tables.items():
        files.write(result.folder / f"{name}.csv", lambda file, table=table: table.to_csv(file, index=False))


def seconds(loaded: Loaded[SteerStudy], some: Any) -> float:
    """Two forward passes per dose and context of the neutral text, and one per dose and prompt."""
    spec = loaded.spec
    doses = len(check_doses(spec.kind, spec.dose)) * (1 + len(spec.direction))
    tokens = spec.guard_contexts * spec.guard_length + spec.eval_examples * 12
    return 5e-6 * loaded.model.cfg.n_layers * doses * tokens * len(some)


STEERING = Analysis(
    spec=SteerStudy,
    files=(*(f"{name}.parquet" for name in TABLES), "steering.csv", "frontier.csv", "prediction.csv", "verdicts.csv", "neuronpedia_steering.json", "report.html"),
    cells=cells, steps=steps, assemble=assemble, load=load, summarise=summarise, seconds=seconds, check=check,
)  # fmt: skip
