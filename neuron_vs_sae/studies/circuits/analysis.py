"""Circuits as an analysis: found by attribution in every basis, judged by what they keep and what is left without them."""

from typing import Any

from neuron_vs_sae.analyses.circuits.evaluation import engine_for
from neuron_vs_sae.core import files
from neuron_vs_sae.core.basis import Basis
from neuron_vs_sae.core.lookup import parse
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


def what_can_be_decided(loaded: Loaded[Study]) -> list[str]:
    """What its prompts can and cannot decide in a family of so many comparisons (`limits`), and which control is missing."""
    study = loaded.spec
    clusters = {
        task.name: evaluation_clusters(study, task).n_clusters for task in loaded.tasks if task.seed == study.seed[0]
    }
    known = limits(study, clusters)
    sentences = [limit.message for limit in known if limit.message]
    if decidable := [limit for limit in known if limit.decidable]:
        largest = max(limit.detectable for limit in decidable)
        sentences.append(
            f"a family of {decidable[0].family} comparisons: a difference is found with a power of 80 % where it is at least {largest:.2f} "
            "standard deviations of the prompts' own differences"
        )
    if known and not any(parse("bases", basis).name == "random_sae" for basis in study.basis):
        sentences.append("no untrained dictionary (--basis random_sae) is the control of the trained ones")
    return sentences


def summarise(result: Result) -> None:
    """Write `summary.csv`, `stability.csv`, and what `write_verdicts` writes."""
    files.write(result.folder / "summary.csv", lambda file: result.summary.to_csv(file, index=False))
    stability = result.stability
    files.write(result.folder / "stability.csv", lambda file: stability.to_csv(file, index=False))
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
    limits=what_can_be_decided,
    facts=facts,
)
