"""Graphs in the format that circuit-tracer's and Neuronpedia's pages both read; drawn from the schemas, with no code of theirs.

What these readers ask for is kept here: layers and identifiers that no two nodes share (several sites of a layer have ranges of numbers
of their own, the truth being in `site`), a node for what each site leaves over, `(p=` in the label of a target, names of
letters, digits, `_`, `.` and `-` alone, and at least one layer above 0.
"""

import re
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

from neuron_vs_sae.analyses.graphs.graph import Graph
from neuron_vs_sae.analyses.graphs.influence import Pruning
from neuron_vs_sae.report.escaping import visible

UNIT, ERROR, TOKEN, TARGET, BIAS = "cross layer transcoder", "mlp reconstruction error", "embedding", "logit", "bias"
"""Kinds of node, as the readers call them. Neurons are of the first kind too: Neuronpedia's scores count no other."""


def viewer_graph(
    graph: Graph,
    pruning: Pruning,
    name: str,
    *,
    labels: Mapping[str, str] | None = None,
    supernodes: Sequence[tuple[str, Sequence[int]]] = (),
    bias_nodes: bool = False,
) -> dict[str, Any]:
    """The pruned graph as one JSON document, called `name`.

    `labels` say what units (`SITE/NUMBER`) are about, `supernodes` are labels with places of units. `bias_nodes` adds a node per target for
    what biases add, which Neuronpedia draws and no score counts. The scores that either reader computes from the document are
    those of the pruned matrix.
    """
    nodes = _nodes(graph, pruning, labels or {})
    ids = [node["node_id"] for node in nodes]
    into, source = pruning.edges.nonzero(as_tuple=True)
    weights = graph.A[into, source].tolist()
    links = [
        {"source": ids[s], "target": ids[t], "weight": weight}
        for t, s, weight in zip(into.tolist(), source.tolist(), weights, strict=True)
    ]
    linked = {end for link in links for end in (link["source"], link["target"])}
    # Neuronpedia's page needs a layer above 0: what the last site leaves over stands in the document though nothing flows from it.
    highest = nodes[len(graph) + len(graph.sites) * len(graph.tokens) - 1]["node_id"]
    shown = [
        n for n in nodes if n["node_id"] in linked or n["feature_type"] in (TOKEN, TARGET) or n["node_id"] == highest
    ]
    if bias_nodes:
        biases, from_biases = _biases(graph, shown, ids)
        shown, links = shown + biases, links + from_biases
    there = {node["node_id"] for node in shown}
    groups = [[visible(label), *(ids[i] for i in members if ids[i] in there)] for label, members in supernodes]
    return {
        "metadata": {
            "slug": plain(name), "scan": plain(graph.settings["model"]), "transcoder_list": [], "prompt_tokens": [visible_token(t) for t in graph.tokens],
            "prompt": visible(graph.prompt), "node_threshold": 1.0, "schema_version": 1,
            "info": {"generator": {"name": "neuron_vs_sae", "version": version("neuron_vs_sae")}, "description": _described(graph)},
            "generation_settings": {"max_n_logits": len(graph.targets), "max_feature_nodes": len(graph)},
        },
        "qParams": {"pinnedIds": [], "supernodes": [group for group in groups if len(group) > 1], "linkType": "both", "clickedId": "", "sg_pos": ""},
        "nodes": shown, "links": links,
    }  # fmt: skip


def feature_numbers(graph: Graph) -> list[int]:
    """Per unit the number that its feature has in these documents."""
    return [cantor(*_place(graph, int(s), int(u))) for s, u in zip(graph.site, graph.unit, strict=True)]


def cantor(layer: int, index: int) -> int:
    """One number for a layer and an index, and another for any other."""
    return (layer + index) * (layer + index + 1) // 2 + index


def plain(name: str) -> str:
    """A name of letters, digits, `_`, `.` and `-` alone."""
    return re.sub(r"[^a-zA-Z0-9_.-]+", "-", name).strip("-.") or "graph"


def visible_token(token: str) -> str:
    """A token as it reads, its spaces kept."""
    return " ".join(visible(word) for word in token.split(" "))


def _place(graph: Graph, site: int, unit: int) -> tuple[int, int]:
    """(layer, index) of a unit: the sites of a layer one after another."""
    before = sum(
        w for w, layer in zip(graph.widths[:site], graph.layers[:site], strict=True) if layer == graph.layers[site]
    )
    return _layer(graph, site), before + unit


