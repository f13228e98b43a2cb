"""Graphs in others' formats: both readers' schemas and scores, features, MIB's circuits; names that mean markup elsewhere."""

import json
import re
from dataclasses import replace
from typing import Any

import jsonschema
import numpy as np
import pytest
import tables
import torch
import toys
from conftest import HOSTILE
from pydantic import BaseModel, ConfigDict

import neuron_vs_sae as nvs
from neuron_vs_sae.analyses.graphs import influence
from neuron_vs_sae.analyses.graphs.graph import Graph
from neuron_vs_sae.analyses.graphs.trace import trace
from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.report.graph_mib import mib_circuit
from neuron_vs_sae.report.graph_viewer import BIAS, ERROR, TARGET, TOKEN, UNIT, cantor, feature_numbers, viewer_graph

PAIR = toys.pairs(1)
TEXT, WHOLE = {"type": "string"}, {"type": "integer"}
# What Neuronpedia asks of an upload (draft-07): these keys, of these types.
NEURONPEDIA = {
    "$schema": "http://json-schema.org/draft-07/schema#",
    "type": "object",
    "required": ["metadata", "qParams", "nodes", "links"],
    "properties": {
        "metadata": {
            "type": "object",
            "required": ["slug", "scan", "prompt_tokens", "prompt"],
            "properties": {
                "slug": {**TEXT, "pattern": "^[a-zA-Z0-9_.-]+$"}, "scan": {**TEXT, "pattern": "^[a-zA-Z0-9_.-]+$"},
                "prompt_tokens": {"type": "array", "items": TEXT}, "prompt": TEXT, "node_threshold": {"type": "number"},
                "info": {"type": "object", "properties": {"generator": {"type": "object"}, "description": TEXT}},
                "generation_settings": {"type": "object", "properties": {"max_n_logits": WHOLE, "max_feature_nodes": WHOLE}},
            },
        },
        "qParams": {"type": "object"},
        "nodes": {"type": "array", "items": {
            "type": "object",
            "required": ["node_id", "feature", "layer", "ctx_idx", "feature_type", "jsNodeId", "clerp"],
            "properties": {
                "node_id": TEXT, "feature": {"type": ["integer", "null"]}, "layer": {"type": ["string", "integer"]}, "ctx_idx": WHOLE,
                "feature_type": TEXT, "jsNodeId": TEXT, "clerp": TEXT, "influence": {"type": ["number", "null"]},
                "activation": {"type": ["number", "null"]},
            },
        }},
        "links": {"type": "array", "items": {
            "type": "object", "required": ["source", "target", "weight"],
            "properties": {"source": TEXT, "target": TEXT, "weight": {"type": "number"}},
        }},
    },
}  # fmt: skip


class Lax(BaseModel):
    model_config = ConfigDict(strict=True)


class Metadata(Lax):
    slug: str
    scan: str
    transcoder_list: list[str]
    prompt_tokens: list[str]
    prompt: str
    node_threshold: float | None = None
    schema_version: int | None = 1


class QParams(Lax):
    pinnedIds: list[str]  # noqa: N815 (circuit-tracer's names)
    supernodes: list[list[str]]
    linkType: str  # noqa: N815
    clickedId: str  # noqa: N815
    sg_pos: str


class Node(Lax):
    node_id: str
    feature: int
    layer: str
    ctx_idx: int
    feature_type: str
    token_prob: float = 0.0
    is_target_logit: bool = False
    run_idx: int = 0
    reverse_ctx_idx: int = 0
    jsNodeId: str  # noqa: N815
    clerp: str = ""
    influence: float | None = None
    activation: float | None = None


class Model(Lax):
    """What circuit-tracer's page reads."""

    metadata: Metadata
    qParams: QParams  # noqa: N815
    nodes: list[Node]
    links: list[dict[str, Any]]


