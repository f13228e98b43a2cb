"""RelP's replacement model: the forward pass of the model, and slopes that conserve what they explain."""

import warnings
from typing import Any

import pytest
import torch
import toys
from transformer_lens import HookedTransformer, HookedTransformerConfig

import neuron_vs_sae as nvs
from neuron_vs_sae.execution import replacement
from neuron_vs_sae.execution.splice import gradients, run

PAIRS = toys.pairs()
PRESETS = {
    "relp_ah": {"freeze_attention": True},
    "relp": {},
    "relp_no_half": {"gate": "full"},
    "relp_no_gate": {"gate": "up_only"},
}


def answer_logit(logits: torch.Tensor) -> torch.Tensor:
    return logits.gather(1, PAIRS.answer[:, None])[:, 0]


def differentiate(model: Any, hooks: list[str], rules: replacement.Rules) -> tuple[dict[str, Any], dict[str, Any]]:
    return gradients(model, PAIRS.clean, PAIRS.length, hooks, answer_logit, rules.edits, rules.observers)


def conserved(model: Any, rules: replacement.Rules) -> tuple[torch.Tensor, torch.Tensor]:
    """(sum over positions of <gradient, embedding>, the logit), per prompt."""
    values, slopes = differentiate(model, ["hook_embed"], rules)
    return (values["hook_embed"] * slopes["hook_embed"]).sum((1, 2)), answer_logit(
        run(model, PAIRS.clean, PAIRS.length)
    )


@pytest.mark.parametrize("preset", PRESETS)
def test_the_forward_pass_is_the_models(preset: str, model: Any) -> None:
    """I12: every rule returns the value that it was given."""
    rules = replacement.rules(model, **PRESETS[preset])
    assert torch.equal(
        run(model, PAIRS.clean, PAIRS.length, [*rules.edits, *rules.observers]), run(model, PAIRS.clean, PAIRS.length)
    )


@pytest.mark.parametrize("kind", ["llama", "gemma2"])
def test_with_attention_frozen_the_metric_is_conserved_on_a_bias_free_model(kind: str) -> None:
    """I12, with Gemma 2's norms after the MLP and its soft-caps too: relative error below 1e-9."""
    model = toys.model(kind)
    total, metric = conserved(model, replacement.rules(model, freeze_attention=True))
    assert ((total - metric).abs() / metric.abs()).max() < 1e-9


@pytest.mark.parametrize(
    "rules",
    [{"freeze_attention": True, "gate": "full"}, {"freeze_attention": False}],
    ids=["no half", "no frozen attention"],
)
def test_without_one_of_the_rules_it_is_not_conserved(rules: dict[str, Any], llama: Any) -> None:
    total, metric = conserved(llama, replacement.rules(llama, **rules))
    assert ((total - metric).abs() / metric.abs()).max() > 0.05


def test_biases_leave_a_remainder(gpt2: Any) -> None:
    total, metric = conserved(gpt2, replacement.rules(gpt2, freeze_attention=True))
    assert ((total - metric).abs() / metric.abs()).max() > 0.05


def test_the_slope_of_an_activation_is_its_chord(gpt2: Any) -> None:
    """The identity rule at one layer: d(answer)/d(pre) = d(answer)/d(post) * act(pre) / pre."""
    hooks = ["blocks.1.mlp.hook_pre", "blocks.1.mlp.hook_post"]
    values, slopes = differentiate(gpt2, hooks, replacement.rules(gpt2))
    pre, post = (values[h] for h in hooks)
    assert torch.allclose(slopes[hooks[0]], slopes[hooks[1]] * post / pre, atol=1e-12)


def test_norms_are_scales_that_stand_still(llama: Any) -> None:
    """The final norm: d(answer)/d(stream) = w * W_U[:, answer] / scale, with nothing from the scale's own slope."""
    hooks = ["blocks.1.hook_resid_post", "ln_final.hook_scale"]
    values, slopes = differentiate(llama, hooks, replacement.rules(llama))
    expected = (llama.ln_final.w[:, None] * llama.unembed.W_U)[:, PAIRS.answer].T / values[hooks[1]][:, -1]
    assert torch.allclose(slopes[hooks[0]][:, -1], expected, atol=1e-12)


