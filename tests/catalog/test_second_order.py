"""The second-order term of attribution patching: exact where the metric is quadratic in a site, and reliable where it is linear."""

import functools
import warnings
from typing import Any

import pytest
import torch
import toys
from transformer_lens import HookedTransformer, HookedTransformerConfig

import neuron_vs_sae as nvs
from neuron_vs_sae.core.basis import apart, together
from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.core.metric import Target
from neuron_vs_sae.execution.splice import run
from neuron_vs_sae.models.loading import prepare

PAIRS = toys.pairs(3)


@functools.cache
def linear() -> Any:
    """A model without norms or MLPs: what enters its last block's end is unembedded, and nothing else happens."""
    config = HookedTransformerConfig(
        n_layers=1, d_model=8, n_ctx=16, d_head=4, n_heads=2, d_vocab=toys.VOCAB, attn_only=True, normalization_type=None,
        dtype=torch.float64, device="cpu", seed=0,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return prepare(HookedTransformer(config))


def squared(logits: torch.Tensor, target: Target) -> torch.Tensor:
    return logits.gather(1, target.answer[:, None])[:, 0] ** 2


def sites_effect(model: Any, basis: nvs.Basis, metric: Any, pairs: nvs.PromptPairs) -> float:
    """By how much the metric falls when the whole site takes the corrupt prompt's values."""
    target = Target(pairs.answer, pairs.foil, lambda: torch.zeros(1))
    return float(
        (
            metric(run(model, pairs.clean, pairs.length), target)
            - metric(run(model, pairs.corrupt, pairs.length), target)
        ).mean()
    )


@pytest.mark.checked
@pytest.mark.parametrize("grad_at", ["clean", "corrupt"])
def test_a_sites_scores_add_up_where_the_metric_is_quadratic_in_it(grad_at: Any) -> None:
    model = linear()
    basis = nvs.bases.residual(model)
    scores = nvs.attribution.attribution_patching(model, basis, PAIRS, squared, order=2, grad_at=grad_at)
    exact = sites_effect(model, basis, squared, PAIRS)  # the last site is all that the answer is read from
    assert float(scores.values.sum()) == pytest.approx(exact, abs=1e-9)
    first = nvs.attribution.attribution_patching(model, basis, PAIRS, squared, grad_at=grad_at)
    assert abs(float(first.values.sum()) - exact) > 1e-3
    assert scores.reliability is not None
    second = (scores.values - first.values).abs()
    told = first.values.abs() / (first.values.abs() + second).clamp(min=1e-300)
    assert torch.allclose(scores.reliability[scores.values != 0], told[scores.values != 0], atol=1e-9)


def test_a_linear_metric_is_wholly_reliable() -> None:
    model = linear()
    basis = nvs.bases.residual(model)
    scores = nvs.attribution.attribution_patching(model, basis, PAIRS, order=2)
    assert torch.allclose(scores.values, nvs.attribution.attribution_patching(model, basis, PAIRS).values, atol=1e-12)
    assert scores.reliability is not None
    assert bool((scores.reliability == 1).all())


def test_reliability_stands_in_the_table_and_stays_with_its_basis(llama: Any) -> None:
    bases = [nvs.bases.mlp_neurons(llama), nvs.bases.sae(llama, source=toys.saes())]
    both = nvs.attribution.attribution_patching(llama, together(bases), PAIRS, order=2)
    for basis, part in zip(bases, apart(both, together(bases)), strict=True):
        alone = nvs.attribution.attribution_patching(llama, basis, PAIRS, order=2)
        table = part.table()
        assert table["reliability"].between(0, 1).all()
        assert table["reliability"].to_numpy() == pytest.approx(alone.table()["reliability"].to_numpy(), abs=1e-6)
    assert "reliability" not in nvs.attribution.relp(llama, bases[0], PAIRS).table()


def test_there_are_two_orders(llama: Any) -> None:
    with pytest.raises(InputError, match=r"no order 3; there are: 1, 2"):
        nvs.attribution.attribution_patching(llama, nvs.bases.mlp_outputs(llama), PAIRS, order=3)  # pyright: ignore[reportArgumentType]


def test_it_is_nearer_to_exact_patching_on_the_trained_model() -> None:
    """MLP outputs of the default, two tasks; the estimate without the term is the one to beat."""
    import numpy as np

    model = nvs.load_model("default")
    basis = nvs.bases.mlp_outputs(model, layers="3")
    for source in ("two_hop", "ioi"):
        pairs = nvs.tasks.world(model, source=source, n=2, template=0)
        exact = nvs.attribution.activation_patching(model, basis, pairs).values
        first, second = (
            nvs.attribution.attribution_patching(model, basis, pairs, order=order).values for order in (1, 2)
        )
        assert np.corrcoef(second, exact)[0, 1] >= np.corrcoef(first, exact)[0, 1]
