"""Figures in a page of their own."""

from neuron_vs_sae.core import files
from neuron_vs_sae.report.escaping import in_html
from neuron_vs_sae.report.plots.against_size import cases, curves
from neuron_vs_sae.studies import result


def write_curves_html(found: "result.Result") -> None:
    """`curves.html`: one figure per task, ablation and error policy, readable without a network."""
    figures = [curves(found, task=task, ablation=ablation, errors=errors) for task, ablation, errors in cases(found)]
    bodies = [
        figure.to_html(full_html=False, include_plotlyjs=i == 0, default_width="100%", div_id=f"curves-{i}")
        for i, figure in enumerate(figures)
    ]
    content = "\n".join(bodies)
    page = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Circuits of {in_html(found.summary['model'].iloc[0])}</title></head>\n"
        f"<body>\n{content}\n</body></html>\n"
    )
    files.write_text(found.folder / "curves.html", page)
