"""Writes what a study of units shows into its folder: a page of heat maps, and uploads for Neuronpedia."""

import shutil

from neuron_vs_sae.core import files
from neuron_vs_sae.report.neuronpedia import uploads
from neuron_vs_sae.report.units_page import units_page
from neuron_vs_sae.studies.units import UnitsResult


def write_report(result: UnitsResult) -> None:
    """(Re)write `units.html` and `neuronpedia/*.json`."""
    files.write_text(
        result.folder / "units.html", units_page(f"Units of {result.study.model}", result.units, result.windows)
    )
    shutil.rmtree(result.folder / "neuronpedia", ignore_errors=True)
    for name, body in uploads(result.study.model, result.units, result.windows).items():
        files.write_json(result.folder / "neuronpedia" / name, body)
