"""`graph.html`: the page of a study's graphs, in one file that asks for nothing."""

import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from neuron_vs_sae.report.escaping import visible
from neuron_vs_sae.report.graph_page.data import PROMPTS, page_data
from neuron_vs_sae.report.names import basis_names
from neuron_vs_sae.report.plots.style import colours_of
from neuron_vs_sae.studies.graphs import GraphsResult

_HERE = Path(__file__).parent
_PAGE = _HERE.parent / "page"


def graph_page(result: GraphsResult) -> str:
    """The page as HTML."""
    study, data = result.study, page_data(result)
    bases = list(study.basis)
    names, colours = basis_names(bases), colours_of(bases)
    data["bases"] = [{"key": basis, "label": visible(names[basis]), "colour": colours[basis]} for basis in bases]
    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    left = result.table[["task", "prompt", "index"]].drop_duplicates().shape[0] - PROMPTS
    return environment.get_template("graph.html.jinja").render(
        title=f"Attribution graphs of {visible(study.model)}",
        nodes=study.nodes, node_threshold=study.node_threshold, edge_threshold=study.edge_threshold, slope=study.slope,
        left=max(left, 0), key=study.key, data=Markup(_inert(data)),
        css=Markup((_PAGE / "page.css").read_text(encoding="utf-8") + (_HERE / "graph.css").read_text(encoding="utf-8")),
        script=Markup("\n".join((folder / name).read_text(encoding="utf-8") for folder, name in ((_PAGE, "svg.js"), (_HERE, "graph.js")))),
    )  # fmt: skip


def _inert(data: Any) -> str:
    """JSON that no reader of HTML takes for markup."""
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
