"""The first step of a cell: the scores of every basis from the same passes, and how stable their circuits are."""

from collections.abc import Iterable
from functools import partial

import pandas as pd

from neuron_vs_sae.analyses.circuits import stability
from neuron_vs_sae.analyses.circuits.folds import Folds, folds_of
from neuron_vs_sae.core.basis import apart, together
from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.core.lookup import bound
from neuron_vs_sae.core.nodes import NodeScores
from neuron_vs_sae.studies.cells import Cell, CellFiles, Outcome, Step
from neuron_vs_sae.studies.circuits.sizes import alike, choice_of, index_of, shown_for_stability
from neuron_vs_sae.studies.loaded import Loaded, Task
from neuron_vs_sae.studies.study import Study

STEP = "scores"


def discovery_step(loaded: Loaded[Study], task: Task, cell: Cell) -> Step:
    """Attribution, once for all bases (a unit's gradient is its site's gradient times its decoder row): a tensor per basis,
    numbered as in the study, and the tables `stability` and `circuits`."""
    return Step(STEP, lambda _: discover(loaded, task, str(cell["method"])))


def discover(loaded: Loaded[Study], task: Task, method: str) -> Outcome:
    """The scores of every basis of the study. Raises `InputError` where all of a basis's are 0: they rank nothing."""
    study = loaded.spec
    bases = together([loaded.basis(task, text) for text in study.basis])
    folds = folds_of(task.discovery, study.folds, task.seed)
    scores_of_all = bound("attribution", method, seed=task.seed)(
        loaded.model,
        bases,
        folds.marked(task.discovery),
        study.explained_metric,
        pairing=study.pairing,
        positions=study.positions,
        batch_size=loaded.batch_size,
    )
    tensors, rows, circuits = {}, [], []
    for place, (text, scores) in enumerate(zip(study.basis, apart(scores_of_all, bases), strict=True)):
        names = discovery_names(task, text, method)
        if not bool(scores.values.any()):
            raise InputError(
                f"{label_of(names)}: every score is 0, so nothing can be ranked. The metric '{study.explained_metric}' may not depend on "
                "these sites, or its gradient vanishes at the clean prompt (kl): choose another --attribution-metric"
            )
        tensors[str(place)] = scores.stored
        theirs, nodes = _stability(loaded, task, text, scores, folds)
        rows += [{**row, **names} for row in theirs]
        circuits += [table.assign(**{**names, "errors": errors}) for errors, table in nodes]
    tables = {"stability": stability.typed(rows).drop(columns="key"), "circuits": one_below_the_other(circuits)}
    return Outcome(tables, tensors)


def discovery_names(task: Task, basis: str, method: str) -> dict[str, str | int]:
    """What distinguishes a discovery from the study's others, by column name."""
    return {"task": task.name, "basis": basis, "method": method, "seed": task.seed}


def label_of(names: dict[str, str | int]) -> str:
    """The name of a discovery's tensor of scores."""
    return "/".join(map(str, names.values()))


def stored_scores(loaded: Loaded[Study], task: Task, text: str, files: CellFiles) -> NodeScores:
    """The scores of a basis that a cell's first step has written."""
    place = str(loaded.spec.basis.index(text))
    index = index_of(loaded.spec, loaded.basis(task, text), task.discovery)
    return NodeScores.from_stored(index, files.tensors(STEP)[place])


def one_below_the_other(tables: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """The tables as one; empty ones, which have no column types, are left out where there are others."""
    tables = list(tables)
    return pd.concat([table for table in tables if len(table)] or tables[:1], ignore_index=True)


def _stability(
    loaded: Loaded[Study], task: Task, text: str, scores: NodeScores, folds: Folds
) -> tuple[list[dict], list[tuple[str, pd.DataFrame]]]:
    """Per error policy the rows of `stability.within` and the nodes of the largest circuit."""
    study, basis = loaded.spec, loaded.basis(task, text)
    index = index_of(study, basis, task.discovery)
    within = partial(stability.within, scores, folds, confidence=study.confidence, seed=task.seed)
    of_policy = {}
    for policies in alike(study, basis, index):
        choice = shown_for_stability(choice_of(study, text, basis, index, policies[0]))
        of_policy |= dict.fromkeys(policies, within(choice))
    rows = [{**row, "errors": errors} for errors in study.errors for row in of_policy[errors][0]]
    return rows, [(errors, of_policy[errors][1]) for errors in study.errors]