def test_a_soft_cap_on_the_logits_acts_as_its_chord() -> None:
    """Gemma 2: capped = c tanh(l / c); its slope is capped / l, exactly."""
    gemma = toys.model("gemma2")
    cap = gemma.cfg.output_logits_soft_cap
    rules = replacement.rules(gemma)
    uncapped = replacement.Rules(rules.edits[:-1], rules.observers)
    hooks = ["blocks.1.hook_resid_post"]
    _, capped = differentiate(gemma, hooks, rules)
    _, slope = differentiate(gemma, hooks, uncapped)
    seen: dict[str, torch.Tensor] = {}
    run(gemma, PAIRS.clean, PAIRS.length, [("unembed.hook_out", lambda x: seen.update(raw=x[:, 0]))])
    raw = seen["raw"].gather(1, PAIRS.answer[:, None])[:, 0]
    own = 1 - torch.tanh(raw / cap) ** 2
    chord = cap * torch.tanh(raw / cap) / raw
    for hook in capped:
        assert torch.allclose(capped[hook] * own[:, None, None], slope[hook] * chord[:, None, None], atol=1e-12)


def test_attention_patterns_take_no_gradient_when_frozen(llama: Any) -> None:
    for freeze in (True, False):
        rules = replacement.rules(llama, freeze_attention=freeze)
        hooks = [f"blocks.1.attn.hook_{x}" for x in "qk"]
        _, slopes = differentiate(llama, hooks, rules)
        assert all(bool(slopes[h].any()) != freeze for h in hooks)


@pytest.mark.parametrize("kind", ["gpt2", "neox"])
def test_presets_that_differ_in_the_gate_agree_where_there_is_none(kind: str) -> None:
    model = toys.model(kind)
    basis = nvs.bases.mlp_outputs(model)
    scores = [
        getattr(nvs.attribution, name)(model, basis, PAIRS).values for name in ("relp", "relp_no_half", "relp_no_gate")
    ]
    assert torch.equal(scores[0], scores[1])
    assert torch.equal(scores[0], scores[2])


def test_every_preset_is_a_method_of_its_own(llama: Any) -> None:
    basis = nvs.bases.mlp_neurons(llama)
    scores = [getattr(nvs.attribution, name)(llama, basis, PAIRS).values for name in [*PRESETS, "attribution_patching"]]
    for i, one in enumerate(scores):
        for other in scores[i + 1 :]:
            assert not torch.allclose(one, other, atol=1e-6)


def test_half_of_a_product_goes_to_each_branch(llama: Any) -> None:
    """gate + up of `relp` = half of each: pre . d/dpre = up . d/dup = half of post . d/dpost."""
    names = ["hook_pre", "hook_pre_linear", "hook_post"]
    hooks = [f"blocks.1.mlp.{n}" for n in names]
    values, slopes = differentiate(llama, hooks, replacement.rules(llama))
    gate, up, post = ((values[h] * slopes[h]) for h in hooks)
    assert torch.allclose(gate, post / 2, atol=1e-12)
    assert torch.allclose(up, post / 2, atol=1e-12)


def test_query_and_key_norms_are_constant_too() -> None:
    """Qwen 3 and Gemma 3 normalise queries and keys: their scales are detached like any other."""
    config = {**toys._COMMON, **toys.MODELS["llama"], "use_qk_norm": True}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        model = nvs.prepare(HookedTransformer(HookedTransformerConfig(**config)))
    hooked = {name for name, _ in replacement.rules(model).edits}
    assert {"blocks.0.attn.q_norm.hook_scale", "blocks.1.attn.k_norm.hook_scale"} <= hooked
    rules = replacement.rules(model)
    assert torch.equal(
        run(model, PAIRS.clean, PAIRS.length, [*rules.edits, *rules.observers]), run(model, PAIRS.clean, PAIRS.length)
    )


def test_an_mlp_without_a_rule_is_refused() -> None:
    config = {**toys._COMMON, "act_fn": "solu_ln", "normalization_type": "LN"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        model = nvs.prepare(HookedTransformer(HookedTransformerConfig(**config)))
    with pytest.raises(nvs.InputError, match=r"RelP has no rule for the MLP of layer 0.*Use attribution_patching"):
        nvs.attribution.relp(model, nvs.bases.mlp_outputs(model), PAIRS)
