"""Patching: what it is exact about, what its controls are, and which units it finds."""

import dataclasses
from typing import Any

import pytest
import tables
import torch
import toys

import neuron_vs_sae as nvs
from neuron_vs_sae.analyses.interventions import controls, ranking
from neuron_vs_sae.analyses.interventions.directions import delta_directions, directions
from neuron_vs_sae.analyses.interventions.outcomes import outcomes
from neuron_vs_sae.analyses.interventions.patching import Patching, donor_values, patch
from neuron_vs_sae.analyses.interventions.sets import moved, towards, written_norm
from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.execution.changes import edits_of
from neuron_vs_sae.execution.splice import run

PAIRS = toys.pairs(4)
LOSSLESS = [
    c
    for c in tables.BASES
    if c.name in ("mlp_neurons", "mlp_outputs", "residual", "attention", "rotation", "sae identity")
]


def basis_called(name: str, kind: str) -> nvs.Basis:
    return tables.make(next(c for c in tables.BASES if c.name == name), toys.model(kind))


def patched(model: Any, basis: nvs.Basis, i: int, alpha: float = 1.0) -> torch.Tensor:
    """Logits of pair i with every unit of the basis at the donor's value."""
    pair = PAIRS.take([i])
    index = basis.index(pair.positions)
    every = (~index.is_error).nonzero().flatten()
    changes = towards(index, every, donor_values(model, basis, pair), alpha)
    return run(model, pair.clean, pair.length, edits_of(model, basis, changes))


@pytest.mark.parametrize("case", LOSSLESS, ids=lambda case: case.name)
def test_donor_values_for_all_units_of_a_lossless_basis_patch_its_sites(case: tables.BasisCase) -> None:
    model = toys.model("llama")
    basis = tables.make(case, model)
    pair = PAIRS.take([0])
    with torch.no_grad():
        _, cache = model.run_with_cache(pair.corrupt)
        hooks = [(site.writes, lambda x, hook: cache[hook.name]) for site in basis.sites]
        wanted = model.run_with_hooks(pair.clean, fwd_hooks=hooks)[:, -1]
    torch.testing.assert_close(patched(model, basis, 0), wanted, rtol=0, atol=1e-10)


def test_patching_a_cutting_set_gives_the_donors_logits_and_mlps_alone_do_not() -> None:
    model = toys.model("llama")
    donor = run(model, PAIRS.corrupt[:1], PAIRS.length[:1])
    torch.testing.assert_close(patched(model, basis_called("residual", "llama"), 0), donor, rtol=0, atol=1e-10)
    assert float((patched(model, basis_called("mlp_outputs", "llama"), 0) - donor).abs().max()) > 1e-2


def linear_model() -> Any:
    """Attention and an MLP without a nonlinearity, no norm: the metric is linear in every unit alone, and in all units of one site."""
    import copy

    model = copy.deepcopy(toys.model("gpt2"))
    for block in model.blocks:
        block.mlp.act_fn = torch.nn.Identity()
        block.mlp.cfg = dataclasses.replace(block.mlp.cfg, act_fn="relu")
        for name in ("ln1", "ln2"):
            setattr(block, name, torch.nn.Identity())
        block.attn.W_Q.data.zero_()  # attention weighs all tokens alike
        block.attn.b_Q.data.zero_()
    model.ln_final = torch.nn.Identity()
    return model


def test_predicted_is_actual_on_a_linear_model() -> None:
    model = linear_model()
    basis = nvs.bases.mlp_neurons(model)
    found = patch(
        model, basis, PAIRS, k=(1, 5, 20), alpha=(0.5, 1.0), engine="exact", options=Patching(sign="absolute")
    ).values
    main = found.loc[found["control"] == ""]
    assert len(main) == 4 * 3 * 2
    one_site = patch(model, last_site(basis), PAIRS, k=(3,), engine="exact", options=Patching(sign="absolute")).values
    one = one_site.loc[one_site["control"] == ""]
    assert (one["predicted"] - (one["before"] - one["after"])).abs().max() < 1e-6
    single = main.loc[main["k"] == 1]
    assert (single["predicted"] - (single["before"] - single["after"])).abs().max() < 1e-6


def last_site(basis: nvs.Basis) -> nvs.Basis:
    return nvs.Basis(basis.name, basis.sites[-1:], basis.dictionaries[-1:])


@pytest.mark.parametrize("name", ["mlp_neurons", "sae", "transcoder"])
def test_a_negated_delta_turns_the_sign_round_for_a_small_alpha(name: str) -> None:
    model, basis = toys.model("llama"), basis_called(name, "llama")
    pair = PAIRS.take([1])
    donor = donor_values(model, basis, pair)
    index = basis.index(pair.positions)
    scores = ranking.delta_gradient(model, basis, pair, [d[None] for d in donor])[0]
    nodes = ranking.order(scores, "positive")[:5]
    runs = [towards(index, nodes, donor, alpha) for alpha in (1e-4, -1e-4)]
    metric = outcomes(model, basis, pair, [(None,) * len(basis.sites), *runs])["metric"][:, 0]
    up, down = (metric[1:] - metric[0]).tolist()
    assert up == pytest.approx(-down, rel=1e-2)
    assert up == pytest.approx(-1e-4 * float(scores[nodes].sum()), rel=1e-2)


