"""What is shown of units, written into their study's folder: the page of heat maps, and uploads for Neuronpedia."""

import shutil

from neuron_vs_sae.core import files
from neuron_vs_sae.report.neuronpedia import uploads
from neuron_vs_sae.report.units_page import units_page
from neuron_vs_sae.studies.units import UnitsResult


def write_report(found: UnitsResult) -> None:
    """(Re)write `units.html` and `neuronpedia/*.json`."""
    files.write_text(
        found.folder / "units.html", units_page(f"Units of {found.study.model}", found.units, found.windows)
    )
    shutil.rmtree(found.folder / "neuronpedia", ignore_errors=True)
    for name, body in uploads(found.study.model, found.units, found.windows).items():
        files.write_json(found.folder / "neuronpedia" / name, body)
