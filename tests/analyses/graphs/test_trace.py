"""Edges: they conserve what they explain, follow one rule in every basis, and are what interventions in the frozen model do."""

from typing import Any

import pytest
import tables
import torch
import toys
from covering import in_turn
from frozen_model import clean_run, frozen_run

import neuron_vs_sae as nvs
from neuron_vs_sae.analyses.graphs.graph import Graph
from neuron_vs_sae.analyses.graphs.targets import Direction
from neuron_vs_sae.analyses.graphs.trace import trace
from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.execution.replacement import rules
from neuron_vs_sae.execution.splice import gradients

EXACT = 1e-9
PAIR = toys.pairs(1)
basis_cases = pytest.mark.parametrize("basis_case", tables.BASES, ids=lambda case: case.name)


def name_of(value: Any) -> str:
    return value if isinstance(value, str) else value.name


def whole(model: Any, basis: nvs.Basis, pair: nvs.PromptPairs = PAIR, **options: Any) -> Graph:
    """A graph of every unit."""
    return trace(model, basis, pair, nodes=pair.positions * sum(d.width for d in basis.dictionaries), **options)


@pytest.mark.parametrize(("basis_case", "kind"), in_turn(tables.BASES, tuple(toys.MODELS)), ids=name_of)
def test_what_flows_into_a_node_and_its_bias_is_its_value(basis_case: tables.BasisCase, kind: str) -> None:
    """G1: the bias is a sum over the model's and the dictionaries' own constants, not what is left over."""
    model = toys.model(kind)
    basis = tables.make(basis_case, model)
    graph = trace(model, basis, PAIR, nodes=12)
    assert float(graph.remainder.abs().max()) < EXACT * max(1.0, float(graph.values.abs().max()))
    if kind not in toys.BIASED and all(d.lossless for d in basis.dictionaries):
        assert not graph.edges.bias.any()


def test_biases_are_most_of_what_a_biased_model_adds(gpt2: Any) -> None:
    assert float(trace(gpt2, nvs.bases.mlp_neurons(gpt2), PAIR, nodes=12).edges.bias.abs().max()) > 0.1


def test_gradients_do_not_conserve_and_chords_do(llama: Any) -> None:
    basis = nvs.bases.mlp_neurons(llama)
    graph = trace(llama, basis, PAIR, nodes=12, slope="gradient")
    assert float(graph.remainder[1:].abs().max()) > 0.01
    assert float(graph.remainder[0].abs()) < EXACT  # beyond the last MLP nothing bends


def paths(graph: Graph) -> torch.Tensor:
    """What each unit adds to the targets: the sum over all paths of products of shares."""
    t = len(graph.targets)
    shares = graph.edges.units[t:] / graph.values[t:, None]
    total = step = graph.edges.units[:t].sum(0)
    while step.any():
        step = step @ shares
        total = total + step
    return total


@basis_cases
def test_all_paths_together_are_the_total(basis_case: tables.BasisCase, llama: Any) -> None:
    """G2, of every basis: the errors are constant on both sides."""
    graph = whole(llama, tables.make(basis_case, llama))
    assert torch.allclose(paths(graph), graph.total, atol=EXACT)


@pytest.mark.parametrize("kind", toys.MODELS)
@pytest.mark.parametrize("name", ["mlp_neurons", "mlp_outputs", "residual", "rotation"])
def test_totals_of_a_lossless_basis_are_the_unpaired_scores_of_relp(name: str, kind: str) -> None:
    """G2: the graph and the ranking of nodes are one object."""
    model = toys.model(kind)
    basis = tables.make(next(case for case in tables.BASES if case.name == name), model)
    graph = whole(model, basis)
    scores = nvs.attribution.relp_ah(model, basis, PAIR, "logit_difference", pairing="unpaired")
    table = scores.table().dropna(subset="unit").set_index(["site", "position", "unit"])["score"]
    places = [
        (graph.sites[s], p, u)
        for s, p, u in zip(*map(torch.Tensor.tolist, (graph.site, graph.position, graph.unit)), strict=True)
    ]
    assert torch.allclose(graph.total, torch.tensor(table.loc[places].to_numpy()), atol=EXACT)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("name", ["mlp_neurons", "sae", "sae gated", "transcoder", "sae resid_post", "attention"])