@pytest.mark.parametrize("name", ["sae", "mlp_neurons"])
def test_delta_gradient_is_attribution_patching_prompt_by_prompt(name: str) -> None:
    model, basis = toys.model("gpt2"), basis_called(name, "gpt2")
    donor = basis.features(nvs_read(model, basis)).units
    mean = ranking.delta_gradient(model, basis, PAIRS, donor).mean(0)
    theirs = nvs.attribution.attribution_patching(model, basis, PAIRS)
    units = ~theirs.index.is_error
    torch.testing.assert_close(mean[units], theirs.values[units], rtol=1e-9, atol=1e-12)


def nvs_read(model: Any, basis: nvs.Basis) -> Any:
    from neuron_vs_sae.execution.splice import read

    return read(model, PAIRS.corrupt, PAIRS.length, basis.hooks)


@pytest.mark.parametrize("select", ["global", "per_layer", "mass", "iterative", "ig"])
def test_every_selection_grows_with_its_size_and_counts_what_it_patches(select: Any) -> None:
    model, basis = toys.model("llama"), basis_called("mlp_neurons", "llama")
    found = patch(
        model, basis, PAIRS, select=select, k=(1, 4, 9), options=Patching(mass=(0.1, 0.5, 1.0), every=2, steps=3)
    ).values
    sizes = found.loc[found["control"] == ""].pivot(index="prompt", columns="k", values="units")
    assert (sizes.diff(axis=1).iloc[:, 1:] >= 0).all().all()
    if select in ("global", "ig", "iterative"):
        assert (sizes == [1, 4, 9]).all().all()
    everything = found.loc[found["control"] == "all_units", "units"]
    assert set(everything) == {2 * toys.D_MLP * 5}  # all tokens but BOS


def test_iterative_gradients_are_those_of_the_patched_run() -> None:
    """Its first unit is the static ranking's; the predictions of its first two add up to two static steps, each at its own state."""
    model, basis = toys.model("llama"), basis_called("mlp_neurons", "llama")
    pair = PAIRS.take([2])
    donor = donor_values(model, basis, pair)
    index = basis.index(pair.positions)
    first = ranking.delta_gradient(model, basis, pair, [d[None] for d in donor])[0]
    best = ranking.order(first, "positive")[:1]
    again = ranking.delta_gradient(
        model, basis, pair, [d[None] for d in donor], changes=towards(index, best, donor, 1.0)
    )[0]
    again[best] = 0
    second = ranking.order(again, "positive")[:1]
    found = patch(model, basis, pair, select="iterative", k=(1, 2), options=Patching(every=1)).values
    predicted = found.loc[found["control"] == "", "predicted"].tolist()
    assert predicted == pytest.approx([float(first[best]), float(first[best] + again[second])], abs=1e-9)


def test_a_share_of_the_score_takes_the_shortest_beginning() -> None:
    scores = torch.tensor([3.0, -5.0, 2.0, 1.0, 0.0])
    assert ranking.mass(scores, 0.5, "positive").tolist() == [0]
    assert ranking.mass(scores, 0.8, "positive").tolist() == [0, 2]
    assert ranking.mass(scores, 1.0, "absolute").tolist() == [1, 0, 2, 3]
    assert ranking.mass(scores, 0.9, "negative").tolist() == [1]


@pytest.mark.parametrize("control", controls.DRAWN)
def test_drawn_controls_move_the_same_amounts(control: controls.PatchControl) -> None:
    basis = basis_called("sae", "llama")
    index = basis.index(6)
    nodes = torch.tensor([12, 15, 40, 90, 91])
    amounts = torch.tensor([1.0, -2.0, 3.0, 4.0, -5.0])
    draw = torch.Generator().manual_seed(0)
    at, by = controls.randomised(control, index, nodes, amounts, draw)
    assert sorted(by.tolist()) == sorted(amounts.tolist())
    assert len(set(at.tolist())) == 5
    assert not index.is_error[at].any()
    here, there = (sorted(name.partition("@")[2] for name in map(index.name, x.tolist())) for x in (nodes, at))
    assert here == there  # the same tokens
    if control != "random":
        assert torch.equal(at, nodes)
    if control == "permuted":
        assert sorted(by[:3].tolist()) == [-2, 1, 3]