def scores_of_document(document: dict[str, Any]) -> tuple[float, float]:
    """Replacement and completeness as Neuronpedia's page computes them from what was uploaded, which is circuit-tracer's formula."""
    order = [UNIT, ERROR, TOKEN, TARGET]
    nodes = sorted(
        (n for n in document["nodes"] if n["feature_type"] in order), key=lambda n: order.index(n["feature_type"])
    )
    place = {node["node_id"]: i for i, node in enumerate(nodes)}
    assert len(place) == len(nodes), "no two nodes have one identifier"
    matrix = np.zeros((len(nodes), len(nodes)))
    for link in document["links"]:
        if link["source"] in place:
            matrix[place[link["target"]], place[link["source"]]] = abs(link["weight"])
    matrix /= np.maximum(matrix.sum(1, keepdims=True), 1e-10)
    kinds = np.array([node["feature_type"] for node in nodes])
    weights = np.array([node["token_prob"] if node["feature_type"] == TARGET else 0.0 for node in nodes])
    reached, step = np.zeros(len(nodes)), weights
    while (step := step @ matrix).any():
        reached += step
    tokens, errors = (reached[kinds == kind].sum() for kind in (TOKEN, ERROR))
    clear = 1 - matrix[:, kinds == ERROR].sum(1)
    return tokens / (tokens + errors), (clear * (reached + weights)).sum() / (reached + weights).sum()


def graphs() -> list[tuple[str, Graph]]:
    """Twenty graphs: bases of one and of several sites a layer, both slopes, both kinds of target, two prompts."""
    names = ("mlp_neurons", "sae", "transcoder", "sae three kinds", "sae hook_z per head")
    model, found = toys.model("llama"), []
    for name in names:
        basis = tables.make(next(case for case in tables.BASES if case.name == name), model)
        for i, options in enumerate(
            ({}, {"slope": "gradient"}, {"targets": "logits"}, {"targets": "logits", "slope": "gradient"})
        ):
            found.append((f"{name} {i}", trace(model, basis, toys.pairs(2).take([i % 2]), nodes=25, **options)))
    return found


@pytest.fixture(scope="module")
def traced() -> list[tuple[str, Graph]]:
    return graphs()


def test_both_readers_take_twenty_graphs_and_compute_our_scores(traced: list[tuple[str, Graph]]) -> None:
    assert len(traced) == 20
    for name, graph in traced:
        pruning = graph.prune()
        document = json.loads(json.dumps(viewer_graph(graph, pruning, name), allow_nan=False))
        jsonschema.validate(document, NEURONPEDIA)
        Model.model_validate(document)
        ours = influence.scores(graph.A * pruning.edges, graph.weights, graph.order)
        assert scores_of_document(document) == pytest.approx((ours.replacement, ours.completeness), abs=1e-9)
        kinds = {node["node_id"]: node for node in document["nodes"]}
        assert all(link["source"] in kinds and link["target"] in kinds for link in document["links"])
        assert all("(p=" in node["clerp"] for node in document["nodes"] if node["feature_type"] == TARGET)
        assert sum(node["is_target_logit"] for node in document["nodes"]) == 1
        assert (
            max(
                int(node["layer"])
                for node in document["nodes"]
                if node["layer"] != "E" and node["feature_type"] != TARGET
            )
            > 0
        )
        assert all(0 <= node["influence"] <= 1 + 1e-9 for node in document["nodes"])
        assert len({node["node_id"] for node in document["nodes"]}) == len(document["nodes"])


def test_a_metric_is_one_target_of_probability_one(traced: list[tuple[str, Graph]]) -> None:
    _, graph = traced[0]
    (target,) = [n for n in viewer_graph(graph, graph.prune(), "a")["nodes"] if n["feature_type"] == TARGET]
    assert (target["token_prob"], target["clerp"]) == (1.0, "logit_difference (p=1.000)")


def test_units_of_several_sites_in_a_layer_have_numbers_of_their_own(traced: list[tuple[str, Graph]]) -> None:
    graph = dict(traced)["sae three kinds 0"]
    numbers = feature_numbers(graph)
    assert len(set(zip(numbers, graph.position.tolist(), strict=True))) == len(numbers)
    assert {graph.layers[s] for s in graph.site.tolist()} == {0, 1}
    assert len({cantor(i, j) for i in range(20) for j in range(20)}) == 400
    document = viewer_graph(graph, graph.prune(node_threshold=1, edge_threshold=1), "a")
    of = dict(zip(zip(numbers, graph.position.tolist(), strict=True), graph.site.tolist(), strict=True))
    for node in document["nodes"]:
        if node["feature_type"] == UNIT:
            assert node["site"] == graph.sites[of[node["feature"], node["ctx_idx"]]]