def test_adding_a_unit_in_the_frozen_model_moves_every_row_by_its_column(name: str, kind: str) -> None:
    """G3, against a frozen model written from its formulas."""
    model = toys.model(kind)
    basis = tables.make(next(case for case in tables.BASES if case.name == name), model)
    graph, clean = trace(model, basis, PAIR, nodes=20), clean_run(model, PAIR.clean)
    held = {site.writes: clean[site.writes] for site in basis.sites}
    answer, foil = int(PAIR.answer), int(PAIR.foil)
    rows = [
        d.reading(site.view(clean[site.reads])[0, p], torch.tensor([u]))
        for site, d, p, u in ((basis.sites[int(s)], basis.dictionaries[int(s)], int(p), int(u)) for s, p, u in zip(graph.site, graph.position, graph.unit, strict=True))
    ]  # fmt: skip
    for j in range(len(graph)):
        site, dictionary = basis.sites[int(graph.site[j])], basis.dictionaries[int(graph.site[j])]
        view = site.view(clean[site.writes]).clone()
        view[0, int(graph.position[j])] += float(graph.values[1 + j]) * dictionary.directions(graph.unit[j : j + 1])[0]
        run = frozen_run(model, PAIR.clean, clean, {**held, site.writes: site.put(clean[site.writes], view)})
        moved = [run["logits"][0, -1, answer] - run["logits"][0, -1, foil] - graph.values[0]]
        for i, (row, offset) in enumerate(rows):
            target = basis.sites[int(graph.site[i])]
            moved.append(
                row[0] @ target.view(run[target.reads])[0, int(graph.position[i])] + offset[0] - graph.values[1 + i]
            )
        assert torch.allclose(torch.stack(moved), graph.edges.units[:, j], atol=EXACT)


def test_neurons_seen_from_the_output_give_the_same_graph(llama: Any) -> None:
    """G4: a transcoder without an error whose decoder is `W_out`."""
    from neuron_vs_sae.execution.neurons import Neurons

    neurons = nvs.bases.mlp_neurons(llama)
    sites = tuple(nvs.Site(i, f"blocks.{i}.ln2.hook_normalized", f"blocks.{i}.hook_mlp_out") for i in (0, 1))
    written = nvs.Basis("written", sites, tuple(Neurons(llama.blocks[i].mlp, torch.float64) for i in (0, 1)))
    # At ln2.hook_normalized the norm's weights are not yet applied.
    for block in llama.blocks:
        assert hasattr(block.ln2, "w")
    scaled = nvs.Basis(
        "written",
        sites,
        tuple(_after_weights(d, b.ln2.w) for d, b in zip(written.dictionaries, llama.blocks, strict=True)),
    )
    one, two = (trace(llama, basis, PAIR, nodes=30) for basis in (neurons, scaled))
    assert torch.equal(one.unit, two.unit)
    for a, b in (
        (one.edges.units, two.edges.units),
        (one.edges.rest, two.edges.rest),
        (one.edges.tokens, two.edges.tokens),
    ):
        assert torch.allclose(a, b, atol=EXACT)


def _after_weights(dictionary: nvs.Dictionary, w: torch.Tensor) -> nvs.Dictionary:
    from neuron_vs_sae.core.dictionary import Affine

    every = torch.arange(dictionary.width)
    return Affine(
        lambda y: dictionary.encode(y * w), dictionary.directions(every), dictionary.at_zero(w), lossless=True,
        rows=lambda y, units: dictionary.reading(y * w, units)[0] * w,
    )  # fmt: skip


def test_an_identity_sae_gives_the_graph_of_outputs(llama: Any) -> None:
    """G4."""
    names = ("mlp_outputs", "sae identity")
    one, two = (
        trace(llama, tables.make(next(c for c in tables.BASES if c.name == n), llama), PAIR, nodes=30) for n in names
    )
    assert torch.equal(one.unit, two.unit)
    assert torch.allclose(one.A, two.A, atol=EXACT)


