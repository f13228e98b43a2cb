"""Figures for notebooks and HTML, from results alone: pure functions of a `Result`, each returning a plotly figure."""

from neuron_vs_sae.report.names import basis_names
from neuron_vs_sae.report.plots.against_size import curves, sizes
from neuron_vs_sae.report.plots.circuit import circuit
from neuron_vs_sae.report.plots.circuits import overlap_of_methods, overlap_of_positions
from neuron_vs_sae.report.plots.estimates import against_exact
from neuron_vs_sae.report.plots.forest import forest, specification_curve
from neuron_vs_sae.report.plots.prompts import differences
from neuron_vs_sae.report.plots.scores import concentration, distributions, shares
from neuron_vs_sae.report.plots.style import colours_of, markers_of, themed

__all__ = [
    "against_exact",
    "basis_names",
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
