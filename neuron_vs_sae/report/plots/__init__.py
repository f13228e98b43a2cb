"""Figures for notebooks and HTML, from results alone: pure functions of a `Result`, each returning a plotly figure."""

from typing import TYPE_CHECKING

from neuron_vs_sae.core.lazy import lazily

if TYPE_CHECKING:
    from neuron_vs_sae.report.plots.against_size import curves as curves, sizes as sizes
    from neuron_vs_sae.report.plots.circuits import (
        overlap_of_methods as overlap_of_methods,
        overlap_of_positions as overlap_of_positions,
    )
    from neuron_vs_sae.report.plots.conventions import forest as forest, specification_curve as specification_curve
    from neuron_vs_sae.report.plots.estimates import against_exact as against_exact
    from neuron_vs_sae.report.plots.one_circuit import circuit as circuit
    from neuron_vs_sae.report.plots.prompts import differences as differences
    from neuron_vs_sae.report.plots.scores import (
        concentration as concentration,
        distributions as distributions,
        shares as shares,
    )
    from neuron_vs_sae.report.plots.style import colours_of as colours_of, markers_of as markers_of, themed as themed

_HOMES = {
    "against_exact": "estimates",
    "circuit": "one_circuit",
    "colours_of": "style",
    "concentration": "scores",
    "curves": "against_size",
    "differences": "prompts",
    "distributions": "scores",
    "forest": "conventions",
    "markers_of": "style",
    "overlap_of_methods": "circuits",
    "overlap_of_positions": "circuits",
    "shares": "scores",
    "sizes": "against_size",
    "specification_curve": "conventions",
    "themed": "style",
}

__all__ = [
    "against_exact",
    "circuit",
    "colours_of",
    "concentration",
    "curves",
    "differences",
    "distributions",
    "forest",
    "markers_of",
    "overlap_of_methods",
    "overlap_of_positions",
    "shares",
    "sizes",
    "specification_curve",
    "themed",
]

if not TYPE_CHECKING:  # or every name would be one to a type checker
    __getattr__ = lazily(__name__, _HOMES)


def __dir__() -> list[str]:
    return __all__