def test_a_rotation_leaves_what_flows_from_each_slot(llama: Any) -> None:
    """G4: edges into the metric, summed over the units of a site and position, do not depend on how it is written."""
    bases = (
        nvs.bases.mlp_outputs(llama),
        nvs.bases.rotation(llama),
        tables.make(next(c for c in tables.BASES if c.name == "sae"), llama),
    )
    sums = []
    for basis in bases:
        graph = whole(llama, basis)
        places = graph.site * PAIR.positions + graph.position
        constants = torch.zeros(2 * PAIR.positions, dtype=torch.float64)
        sums.append(
            (graph.edges.rest[0].flatten() + constants.index_add(0, places, graph.edges.units[0]), graph.edges.bias[0])
        )
    assert torch.allclose(sums[0][0], sums[1][0], atol=EXACT)
    # An SAE's constant is a bias, and the rest of the slot is the same.
    assert float(sums[0][0].sum()) == pytest.approx(float(sums[2][0].sum() + sums[2][1]), abs=EXACT)


@basis_cases
def test_edges_run_from_earlier_to_later_and_never_back_in_position(basis_case: tables.BasisCase, llama: Any) -> None:
    """G5; units of one site have none among them, and in the last layer none but at the last position matters."""
    graph = whole(llama, tables.make(basis_case, llama))
    into, source = graph.edges.units[1:].nonzero(as_tuple=True)
    assert bool((graph.site[source] < graph.site[into]).all() | (graph.position[source] <= graph.position[into]).all())
    assert bool((graph.position[source] <= graph.position[into]).all())
    per_head = "per head" in basis_case.name
    layers = torch.tensor(graph.layers)
    assert bool((graph.site[source] < graph.site[into]).all())
    if per_head:
        assert bool((layers[graph.site[source]] < layers[graph.site[into]]).all())
    last = layers[graph.site] == 1
    if "resid_pre" not in basis_case.name:
        assert bool((graph.position[last] == PAIR.positions - 1).all())


@pytest.mark.checked
def test_graphs_of_fewer_units_are_nested_and_what_they_leave_is_rest(llama: Any) -> None:
    basis = nvs.bases.mlp_neurons(llama)
    large, small = (trace(llama, basis, PAIR, nodes=k, attention="split") for k in (30, 7))
    assert large.at(7).names == small.names
    cut = large.at(7)
    assert large.heads is not None
    assert cut.heads is not None
    assert small.heads is not None
    for a, b in ((cut.A, small.A), (cut.edges.bias, small.edges.bias), (cut.heads, small.heads)):
        assert torch.allclose(a, b, atol=EXACT)
    assert torch.equal(large.at(30).A, large.A)


@pytest.mark.checked
def test_the_parts_of_an_edge_by_head_leave_what_passes_no_head(llama: Any, gpt2: Any) -> None:
    """Against a model whose attention outputs are held: what is left are the paths past all heads."""
    for model in (llama, gpt2):
        basis = nvs.bases.mlp_neurons(model)
        graph, clean = trace(model, basis, PAIR, nodes=15, attention="split"), clean_run(model, PAIR.clean)
        assert graph.heads is not None
        past = graph.edges.leaves - graph.heads.sum(2)
        held = {site.writes: clean[site.writes] for site in basis.sites}
        held |= {f"blocks.{i}.attn.hook_z": clean[f"blocks.{i}.attn.hook_z"] for i in (0, 1)}
        for j in range(len(graph)):
            hook, p, u = graph.sites[int(graph.site[j])], int(graph.position[j]), int(graph.unit[j])
            without = clean[hook].clone()
            without[0, p, u] = 0
            run = frozen_run(model, PAIR.clean, clean, {**held, hook: without})
            logits = run["logits"][0, -1]
            assert float(graph.values[0] - logits[PAIR.answer] + logits[PAIR.foil]) == pytest.approx(
                float(past[0, j]), abs=EXACT
            )
        assert float(graph.heads.abs().sum()) > 0


