"""Steering: what doses write, guards that are zero at dose zero, and doses chosen on other prompts than they are scored on."""

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tables
import torch
import toys

import neuron_vs_sae as nvs
from neuron_vs_sae.analyses.interventions.doses import GRIDS, Handle, changes_at, kinds, written_norms
from neuron_vs_sae.analyses.interventions.frontier import chosen_efficacy, log_weights
from neuron_vs_sae.analyses.interventions.generation import Sampling, distinct, generate
from neuron_vs_sae.analyses.interventions.handles import direction_basis, first_units, handle_of, names_of
from neuron_vs_sae.analyses.interventions.outcomes import kl
from neuron_vs_sae.analyses.interventions.steering import Steering, steer
from neuron_vs_sae.analyses.interventions.subjects import landed, places, subject
from neuron_vs_sae.catalog.corpora import Corpus, from_tokens
from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.report.neuronpedia import steering

PAIRS = toys.pairs(6)


def basis_called(name: str, kind: str = "llama") -> nvs.Basis:
    return tables.make(next(c for c in tables.BASES if c.name == name), toys.model(kind))


def text() -> Corpus:
    draw = torch.Generator().manual_seed(3)
    return from_tokens("toy", torch.randint(1, toys.VOCAB, (6, 8), generator=draw).tolist())


@pytest.mark.parametrize("name", ["mlp_neurons", "sae", "transcoder", "rotation", "attention"])
@pytest.mark.parametrize("kind", kinds())
def test_what_changes_nothing_costs_nothing(name: str, kind: Any) -> None:
    """Dose 0 of add and patch, 1 of scale: every effect, every guard is exactly 0."""
    model, basis = toys.model("llama"), basis_called(name)
    nothing = {"add": 0.0, "patch": 0.0, "scale": 1.0, "clamp": 0.0}[kind]
    units = [f"{basis.sites[0].name}/1", f"{basis.sites[1].name}/2"]
    guard = None if kind == "clamp" else text()
    options = Steering(at="all", dose_in="value" if kind == "clamp" else None, others={"other": toys.pairs(3, seed=5)})
    found = steer(model, basis, units, PAIRS, kind=kind, doses=[nothing, 0.7], guard=guard, options=options)
    assert (found.kl[1] > 0).any()
    if kind == "clamp":
        return  # a value is not nothing
    assert torch.equal(found.effect[0], torch.zeros(6, dtype=torch.float64))
    assert not found.kl[0].any()
    assert not found.norm[0].any()
    if kind != "patch":
        side = found.side[0]
        assert not side.kl.any()
        assert not side.cross_entropy.any()
        assert bool((side.agreement == 1).all())
        assert not found.others["other"][0].any()
        assert found.others["other"][1].any()


@pytest.mark.parametrize("name", ["mlp_neurons", "sae", "transcoder", "attention", "residual"])
@pytest.mark.parametrize("at", ["answer", "all"])
def test_a_dose_in_norm_writes_that_norm(name: str, at: Any) -> None:
    model, basis = toys.model("gpt2"), basis_called(name, "gpt2")
    handle = handle_of(model, basis, [f"{basis.sites[0].name}/1", f"{basis.sites[1].name}/3"], [1.0, -1.0])
    of = subject(model, basis, PAIRS.clean, PAIRS.length, places(PAIRS, at))
    for dose in (-0.5, 0.2):
        changes = changes_at(model, basis, handle, "add", dose, of, measure="norm")
        norms = written_norms(model, basis, changes, of)
        torch.testing.assert_close(norms, torch.full((6,), abs(dose), dtype=torch.float64), rtol=1e-9, atol=0)


