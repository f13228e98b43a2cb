"""What a finished cell says already, in a line, while the others run."""

from typing import Any

import pandas as pd

from neuron_vs_sae.report.names import basis_names, level_name, listed, task_names
from neuron_vs_sae.report.robust_tables import SCORE
from neuron_vs_sae.studies.cells import Cell, CellFiles
from neuron_vs_sae.studies.circuits.judging import judging_name
from neuron_vs_sae.studies.comparing import compare, curves_by_task
from neuron_vs_sae.studies.families import CONFIRMATORY, family, is_baseline, neurons
from neuron_vs_sae.studies.findings import finding
from neuron_vs_sae.studies.loaded import Loaded
from neuron_vs_sae.studies.study import Study

_RESAMPLES = 1000


def of_circuits(loaded: Loaded[Study], cell: Cell, files: CellFiles) -> str:
    """Who is better on the cell's task under its method, in how many specifications; each is judged alone, from 1,000 resamples.

    Empty for a baseline method, and where neurons are compared with no trained dictionary.
    """
    study, method = loaded.spec, str(cell["method"])
    pairs = [(a, b) for a in neurons(study) for b in study.basis if family(a, b, method) == CONFIRMATORY]
    if not pairs or is_baseline(method):
        return ""
    wanted = list(dict.fromkeys(basis for pair in pairs for basis in pair))
    curves = pd.concat([files.table(judging_name(study, basis), "curves") for basis in wanted], ignore_index=True)
    [task] = curves_by_task(curves, min(_RESAMPLES, study.resamples))
    names = basis_names(study.basis)
    parts = []
    for a, b in pairs:
        comparison = compare(task, a, b)
        if comparison is not None:
            own = finding(comparison, study)
            alone = own.alone[(own.rows["score"] == SCORE).to_numpy()].tolist()
            counts = {names[a]: alone.count("a better"), names[b]: alone.count("b better")}
            better = listed(f"{name} better in {count}" for name, count in counts.items())
            parts.append(f"{better} of {len(alone)} specifications")
    seed = f", seed {cell['seed']}" if len(study.seed) > 1 else ""
    task_name = next(iter(task_names([task.task]).values()))
    return f"{task_name}, {level_name('method', method)}{seed}: {'; '.join(parts)}" if parts else ""


def nothing(*_: Any) -> str:
    """Nothing can be said before all cells are done."""
    return ""