def test_one_head_alone_is_told_by_holding_all_others(llama: Any) -> None:
    graph, clean = (
        trace(llama, nvs.bases.mlp_neurons(llama), PAIR, nodes=10, attention="split"),
        clean_run(llama, PAIR.clean),
    )
    assert graph.heads is not None
    source = int((graph.layers[0] == torch.tensor(graph.layers)[graph.site]).nonzero()[0])
    hook, p, u = graph.sites[0], int(graph.position[source]), int(graph.unit[source])
    without = clean[hook].clone()
    without[0, p, u] = 0
    z = "blocks.1.attn.hook_z"
    whole_z = frozen_run(llama, PAIR.clean, clean, {hook: without})[z]
    for head in range(2):
        changed = clean[z].clone()
        changed[:, :, head] = whole_z[:, :, head]
        held = {hook: clean[hook], "blocks.1.mlp.hook_post": clean["blocks.1.mlp.hook_post"], z: changed}
        logits = frozen_run(llama, PAIR.clean, clean, held)["logits"][0, -1]
        lost = float(graph.values[0] - logits[PAIR.answer] + logits[PAIR.foil])
        assert float(graph.heads[0, source, 2 + head]) == pytest.approx(
            lost, abs=EXACT
        )  # two heads of layer 0 come first


def test_salient_logits_are_distances_from_the_mean_and_weigh_by_probability(llama: Any) -> None:
    graph = trace(llama, nvs.bases.mlp_outputs(llama), PAIR, nodes=10, targets="logits")
    logits = clean_run(llama, PAIR.clean)["logits"][0, -1]
    tokens = [target.token for target in graph.targets]
    assert tokens == logits.argsort(descending=True)[: len(tokens)].tolist()
    assert torch.allclose(graph.values[: len(tokens)], logits[tokens] - logits.mean(), atol=EXACT)
    assert [target.weight for target in graph.targets] == pytest.approx(logits.softmax(0)[tokens].tolist())
    assert len(tokens) == 10 or sum(target.weight for target in graph.targets) >= 0.95


@pytest.mark.checked
def test_a_unit_or_a_direction_can_be_explained(llama: Any) -> None:
    basis, clean = nvs.bases.mlp_neurons(llama), clean_run(llama, PAIR.clean)
    all_units = whole(llama, basis)
    name = next(n for n, s in zip(all_units.names, all_units.site.tolist(), strict=True) if s == 1)
    row = all_units.edges.tokens[1 + all_units.names.index(name)]
    graph = trace(llama, basis, PAIR, nodes=5, targets=name)
    assert torch.allclose(graph.edges.tokens[0], row, atol=EXACT)
    assert set(graph.site.tolist()) == {0}
    hook = "blocks.1.hook_resid_mid"
    vector = torch.arange(8.0, dtype=torch.float64)
    along = trace(llama, basis, PAIR, nodes=5, targets=Direction(hook, 3, vector))
    assert float(along.values[0]) == pytest.approx(float(clean[hook][0, 3] @ vector), abs=EXACT)
    assert float(along.remainder[0].abs()) < EXACT
    assert int(along.position.max()) <= 3


def test_a_mass_is_held_by_as_few_units_as_can(llama: Any) -> None:
    basis = nvs.bases.mlp_neurons(llama)
    everything = whole(llama, basis)
    graph = trace(llama, basis, PAIR, nodes=None, mass=0.5)
    sizes = everything.total.abs()
    assert float(sizes[: len(graph)].sum()) >= 0.5 * float(sizes.sum()) > float(sizes[: len(graph) - 1].sum())


@pytest.mark.checked
def test_the_reference_is_what_the_corrupt_prompt_sends_along_the_same_edges(llama: Any) -> None:
    """The answer is linear in what the sites write: at the corrupt prompt's embeddings and sites, the sum."""
    basis = nvs.bases.mlp_neurons(llama)
    graph = trace(llama, basis, PAIR, nodes=10)
    assert graph.reference is not None
    clean, corrupt = clean_run(llama, PAIR.clean), clean_run(llama, PAIR.corrupt)
    moved = {site.writes: corrupt[site.writes] for site in basis.sites} | {"hook_embed": corrupt["hook_embed"]}
    logits = frozen_run(llama, PAIR.clean, clean, moved)["logits"][0, -1]
    assert float(graph.reference.total[0]) == pytest.approx(float(logits[PAIR.answer] - logits[PAIR.foil]), abs=EXACT)