def test_neurons_and_features_of_the_mlps_output_are_measured_in_one_space() -> None:
    """A neuron moved by 1 writes the norm of its row of W_out, over the norm of all that the MLP writes."""
    model, basis = toys.model("gpt2"), basis_called("mlp_neurons", "gpt2")
    handle = handle_of(model, basis, ["blocks.0.mlp.hook_post/4"])
    of = subject(model, basis, PAIRS.clean, PAIRS.length, places(PAIRS, "answer"))
    changes = changes_at(model, basis, handle, "add", 1.0, of, measure="value")
    _, cache = model.run_with_cache(PAIRS.clean)
    mlp_out = cache["blocks.0.hook_mlp_out"][:, -1].norm(dim=-1)
    wanted = (model.blocks[0].mlp.W_out[4].norm() / mlp_out).detach()
    torch.testing.assert_close(written_norms(model, basis, changes, of), wanted, rtol=1e-9, atol=0)
    assert landed(model, basis.sites[0], torch.eye(12, dtype=torch.float64)).shape == (12, 8)


def test_a_dose_in_kl_costs_that_much() -> None:
    model, basis = toys.model("llama"), basis_called("sae")
    options = Steering(dose_in="kl")
    found = steer(model, basis, ["blocks.0.hook_mlp_out/1"], PAIRS, doses=[-0.02, 0.0, 0.05], options=options)
    assert found.kl.mean(1).tolist() == pytest.approx([0.02, 0.0, 0.05], rel=1e-4, abs=0)
    assert found.level[0] < 0 < found.level[2]
    far = steer(model, basis, ["blocks.0.hook_mlp_out/1"], PAIRS, doses=[1e6], options=options)
    assert far.after.isnan().all()


def test_scale_clamp_and_patch_set_what_they_say() -> None:
    from neuron_vs_sae.execution.changes import unit_values

    model, basis = toys.model("llama"), basis_called("mlp_neurons")
    handle = handle_of(model, basis, ["blocks.0.mlp.hook_post/2"])
    of = subject(model, basis, PAIRS.clean, PAIRS.length, places(PAIRS, "all"))
    (values, _) = unit_values(basis, of.activations, handle.units)
    donor = [values + 3.0, torch.zeros(6, 6, 0)]
    for kind, dose, wanted in (
        ("scale", 2.5, 2.5 * values), ("clamp", 2.5, torch.full_like(values, 2.5)), ("patch", 0.5, values + 1.5),
    ):  # fmt: skip
        change = changes_at(model, basis, handle, kind, dose, of, measure="value", donor=donor)[0]  # type: ignore[arg-type]
        assert change is not None
        after = values + change.offset + change.slope * values
        torch.testing.assert_close(after[:, 1:], wanted[:, 1:], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(after[:, 0], values[:, 0], rtol=0, atol=0)  # BOS is left alone


def test_multiples_of_the_largest_value_are_of_that_on_the_corpus() -> None:
    from neuron_vs_sae.analyses.interventions.handles import largest_values

    model, basis, corpus = toys.model("llama"), basis_called("mlp_neurons"), text()
    handle = handle_of(model, basis, ["blocks.0.mlp.hook_post/2", "blocks.1.mlp.hook_post/7"])
    found = largest_values(model, basis, handle, corpus)
    tokens = next(corpus.batches(6)).tokens
    _, cache = model.run_with_cache(tokens)
    for s, unit in ((0, 2), (1, 7)):
        assert float(found.scale[s]) == pytest.approx(float(cache[f"blocks.{s}.mlp.hook_post"][..., unit].abs().max()))


def test_a_direction_is_a_basis_of_one_unit_whose_error_is_what_lies_across() -> None:
    model = toys.model("llama")
    site = basis_called("mlp_outputs").sites[0]
    basis = direction_basis(model, site, torch.arange(8.0), "mine")
    x = torch.randn(3, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    dictionary = basis.dictionaries[0]
    across = x - dictionary.decode(dictionary.encode(x))
    assert float((dictionary.encode(across)).abs().max()) < 1e-12
    with pytest.raises(InputError, match="zero or not finite"):
        direction_basis(model, site, torch.zeros(8), "none")


def test_first_units_go_the_way_that_lowers_the_metric() -> None:
    """Adding a little of one to every token lowers the metric, on a pair that it was chosen on."""
    model, basis = toys.model("llama"), basis_called("mlp_neurons")
    pair = PAIRS.take([0])
    for at in ("answer", "all"):
        for k in (1, 2, 5):
            handle = first_units(model, basis, pair, k, at=at)
            found = steer(model, basis, handle, pair, doses=[1e-5, -1e-5], options=Steering(at=at, dose_in="value"))
            assert found.effect[0, 0] < 0 < found.effect[1, 0]
    with pytest.raises(InputError, match="have a score"):
        first_units(model, basis, pair, 999)


# Frontiers.


def test_a_frontier_by_hand() -> None:
    """Four prompts, three doses. At a price of .1 both halves choose the second dose, at 1 the third; each is scored on the other half."""
    effect = np.array([[0.0] * 4, [-1.0, -2.0, -3.0, -4.0], [5.0, 6.0, 7.0, 8.0]])
    cost = np.array([[0.0] * 4, [0.05] * 4, [0.5] * 4])
    efficacy, chosen = chosen_efficacy(effect, cost, [0.0, -1.0, 2.0], (0.1, 1.0))
    assert chosen == ((-1.0, -1.0), (2.0, 2.0))
    assert efficacy.T.tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]
    unaffordable, none = chosen_efficacy(effect[1:], cost[1:], [-1.0, 2.0], (0.01,))
    assert not unaffordable.any()
    assert np.isnan(none).all()


def test_the_other_half_chooses() -> None:
    """Two prompts, each with a dose that does much for it and a little harm to the other: each is scored by the other's choice."""
    effect = np.array([[10.0, -1.0], [-1.0, 10.0]])
    efficacy, chosen = chosen_efficacy(effect, np.zeros((2, 2)), [1.0, 2.0], (1.0,))
    assert efficacy.tolist() == [[-1.0], [-1.0]]
    assert sorted(chosen[0]) == [1.0, 2.0]


def test_weights_over_log_price() -> None:
    assert log_weights((0.01, 0.1, 1.0)).tolist() == pytest.approx([0.25, 0.5, 0.25])
    assert log_weights((3.0,)).tolist() == [1.0]


def test_kl_is_what_it_is() -> None:
    p, q = torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, np.log(3.0)]])
    assert float(kl(p, q)) == pytest.approx(0.5 * np.log(2) + 0.5 * np.log(0.5 / 0.75))
    assert float(kl(q, q)) == 0.0


