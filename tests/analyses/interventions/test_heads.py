"""Successor heads: one that is planted is found, chance is chance, and the last digit is found where it is planted."""

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import toys

import neuron_vs_sae as nvs
from neuron_vs_sae.analyses.interventions.heads import (
    Order,
    alone,
    first,
    first_mlp,
    heads,
    hits,
    orders,
    through_heads,
)
from neuron_vs_sae.analyses.interventions.mod10 import digits, first_site, mod10
from neuron_vs_sae.core.errors import InputError

VOCAB = 40
NUMBERS = tuple(map(str, range(VOCAB)))


class Numerals:
    """A tokenizer of the numbers 0 to 39, written with a space before."""

    unk_token_id, padding_side = None, "right"

    def __call__(self, text: str, **_: Any) -> dict[str, list[int]]:
        word = text.strip()
        return {"input_ids": [int(word)] if word.isdecimal() and int(word) < VOCAB and text[0] == " " else [1, 2]}


def planted() -> Any:
    """A model whose first MLP writes each token's own coordinate, and whose head (1, 0) shifts it by one: its score is 1."""
    from transformer_lens import HookedTransformer, HookedTransformerConfig

    from neuron_vs_sae.models.loading import prepare

    config = HookedTransformerConfig(
        n_layers=2, d_model=VOCAB, n_ctx=8, d_head=VOCAB, n_heads=2, d_mlp=VOCAB, d_vocab=VOCAB, act_fn="relu", normalization_type=None,
        dtype=torch.float64, device="cpu", seed=0,
    )  # fmt: skip
    model = HookedTransformer(config)
    eye = torch.eye(VOCAB, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data.zero_()
    model.embed.W_E.data, model.unembed.W_U.data = eye.clone(), eye.clone()
    model.blocks[0].mlp.W_in.data, model.blocks[0].mlp.W_out.data = eye.clone(), eye.clone()
    for block in model.blocks:
        block.attn.W_V.data[:] = eye
        block.attn.W_O.data[:] = torch.randn(2, VOCAB, VOCAB, generator=generator, dtype=torch.float64)
    model.blocks[1].attn.W_O.data[0] = eye.roll(1, dims=1)
    model.cfg.model_name = "planted"
    model.tokenizer = Numerals()  # type: ignore[assignment]
    return prepare(model)


@pytest.fixture(scope="module")
def model() -> Any:
    return planted()


def test_a_planted_successor_head_is_found(model: Any) -> None:
    found = heads(model)
    assert found.order[0] == "numbers"
    assert found.best() == (1, 0)
    table = found.table()
    best = table.loc[(table["layer"] == 1) & (table["head"] == 0) & (table["order"] == "all")].iloc[0]
    assert (best["score"], best["n"]) == (1.0, VOCAB - 1)
    assert best["low"] > 0.9
    assert (table.loc[(table["layer"] != 1) | (table["head"] != 0), "score"] < 0.2).all()


def test_a_shuffled_unembedding_scores_about_one_over_the_list(model: Any) -> None:
    """Over 20 shuffles; sd of the mean about .006."""
    shuffled, scores = copy.deepcopy(model), []
    for seed in range(20):
        order = torch.randperm(VOCAB, generator=torch.Generator().manual_seed(seed))
        shuffled.unembed.W_U.data = model.unembed.W_U.data[:, order]
        found = heads(shuffled)
        scores.append(float(found.right[1, 0].double().mean()))
    assert np.mean(scores) == pytest.approx(1 / VOCAB, abs=0.02)


def test_a_score_by_hand() -> None:
    """Three tokens in a line: the first's successor is first, the second's is not. In a circle the third's is."""
    logits = torch.tensor([[0.0, 2.0, 1.0], [3.0, 0.0, 1.0], [5.0, 0.0, 0.0]])
    line = Order("line", ("a", "b", "c"), torch.arange(3), cyclic=False)
    assert hits(logits, line).tolist() == [True, False]
    assert hits(logits, replace(line, cyclic=True)).tolist() == [True, False, True]
    assert first(torch.tensor([[1.0, 1.0, 0.5], [1.0, 2.0, 0.0]])).tolist() == [
        3,
        1,
    ]  # what rounding would decide is no first


def test_the_path_is_embedding_mlp_and_one_heads_matrices(model: Any) -> None:
    toy = toys.model("gpt2")
    tokens = torch.tensor([3, 5, 8])
    x = toy.blocks[0].mlp(toy.blocks[0].ln2(toy.W_E[tokens][:, None]))[:, 0]
    torch.testing.assert_close(first_mlp(toy, tokens), x.detach(), rtol=0, atol=1e-12)
    logits = through_heads(toy, x, tokens)
    by_hand = x @ toy.blocks[1].attn.W_V[1] @ toy.blocks[1].attn.W_O[1] @ toy.W_U[:, tokens]
    torch.testing.assert_close(logits[1, 1], by_hand.detach(), rtol=0, atol=1e-12)


def test_lists_are_what_the_tokenizer_has(model: Any) -> None:
    (numbers,) = orders(model)
    assert (numbers.name, numbers.items[0], len(numbers.items), numbers.cyclic) == ("numbers", "0", VOCAB, False)
    with pytest.raises(InputError, match="no order 'colours'"):
        orders(model, ["colours"])
    with pytest.raises(InputError, match="no three items in a row"):
        orders(model, ["days"])


def digit_basis(model: Any) -> nvs.Basis:
    """Units of the first MLP's output: unit d sums the ten's coordinates that end in d; the rest is noise in 10 more units."""
    from neuron_vs_sae.core.dictionary import Affine

    site = nvs.bases.mlp_outputs(model).sites[0]
    rows = torch.zeros(20, VOCAB, dtype=torch.float64)
    for d in range(10):
        rows[d, d::10] = torch.tensor([2.0, 1.5, 1.2, 1.0], dtype=torch.float64)
    rows[10:] = torch.randn(10, VOCAB, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 0.1
    return nvs.Basis("digits", (site,), (Affine(lambda x: x @ rows.T, rows, torch.zeros(VOCAB, dtype=torch.float64)),))


def test_the_last_digit_is_found_in_the_units_that_hold_it(model: Any) -> None:
    pytest.importorskip("sklearn", reason="pip install '.[probing]'")
    numbers = orders(model)[0]
    found = mod10(model, digit_basis(model), numbers, (1, 0), k=(1, 10), trials=2).set_index("k")
    assert found.loc[10, "accuracy"] == 1.0
    assert found.loc[10, "explained"] > 0.9 > found.loc[10, "explained_permuted"] + 0.3
    assert found.loc[10, "steered"] > 0.2 > found.loc[10, "steered_random"]  # where the first ten is wanted
    assert found.loc[10, "score"] == 1.0
    assert found.loc[1, "accuracy"] < 0.5
    neurons = mod10(model, nvs.bases.mlp_neurons(model), numbers, (1, 0), k=(VOCAB,), trials=1)
    assert float(neurons["ablated"].iloc[0]) < 0.1  # without any neuron nothing is left


@pytest.mark.checked
def test_heads_are_checked(model: Any) -> None:
    pytest.importorskip("sklearn", reason="pip install '.[probing]'")
    numbers = orders(model)[0]
    assert nvs.heads(model).table().shape[0] == 2 * 2 * 2
    basis = nvs.bases.mlp_neurons(model)
    assert first_site(basis) == 0
    assert digits(model, basis, numbers).units.shape == (VOCAB, VOCAB)
    assert alone(model, numbers.tokens, ["blocks.0.hook_mlp_out"])["blocks.0.hook_mlp_out"].shape == (VOCAB, 1, VOCAB)
    hits(through_heads(model, first_mlp(model, numbers.tokens), numbers.tokens), numbers)
    mod10(model, basis, numbers, (1, 0), k=(2,), trials=1)


def test_what_has_no_first_mlp_or_too_few_numbers_is_refused(model: Any) -> None:
    numbers = orders(model)[0]
    few = Order("numbers", numbers.items[:12], numbers.tokens[:12], False)
    with pytest.raises(InputError, match="three tens"):
        digits(model, nvs.bases.mlp_neurons(model), few)
    with pytest.raises(InputError, match="no site at the first layer's MLP"):
        digits(model, nvs.bases.residual(model), numbers)
    without = copy.deepcopy(model)
    without.tokenizer = None
    with pytest.raises(InputError, match="no tokenizer"):
        heads(without)
