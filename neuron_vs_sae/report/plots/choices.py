"""What a plot shows by default: the study's first of everything."""

from neuron_vs_sae.report.cases import ranked
from neuron_vs_sae.studies.result import Result


def task_or_first(result: Result, task: str | None) -> str:
    """The task as it was given, or the study's first."""
    return str(result.summary["task"].iloc[0]) if task is None else task


def method_or_first(result: Result, method: str | None) -> str:
    """The method as it was given, or the study's first that is not chance."""
    return ranked(list(result.study.method))[0][0] if method is None else method
