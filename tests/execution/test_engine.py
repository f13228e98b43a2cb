"""The fast engine gives the numbers of the exact one; and does not do the work that it says it does not do."""

import dataclasses
import itertools
from typing import Any, get_args

import pytest
import tables
import torch
import toys
from covering import in_turn
from hypothesis import given, settings, strategies as st
from tables import make, random_scores, refused

import neuron_vs_sae as nvs
from neuron_vs_sae.analyses.circuits.evaluation import engine_for
from neuron_vs_sae.core.basis import apart, together
from neuron_vs_sae.core.conventions import ErrorPolicy
from neuron_vs_sae.core.dictionary import Affine
from neuron_vs_sae.core.unit_wise import UnitWise
from neuron_vs_sae.execution import memory, passes
from neuron_vs_sae.execution.engine import bytes_per_token, runs_at_once

PAIRS = toys.pairs()
EXACT = 1e-9  # float64; sums of thousands of terms
POLICIES = get_args(ErrorPolicy)

# Every basis on every architecture, with the other choices taken in turn; and more of them where it matters most.
TURNS = zip(
    itertools.product(toys.MODELS, tables.BASES),
    itertools.cycle(itertools.product(tables.ABLATIONS[::-1], POLICIES, ("separate", "pooled"))),
    strict=False,
)
CASES = [(kind, case, ablation.name, errors, positions) for (kind, case), (ablation, errors, positions) in TURNS]
CASES += [
    ("gpt2", case, ablation.name, errors, "separate")
    for case in tables.BASES
    for ablation in tables.ABLATIONS
    for errors in POLICIES
    if (case.name == "mlp_neurons" and errors in {"nodes", "ablate"})
    or (case.name == "sae three kinds" and ablation.name in {"mean", "zero_site"})
]


