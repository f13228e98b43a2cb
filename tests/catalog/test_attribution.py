"""What the docstrings of the attribution methods claim: exactness, sums, rates of convergence, costs."""

import math
from collections import Counter
from typing import Any

import pytest
import tables
import torch
import toys

import neuron_vs_sae as nvs
from neuron_vs_sae.catalog.attribution._path import points
from neuron_vs_sae.core.dictionary import Affine
from neuron_vs_sae.execution import splice
from neuron_vs_sae.execution.splice import Kept, ReferenceValues, edit, read, run

PAIRS = toys.pairs()


def metric_of(logits: torch.Tensor, pairs: nvs.PromptPairs = PAIRS) -> torch.Tensor:
    return (logits.gather(1, pairs.answer[:, None]) - logits.gather(1, pairs.foil[:, None]))[:, 0]


def linear_model() -> Any:
    """A GPT-2-style toy without anything that bends: no norm, activation `act(x) = x`, attention patterns the same."""
    import warnings

    from transformer_lens import HookedTransformer, HookedTransformerConfig

    config = {**toys._COMMON, "act_fn": "relu", "normalization_type": None}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        model = nvs.prepare(HookedTransformer(HookedTransformerConfig(**config)))
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        parameter.data = 0.5 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        if name.endswith(("W_Q", "b_Q")):
            parameter.data.zero_()  # scores are 0, patterns uniform
        if name.endswith("mlp.b_in"):
            parameter.data = torch.full_like(parameter, 100.0)  # every ReLU is open
    return model


@pytest.mark.parametrize("case", [c for c in tables.BASES if c.name in {"mlp_neurons", "pca of 3", "residual"}],
                         ids=lambda c: c.name)  # fmt: skip
def test_on_a_linear_model_every_estimate_is_exact(case: tables.BasisCase) -> None:
    """I9: attribution patching = integrated gradients = exact patching, for units and errors."""
    model = linear_model()
    basis = case.make(model, PAIRS)
    exact = nvs.attribution.activation_patching(model, basis, PAIRS).values
    # (Not RelP: the chord of an open ReLU is not its slope where there is a bias.)
    for name in ("attribution_patching", "integrated_gradients", "integrated_gradients_inputs"):
        estimate = getattr(nvs.attribution, name)(model, basis, PAIRS).values
        assert torch.allclose(estimate, exact, atol=1e-8), name


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [("left", [0, 0.25, 0.5, 0.75]), ("right", [0.25, 0.5, 0.75, 1]), ("midpoint", [0.125, 0.375, 0.625, 0.875])],
)
def test_the_points_of_a_path_are_those_of_its_schedule(schedule: Any, expected: list[float]) -> None:
    """Clean is 0 and corrupt 1: left has clean and not corrupt, right the reverse."""
    assert points(4, schedule) == expected


def test_one_left_step_is_attribution_patching(model: Any) -> None:
    """I9, over activations and over inputs, paired and unpaired."""
    for case in tables.BASES:
        if case.name in {"mlp_neurons", "sae", "transcoder", "sae three kinds"}:
            basis = case.make(model, PAIRS)
            for pairing in ("paired", "unpaired"):
                once = nvs.attribution.attribution_patching(model, basis, PAIRS, pairing=pairing).values
                for name in ("integrated_gradients", "integrated_gradients_inputs"):
                    scores = getattr(nvs.attribution, name)(model, basis, PAIRS, pairing=pairing, steps=1).values
                    assert torch.allclose(scores, once, atol=1e-12), (case.name, name)


def remainders(method: Any, pairs: nvs.PromptPairs, effect: torch.Tensor, steps: tuple[int, int]) -> float:
    """How often the missing part, summed without cancelling over prompts, halves when the steps double."""
    missing = [
        sum(abs(float(method(pairs.take([i]), n).values.sum() - effect[i])) for i in range(len(pairs))) for n in steps
    ]
    return torch.log2(torch.tensor(missing[0] / missing[1])).item()


