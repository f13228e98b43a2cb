"""Lenses, neighbours and scores of units against derivatives, hand-made models and plain runs of the model."""

import warnings
from typing import Any

import pytest
import torch
import toys
from texts import text
from transformer_lens import HookedTransformer, HookedTransformerConfig

import neuron_vs_sae as nvs
from neuron_vs_sae.analyses.units.collecting import Keeping, collect
from neuron_vs_sae.analyses.units.directions import lands_at, neuron_reads, through_norm, unembedded, writes
from neuron_vs_sae.analyses.units.jacobian import jacobians
from neuron_vs_sae.analyses.units.nearest import nearest
from neuron_vs_sae.analyses.units.scores import ablation_effects, effective_tokens, input_score, kurtosis, output_score
from neuron_vs_sae.analyses.units.selection import drawn, named
from neuron_vs_sae.analyses.units.vocabulary import causal_lens, direct_lens, hooks_of
from neuron_vs_sae.catalog.corpora import from_tokens

pytestmark = pytest.mark.checked


@pytest.fixture(scope="module")
def linear() -> HookedTransformer:
    """Two layers of attention with a uniform pattern and nothing else: linear in the residual stream."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        made = HookedTransformer(
            HookedTransformerConfig(
                n_layers=2, d_model=6, n_ctx=8, d_head=3, n_heads=2, d_vocab=11, attn_only=True, normalization_type=None,
                dtype=torch.float64, device="cpu", seed=0, init_weights=True, initializer_range=0.5,
            )
        )  # fmt: skip
    for block in made.blocks:
        block.attn.W_Q.data.zero_()
        block.attn.W_K.data.zero_()
    made.cfg.model_name = "linear"
    return made.eval()


def test_the_jacobian_of_a_linear_model_is_its_matrix(linear: Any) -> None:
    """Of a source p, the layer above carries 1 / (p' + 1) of `W_V W_O` to every later position p'."""
    corpus = from_tokens("six tokens", [[0, 3, 4, 5, 1, 2], [0, 9, 8, 7, 6, 5]], special=[0])
    found = jacobians(linear, corpus, ["blocks.0.hook_resid_post", "blocks.1.hook_resid_post"], skip=2)
    moved = torch.einsum("hio,hoj->ij", linear.blocks[1].attn.W_V, linear.blocks[1].attn.W_O).detach()
    share = sum(1 / (later + 1) for p in range(2, 6) for later in range(p, 6)) / 4
    eye = torch.eye(6, dtype=torch.float64)
    torch.testing.assert_close(found["blocks.0.hook_resid_post"], eye + share * moved)
    torch.testing.assert_close(found["blocks.1.hook_resid_post"], eye)


def test_at_the_last_layer_both_lenses_say_the_same_and_without_norm_it_is_the_unembedding(linear: Any) -> None:
    basis = nvs.bases.residual(linear, layers="1")
    units, corpus = drawn(basis, 6), from_tokens("six tokens", [[0, 3, 4, 5, 1, 2]], special=[0])
    there = jacobians(linear, corpus, hooks_of(linear, basis, units), skip=1)
    direct, causal = direct_lens(linear, basis, units, 3), causal_lens(linear, basis, units, there, 3)
    torch.testing.assert_close(direct.top_values, causal.top_values)
    assert torch.equal(direct.top, causal.top)
    plain = linear.W_U.detach() - linear.W_U.detach().mean(1, keepdim=True)
    torch.testing.assert_close(direct.top_values[:, 0], plain.max(1).values)
    assert torch.equal(direct.bottom[:, 0], plain.argmin(1))


def test_what_the_causal_lens_says_happens_in_a_linear_model(linear: Any) -> None:
    """Written at one position, a vector changes the summed later logits as that position's Jacobian says."""
    corpus = from_tokens("two tokens", [[0, 3]], special=[0])
    there = jacobians(linear, corpus, ["blocks.0.hook_resid_post"], skip=1)["blocks.0.hook_resid_post"]
    vector = torch.randn(6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def add(x: torch.Tensor, hook: Any) -> torch.Tensor:
        return x + vector * (torch.arange(2) == 1)[:, None]

    with torch.no_grad():
        change = linear.run_with_hooks(torch.tensor([[0, 3]]), fwd_hooks=[("blocks.0.hook_resid_post", add)])
        change = (change - linear(torch.tensor([[0, 3]])))[0].sum(0)
    torch.testing.assert_close(unembedded(linear, (vector @ there)[None])[0], change - change.mean())


def test_a_change_goes_through_a_norm_as_the_norm_itself_changes_it(model: Any) -> None:
    """With the scale put back, the final norm is its linear part (and a bias)."""
    x = torch.randn(5, toys.D_MODEL, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with torch.no_grad():
        made = model.ln_final(x) - getattr(model.ln_final, "b", torch.zeros(()))
    linear_part = through_norm(model.ln_final, x)
    ratio = made / linear_part
    torch.testing.assert_close(ratio, ratio[:, :1].expand_as(ratio))


@pytest.mark.parametrize("site", ["mlp.hook_post", "attn.hook_z", "hook_mlp_out", "hook_attn_out", "hook_resid_pre"])
def test_a_unit_writes_what_the_residual_stream_gains(site: str, model: Any) -> None:
    """Of one more of a unit at one token; where the block normalises what it writes, up to that norm's scale."""
    scaled = model.cfg.use_normalization_before_and_after and site in ("mlp.hook_post", "attn.hook_z")
    sae = toys.sae(f"blocks.0.{site}", d=toys.D_MLP if site == "mlp.hook_post" else toys.D_MODEL)
    basis = nvs.bases.sae(model, source=[sae])
    units = named(basis, [f"blocks.0.{site}/7"])
    expected = writes(model, basis, units)[0]
    lands = lands_at(model, basis.sites[0])
    direction = basis.dictionaries[0].directions(torch.tensor([7]))[0]

    def add(x: torch.Tensor, hook: Any) -> torch.Tensor:
        return x + 1e-6 * direction.reshape(x.shape[2:])

    tokens, seen = torch.tensor([[0, 4, 9]]), []
    read = (lands, lambda x, hook: seen.append(x))
    with torch.no_grad():
        model.run_with_hooks(tokens, fwd_hooks=[read])
        model.run_with_hooks(tokens, fwd_hooks=[(f"blocks.0.{site}", add), read])
    gained = (seen[1] - seen[0])[0, 1] / 1e-6
    if scaled:
        number = 2 if site == "mlp.hook_post" else 1
        norm = getattr(model.blocks[0], f"ln{number}_post")
        matrix = model.blocks[0].mlp.W_out if number == 2 else model.blocks[0].attn.W_O.flatten(0, 1)
        torch.testing.assert_close(expected, (direction @ matrix.detach()) * norm.w.detach())
    else:
        torch.testing.assert_close(gained, expected, rtol=1e-4, atol=1e-6)


def test_neurons_read_along_the_columns_of_their_matrices(llama: Any, gpt2: Any) -> None:
    site = nvs.bases.mlp_neurons(llama).sites[1]
    parts = neuron_reads(llama, site, torch.tensor([3, 5]))
    assert set(parts) == {"up", "gate"}
    assert torch.equal(parts["gate"], llama.blocks[1].mlp.W_gate.detach()[:, [3, 5]].T)
    assert set(neuron_reads(gpt2, site, torch.tensor([0]))) == {"up"}


def test_the_nearest_neuron_of_a_feature_made_of_one_is_that_neuron(llama: Any) -> None:
    order = torch.randperm(toys.D_MLP, generator=torch.Generator().manual_seed(1))
    saes = []
    for layer in range(2):
        made = toys.sae(f"blocks.{layer}.hook_mlp_out", width=toys.D_MLP)
        made.W_dec.data = -2.5 * llama.blocks[layer].mlp.W_out.detach()[order]
        saes.append(made)
    features, neurons = nvs.bases.sae(llama, source=saes), nvs.bases.mlp_neurons(llama)
    units = drawn(features, 24)
    found = nearest(llama, features, units, neurons, n=2)
    for name, (best, _) in zip(units.names, found.names, strict=True):
        layer, feature = name.split(".")[1], int(name.split("/")[1])
        assert best == f"blocks.{layer}.mlp.hook_post/{order[feature]}"
    torch.testing.assert_close(found.cosines[:, 0], -torch.ones(24, dtype=torch.float64))
    with pytest.raises(nvs.InputError, match="in layer 0"):
        nearest(llama, features, units, neurons, n=13)


def test_scores_of_spread_are_those_of_the_tokens_values(llama: Any) -> None:
    basis, corpus = nvs.bases.mlp_neurons(llama), text(40)
    units = drawn(basis, 4)
    keeping = Keeping(per_quantile=500, sink=1e9, window=1)
    got = collect(llama, basis, units, corpus, keeping=keeping)
    rows = [context.tokens for context in corpus.read()]
    for u, name in enumerate(units.names):
        hook, unit = name.split("/")
        tokens, values = [], []
        for row in rows:
            _, cache = llama.run_with_cache(torch.tensor([row]))
            values.append(cache[hook][0, 1:, int(unit)])
            tokens.append(torch.tensor(row[1:]))
        v, t = torch.cat(values), torch.cat(tokens)
        centred = v - v.mean()
        assert float(kurtosis(got)[u]) == pytest.approx(float((centred**4).mean() / (centred**2).mean() ** 2), rel=1e-4)
        # With every window kept nothing is estimated but the mass within a quantile, which windows share equally.
        mass = torch.zeros(toys.VOCAB, dtype=torch.float64).index_add_(0, t, v.clamp(min=0))
        p = mass / mass.sum()
        assert float(effective_tokens(got)[0, u]) == pytest.approx(float(torch.special.entr(p).sum().exp()), rel=1e-6)


def test_the_input_score_is_the_share_of_windows_whose_peak_is_said(llama: Any) -> None:
    basis = nvs.bases.mlp_neurons(llama)
    units = drawn(basis, 3)
    got = collect(llama, basis, units, text(), keeping=Keeping(top=5))
    peak = got.top.tokens[..., 10].reshape(2, 3, 5)
    torch.testing.assert_close(input_score(got, peak.long()), torch.ones(2, 3))
    torch.testing.assert_close(input_score(got, torch.full((2, 3, 1), 999)), torch.zeros(2, 3))
    shares = (peak == peak[..., :1]).double().mean(-1)
    torch.testing.assert_close(input_score(got, peak[..., :1].long()).double(), shares)


def test_the_output_score_is_read_off_a_run_with_the_unit_added(gpt2: Any) -> None:
    basis = nvs.bases.sae(gpt2, source=toys.saes())
    units = named(basis, ["blocks.0.hook_mlp_out/2", "blocks.1.hook_mlp_out/5"])
    said, amount = torch.tensor([[3, 4], [5, 6]]), torch.tensor([2.0, 5.0], dtype=torch.float64)
    prompt = torch.tensor([0, 7])
    got = output_score(gpt2, basis, units, amount, said, prompt)
    for u, layer in enumerate((0, 1)):
        direction = basis.dictionaries[layer].directions(units.at[layer])[0]

        def add(x: torch.Tensor, hook: Any, change: torch.Tensor = amount[u] * direction) -> torch.Tensor:
            return torch.cat([x[:, :-1], x[:, -1:] + change], 1)

        with torch.no_grad():
            p = gpt2.run_with_hooks(prompt[None], fwd_hooks=[(f"blocks.{layer}.hook_mlp_out", add)])[0, -1].softmax(-1)
        rank = min(int((p > p[token]).sum()) for token in said[u])
        assert float(got[u]) == pytest.approx((1 - rank / toys.VOCAB) * float(p[said[u]].max()))


def test_the_effect_of_ablating_a_neuron_is_that_of_setting_it_to_zero(llama: Any) -> None:
    basis, pairs = nvs.bases.mlp_neurons(llama), toys.pairs()
    units = named(basis, ["blocks.0.mlp.hook_post/3", "blocks.1.mlp.hook_post/0", "blocks.1.mlp.hook_post/7"])
    got = ablation_effects(llama, basis, units, pairs, "answer_logit", "unpaired")
    for u, name in enumerate(units.names):
        hook, unit = name.split("/")

        def zero(x: torch.Tensor, hook: Any, unit: int = int(unit)) -> torch.Tensor:
            x[..., unit] = 0
            return x

        rows = torch.arange(len(pairs))
        with torch.no_grad():
            before, after = llama(pairs.clean), llama.run_with_hooks(pairs.clean, fwd_hooks=[(hook, zero)])
        change = (before - after)[rows, pairs.length - 1, pairs.answer]
        assert float(got[u]) == pytest.approx(float(change.mean()), rel=1e-6)