def test_one_earlier_is_the_token_before() -> None:
    index = basis_called("sae", "llama").index(6)
    nodes = torch.tensor([3, 11 + 4, 66 + 11 + 2])
    at, by = controls.one_earlier(index, nodes, torch.tensor([1.0, 2.0, 3.0]))
    assert [index.name(n) for n in at.tolist()] == ["blocks.0.hook_mlp_out/4@0", "blocks.1.hook_mlp_out/2@0"]
    assert by.tolist() == [2.0, 3.0]


def test_the_norm_written_is_worked_by_hand() -> None:
    """Two sites of two coordinates: |(3, 4)| / 10 and |(0, 2)| / 4 at one token, |(1, 0)| / 2 at another."""
    index = nvs.NodeIndex(("a", "b"), (2, 2), 2)
    eye = [torch.eye(2), torch.eye(2)]
    norms = [torch.tensor([10.0, 2.0]), torch.tensor([4.0, 1.0])]
    nodes = torch.tensor([0, 1, 3, 7])
    found = written_norm(index, nodes, torch.tensor([3.0, 4.0, 1.0, 2.0]), norms, eye)
    assert found == pytest.approx((0.5**2 + 0.5**2 + 0.5**2) ** 0.5)


def test_amounts_are_added_to_live_values() -> None:
    model, basis = toys.model("llama"), basis_called("mlp_neurons", "llama")
    pair = PAIRS.take([0])
    donor, index = donor_values(model, basis, pair), basis.index(6)
    values = [units[0] for units in basis.features(nvs_read_clean(model, basis, pair)).units]
    node = torch.tensor([13 * 2 + 5])
    by = (donor[0][2, 5] - values[0][2, 5])[None]
    one, other = (
        run(model, pair.clean, pair.length, edits_of(model, basis, changes))
        for changes in (towards(index, node, donor, 1.0), moved(index, node, by, values))
    )
    torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


def nvs_read_clean(model: Any, basis: nvs.Basis, pair: nvs.PromptPairs) -> Any:
    from neuron_vs_sae.execution.splice import read

    return read(model, pair.clean, pair.length, basis.hooks)


def test_directions_of_deltas_are_orthonormal_and_all_of_them_patch_the_site() -> None:
    model, outputs = toys.model("llama"), basis_called("mlp_outputs", "llama")
    found = delta_directions(model, outputs, PAIRS, 99)
    for dictionary in found.dictionaries:
        rows = dictionary.directions(torch.arange(dictionary.width))
        torch.testing.assert_close(rows @ rows.T, torch.eye(len(rows), dtype=rows.dtype), rtol=0, atol=1e-9)
    torch.testing.assert_close(patched(model, found, 0), patched(model, outputs, 0), rtol=0, atol=1e-9)
    few = delta_directions(model, outputs, PAIRS, 2)
    assert [d.width for d in few.dictionaries] == [2, 2]


def test_a_mean_difference_is_a_basis_of_one_unit() -> None:
    model, outputs = toys.model("llama"), basis_called("sae", "llama")
    found = directions(model, outputs, PAIRS, "mean_difference")
    assert [d.width for d in found.dictionaries] == [1, 1]
    assert found.dictionaries[0].directions(torch.tensor([0])).norm() == pytest.approx(1.0)


@pytest.mark.checked
def test_patching_is_checked() -> None:
    model, basis = toys.model("gpt2"), basis_called("sae", "gpt2")
    every = ("random", "permuted", "permuted_across", "negated", "wrong_position", "wrong_source")
    for select in ("global", "per_layer", "iterative", "ig", "mass"):
        found = nvs.patch(
            model, basis, PAIRS, select=select, k=(1, 3), control=every, options=Patching(trials=2, steps=2)
        )  # type: ignore[arg-type]
        assert len(found.units_to_flip()) == 4
    delta_directions(model, basis, PAIRS, 1)
    directions(model, basis, PAIRS, "mean_difference")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"k": (0,)}, "1 or more"),
        ({"k": ()}, "1 or more"),
        ({"alpha": (float("nan"),)}, "finite"),
        ({"select": "best"}, "no selection 'best'"),
        ({"control": ("none",)}, "no control 'none'"),
        ({"select": "mass", "options": {"mass": (1.5,)}}, "at most 1"),
        ({"options": {"sign": "up"}}, "no sign 'up'"),
    ],
)
@pytest.mark.unchecked
def test_wrong_settings_are_refused(given: dict[str, Any], message: str) -> None:
    model, basis = toys.model("llama"), basis_called("mlp_neurons", "llama")
    with pytest.raises(InputError, match=message):
        patch(model, basis, PAIRS, options=Patching(**given.pop("options", {})), **given)


def test_recipient_and_donor_of_unequal_length_are_refused() -> None:
    with pytest.raises(InputError, match="equal token length"):
        dataclasses.replace(PAIRS, corrupt=PAIRS.corrupt[:, :5])