@pytest.mark.parametrize(("schedule", "order"), [("left", 1), ("right", 1), ("midpoint", 2)])
@pytest.mark.parametrize("pairing", ["paired", "unpaired"])
@pytest.mark.parametrize("kind", ["gpt2", "neox"])
def test_integrated_gradients_sum_to_the_sites_effect_at_the_claimed_rate(
    schedule: str, order: int, pairing: str, kind: str
) -> None:
    """I11: one layer's scores sum to metric(clean) - metric(with that site at its corrupt value, or at decode(0))."""
    model, pairs = toys.model(kind), PAIRS.take([0, 1, 2])
    basis = nvs.bases.sae(model, source=toys.saes(), select=nvs.Selection(layers="0"))
    (site,) = basis.sites
    end = read(model, pairs.corrupt, pairs.length, [site.writes])[site.writes]
    if pairing == "unpaired":
        end = basis.constants(end)[0].expand_as(end)

    def score(logits: torch.Tensor) -> torch.Tensor:
        return metric_of(logits, pairs) if pairing == "paired" else logits.gather(1, pairs.answer[:, None])[:, 0]

    without = run(model, pairs.clean, pairs.length, [(site.writes, lambda x: end)])
    effect = score(run(model, pairs.clean, pairs.length)) - score(without)

    def method(some: nvs.PromptPairs, steps: int) -> nvs.NodeScores:
        return nvs.attribution.integrated_gradients(model, basis, some, pairing=pairing, schedule=schedule, steps=steps)

    assert remainders(method, pairs, effect, (24, 48)) == pytest.approx(order, abs=0.4)


@pytest.mark.parametrize("kind", ["gpt2", "neox"])
def test_conductance_through_a_cutting_site_sums_to_the_metrics_change_at_the_claimed_rate(kind: str) -> None:
    """Every path crosses the stream after layer 0; the remainder halves when the steps double."""
    model, pairs = toys.model(kind), PAIRS.take([0, 1])
    basis = nvs.bases.residual(model, layers="0")
    clean, corrupt = (metric_of(run(model, t, pairs.length), pairs) for t in (pairs.clean, pairs.corrupt))

    def method(some: nvs.PromptPairs, steps: int) -> nvs.NodeScores:
        return nvs.attribution.conductance(model, basis, some, steps=steps)

    assert remainders(method, pairs, clean - corrupt, (48, 96)) == pytest.approx(1, abs=0.4)


@pytest.mark.parametrize("case", [c for c in tables.BASES if c.name in {"sae", "mlp_neurons", "transcoder", "sae hook_z"}],
                         ids=lambda c: c.name)  # fmt: skip
def test_attribution_patching_is_the_slope_of_moving_one_node(case: tables.BasisCase, gpt2: Any) -> None:
    """I10: minus the derivative of the metric when one node moves from clean to corrupt, by finite differences."""
    basis, pair = case.make(gpt2, PAIRS), PAIRS.take([0])
    scores = nvs.attribution.attribution_patching(gpt2, basis, pair)
    features = [basis.features(read(gpt2, t, pair.length, basis.hooks)) for t in (pair.clean, pair.corrupt)]
    for s, (site, dictionary) in enumerate(zip(basis.sites, basis.dictionaries, strict=True)):
        units, errors = scores.by_site()[s]
        steps = [b - a for a, b in zip((features[0].units[s], features[0].errors[s]), (features[1].units[s], features[1].errors[s]), strict=True)]  # fmt: skip
        position, unit = divmod(int(units.abs().argmax()), units.shape[1])
        towards_unit = torch.zeros_like(steps[1])
        towards_unit[0, position] = steps[0][0, position, unit] * dictionary.directions(torch.tensor([unit]))[0]
        towards_error = torch.zeros_like(steps[1])
        towards_error[0, position] = steps[1][0, position]
        for towards, score in ((towards_unit, units[position, unit]), (towards_error, errors[position])):
            up, down = (
                metric_of(run(gpt2, pair.clean, pair.length, [nudge(site, h * towards)]), pair) for h in (1e-5, -1e-5)
            )
            assert (down - up).item() / 2e-5 == pytest.approx(score.item(), abs=1e-6)


def nudge(site: nvs.Site, step: torch.Tensor) -> tuple[str, Any]:
    return site.writes, lambda x: site.put(x, site.view(x) + step)


@pytest.mark.parametrize("direction", ["noising", "denoising"])
@pytest.mark.parametrize("case", [c for c in tables.BASES if c.name in {"sae", "transcoder", "sae hook_z per head"}],
                         ids=lambda c: c.name)  # fmt: skip
def test_exact_patching_is_a_circuit_without_that_node(case: tables.BasisCase, direction: str, gpt2: Any) -> None:
    """The reference execution, asked to replace one node and keep all others, has the same effect."""
    basis = case.make(gpt2, PAIRS)
    scores = nvs.attribution.activation_patching(gpt2, basis, PAIRS, direction=direction)
    start, other = (PAIRS.clean, PAIRS.corrupt) if direction == "noising" else (PAIRS.corrupt, PAIRS.clean)
    values = basis.features(read(gpt2, other, PAIRS.length, basis.hooks))
    nothing = (None,) * len(basis.sites)
    reference = ReferenceValues(values, offsets=nothing, constants=nothing)
    sign = 1 if direction == "noising" else -1
    for node in scores.order()[:3].tolist() + scores.order(among=scores.index.is_error)[:2].tolist():
        mask = torch.ones(len(scores.index), dtype=torch.bool)
        mask[node] = False
        parts = scores.index.unflatten(mask)
        kept = Kept(tuple(u for u, _ in parts), tuple(e for _, e in parts))
        # Only this site is edited: an upstream patch must not be felt twice.
        effect = metric_of(run(gpt2, start, PAIRS.length)) - metric_of(
            edit(gpt2, basis, start, PAIRS.length, kept, reference)
        )
        assert sign * effect.mean().item() == pytest.approx(scores.values[node].item(), abs=1e-9)