def _layer(graph: Graph, site: int) -> int:
    """A layer's number; from 1 where all are layer 0, which Neuronpedia's page takes for none."""
    return graph.layers[site] + (max(graph.layers) == 0)


def _nodes(graph: Graph, pruning: Pruning, labels: Mapping[str, str]) -> list[dict[str, Any]]:
    """All nodes of `graph.A`, in its order."""
    held = [float(x) for x in pruning.cumulative.tolist()]
    t, positions = len(graph.targets), len(graph.tokens)
    nodes: list[dict[str, Any]] = []
    for i, (s, u, p) in enumerate(zip(graph.site.tolist(), graph.unit.tolist(), graph.position.tolist(), strict=True)):
        layer, index = _place(graph, s, u)
        name = f"{graph.sites[s]}/{u}"
        label = labels.get(name)
        nodes.append(_node(
            f"{layer}_{index}_{p}", UNIT, cantor(layer, index), str(layer), p, js=f"{layer}_{index}-0",
            clerp=visible(name if label is None else f"{name}: {label}"), activation=float(graph.values[t + i]), site=visible(graph.sites[s]),
        ))  # fmt: skip
    for s, site in enumerate(graph.sites):
        for p in range(positions):
            name = f"{_layer(graph, s)}_error_{s}_{p}"
            nodes.append(
                _node(
                    name,
                    ERROR,
                    -1,
                    str(_layer(graph, s)),
                    p,
                    clerp=visible(f"{site}: error and other units"),
                    site=visible(site),
                )
            )
    for p, (token, number) in enumerate(zip(graph.tokens, graph.token_ids, strict=True)):
        nodes.append(_node(f"E_{number}_{p}", TOKEN, p, "E", p, js=f"E_{number}-{p}", clerp=visible_token(token)))
    last = str(max(_layer(graph, s) for s in range(len(graph.sites))) + 1)
    for i, target in enumerate(graph.targets):
        # A target that is no token has a number that no token has.
        number = target.token if target.token is not None else 1_000_000 + i
        probability = target.weight if target.token is not None else 1.0
        clerp = f"{'Output ' if target.token is not None else ''}{visible_token(target.name)} (p={probability:.3f})"
        nodes.append(_node(
            f"{last}_{number}_{positions - 1}", TARGET, number, last, positions - 1, js=f"L_{number}-{positions - 1}", clerp=clerp,
            token_prob=probability, is_target_logit=i == 0,
        ))  # fmt: skip
    return [node | {"influence": share} for node, share in zip(nodes, held, strict=True)]


def _node(
    name: str, kind: str, feature: int, layer: str, position: int, *, js: str = "", **more: Any
) -> dict[str, Any]:
    return {
        "node_id": name, "feature": feature, "layer": layer, "ctx_idx": position, "feature_type": kind, "jsNodeId": js or f"{name}-0",
        "clerp": "", "activation": None, "token_prob": 0.0, "is_target_logit": False, "run_idx": 0, "reverse_ctx_idx": 0, **more,
    }  # fmt: skip


def _biases(
    graph: Graph, shown: Sequence[dict[str, Any]], ids: Sequence[str]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """A node per shown unit or target for what biases add to it, with its link."""
    there = {node["node_id"]: node for node in shown}
    t = len(graph.targets)
    rows = [*range(t, t + len(graph)), *range(t)]
    places = [*range(len(graph)), *range(len(ids) - t, len(ids))]
    nodes, links = [], []
    for row, place in zip(rows, places, strict=True):
        node, weight = there.get(ids[place]), float(graph.edges.bias[row])
        if node is None or weight == 0:
            continue
        name = f"{node['layer']}_bias_{place}_{node['ctx_idx']}"
        nodes.append(_node(name, BIAS, -1, node["layer"], node["ctx_idx"], clerp="biases", influence=None))
        links.append({"source": name, "target": ids[place], "weight": weight})
    return nodes, links


def _described(graph: Graph) -> str:
    settings = graph.settings
    return (
        f"{len(graph)} units of {visible(settings['basis'])} with the largest influence, of {graph.n_scored} that have any; slope {settings['slope']}, "
        "attention patterns and norms constant; error nodes hold the reconstruction error and all other units"
    )
