"""Graphs as files: tensors in `graph.safetensors`, everything else in `graph.json`; no pickle."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from neuron_vs_sae.analyses.graphs.graph import Edges, Graph, TargetNode
from neuron_vs_sae.core import files
from neuron_vs_sae.core.errors import FolderError

FORMAT = 1
"""Counts the changes of what these files hold."""
_TENSORS = ("site", "unit", "position", "total", "values")
_EDGES = ("units", "rest", "tokens", "bias")
_FACTS = ("prompt", "tokens", "token_ids", "sites", "layers", "widths", "n_scored", "n_total")


def save(graph: Graph, folder: Path) -> None:
    """Write `graph.json` and `graph.safetensors` into the folder. The same graph gives the same bytes."""
    tensors = {name: getattr(graph, name).contiguous() for name in _TENSORS}
    for kind, edges in (("edges", graph.edges), ("reference", graph.reference)):
        if edges is not None:
            tensors |= {f"{kind}.{name}": getattr(edges, name).contiguous() for name in _EDGES}
    if graph.heads is not None:
        tensors["heads"] = graph.heads.contiguous()
    scores = graph.scores()
    about = {
        "format": FORMAT,
        "made": graph.made,
        **{name: getattr(graph, name) for name in _FACTS},
        "targets": [asdict(target) for target in graph.targets],
        "nodes": [
            {key: value for key, value in row.items() if value == value and value is not None}
            for row in graph.nodes.astype(object).where(graph.nodes.notna(), None).to_dict("records")
        ],
        "scores": {"replacement": scores.replacement, "completeness": scores.completeness},
        "largest_remainder": float(graph.remainder.abs().max()),
    }
    files.write_tensors(folder / "graph.safetensors", tensors, {})
    files.write_json(folder / "graph.json", about)


def load(folder: Path) -> Graph:
    """The graph that `save` wrote. Raises `FolderError` where the folder holds none, a damaged one, or one of another format."""
    try:
        about: dict[str, Any] = json.loads((folder / "graph.json").read_text(encoding="utf-8"))
        tensors = files.read_tensors(folder / "graph.safetensors")
        if about["format"] != FORMAT:
            raise ValueError(f"its format is {about['format']}, and this version reads {FORMAT}")
        facts: dict[str, Any] = {
            name: tuple(about[name]) if isinstance(about[name], list) else about[name] for name in _FACTS
        }
        of = {
            kind: Edges(**{name: tensors[f"{kind}.{name}"] for name in _EDGES})
            for kind in ("edges", "reference")
            if f"{kind}.units" in tensors
        }
        facts |= {name: tensors[name] for name in _TENSORS}
        return Graph(
            made=about["made"], targets=tuple(TargetNode(**target) for target in about["targets"]), edges=of["edges"],
            reference=of.get("reference"), heads=tensors.get("heads"), **facts,
        )  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FolderError(
            f"{folder} holds no graph that can be read ({type(error).__name__}: {error}): trace it again"
        ) from error
