"""Selectivity of planted units, AUROC under permuted templates, predictors and signatures."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tables
import torch
import toys

import neuron_vs_sae as nvs
from neuron_vs_sae.analyses.interventions.handles import handle_of
from neuron_vs_sae.analyses.interventions.prediction import correlations, measured_effects
from neuron_vs_sae.analyses.interventions.selectivity import (
    Ablating,
    Effect,
    Halves,
    estimate,
    mean_values,
    selective,
    selectivity,
)
from neuron_vs_sae.analyses.interventions.signatures import Thresholds, named_class, signatures
from neuron_vs_sae.analyses.interventions.templates import answers, auroc, telling
from neuron_vs_sae.analyses.units.selection import drawn
from neuron_vs_sae.catalog.corpora import from_tokens
from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.statistics.proportions import wilson


def planted() -> Any:
    """One MLP and no attention: neuron 0 reads token 1 and says token 10, neuron 1 reads token 2 and says token 11, others are dead."""
    from transformer_lens import HookedTransformer, HookedTransformerConfig

    from neuron_vs_sae.models.loading import prepare

    config = HookedTransformerConfig(
        n_layers=1, d_model=17, n_ctx=8, d_head=4, n_heads=1, d_mlp=6, d_vocab=17, act_fn="relu", normalization_type=None,
        dtype=torch.float64, device="cpu", seed=0,
    )  # fmt: skip
    model = HookedTransformer(config)
    for parameter in model.parameters():
        parameter.data.zero_()
    eye = torch.eye(17, dtype=torch.float64)
    model.embed.W_E.data, model.unembed.W_U.data = eye.clone(), eye.clone()
    mlp = model.blocks[0].mlp
    for neuron, (token, says) in enumerate(((1, 10), (2, 11))):
        mlp.W_in.data[token, neuron] = 1.0
        mlp.W_out.data[neuron, says] = 3.0
    mlp.W_in.data[5, 2:], mlp.W_out.data[2:, 5] = 1.0, 0.1
    model.cfg.model_name = "planted"
    return prepare(model)


def task(token: int, answer: int, n: int = 6) -> nvs.PromptPairs:
    """Prompts that end in a token that decides the answer; the corrupt one ends in token 5."""
    pairs = toys.pairs(n, positions=4)
    clean, corrupt = pairs.clean.clone(), pairs.clean.clone()
    clean[:, -1], corrupt[:, -1] = token, 5
    tags = tuple({"template": f"t{i % 3}"} for i in range(n))
    return replace(
        pairs, name=f"says {answer}", clean=clean, corrupt=corrupt, answer=torch.full((n,), answer), foil=torch.full((n,), 12), tags=tags
    )  # fmt: skip


def test_a_planted_unit_has_selectivity_one() -> None:
    model = planted()
    basis = nvs.bases.mlp_neurons(model)
    tasks = {name: Halves(pairs, pairs) for name, pairs in (("a", task(1, 10)), ("b", task(2, 11)))}
    found = selectivity(model, basis, tasks, k=(1,), options=Ablating(budgets=(), trials=1))
    for effect in found:
        if effect.control == "":
            assert float(estimate(effect, 100).value[0]) == pytest.approx(1.0)
            assert (effect.fall_own > 0).all()
            assert not effect.fall_other.any()


def test_what_falls_alike_is_not_selective() -> None:
    ones = torch.ones(4, dtype=torch.float64)
    effect = Effect("a", "k", 1.0, 1, 0.1, "", 0.3 * ones, 0.6 * ones, ones, 2 * ones)
    assert float(estimate(effect, 100).value[0]) == pytest.approx(0.0)
    turned = replace(effect, fall_own=0.1 * ones)
    assert float(estimate(turned, 100).value[0]) == pytest.approx((0.1 - 0.3) / 0.4)
    assert float(selective(np.zeros((1, 1)), np.zeros((1, 1)))[0, 0]) == 0.0


def test_where_the_norm_is_matched_the_first_units_that_reach_it_are_ablated() -> None:
    model = toys.model("llama")
    basis = tables.make(tables.BASES[0], model)
    halves = {name: Halves(toys.pairs(5, seed=s), toys.pairs(5, seed=s + 9)) for name, s in (("a", 1), ("b", 2))}
    options = Ablating(budgets=(0.3, 0.6), trials=2)
    found = [e for e in selectivity(model, basis, halves, k=(2, 3), options=options) if e.control == ""]
    by_norm = [e for e in found if e.matched == "norm"]
    assert by_norm
    for effect in by_norm:
        assert effect.norm >= effect.size
    own = [e for e in found if e.own == "a" and e.matched == "norm"]
    assert [e.k for e in own] == sorted(e.k for e in own)


def test_ablated_units_take_their_mean_over_both_tasks() -> None:
    model = toys.model("gpt2")
    basis = tables.make(tables.BASES[0], model)
    a, b = toys.pairs(3, seed=1), toys.pairs(4, seed=2)
    means = []
    for pairs in (a, b):
        _, cache = model.run_with_cache(pairs.clean)
        means.append(cache["blocks.0.mlp.hook_post"][:, 1:].flatten(0, 1).mean(0))
    torch.testing.assert_close(mean_values(model, basis, [a, b])[0], (means[0] + means[1]) / 2, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("tasks", "k", "message"), [(1, (1,), "compares two"), (2, (0,), "1 or more"), (2, (999,), "help in task")]
)
def test_wrong_tasks_and_sizes_are_refused(tasks: int, k: tuple[int, ...], message: str) -> None:
    model = toys.model("llama")
    halves = {str(i): Halves(toys.pairs(3, seed=i), toys.pairs(3, seed=i + 5)) for i in range(tasks)}
    with pytest.raises(InputError, match=message):
        selectivity(model, tables.make(tables.BASES[0], model), halves, k=k)


# Templates.


def test_auroc_by_hand() -> None:
    x = np.array([[1.0, 5.0], [2.0, 5.0], [3.0, 5.0], [0.0, 5.0]])
    assert auroc(x, np.array([False, True, True, False])).tolist() == [1.0, 0.5]


def test_units_tell_tasks_on_templates_that_did_not_choose_them_and_permuted_templates_are_chance() -> None:
    """Two neurons read the last token, which is the task's; whether labels are exchanged is a coin for each of three templates: 1/2 in the mean,
    with a standard error of .02 over 200 draws."""
    model = planted()
    basis = nvs.bases.mlp_neurons(model)
    found = telling(model, basis, task(1, 10, 30), task(2, 11, 30))
    assert found.auroc["held_out"][found.varies].tolist() == [1.0, 1.0]
    assert found.share("held_out") == 1.0
    assert found.auroc["permuted"][found.varies].tolist() == pytest.approx([0.5, 0.5], abs=0.08)
    assert answers(model, basis, task(1, 10, 30)).shape == (30, 6)


def test_a_wording_is_told_apart_where_each_task_has_its_own() -> None:
    """The same prompts under two names; the wording decides the last token. No unit tells the tasks, and all pass where each task has a wording."""
    model = planted()
    basis = nvs.bases.mlp_neurons(model)
    a = task(1, 10, 30)
    clean = a.clean.clone()
    clean[:, -1] = torch.tensor([(1, 2, 3)[i % 3] for i in range(30)])
    a = replace(a, clean=clean)
    found = telling(model, basis, a, replace(a, name="again"))
    assert found.share("confounded") == 1.0
    assert found.share("held_out") == 0.0
    assert found.auroc["held_out"][found.varies].tolist() == [0.5, 0.5]


def test_tasks_that_share_no_wording_are_refused() -> None:
    model = toys.model("llama")
    basis = tables.make(tables.BASES[0], model)
    a = task(1, 10)
    with pytest.raises(InputError, match="no tag 'wording'"):
        telling(model, basis, a, a, tag="wording")
    with pytest.raises(InputError, match="share 0 templates"):
        telling(model, basis, a, replace(a, tags=tuple({"template": "other"} for _ in range(6))))


# Predictors and signatures.


def test_a_rank_correlation_of_what_is_a_function_of_the_effect() -> None:
    x = np.arange(12.0)
    table = pd.DataFrame({"effect": x, "node_score": x**3, "output_score": -x, "density": np.ones(12)})
    found = correlations(table, resamples=50).set_index("predictor")
    assert found["spearman"].tolist()[:2] == [1.0, -1.0]
    assert np.isnan(found.loc["density", "spearman"])
    with pytest.raises(InputError, match="four or more"):
        correlations(table.head(3))


def test_classes_are_by_the_thresholds_given() -> None:
    steady = {"consistency": 0.9, "peaks": 1, "semantic": 0.8, "functional": 0.2, "sparsity": 0.9}
    assert named_class(steady, 5, Thresholds()) == "semantic"
    assert named_class(steady | {"peaks": 4}, 5, Thresholds()) == "none"
    assert named_class(steady | {"peaks": 4, "sparsity": 0.1}, 5, Thresholds()) == "relationship"
    late = steady | {"consistency": 0.1, "functional": 0.95, "semantic": 0.05}
    assert named_class(late, 9, Thresholds()) == "say"
    assert named_class(late, 9, Thresholds(late_layer=10)) == "none"


def test_wilsons_interval_is_the_published_one() -> None:
    """8 of 10: .490 to .943 (Newcombe 1998, table I)."""
    assert wilson(8, 10) == pytest.approx((0.490, 0.943), abs=1e-3)
    assert np.isnan(wilson(0, 0)).all()


class _Words:
    padding_side = "right"

    @staticmethod
    def decode(tokens: list[int]) -> str:
        return f"w{tokens[0]}"


@pytest.mark.checked
def test_selectivity_and_its_company_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    model = toys.model("llama")
    monkeypatch.setattr(model, "tokenizer", _Words(), raising=False)
    basis = tables.make(tables.BASES[0], model)
    halves = {name: Halves(toys.pairs(4, seed=s), toys.pairs(4, seed=s + 9)) for name, s in (("a", 1), ("b", 2))}
    found = nvs.selectivity(model, basis, halves, k=(2,), options=Ablating(budgets=(0.2,), trials=1))
    estimate(found[0], 100)
    telling(model, basis, task(1, 10, 9), task(2, 11, 9))
    corpus = from_tokens("toy", torch.randint(1, 17, (4, 8)).tolist())
    pairs = toys.pairs(4)
    effects = measured_effects(model, basis, drawn(basis, 8), pairs, pairs, corpus)
    assert correlations(effects, resamples=20)["n"].iloc[0] == len(effects)
    table = signatures(model, basis, handle_of(model, basis, ["blocks.0.mlp.hook_post/1"]), pairs)
    assert set(table.columns) >= {
        "unit",
        "cosine",
        "robust_z",
        "peak_token",
        "density",
        "sparsity",
        "consistency",
        "class",
    }
