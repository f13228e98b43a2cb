"""What is made of a graph: scores and prunings by hand, files that give it back, circuits and patched edges, exact effects."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import toys
from frozen_model import clean_run, frozen_run

import neuron_vs_sae as nvs
from neuron_vs_sae.analyses.graphs import circuits, influence
from neuron_vs_sae.analyses.graphs.ensemble import ensemble
from neuron_vs_sae.analyses.graphs.exact import sampled
from neuron_vs_sae.analyses.graphs.graph import Graph
from neuron_vs_sae.analyses.graphs.influence import Order
from neuron_vs_sae.analyses.graphs.prompt import prompt_of
from neuron_vs_sae.analyses.graphs.storing import load_graph, save_graph
from neuron_vs_sae.analyses.graphs.trace import trace
from neuron_vs_sae.core.errors import FolderError, InputError

EXACT = 1e-9
PAIR = toys.pairs(1)


@pytest.fixture(scope="module")
def graph() -> Graph:
    model = toys.model("llama")
    return trace(model, nvs.bases.sae(model, source=toys.saes(width=40)), PAIR, nodes=40)


# Twelve nodes: 5 units, 4 errors, 2 tokens, 1 target; the matrix of circuit-tracer's own test, worked by hand.

ORDER = Order(5, 4, 2, 1)
EDGES = {11: (1, 3, 6, 8), 3: (0, 1, 6), 1: (9, 10), 0: (9,)}


@pytest.fixture
def twelve() -> torch.Tensor:
    matrix = torch.zeros(12, 12)
    for target, sources in EDGES.items():
        matrix[target, list(sources)] = 10.0
    return matrix


WEIGHTS = torch.eye(12)[11]


@pytest.mark.checked
def test_influence_by_hand(twelve: torch.Tensor) -> None:
    reached = influence.influence(influence.normalised(twelve), WEIGHTS)
    assert torch.allclose(reached * 12, torch.tensor([1.0, 4, 0, 3, 0, 0, 4, 0, 3, 3, 2, 0]))


@pytest.mark.checked
def test_pruning_by_hand(twelve: torch.Tensor) -> None:
    """At .8 the smallest set is all but node 0, whose edges fall away; then no edge is without influence."""
    pruning = influence.prune(twelve, WEIGHTS, ORDER, node_threshold=0.8, edge_threshold=1.0)
    assert pruning.nodes.nonzero().flatten().tolist() == [1, 3, 6, 8, 9, 10, 11]
    kept = {target: [s for s in sources if s != 0] for target, sources in EDGES.items() if target != 0}
    assert {i: row.nonzero().flatten().tolist() for i, row in enumerate(pruning.edges) if row.any()} == kept
    assert float(pruning.cumulative.max()) == pytest.approx(1)
    assert pruning.cumulative[[1, 6]].tolist() == pytest.approx(
        [0.2, 0.4]
    )  # 4 of 20 twelfths each, first in order first


@pytest.mark.checked
def test_scores_by_hand(twelve: torch.Tensor) -> None:
    """Tokens get 5/12, errors 7/12; of the inputs, weighed, the target's are half errors, node 3's a third."""
    scores = influence.scores(twelve, WEIGHTS, ORDER)
    assert scores.replacement == pytest.approx(5 / 12)
    passed = 1 + 20 / 12
    assert scores.completeness == pytest.approx((passed - 1 / 2 - (3 / 12) / 3) / passed)


def test_an_error_without_a_way_out_and_a_unit_without_a_way_in_fall_away(twelve: torch.Tensor) -> None:
    twelve[4, 7], twelve[11, 2] = 10.0, 10.0
    pruning = influence.prune(twelve, WEIGHTS, ORDER, node_threshold=1.0, edge_threshold=1.0)
    assert not pruning.nodes[[2, 4, 7]].any()


def test_thresholds_of_one_keep_all_that_carries_and_prunings_are_nested(graph: Graph) -> None:
    """G6."""
    everything = graph.prune(node_threshold=1, edge_threshold=1)
    k, carries = len(graph), (graph.A != 0)
    assert torch.equal(everything.nodes[:k], carries[:, :k].any(0) & carries[:k].any(1))
    before = everything.nodes
    for threshold in (0.99, 0.9, 0.7, 0.5, 0.2):
        nodes = graph.prune(node_threshold=threshold, edge_threshold=1).nodes
        assert not (nodes & ~before).any()
        before = nodes
    with pytest.raises(InputError, match=r"an? edge threshold of 1.5: it is a share"):
        graph.prune(edge_threshold=1.5)


def test_all_units_of_a_lossless_basis_score_one_and_merging_costs(llama: Any) -> None:
    basis = nvs.bases.mlp_neurons(llama)
    everything = trace(llama, basis, PAIR, nodes=144)
    assert everything.scores().replacement == pytest.approx(1)
    assert everything.scores().completeness == pytest.approx(1)
    scores = [everything.at(k).scores() for k in (1, 5, 20, 60)]
    assert [s.replacement for s in scores] == sorted(s.replacement for s in scores)


def test_a_graph_is_given_back_by_its_files_byte_for_byte(tmp_path: Path, llama: Any) -> None:
    traced = trace(llama, nvs.bases.mlp_neurons(llama), PAIR, nodes=9, attention="split")
    save_graph(traced, tmp_path / "a")
    again = load_graph(tmp_path / "a")
    save_graph(again, tmp_path / "b")
    for name in ("graph.json", "graph.safetensors"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert again.names == traced.names
    assert torch.equal(again.A, traced.A)
    assert again.targets == traced.targets
    (tmp_path / "b" / "graph.json").write_text("{}")
    for folder in (tmp_path / "b", tmp_path / "nonesuch"):
        with pytest.raises(FolderError, match="holds no graph that can be read"):
            load_graph(folder)


def test_every_node_has_a_row_and_a_graph_says_what_it_is(graph: Graph) -> None:
    nodes = graph.nodes
    assert nodes["kind"].value_counts().to_dict() == {"unit": len(graph), "rest": 12, "token": 6, "target": 1}
    assert len(nodes) == len(graph.A)
    assert nodes["name"].tolist()[: len(graph)] == graph.names
    assert graph.names[0] in repr(graph)


@pytest.mark.checked
def test_a_graphs_units_are_a_circuit_of_its_basis(graph: Graph) -> None:
    model = toys.model("llama")
    basis = nvs.bases.sae(model, source=toys.saes(width=40))
    scores = circuits.as_scores(basis, graph)
    assert scores.top(len(graph)).names == graph.names
    assert scores.top(2).names == circuits.as_scores(basis, graph, torch.tensor([0, 1])).top(2).names


@pytest.mark.checked
def test_nodes_chosen_by_edges_have_one_in_and_one_out_among_them(graph: Graph) -> None:
    size = circuits.effects(graph).abs()
    chosen = circuits.edge_selected_nodes(graph, 30)
    limit = size.flatten().sort(descending=True).values[29]
    for i in range(len(graph)):
        both = bool((size[1 + i] >= limit).any()) and bool((size[:, i] >= limit).any())
        assert (i in chosen.tolist()) == both
    assert len(circuits.edge_selected_nodes(graph, int((size > 0).sum()))) <= len(graph)
    with pytest.raises(InputError, match="edges are asked for, and the graph has"):
        circuits.edge_selected_nodes(graph, size.numel() + 1)


@pytest.mark.checked
def test_effects_of_the_edges_out_of_a_unit_add_up_to_its_total(llama: Any) -> None:
    graph = trace(llama, nvs.bases.mlp_neurons(llama), PAIR, nodes=144)
    assert torch.allclose(circuits.effects(graph)[:, : len(graph)].sum(0), graph.total, atol=EXACT)


def test_all_edges_patched_are_the_values_and_none_the_corrupt_prompts(graph: Graph) -> None:
    every = torch.ones_like(graph.edges.leaves, dtype=torch.bool)
    assert graph.reference is not None
    assert torch.allclose(circuits.edge_patching(graph, every), graph.values, atol=EXACT)
    assert torch.allclose(circuits.edge_patching(graph, ~every), graph.reference.total, atol=EXACT)
    assert torch.allclose(circuits.edge_patching(graph, ~every, zero=True), graph.edges.bias, atol=EXACT)
    with pytest.raises(InputError, match="this graph is of a text, so there is no corrupt prompt"):
        circuits.edge_patching(replace(graph, reference=None), every)


@pytest.mark.checked
def test_one_patched_edge_is_a_run_of_the_frozen_model(llama: Any) -> None:
    """The edge from a unit of layer 0 to one of layer 1 removed: what layer 1's unit then sends on, and nothing else, changes."""
    graph, clean = trace(llama, nvs.bases.mlp_neurons(llama), PAIR, nodes=100), clean_run(llama, PAIR.clean)
    into = int((graph.site == 1).nonzero()[0])
    source = int(graph.edges.units[1 + into].abs().argmax())
    kept = torch.ones_like(graph.edges.leaves, dtype=torch.bool)
    kept[1 + into, source] = False
    values = circuits.edge_patching(graph, kept, zero=True)
    lowered = float(graph.values[1 + into] - graph.edges.units[1 + into, source])
    assert float(values[1 + into]) == pytest.approx(lowered, abs=EXACT)
    hook = graph.sites[1]
    written = clean[hook].clone()
    written[0, int(graph.position[into]), int(graph.unit[into])] = lowered
    logits = frozen_run(llama, PAIR.clean, clean, {hook: written})["logits"][0, -1]
    assert float(values[0]) == pytest.approx(float(logits[PAIR.answer] - logits[PAIR.foil]), abs=EXACT)


