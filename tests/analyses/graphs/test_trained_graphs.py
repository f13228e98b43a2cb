"""The embedded models' graphs: 500 edges per basis against interventions in the frozen model, and the laws of the toys."""

from typing import Any

import pytest
import torch
from frozen_model import clean_run, frozen_run

import neuron_vs_sae as nvs
from neuron_vs_sae.analyses.graphs.exact import sampled
from neuron_vs_sae.analyses.graphs.prompt import prompt_of
from neuron_vs_sae.analyses.graphs.trace import trace

BASES = ("mlp_neurons", "mlp_outputs", "sae", "transcoder", "rotation")
EDGES = 500


@pytest.fixture(scope="module", params=["default", "default-gpt2"])
def model(request: pytest.FixtureRequest) -> Any:
    return nvs.load_model(request.param, dtype="float64")


@pytest.fixture(scope="module")
def pair(model: Any) -> nvs.PromptPairs:
    return nvs.tasks.world(model, source="two_hop", n=4, part="evaluation").take([0])


@pytest.mark.parametrize("name", BASES)
def test_five_hundred_edges_are_what_interventions_in_the_frozen_model_do(
    name: str, model: Any, pair: nvs.PromptPairs
) -> None:
    """G3, and G1 and G5 on the way: all of a few sources' edges at once, till 500 that are not 0 are checked."""
    basis = getattr(nvs.bases, name)(model)
    graph, clean = trace(model, basis, pair, nodes=300), clean_run(model, pair.clean)
    assert float(graph.remainder.abs().max()) < 1e-9 * float(graph.values.abs().max())
    held = {site.writes: clean[site.writes] for site in basis.sites}
    answer, foil = int(pair.answer), int(pair.foil)
    readings = [
        basis.dictionaries[s].reading(basis.sites[s].view(clean[basis.sites[s].reads])[0, p], torch.tensor([u]))
        for s, p, u in zip(graph.site.tolist(), graph.position.tolist(), graph.unit.tolist(), strict=True)
    ]
    rows = torch.stack([row[0] for row, _ in readings]) if len({row.shape for row, _ in readings}) == 1 else None
    assert rows is not None
    offsets = torch.stack([offset[0] for _, offset in readings])
    checked = 0
    for j in range(len(graph)):
        edges = graph.edges.units[:, j]
        if not bool((edges != 0).sum() > 1):
            continue
        site, dictionary = basis.sites[int(graph.site[j])], basis.dictionaries[int(graph.site[j])]
        view = site.view(clean[site.writes]).clone()
        view[0, int(graph.position[j])] += float(graph.values[1 + j]) * dictionary.directions(graph.unit[j : j + 1])[0]
        run = frozen_run(model, pair.clean, clean, {**held, site.writes: site.put(clean[site.writes], view)})
        read = torch.stack(
            [
                basis.sites[s].view(run[basis.sites[s].reads])[0, p]
                for s, p in zip(graph.site.tolist(), graph.position.tolist(), strict=True)
            ]
        )
        metric = run["logits"][0, -1, answer] - run["logits"][0, -1, foil]
        values = torch.cat([metric[None], (rows * read).sum(1) + offsets])
        assert torch.allclose(values - graph.values, edges, atol=1e-6 * max(1.0, float(edges.abs().max())))
        checked += int((edges != 0).sum())
        if checked >= EDGES:
            break
    assert checked >= EDGES


@pytest.mark.parametrize("name", ["mlp_neurons", "mlp_outputs"])
def test_totals_are_the_unpaired_scores_of_relp(name: str, model: Any, pair: nvs.PromptPairs) -> None:
    basis = getattr(nvs.bases, name)(model)
    graph = trace(model, basis, pair, nodes=200)
    table = nvs.attribution.relp_ah(model, basis, pair, "logit_difference", pairing="unpaired").table()
    scores = table.set_index(["site", "position", "unit"])["score"]
    places = [
        (graph.sites[s], p, u)
        for s, p, u in zip(graph.site.tolist(), graph.position.tolist(), graph.unit.tolist(), strict=True)
    ]
    assert torch.allclose(graph.total, torch.tensor(scores.loc[places].to_numpy()), atol=1e-9)


def test_biases_are_a_quarter_of_a_gpt2_neurons_value() -> None:
    """At the median of the 300 largest; without a leaf for them nothing would be conserved."""
    model = nvs.load_model("default-gpt2", dtype="float64")
    pair = nvs.tasks.world(model, source="two_hop", n=4, part="evaluation").take([0])
    graph = trace(model, nvs.bases.mlp_neurons(model), pair, nodes=300)
    assert float((graph.edges.bias[1:] / graph.values[1:]).abs().median()) > 0.15


def test_edges_go_with_what_silencing_does() -> None:
    """Gradients rank single edges almost as exact effects do, chords a little worse, in the model with norms and patterns held."""
    model = nvs.load_model("default")
    pair = nvs.tasks.world(model, source="two_hop", n=4, part="evaluation").take([0])
    basis = nvs.bases.mlp_neurons(model)
    rank_correlation = {}
    for slope in ("chord", "gradient"):
        graph = trace(model, basis, pair, slope=slope)
        rank_correlation[slope] = sampled(model, basis, prompt_of(model, pair), graph, n=400).spearman
    assert rank_correlation["gradient"] > 0.98
    assert 0.85 < rank_correlation["chord"] < rank_correlation["gradient"]
