"""The table of analyses, a line each. Nothing of an analysis is imported before it is used."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from neuron_vs_sae.core.errors import InputError

if TYPE_CHECKING:
    from neuron_vs_sae.studies.analysis import Analysis


@dataclass(frozen=True)
class Entry:
    """Where an analysis is described, the function that writes its tables, figures and page, and the one that says what a
    finished cell shows already: `module:name`."""

    analysis: str
    report: str
    glimpse: str = "neuron_vs_sae.report.glimpse:nothing"


_INTERVENTIONS = "neuron_vs_sae.report.interventions"
_VALUES = "neuron_vs_sae.report.values:write_report"
ANALYSES = {
    "circuits": Entry(
        "neuron_vs_sae.studies.circuits.analysis:CIRCUITS",
        "neuron_vs_sae.report.circuits:write_report",
        "neuron_vs_sae.report.glimpse:of_circuits",
    ),
    "units": Entry("neuron_vs_sae.studies.units:UNITS", "neuron_vs_sae.report.units:write_report"),
    "lens": Entry("neuron_vs_sae.studies.lens:LENS", _VALUES),
    "fidelity": Entry("neuron_vs_sae.studies.fidelity:FIDELITY", _VALUES),
    "graphs": Entry("neuron_vs_sae.studies.graphs:GRAPHS", "neuron_vs_sae.report.graphs:write_report"),
    "probing": Entry("neuron_vs_sae.studies.probing:PROBING", _VALUES),
    "patching": Entry("neuron_vs_sae.studies.patching:PATCHING", f"{_INTERVENTIONS}:write_patching"),
    "steering": Entry("neuron_vs_sae.studies.steering:STEERING", f"{_INTERVENTIONS}:write_steering"),
    "heads": Entry("neuron_vs_sae.studies.heads:HEADS", f"{_INTERVENTIONS}:write_heads"),
    "selectivity": Entry("neuron_vs_sae.studies.selectivity:SELECTIVITY", f"{_INTERVENTIONS}:write_selectivity"),
}


def analysis_called(name: str) -> "Analysis[Any]":
    """The analysis of that name. Raises `InputError`, listing what there is, for no such name."""
    if name not in ANALYSES:
        raise InputError(f"there is no analysis {name!r}; there are: {', '.join(ANALYSES)}")
    return _imported(ANALYSES[name].analysis)


def report_of(name: str) -> Callable[[Any], None]:
    """The function that writes the tables, figures and page of that analysis's results."""
    return _imported(ANALYSES[name].report)


def glimpse_of(name: str) -> Callable[[Any, Any, Any], str]:
    """What says in a line, of a loaded study, a finished cell and its files, what they show; empty for nothing."""
    return _imported(ANALYSES[name].glimpse)


def _imported(where: str) -> Any:
    module, _, name = where.partition(":")
    return getattr(import_module(module), name)