def test_of_twenty_five_prunings_the_core_is_in_all(graph: Graph) -> None:
    shares = ensemble(graph)
    tight, loose = (graph.prune(node_threshold=n, edge_threshold=e) for n, e in ((0.5, 0.9), (0.95, 0.99)))
    assert bool((shares.nodes[tight.nodes & loose.nodes] > 0).all())
    assert not bool(shares.nodes[~loose.nodes].any())
    counts = shares.counts(graph).set_index("what")
    assert counts.loc["units", "union"] == int(loose.nodes[: len(graph)].sum())
    assert (counts[["core", "contingent", "noise"]].sum(1) == counts["union"]).all()


# Exact effects.


@pytest.mark.parametrize("name", ["mlp_neurons", "transcoder"])
def test_exact_effects_are_the_models_own(name: str, llama: Any) -> None:
    """Into the metric nothing bends but the last norm, which is held: the edge is exact. No ReLU of the transcoder's
    units is crossed here, so those edges are exact too; live, norms and patterns change every edge a little."""
    basis = (
        nvs.bases.mlp_neurons(llama)
        if name == "mlp_neurons"
        else nvs.bases.transcoder(llama, source=toys.transcoders())
    )
    graph, prompt = trace(llama, basis, PAIR, nodes=25), prompt_of(llama, PAIR)
    sample = sampled(llama, basis, prompt, graph, n=1000)
    into_metric = sample.row == 0
    assert len(sample.row) == int((graph.edges.units != 0).sum())
    assert torch.allclose(sample.weight[into_metric], sample.effect[into_metric], atol=EXACT)
    assert (float((sample.weight - sample.effect)[~into_metric].abs().max()) > 1e-6) == (name == "mlp_neurons")
    live = sampled(llama, basis, prompt, graph, n=1000, live=True)
    assert not torch.allclose(live.effect, sample.effect, atol=1e-3)
    some = sampled(llama, basis, prompt, graph, n=20)
    assert len(some.row) == 20
    nothing = sampled(llama, basis, prompt, graph, n=0)
    assert (len(nothing.effect), str(nothing.spearman)) == (0, "nan")
    assert {*zip(some.row.tolist(), some.unit.tolist(), strict=True)} <= {
        *zip(sample.row.tolist(), sample.unit.tolist(), strict=True)
    }
    assert 0.3 < sample.spearman <= 1


@pytest.mark.checked
def test_an_exact_effect_by_hand(llama: Any) -> None:
    """One source silenced, layer 1 held but for the target's own reading: by the toy's hooks."""
    basis = nvs.bases.mlp_neurons(llama)
    graph, clean = trace(llama, basis, PAIR, nodes=40), clean_run(llama, PAIR.clean)
    into = int((graph.site == 1).nonzero()[0])
    source = int(graph.edges.units[1 + into].abs().argmax())
    hook = graph.sites[0]
    without = clean[hook].clone()
    without[0, int(graph.position[source]), int(graph.unit[source])] = 0
    with torch.no_grad(), llama.hooks(fwd_hooks=[(hook, lambda x, hook: without)]):
        _, cache = llama.run_with_cache(PAIR.clean, padding_side="right")
    lost = clean[graph.sites[1]] - cache[graph.sites[1]]
    from neuron_vs_sae.analyses.graphs.exact import direct_effects

    effect = direct_effects(
        llama, basis, prompt_of(llama, PAIR), graph, torch.tensor([1 + into]), torch.tensor([source]), live=True
    )
    assert float(effect) == pytest.approx(float(lost[0, int(graph.position[into]), int(graph.unit[into])]), abs=EXACT)
