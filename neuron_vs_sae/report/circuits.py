"""Writes everything that a study of circuits shows into its folder: tables, figures, and the page."""

from neuron_vs_sae.report.page import write_page
from neuron_vs_sae.report.paper_figures import write_curves_pdf
from neuron_vs_sae.report.tables import write_tables
from neuron_vs_sae.studies.evidence import evidence
from neuron_vs_sae.studies.per_curve import per_curve
from neuron_vs_sae.studies.result import Result


def write_report(result: Result) -> None:
    """(Re)write tables, figures and page from the result and from what `summarise` has written into its folder."""
    curves, tested = per_curve(result), evidence(result.folder)
    write_tables(result, curves, tested.verdicts)
    write_curves_pdf(result)
    write_page(result, tested, curves)
