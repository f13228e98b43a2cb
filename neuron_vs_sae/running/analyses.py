"""The table of analyses, a line each. Nothing of an analysis is imported before it is used."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from neuron_vs_sae.studies.analysis import Analysis


@dataclass(frozen=True)
class Entry:
    """Where an analysis is defined, and the function that writes its tables, figures and page: `module:name` each."""

    analysis: str
    report: str


_VALUES = "neuron_vs_sae.report.values:write_report"
ANALYSES = {
    "circuits": Entry("neuron_vs_sae.studies.circuits.analysis:CIRCUITS", "neuron_vs_sae.report.circuits:write_report"),
    "units": Entry("neuron_vs_sae.studies.units:UNITS", "neuron_vs_sae.report.units:write_report"),
    "lens": Entry("neuron_vs_sae.studies.lens:LENS", _VALUES),
    "fidelity": Entry("neuron_vs_sae.studies.fidelity:FIDELITY", _VALUES),
    "probing": Entry("neuron_vs_sae.studies.probing:PROBING", _VALUES),
}


def analysis_called(name: str) -> "Analysis[Any]":
    """The analysis of that name."""
    return _imported(ANALYSES[name].analysis)


def report_of(name: str) -> Callable[[Any], None]:
    """The function that writes the tables, figures and page of that analysis's results."""
    return _imported(ANALYSES[name].report)


def _imported(where: str) -> Any:
    module, _, name = where.partition(":")
    return getattr(import_module(module), name)
