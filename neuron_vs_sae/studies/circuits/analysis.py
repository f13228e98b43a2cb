"""Circuits as an analysis: found by attribution in every basis, judged by what they keep and what is left without them."""

from typing import Any

from neuron_vs_sae.analyses.circuits.evaluation import engine_for
from neuron_vs_sae.core import files
from neuron_vs_sae.core.basis import Basis
from neuron_vs_sae.studies.analysis import Analysis
from neuron_vs_sae.studies.cells import Cell, Step
from neuron_vs_sae.studies.circuits.assembling import assemble
from neuron_vs_sae.studies.circuits.checking import check, check_tasks
from neuron_vs_sae.studies.circuits.cost import seconds
from neuron_vs_sae.studies.circuits.discovering import discovery_step
from neuron_vs_sae.studies.circuits.judging import evaluation_clusters, judging_step
from neuron_vs_sae.studies.limits import limits
from neuron_vs_sae.studies.loaded import Loaded
from neuron_vs_sae.studies.result import FILES, Result, load
from neuron_vs_sae.studies.study import Study
from neuron_vs_sae.studies.verdict import write_verdicts


def cells(study: Study) -> tuple[Cell, ...]:
    """One per task, seed and method; all bases are in one cell, because they share passes."""
    return tuple(
        Cell.of(task=task, seed=seed, method=method)
        for task in study.task
        for seed in study.seed
        for method in study.method
    )


def steps(loaded: Loaded[Study], cell: Cell) -> tuple[Step, ...]:
    """The scores of all bases, then the curves of one basis after the other."""
    task = loaded.task(str(cell["task"]), int(cell["seed"]))
    curves = (judging_step(loaded, task, cell, text) for text in loaded.spec.basis)
    return (discovery_step(loaded, task, cell), *curves)


def facts(loaded: Loaded[Study], basis: Basis) -> dict[str, Any]:
    """What runs its circuits."""
    return {"engine": engine_for(loaded.model, basis, loaded.engine)}


def undecidable(loaded: Loaded[Study]) -> list[str]:
    """What is too many comparisons for its prompts (`limits`), a sentence per task."""
    study = loaded.spec
    clusters = {
        task.name: evaluation_clusters(study, task).n_clusters for task in loaded.tasks if task.seed == study.seed[0]
    }
    return [limit.message for limit in limits(study, clusters) if limit.message]


def summarise(result: Result) -> None:
    """Write `summary.csv`, `verdicts.csv` and `verdicts_across_tasks.csv`."""
    files.write(result.folder / "summary.csv", lambda file: result.summary.to_csv(file, index=False))
    write_verdicts(result)


CIRCUITS = Analysis(
    spec=Study,
    files=FILES,
    cells=cells,
    steps=steps,
    assemble=assemble,
    load=load,
    summarise=summarise,
    seconds=seconds,
    check_tasks=check_tasks,
    check=check,
    limits=undecidable,
    facts=facts,
)
