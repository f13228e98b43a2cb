"""Graphs as files: tensors in `graph.safetensors`, everything else in `graph.json`; no pickle."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from neuron_vs_sae.analyses.graphs.graph import Edges, Graph, TargetNode
from neuron_vs_sae.core import files
from neuron_vs_sae.core.errors import FolderError

FORMAT = 1
"""Counts the changes of what these files hold."""
_TENSORS = ("site", "unit", "position", "total", "values")
_EDGES = ("units", "rest", "tokens", "bias")
_FACTS = ("prompt", "tokens", "token_ids", "sites", "layers", "widths", "n_scored", "n_total")


def save_graph(graph: Graph, folder: Path) -> None:
    """Write `graph.json` and `graph.safetensors` into the folder. The same graph gives the same bytes."""
    write(folder, described(graph), tensors_of(graph))


def write(folder: Path, about: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """The two files of a graph that is given as its two parts."""
    files.write_tensors(folder / "graph.safetensors", tensors, {})
    files.write_json(folder / "graph.json", about)


def load_graph(folder: Path) -> Graph:
    """The graph that `save_graph` wrote. Raises `FolderError` where the folder holds none, a damaged one, or one of another format."""
    try:
        about: dict[str, Any] = json.loads((folder / "graph.json").read_text(encoding="utf-8"))
        return assembled(about, files.read_tensors(folder / "graph.safetensors"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FolderError(
            f"{folder} holds no graph that can be read ({type(error).__name__}: {error}): trace it again"
        ) from error


def tensors_of(graph: Graph) -> dict[str, Tensor]:
    """The numbers of a graph by name."""
    tensors = {name: getattr(graph, name).contiguous() for name in _TENSORS}
    for kind, edges in (("edges", graph.edges), ("reference", graph.reference)):
        if edges is not None:
            tensors |= {f"{kind}.{name}": getattr(edges, name).contiguous() for name in _EDGES}
    return tensors if graph.heads is None else {**tensors, "heads": graph.heads.contiguous()}


def described(graph: Graph) -> dict[str, Any]:
    """What `graph.json` holds: settings, targets, a row per node, and the graph's scores."""
    scores = graph.scores()
    return {
        "format": FORMAT,
        "settings": graph.settings,
        **{name: getattr(graph, name) for name in _FACTS},
        "targets": [asdict(target) for target in graph.targets],
        "nodes": [
            {key: value for key, value in row.items() if value is not None}
            for row in graph.nodes.astype(object).where(graph.nodes.notna(), None).to_dict("records")
        ],
        "scores": {"replacement": scores.replacement, "completeness": scores.completeness},
        "largest_remainder": float(graph.remainder.abs().max()),
    }


def assembled(about: dict[str, Any], tensors: dict[str, Tensor]) -> Graph:
    """The graph of its two parts. Raises `ValueError` for another format, and as reading what is missing does."""
    if about["format"] != FORMAT:
        raise ValueError(f"its format is {about['format']}, and this version reads {FORMAT}")
    facts: dict[str, Any] = {
        name: tuple(about[name]) if isinstance(about[name], (list, tuple)) else about[name] for name in _FACTS
    }
    facts |= {name: tensors[name] for name in _TENSORS}
    edges = {
        kind: Edges(**{name: tensors[f"{kind}.{name}"] for name in _EDGES})
        for kind in ("edges", "reference")
        if f"{kind}.units" in tensors
    }
    return Graph(
        settings=about["settings"], targets=tuple(TargetNode(**target) for target in about["targets"]), edges=edges["edges"],
        reference=edges.get("reference"), heads=tensors.get("heads"), **facts,
    )  # fmt: skip
