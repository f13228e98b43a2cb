"""What is shown of graphs, written into their study's folder: the page, the viewers' files, features and circuits in others' formats."""

import json
import shutil
from typing import Any

from neuron_vs_sae.analyses.graphs.graph import Graph
from neuron_vs_sae.core import files
from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.report.graph_features import feature
from neuron_vs_sae.report.graph_mib import mib_circuit
from neuron_vs_sae.report.graph_page.document import graph_page
from neuron_vs_sae.report.graph_viewer import feature_numbers, plain, viewer_graph
from neuron_vs_sae.studies.graphs import GraphsResult

_FOLDERS = ("viewer", "features", "mib")


def write_report(result: GraphsResult) -> None:
    """(Re)write `graph.html`, `viewer/`, `features/` (with a corpus), and `mib/` (with `attention=split`)."""
    for name in _FOLDERS:
        shutil.rmtree(result.folder / name, ignore_errors=True)
    files.write_text(result.folder / "graph.html", graph_page(result))
    for name in result.slugs:
        graph = result.graph(name)
        basis = str(result.table.loc[result.table["slug"] == name, "basis"].iloc[0])
        files.write_json(result.folder / "viewer" / f"{name}.json", _viewer(result, graph, name, basis))
        if len(result.windows):
            _write_features(result, graph, basis)
        if graph.heads is not None:
            _write_mib(result, graph, name)


def _viewer(result: GraphsResult, graph: Graph, name: str, basis: str) -> dict[str, Any]:
    study = result.study
    pruning = graph.prune(node_threshold=study.node_threshold, edge_threshold=study.edge_threshold)
    labels = {
        row["unit"]: " · ".join(t.strip() for t in _tokens(row["top_tokens"])[:3])
        for row in result.units.to_dict("records")
        if row["basis"] == basis and row["sign"] == "+"
    }
    groups: dict[str, list[int]] = {}
    if len(result.members):
        mine = result.members.loc[result.members["basis"] == basis]
        of = {(row["site"], row["unit"], row["sign"]): row["label"] for row in mine.to_dict("records")}
        signs = ["-" if value < 0 else "+" for value in graph.values[len(graph.targets) :].tolist()]
        for i, (site, unit, sign) in enumerate(zip(graph.site.tolist(), graph.unit.tolist(), signs, strict=True)):
            if (label := of.get((graph.sites[site], unit, sign))) is not None:
                groups.setdefault(label, []).append(i)
    return viewer_graph(
        graph, pruning, name, labels=labels, supernodes=list(groups.items()), bias_nodes=study.bias_nodes
    )


def _write_features(result: GraphsResult, graph: Graph, basis: str) -> None:
    """`features/BASIS/NUMBER.json` of every unit that the study has windows of."""
    units, windows = (table.loc[table["basis"] == basis] for table in (result.units, result.windows))
    known = set(units["unit"])
    for number, name in zip(feature_numbers(graph), graph.names, strict=True):
        unit, file = name.rpartition("@")[0], result.folder / "features" / plain(basis) / f"{number}.json"
        if unit in known and not file.exists():
            rows = units.loc[units["unit"] == unit]
            files.write_json(file, feature(number, basis, rows, windows.loc[windows["unit"] == unit]))


def _write_mib(result: GraphsResult, graph: Graph, name: str) -> None:
    """`mib/NAME.json`, where the basis's sites are components of MIB's."""
    try:
        circuit = mib_circuit(graph, graph.settings["shape"])
    except InputError:
        return
    files.write_json(result.folder / "mib" / f"{name}.json", circuit)


def _tokens(given: Any) -> list[str]:
    return json.loads(given) if isinstance(given, str) else list(given)
