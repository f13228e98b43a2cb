"""`nvs compare` from Python: the study of circuits, run by the frame that runs every analysis."""

from pathlib import Path
from typing import Any

from neuron_vs_sae.running import runner
from neuron_vs_sae.running.machine import Machine
from neuron_vs_sae.studies.result import Result
from neuron_vs_sae.studies.study import Study


def compare(
    study: Study, out: Path | str, *, machine: Machine | None = None, overwrite: bool = False, model: Any = None
) -> Result:
    """Run the study into the folder `out` and return its result: circuits of every task, basis, method and seed, judged
    under every ablation, error policy and metric.

    A finished study is loaded, not run again; an interrupted one goes on from what it has and ends with the same
    numbers. `model` is an already loaded model to use instead of loading `study.model`.
    Raises `FolderError` when the folder holds another study (unless `overwrite`), is in use, or cannot be written;
    `InputError` for input that is wrong, before anything long starts.
    """
    return runner.run(study, out, machine=machine, overwrite=overwrite, model=model)