def test_guards_grow_with_the_dose_of_one_unit() -> None:
    model, basis = toys.model("llama"), basis_called("mlp_neurons")
    options = Steering(at="all")
    found = steer(
        model, basis, ["blocks.1.mlp.hook_post/3"], PAIRS, doses=[0.0, 0.01, 0.1, 0.3], guard=text(), options=options
    )
    costs = [float(side.kl.mean()) for side in found.side]
    assert costs == sorted(costs)
    assert found.kl.mean(1).tolist() == sorted(found.kl.mean(1).tolist())


# Text.


class _Words:
    eos_token_id, padding_side = 0, "right"

    @staticmethod
    def decode(tokens: list[int]) -> str:
        return " ".join(map(str, tokens))


def test_text_is_drawn_by_seed_and_is_the_plain_models_at_dose_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    model, basis = toys.model("llama"), basis_called("sae")
    monkeypatch.setattr(model, "tokenizer", _Words(), raising=False)
    handle = handle_of(model, basis, ["blocks.0.hook_mlp_out/1"])
    prompt, sampling = PAIRS.clean[0], Sampling(tokens=5, seed=4)
    plain = generate(model, basis, None, prompt, sampling=sampling)
    assert generate(model, basis, handle, prompt, dose=0.0, sampling=sampling) == plain
    steered = generate(model, basis, handle, prompt, dose=30.0, sampling=sampling)
    assert generate(model, basis, handle, prompt, dose=30.0, sampling=sampling) == steered
    assert steered.tokens != plain.tokens
    greedy = generate(model, basis, None, prompt, sampling=Sampling(tokens=1, temperature=0.0))
    assert greedy.tokens == (int(model(prompt[None])[0, -1].argmax()),)
    assert greedy.perplexity == pytest.approx(1 / float(model(prompt[None])[0, -1].softmax(-1).max()))
    with pytest.raises(InputError, match="1 or more"):
        generate(model, basis, None, prompt, sampling=Sampling(tokens=0))


