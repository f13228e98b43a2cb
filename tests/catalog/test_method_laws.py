"""The laws that every attribution method keeps: on toys of four architectures, in float64.

Every method meets every kind of site on the bias-free toy, and the batches and positions of the bases whose encoders
remember; `NVS_TESTS=all` takes every method on every basis and architecture.
"""

from typing import Any

import pytest
import tables
import torch
import toys
from covering import ALL
from tables import make

import neuron_vs_sae as nvs

EXACT = 1e-9  # float64; sums of thousands of terms
PAIRS = toys.pairs()

method_cases = pytest.mark.parametrize("method", tables.METHODS, ids=lambda c: c.id)
# Batches and positions are a method's business and, through what encoders remember, a basis's: one by one, not all by all.
pairings = pytest.mark.parametrize(
    ("basis_case", "method"),
    [
        (b, m)
        for m in tables.METHODS
        for b in tables.BASES
        if ALL or m is tables.METHODS[0] or b.name in {"sae three kinds", "transcoder"}
    ],
    ids=lambda c: c.id if isinstance(c, tables.MethodCase) else c.name,
)


@pytest.mark.parametrize("pairing", ["paired", "unpaired"])
@pytest.mark.parametrize(
    ("kind", "method"),
    [
        (kind, m)
        for kind in toys.MODELS
        for m in tables.METHODS
        if m.gradient and (kind == "llama" or m.id in {"relp", "attribution_patching", "integrated_gradients steps=3"})
    ],
    ids=lambda c: c if isinstance(c, str) else c.id,
)
def test_a_sites_total_attribution_does_not_depend_on_the_basis(
    kind: str, method: tables.MethodCase, pairing: str
) -> None:
    """I8: units and error of one position sum to <gradient, change of the site>, the same in every basis there.

    Unpaired, a basis's zero is `decode(0)`, so its total differs from the others' by <gradient, decode(0)>: only bases
    whose decoder has no offset are compared.
    """
    if pairing == "unpaired" and not method.unpaired:
        pytest.skip("needs the corrupt prompt")
    model = toys.model(kind)
    totals: dict[str, dict[str, torch.Tensor]] = {}
    for case in tables.BASES:
        basis = make(case, model)
        zero = torch.zeros(1, dtype=torch.float64)
        if method.name == "conductance" and case.name == "sae constant_norm":
            continue  # it divides by the activation's norm, which is 0 at a zero embedding without biases
        if case.site == "three kinds" or (pairing == "unpaired" and any(c.any() for c in basis.constants(zero))):
            continue
        scores = method(model, basis, PAIRS, pairing=pairing)
        totals.setdefault(case.site, {})[case.name] = torch.stack([u.sum(1) + e for u, e in scores.by_site()])
    # Integrated gradients of neurons move along the neurons' own line, which is the output's line where that is affine.
    if not model.cfg.use_normalization_before_and_after and (
        pairing == "paired" or model.cfg.model_name == "toy-llama"
    ):
        totals[tables.OUT].update(totals[tables.POST])
    assert len(totals[tables.OUT]) >= (10 if pairing == "paired" else 3)
    for values in totals.values():
        first = next(iter(values.values()))
        for name, value in values.items():
            # Conductance to a zero embedding passes where a norm's slope is huge: its terms cancel to 1e-9 of their size.
            assert torch.allclose(value, first, atol=EXACT, rtol=1e-7), name


@method_cases
def test_an_identity_sae_is_the_raw_basis_bit_for_bit(method: tables.MethodCase, model: Any) -> None:
    """I4: its scores."""
    raw, identity = (make(c, model) for c in tables.BASES if c.name in {"mlp_outputs", "sae identity"})
    assert raw.name == "mlp_outputs"
    ours, theirs = (method(model, basis, PAIRS) for basis in (raw, identity))
    assert torch.equal(ours.values, theirs.values)


@pairings
def test_scores_do_not_depend_on_batches(basis_case: tables.BasisCase, method: tables.MethodCase, llama: Any) -> None:
    basis = make(basis_case, llama)
    whole, parts = (method(llama, basis, PAIRS, batch_size=n).values for n in (64, 2))
    assert torch.allclose(whole, parts, atol=1e-12)


@pairings
def test_pooled_scores_are_the_sums_over_positions(
    basis_case: tables.BasisCase, method: tables.MethodCase, llama: Any
) -> None:
    if not method.pooled_is_sum:
        pytest.skip("patches a unit at all positions at once, or draws anew: not a sum by definition")
    basis = make(basis_case, llama)
    separate, pooled = (method(llama, basis, PAIRS, positions=p) for p in ("separate", "pooled"))
    for (units, errors), (unit, error) in zip(separate.by_site(), pooled.by_site(), strict=True):
        assert torch.allclose(units.sum(0, keepdim=True), unit, atol=1e-12)
        assert torch.allclose(errors.sum(0, keepdim=True), error, atol=1e-12)


@method_cases
def test_padding_changes_no_score(method: tables.MethodCase, model: Any) -> None:
    """Prompts of several lengths together score as the mean of each length alone."""
    basis = nvs.bases.sae(model, source=toys.saes())
    mixed = toys.pairs(4, 6, lengths=[6, 4, 6, 4])
    together = method(model, basis, mixed, positions="pooled").values
    if method.name == "random":
        return
    alone = []
    for i in range(4):
        one = mixed.take([i])
        n = int(one.length)
        cut = type(one)(**{**vars(one), "clean": one.clean[:, :n], "corrupt": one.corrupt[:, :n]})
        alone.append(method(model, basis, cut, positions="pooled").values)
    assert torch.allclose(together, torch.stack(alone).mean(0), atol=1e-10)


def test_the_last_layers_mlp_cannot_matter_before_the_answer_position(model: Any) -> None:
    """I14: exactly zero, for every gradient method."""
    basis = nvs.bases.mlp_neurons(model)
    for method in tables.METHODS:
        if method.gradient or method.name == "activation_patching":
            units, _ = method(model, basis, PAIRS).by_site()[-1]
            # Patched and unpatched runs differ in batch size, so in rounding; a gradient that does not exist is 0.
            assert units[:-1].abs().max() <= (0 if method.gradient else 1e-14), method.id
            assert units[-1].any(), method.id


@pytest.mark.parametrize("method", [m for m in tables.METHODS if m.gradient], ids=lambda c: c.id)
def test_saes_beside_neurons_leave_the_neurons_scores_alone(method: tables.MethodCase, llama: Any) -> None:
    """I15: with errors kept, taking other sites apart changes nothing at the model's own nodes."""
    neurons, saes = (make(c, llama) for c in tables.BASES if c.name in {"mlp_neurons", "sae resid_post"})
    both = nvs.Basis("both", neurons.sites + saes.sites, neurons.dictionaries + saes.dictionaries)
    alone, beside = (method(llama, basis, PAIRS).by_site() for basis in (neurons, both))
    for (units, _), (same, _) in zip(alone, beside[:2], strict=True):
        assert torch.allclose(units, same, atol=1e-12)


@pytest.mark.checked
def test_kl_has_no_slope_at_the_clean_prompt(llama: Any) -> None:
    basis = make(tables.BASES[0], llama)
    for name in ("relp", "attribution_patching"):
        with pytest.raises(nvs.InputError, match="zero at the clean prompt"):
            getattr(nvs.attribution, name)(llama, basis, PAIRS, "kl")
    assert nvs.attribution.integrated_gradients(llama, basis, PAIRS, "kl", steps=2).values.any()