def test_what_cannot_be_traced_is_refused(llama: Any) -> None:
    basis = nvs.bases.mlp_neurons(llama)
    for message, pairs, options in (
        (r"a graph is of one prompt, and task 'toy' has 5 pairs here: take one of them", toys.pairs(), {}),
        (r"a graph of 145 units is asked for, and basis 'mlp_neurons' has 144 on 6 tokens", PAIR, {"nodes": 145}),
        (r"no target 'nonesuch'; there are: metric, logits, or a unit", PAIR, {"targets": "nonesuch"}),
        (r"has no site 'blocks.9.mlp.hook_post'; it has: blocks.0", PAIR, {"targets": "blocks.9.mlp.hook_post/1"}),
        (r"has units 0 to 11, and the prompt positions 0 to 5", PAIR, {"targets": "blocks.1.mlp.hook_post/12"}),
        (r"no slope 'secant'; there are: chord, gradient", PAIR, {"slope": "secant"}),
        (r"no unit of the basis reaches the target", PAIR, {"targets": "blocks.0.mlp.hook_post/1"}),
    ):
        with pytest.raises(InputError, match=message):
            trace(llama, basis, pairs, **{"nodes": 3, **options})


def test_nothing_is_left_on_the_model_after_a_failure(llama: Any, gpt2: Any) -> None:
    for model in (llama, gpt2):
        with pytest.raises(InputError):
            trace(model, nvs.bases.mlp_neurons(model), PAIR, nodes=3, targets="nonesuch")
        assert not any(parameter.requires_grad for parameter in model.parameters())
        assert not any(hook.fwd_hooks for hook in model.hook_dict.values())


def test_a_graph_does_not_depend_on_the_prompt_beyond_its_tokens(llama: Any) -> None:
    """Padding of a longer batch that the pair was taken from is not read."""
    pairs = toys.pairs(3, lengths=[6, 4, 5])
    basis = nvs.bases.mlp_neurons(llama)
    short = pairs.take([1])
    graph = trace(llama, basis, pairs.batch([1]), nodes=10)
    assert torch.equal(graph.A, trace(llama, basis, short, nodes=10).A)
    assert len(graph.tokens) == 4


def test_totals_are_slopes_of_the_uncut_replacement_model(llama: Any) -> None:
    """An SAE's, with its error constant: each row read by hand at the first layer's site, where nothing lossy comes later but one."""
    basis = tables.make(next(c for c in tables.BASES if c.name == "sae"), llama)
    graph = whole(llama, basis)
    hooks = [site.writes for site in basis.sites]
    replaced = rules(llama, freeze_attention=True)
    objective = lambda logits: (logits.gather(1, PAIR.answer[:, None]) - logits.gather(1, PAIR.foil[:, None]))[:, 0]  # noqa: E731
    values, slopes = gradients(llama, PAIR.clean, PAIR.length, hooks, objective, replaced.edits, replaced.observers)
    units = basis.dictionaries[1].encode(values[hooks[1]])[0] * basis.dictionaries[1].pull_back(slopes[hooks[1]])[0]
    mine = graph.site == 1
    assert torch.allclose(graph.total[mine], units[graph.position[mine], graph.unit[mine]], atol=EXACT)


def test_tokens_without_an_active_unit_pass_nothing_on(llama: Any) -> None:
    """An untrained dictionary whose first layer is dead: what its site writes is rest, and no path runs through it."""
    saes = toys.saes()
    saes[0].b_enc.data -= 1000
    for basis in (nvs.bases.sae(llama, source=saes), nvs.bases.random_sae(llama, source=saes, prompts=toys.pairs())):
        graph = whole(llama, basis)
        if basis.name == "sae":
            assert not bool((graph.site == 0).any())
            assert bool((graph.edges.rest[0, 0] != 0).any())
        assert torch.allclose(paths(graph), graph.total, atol=EXACT)