def test_pooled_patching_moves_a_unit_everywhere_at_once(gpt2: Any) -> None:
    """Not the sum of the separate effects: one run with the unit at its corrupt value at all positions."""
    basis = nvs.bases.mlp_neurons(gpt2, layers="0")
    pooled = nvs.attribution.activation_patching(gpt2, basis, PAIRS, positions="pooled")
    corrupt = read(gpt2, PAIRS.corrupt, PAIRS.length, basis.hooks)[basis.hooks[0]]
    node = int(pooled.order()[0])

    def swap(x: torch.Tensor) -> torch.Tensor:
        out = x.clone()
        out[:, :, node] = corrupt[:, :, node]
        return out

    effect = metric_of(run(gpt2, PAIRS.clean, PAIRS.length)) - metric_of(
        run(gpt2, PAIRS.clean, PAIRS.length, [(basis.hooks[0], swap)])
    )
    assert pooled.values[node].item() == pytest.approx(effect.mean().item(), abs=1e-12)


@pytest.mark.parametrize(
    ("method", "forward", "backward"),
    [
        ("attribution_patching", 2, 1),
        ("relp", 2, 1),
        ("relp_ah", 2, 1),
        ("integrated_gradients", 2 + 2 * 4, 2 * 4),
        ("integrated_gradients_inputs", 4 + 4, 4),
        ("conductance", 3 + 4, 4),
        ("delta", 2, 0),
        ("random", 0, 0),
    ],
)
def test_methods_cost_the_passes_that_they_claim(
    method: str, forward: int, backward: int, llama: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the number of nodes: for two sites and four steps, a batch holding the pairs once."""
    seen: Counter[str] = Counter()
    installed, differentiate = splice._installed, torch.autograd.grad

    def count_forward(*args: Any) -> Any:
        seen["forward"] += 1
        return installed(*args)

    def count_backward(*args: Any, **kwargs: Any) -> Any:
        seen["backward"] += 1
        return differentiate(*args, **kwargs)

    basis = nvs.bases.sae(llama, source=toys.saes())
    options = {"steps": 4} if backward > 1 else {}
    monkeypatch.setattr(splice, "_installed", count_forward)
    monkeypatch.setattr(torch.autograd, "grad", count_backward)
    once = getattr(nvs.attribution, method)(llama, basis, PAIRS, batch_size=len(PAIRS), **options)
    assert (seen["forward"], seen["backward"]) == (forward, backward)
    if options:  # with room for three copies, four points are two passes
        twice = getattr(nvs.attribution, method)(llama, basis, PAIRS, batch_size=3 * len(PAIRS) + 1, **options)
        assert seen["backward"] == backward + backward // 2
        assert torch.allclose(once.values, twice.values, atol=1e-12, rtol=0)


def test_integrating_over_activations_runs_no_block_below_the_site(gpt2: Any) -> None:
    runs: list[int] = []
    basis = nvs.bases.mlp_neurons(gpt2, layers="1")
    watching = gpt2.blocks[0].register_forward_hook(lambda *args: runs.append(1))
    nvs.attribution.integrated_gradients(gpt2, basis, PAIRS, batch_size=5)
    watching.remove()
    assert len(runs) == 2, "the clean and the corrupt prompts, once"


@pytest.mark.checked
@pytest.mark.parametrize("pairing", ["paired", "unpaired"])
def test_the_gradient_of_few_changing_units_is_taken_alone(pairing: Any, gpt2: Any) -> None:
    """At a width at which few units are active: the same scores, and only the asked entries of the gradient."""
    basis = nvs.bases.sae(gpt2, source=toys.saes(width=300))
    for dictionary in basis.dictionaries:
        encode = dictionary.encoder
        dictionary.encoder = lambda y, encode=encode: torch.where(torch.arange(300) % 25 == 0, encode(y), 0.0)
    sparse = nvs.attribution.relp(gpt2, basis, PAIRS, pairing=pairing)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("neuron_vs_sae.catalog.attribution._contraction._FEW", math.inf)
        dense = nvs.attribution.relp(gpt2, basis, PAIRS, pairing=pairing)
    assert torch.allclose(sparse.values, dense.values, atol=1e-12, rtol=0)
    assert bool(sparse.values.any())
    gradient, row, unit = torch.randn(4, toys.D_MODEL, dtype=torch.float64), *torch.randint(0, 4, (2, 30))
    one = basis.dictionaries[0]
    assert torch.allclose(one.pull_back_some(gradient, row, 7 * unit), one.pull_back(gradient)[row, 7 * unit])


def test_tokens_without_a_gradient_are_not_encoded(gpt2: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the last layer only the answer's token reaches the metric."""
    basis = nvs.bases.sae(gpt2, source=toys.saes())
    encoded: list[int] = []
    encode = Affine.encode
    monkeypatch.setattr(Affine, "encode", lambda self, y: (encoded.append(len(y)), encode(self, y))[1])
    nvs.attribution.relp(gpt2, basis, PAIRS, pairing="unpaired")
    assert encoded == [len(PAIRS) * PAIRS.positions, len(PAIRS)]


def test_random_scores_are_one_number_per_node_of_one_variance(llama: Any) -> None:
    basis = nvs.bases.sae(llama, source=toys.saes(width=400))
    scores = nvs.attribution.random(llama, basis, PAIRS, seed=3)
    again, other = (nvs.attribution.random(llama, basis, PAIRS, seed=s) for s in (3, 4))
    assert torch.equal(scores.values, again.values)
    assert not torch.equal(scores.values, other.values)
    errors = scores.index.is_error
    assert scores.values[~errors].var() == pytest.approx(1, abs=0.1)
    assert scores.values[errors].abs().max() < 5, "an error node is no stronger than a unit"


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("attribution_patching", {"grad_at": "corrupt"}, "needs the corrupt prompt"),
        ("activation_patching", {"direction": "denoising"}, "needs the corrupt prompt"),
    ],
)
def test_what_needs_a_corrupt_prompt_is_not_unpaired(
    method: str, options: dict[str, Any], message: str, llama: Any
) -> None:
    with pytest.raises(nvs.InputError, match=message):
        getattr(nvs.attribution, method)(llama, nvs.bases.mlp_neurons(llama), PAIRS, pairing="unpaired", **options)