def sizes(total: int) -> list[int]:
    return sorted({0, 5, total // 3, total - 2, total})


def differ(
    model: Any, basis: nvs.Basis, scores: nvs.NodeScores, pairs: nvs.PromptPairs = PAIRS, **options: Any
) -> float:
    """The largest difference between what the two engines say."""
    assert engine_for(model, basis, "fast") == "fast"
    options = {"sizes": sizes, **options}
    fast, exact = (nvs.evaluate(model, basis, scores, pairs, engine=e, **options) for e in ("fast", "exact"))
    rows = ("whole", "empty", "circuit", "complement")
    return max(float((getattr(fast, row) - getattr(exact, row)).abs().max()) for row in rows)


@pytest.mark.parametrize(
    ("kind", "case", "ablation", "errors", "positions"),
    CASES,
    ids=lambda value: value.name if isinstance(value, tables.BasisCase) else None,
)
def test_every_run_is_the_one_that_splice_makes(
    kind: str, case: tables.BasisCase, ablation: str, errors: Any, positions: str
) -> None:
    if refused(case, ablation, kind):
        ablation = "mean"
    model = toys.model(kind)
    basis = make(case, model)
    scores = random_scores(basis, positions=positions)
    assert differ(model, basis, scores, ablation=ablation, errors=errors, batch_size=3) < EXACT


@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_any_circuit_at_all_is_run_as_splice_runs_it(data: Any) -> None:
    """Circuits that no ranking would give: whole sites, single positions, error nodes alone."""
    names = ["mlp_neurons", "sae jumprelu", "transcoder", "residual", "sae three kinds", "sae topk"]
    kind, name = data.draw(st.sampled_from(list(toys.MODELS))), data.draw(st.sampled_from(names))
    model, case = toys.model(kind), next(c for c in tables.BASES if c.name == name)
    basis = make(case, model)
    index = basis.index(PAIRS.positions)
    chosen = data.draw(st.sets(st.integers(0, len(index) - 1), max_size=12))
    values = torch.zeros(len(index), dtype=torch.float64)
    values[sorted(chosen)] = 1.0
    k = int(data.draw(st.integers(0, len(chosen))) if chosen else 0)
    assert differ(model, basis, nvs.NodeScores(index, values), sizes=[k]) < EXACT


@pytest.mark.parametrize("metric", ["kl", "probability", "answer_logit"])
def test_metrics_of_all_tokens_and_of_two_are_equal_on_prompts_of_several_lengths(metric: str) -> None:
    pairs = toys.pairs(4, lengths=[6, 4, 6, 5])
    for kind, name in (("gemma2", "mlp_neurons"), ("gpt2", "sae jumprelu")):
        model = toys.model(kind)
        basis = make(next(c for c in tables.BASES if c.name == name), model)
        scores = random_scores(basis, pairs, "pooled")
        assert differ(model, basis, scores, pairs, metric=metric, ablation="counterfactual") < EXACT


def test_in_float32_the_engines_agree_to_four_digits() -> None:
    model = toys.model("gpt2")
    single = nvs.prepare(type(model)(dataclasses.replace(model.cfg, dtype=torch.float32)))
    single.load_state_dict({name: value.float() for name, value in model.state_dict().items()})
    for basis in (nvs.bases.mlp_neurons(single), nvs.bases.sae(single, source=toys.saes(dtype="float32"))):
        assert differ(single, basis, random_scores(basis)) < 1e-4


def units_first(basis: nvs.Basis) -> nvs.NodeScores:
    """Scores that rank every error node last."""
    scores = random_scores(basis)
    return nvs.NodeScores(scores.index, scores.values.masked_fill(scores.index.is_error, 0.0))


def test_only_units_of_circuits_are_encoded(gpt2: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With no error node in it, no dictionary is ever encoded or decoded whole: not for references either."""
    basis = nvs.bases.sae(gpt2, source=toys.saes(width=200))
    encoded: list[int] = []
    some = Affine.encode_some

    def count(self: Any, y: Any, units: Any) -> Any:
        encoded.append(len(units))
        return some(self, y, units)

    def never(*args: Any) -> Any:
        raise AssertionError("a whole dictionary was used")

    monkeypatch.setattr(Affine, "encode_some", count)
    monkeypatch.setattr(Affine, "encode", never)
    monkeypatch.setattr(Affine, "decode", never)
    nvs.evaluate(gpt2, basis, units_first(basis), PAIRS, sizes=lambda _: [7])
    assert 0 < max(encoded) <= 7


def test_an_mlp_with_all_its_neurons_ablated_is_not_run(gpt2: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neurons: the only whole MLPs are the model's own and those of the complement, from the circuit's first cell on."""
    seen: list[int] = []
    post = passes.post

    def count(mlp: Any, y: Any) -> Any:
        seen.append(y.shape[0])
        return post(mlp, y)

    monkeypatch.setattr(passes, "post", count)
    basis = nvs.bases.mlp_neurons(gpt2)
    index = basis.index(PAIRS.positions)
    values = torch.zeros(len(index))
    values[4 * (toys.D_MLP + 1)] = 1.0  # the first layer's first neuron, at position 4 of 6
    nvs.evaluate(gpt2, basis, nvs.NodeScores(index, values), PAIRS, sizes=[1])
    # The model: all six positions, then the answer's; the complement: positions 4 and 5, then the answer's.
    assert seen == [6, 1, 2, 1]


def test_what_the_engine_does_not_know_is_left_to_splice_and_says_so(gpt2: Any) -> None:
    basis = nvs.bases.mlp_neurons(gpt2)
    assert engine_for(gpt2, basis, "exact") == "exact"
    with gpt2.hooks(fwd_hooks=[("blocks.0.hook_mlp_out", lambda x, hook: 2 * x)]):
        assert engine_for(gpt2, basis, "fast").startswith("exact: ")
        halved = nvs.evaluate(gpt2, basis, random_scores(basis), PAIRS, sizes=[3])
    plain = nvs.evaluate(gpt2, basis, random_scores(basis), PAIRS, sizes=[3])
    assert not torch.allclose(halved.whole, plain.whole)


@pytest.mark.parametrize("method", tables.METHODS, ids=lambda m: m.id)
def test_bases_discovered_together_score_as_each_alone(method: tables.MethodCase, llama: Any) -> None:
    names = ("mlp_outputs", "sae", "transcoder")
    bases = [make(next(c for c in tables.BASES if c.name == name), llama) for name in names]
    joint = together(bases)
    pairs = PAIRS.take([0, 1, 2])
    for basis, scores in zip(bases, apart(method(llama, joint, pairs), joint), strict=True):
        alone = method(llama, basis, pairs)
        assert scores.index == alone.index
        assert torch.allclose(scores.values, alone.values, atol=1e-12, rtol=0)


def test_the_peak_of_what_tensors_hold_is_counted() -> None:
    """Worked by hand, in float32: views and changes in place hold nothing of their own, and what is dropped is given back."""

    def grows() -> torch.Tensor:
        a = torch.ones(1000)
        b = a + 1
        a = b.view(10, 100)
        a += 1
        return b * 2

    assert memory.peak_bytes(grows) == 2 * 4000
    assert memory.peak_bytes(lambda: torch.ones(500) @ torch.ones(500, 7)) == 4 * (500 + 3500 + 7)


def test_bundles_of_runs_take_no_more_than_a_quarter_of_the_memory(gpt2: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Measured: what a bundle of the allowed size holds at its peak, against the memory that it was given."""
    pairs = toys.pairs(40)
    basis = nvs.bases.mlp_outputs(gpt2)
    scores = random_scores(basis, pairs)
    room = 40 * 3 * 6 * bytes_per_token(gpt2, 6)  # three runs of 40 prompts of 6 tokens, in a quarter
    monkeypatch.setattr("neuron_vs_sae.execution.engine.free_memory", lambda device: 4 * room)
    assert runs_at_once(gpt2, 40, 6, 0) == 3
    sizes: list[int] = []
    through = passes.Pass.through

    def count(self: Any, *args: Any) -> Any:
        found: list[Any] = []
        held = memory.peak_bytes(lambda: found.append(through(self, *args)))
        sizes.append(held if self.bundle.full and args[1] is not None else 0)
        return found[0]

    monkeypatch.setattr(passes.Pass, "through", count)
    grid = list(range(1, 40, 4))
    small = nvs.evaluate(gpt2, basis, scores, pairs, sizes=grid)
    assert 0 < max(sizes) <= room
    monkeypatch.undo()
    assert torch.allclose(small.circuit, nvs.evaluate(gpt2, basis, scores, pairs, sizes=grid).circuit, atol=EXACT)


def test_a_dictionary_is_used_in_slices(gpt2: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many slots it is written in: error nodes kept at every position, a handful of elements at a time."""
    basis = nvs.bases.sae(gpt2, source=toys.saes(width=40))
    scores = random_scores(basis)
    whole = nvs.evaluate(gpt2, basis, scores, PAIRS, sizes=[200], errors="keep")
    monkeypatch.setattr("neuron_vs_sae.execution.overwrite.HELD", 450)  # two slots of five prompts at most
    encoded: list[int] = []
    active = UnitWise.active

    def count(self: Any, y: Any) -> Any:
        encoded.append(y.shape[0] * 40)
        return active(self, y)

    monkeypatch.setattr(UnitWise, "active", count)
    sliced = nvs.evaluate(gpt2, basis, scores, PAIRS, sizes=[200], errors="keep")
    assert 0 < max(encoded) <= 450
    assert torch.allclose(whole.circuit, sliced.circuit, atol=EXACT)


@pytest.mark.checked
@pytest.mark.parametrize(
    ("case", "method", "ablation", "errors", "kind", "positions"),
    in_turn(
        tables.BASES,
        tables.METHODS,
        tables.ABLATIONS,
        POLICIES,
        tuple(toys.MODELS),
        ("separate", "pooled"),
        everything=False,
    ),
    ids=lambda value: value if isinstance(value, str) else getattr(value, "id", value.name),
)
def test_both_engines_run_what_a_method_finds(
    case: tables.BasisCase,
    method: tables.MethodCase,
    ablation: tables.AblationCase,
    errors: Any,
    kind: str,
    positions: Any,
) -> None:
    """The whole way from prompts to a curve, with every basis, method, ablation, policy and architecture."""
    name = "mean" if refused(case, ablation.name, kind) else ablation.name
    pairs, model = PAIRS.take([0, 1]), toys.model(kind)
    basis = make(case, model)
    scores = method(model, basis, pairs, positions=positions)
    assert differ(model, basis, scores, pairs, sizes=[0, 5], ablation=name, errors=errors) < EXACT
