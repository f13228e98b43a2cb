"""Sphinx: pages in Markdown, notebooks with their committed outputs, the reference from docstrings (`make docs`)."""

import sys
from importlib import metadata
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

import docstrings
import generate
import mathml

project = "neuron_vs_sae"
author = "the neuron_vs_sae authors"
release = metadata.version("neuron_vs_sae")
extensions = ["myst_nb", "sphinx.ext.autodoc"]
exclude_patterns = ["_build", "generated", "notebooks/own", "notebooks/study"]  # generated pages are included in others

html_theme = "furo"
html_math_renderer = "mathml"
html_title = "neuron_vs_sae"
html_copy_source = False
html_static_path = ["_static"]
html_css_files = ["tables.css"]

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # outputs are those that are committed; `.ci/run` executes the notebooks

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 88


def setup(app: object) -> None:
    docstrings.connect(app)
    mathml.connect(app)
    generate.pages(Path(__file__).parent / "generated")