def test_a_model_of_one_layer_begins_at_layer_one(traced: list[tuple[str, Graph]]) -> None:
    graph = replace(traced[0][1], layers=(0, 0))
    layers = {n["layer"] for n in viewer_graph(graph, graph.prune(), "a")["nodes"] if n["feature_type"] == UNIT}
    assert layers == {"1"}


def test_biases_are_nodes_only_where_they_are_asked_for_and_in_no_score() -> None:
    graph = trace(toys.model("gpt2"), nvs.bases.mlp_neurons(toys.model("gpt2")), PAIR, nodes=20)
    pruning = graph.prune()
    plain, with_biases = (viewer_graph(graph, pruning, "a", bias_nodes=asked) for asked in (False, True))
    assert not [n for n in plain["nodes"] if n["feature_type"] == BIAS]
    assert (
        len([n for n in with_biases["nodes"] if n["feature_type"] == BIAS])
        == len(with_biases["links"]) - len(plain["links"])
        > 0
    )
    assert scores_of_document(plain) == scores_of_document(with_biases)
    jsonschema.validate(with_biases, NEURONPEDIA)


def test_hostile_names_are_inert(traced: list[tuple[str, Graph]]) -> None:
    graph = replace(traced[0][1], tokens=(HOSTILE,) * 6, prompt=HOSTILE)
    groups = [(HOSTILE, [0, 1]), ("none shown", [])]
    document = viewer_graph(
        graph, graph.prune(), HOSTILE, labels={graph.names[0].rpartition("@")[0]: HOSTILE}, supernodes=groups
    )
    Model.model_validate(document)
    jsonschema.validate(document, NEURONPEDIA)
    text = json.dumps(document, ensure_ascii=False)
    assert "\u202e" not in text
    assert re.fullmatch("[a-zA-Z0-9_.-]+", document["metadata"]["slug"])
    assert len(document["qParams"]["supernodes"]) <= 1


# MIB.

SHAPE = {"n_layers": 2, "n_heads": 2, "parallel_attn_mlp": False, "d_model": 8}
NAME = r"(input|a\d\.h\d|m\d|logits)"


@pytest.mark.parametrize("attention", ["frozen", "split"])
def test_a_circuit_of_components_adds_up_the_edges(attention: Any, llama: Any) -> None:
    graph = trace(llama, nvs.bases.mlp_neurons(llama), PAIR, nodes=60, attention=attention)
    circuit = mib_circuit(graph, SHAPE)
    assert set(circuit) == {"cfg", "nodes", "edges"}
    assert set(circuit["nodes"]) == {"input", "m0", "m1", "logits", *(f"a{i}.h{j}" for i in (0, 1) for j in (0, 1))}
    for name in circuit["edges"]:
        source, _, into = name.partition("->")
        assert re.fullmatch(NAME, source)
        assert re.fullmatch(NAME + r"(<v>)?", into)
        assert into.endswith("<v>") == into.startswith("a")
    first = (graph.site == 0).nonzero().flatten()
    places = torch.tensor([*first.tolist(), *range(len(graph), len(graph) + 6)])  # its units and its rest
    direct = graph.edges.leaves[0] if graph.heads is None else graph.edges.leaves[0] - graph.heads[0].sum(1)
    assert circuit["edges"]["m0->logits"]["score"] == pytest.approx(float(direct[places].abs().sum()))
    if graph.heads is not None:
        entering = graph.heads[:, places, 2].abs().sum()
        assert circuit["edges"]["m0->a1.h0<v>"]["score"] == pytest.approx(float(entering))
        assert circuit["edges"]["a1.h0->logits"]["score"] == pytest.approx(float(graph.heads[0, :, 2].abs().sum()))
    assert ("m0->a1.h0<v>" in circuit["edges"]) == (attention == "split")


def test_a_basis_that_is_no_component_of_mib_is_refused(llama: Any) -> None:
    with pytest.raises(InputError, match=r"blocks.0.hook_resid_post is no component of MIB's circuits"):
        mib_circuit(trace(llama, nvs.bases.residual(llama), PAIR, nodes=10), SHAPE)