@pytest.mark.parametrize("method", [c.id for c in tables.METHODS])
def test_separate_positions_need_one_length(method: str, llama: Any) -> None:
    case = next(c for c in tables.METHODS if c.id == method)
    mixed = toys.pairs(4, 6, lengths=[6, 4, 6, 4])
    with pytest.raises(nvs.InputError, match=r"differ in length: 4 tokens \(2\), 6 tokens \(2\).*positions='pooled'"):
        case(llama, nvs.bases.mlp_neurons(llama), mixed)


def test_nan_anywhere_in_the_scores_is_an_error(llama: Any) -> None:
    basis = nvs.bases.mlp_neurons(llama)
    values = torch.zeros(len(basis.index(6)), dtype=torch.float64)
    values[3] = torch.nan
    with pytest.raises(nvs.InputError, match=r"1 of \d+ scores are NaN.*blocks\.0\.mlp\.hook_post/3@0"):
        nvs.NodeScores(basis.index(6), values)


@pytest.mark.checked
@pytest.mark.parametrize("metric", ["logit_difference", "answer_logit", "probability", "log_probability", "kl"])
def test_every_metric_is_larger_for_more_support_and_zero_kl_is_the_model(metric: str, llama: Any) -> None:
    basis = nvs.bases.mlp_outputs(llama)
    scores = nvs.attribution.relp(llama, basis, PAIRS)
    curve = nvs.evaluate(llama, basis, scores, PAIRS, metric=metric, sizes=lambda n: (0, n))
    logits = run(llama, PAIRS.clean, PAIRS.length)
    log_p = torch.log_softmax(logits, -1).gather(1, PAIRS.answer[:, None])[:, 0]
    expected = {
        "logit_difference": metric_of(logits),
        "answer_logit": logits.gather(1, PAIRS.answer[:, None])[:, 0],
        "probability": log_p.exp(),
        "log_probability": log_p,
        "kl": torch.zeros(5, dtype=torch.float64),
    }[metric]
    assert torch.allclose(curve.whole, expected, atol=1e-12)
    if metric == "kl":
        assert (curve.empty < 0).all()
        reference = torch.log_softmax(logits, -1)
        assert curve.all_nodes is not None
        assert torch.allclose(curve.all_nodes, torch.zeros(5).double(), atol=1e-12)
        assert torch.allclose(reference.exp().sum(-1), torch.ones(5).double())