def test_distinct_words() -> None:
    assert distinct([1, 2, 1, 2], 1) == 0.5
    assert distinct([1, 2, 1, 2], 2) == pytest.approx(2 / 3)
    assert distinct([1], 2) == 1.0


def test_requests_for_neuronpedia_have_its_names() -> None:
    doses = pd.DataFrame(
        {
            "task": "t",
            "basis": "sae",
            "dose": [0.5],
            "units": ["blocks.3.hook_mlp_out/17"],
            "kind": "add",
            "dose_in": "norm",
        }
    )
    (request,) = json.loads(json.dumps(steering(doses, 20, "answer")))
    assert {"features", "n_tokens", "top_k", "freeze_attention"} <= request.keys()
    assert request["features"] == [
        {"layer": 3, "index": 17, "token_active_position": -1, "steer_position": -1, "steer_generated_tokens": True, "delta": 0.5, "ablate": False}
    ]  # fmt: skip


@pytest.mark.checked
def test_steering_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    model, basis = toys.model("llama"), basis_called("sae")
    monkeypatch.setattr(model, "tokenizer", _Words(), raising=False)
    handle = first_units(model, basis, PAIRS, 3)
    assert len(names_of(basis, handle)) == handle.n_units == 3
    for kind in kinds():
        found = nvs.steer(model, basis, handle, PAIRS, kind=kind, guard=text(), options=Steering(at="answer"))
        assert found.doses == GRIDS[kind]
        nvs.frontier(found)
    nvs.frontier(nvs.steer(model, basis, handle, PAIRS, guard=text()), "corpus_kl", (0.1, 1.0)).area.tolist()
    direction_basis(model, basis.sites[0], torch.arange(8.0), "mine")
    generate(model, basis, handle, PAIRS.clean[0], dose=0.1, sampling=Sampling(tokens=1))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"units": ["blocks.0.mlp.hook_post/1"]}, "has no site"),
        ({"units": ["blocks.0.hook_mlp_out/99"]}, "units 0 to 9"),
        ({"doses": [0.1, float("nan")]}, "finite"),
        ({"doses": [0.1, 0.1]}, "given twice"),
        ({"kind": "push"}, "no kind 'push'"),
        ({"kind": "scale", "options": {"dose_in": "kl"}}, "cannot be in 'kl'"),
        ({"kind": "clamp"}, "need a corpus"),
        ({"options": {"at": "first"}}, "no place to steer at"),
    ],
)
@pytest.mark.unchecked
def test_wrong_doses_are_refused(given: dict[str, Any], message: str) -> None:
    units = given.pop("units", ["blocks.0.hook_mlp_out/1"])
    options = Steering(**given.pop("options", {}))
    with pytest.raises(InputError, match=message):
        steer(toys.model("llama"), basis_called("sae"), units, PAIRS, options=options, **given)


def test_units_that_cancel_have_no_norm() -> None:
    model, basis = toys.model("llama"), basis_called("mlp_outputs")
    zero = torch.zeros(1, dtype=torch.float64)
    handle = Handle((torch.tensor([0]), torch.tensor([], dtype=torch.long)), (zero, zero[:0]), (zero, zero[:0]))
    with pytest.raises(InputError, match="write nothing"):
        steer(model, basis, handle, PAIRS, doses=[0.1])


@pytest.mark.parametrize("epsilons", [(), (0.0, 1.0), (1.0, 0.5)])
def test_wrong_prices_are_refused(epsilons: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match="growing numbers"):
        chosen_efficacy(np.zeros((2, 4)), np.zeros((2, 4)), [0.0, 1.0], epsilons)
