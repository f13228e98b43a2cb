"""What a sae-lens SAE is as a dictionary: its units, what they write and its error, as sae-lens computes them."""

import copy
import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
import toys
from sae_lens import StandardSAE
from saes import activations, close, every_kind, make, only, save
from tables import BASES, BasisCase, identity_sae

import neuron_vs_sae as nvs
from neuron_vs_sae.core.dictionary import Affine, split
from neuron_vs_sae.core.errors import InputError


@every_kind
def test_units_and_the_tokens_constant_are_what_sae_lens_reconstructs(
    llama: Any, architecture: str, normalisation: str
) -> None:
    theirs = make(architecture, normalisation)
    x = activations()
    bias = torch.zeros(toys.D_MODEL).double() if "no b_dec" in architecture else theirs.b_dec
    constant = {
        "none": torch.zeros(1).double(),
        "layer_norm": bias * x.std(-1, keepdim=True) + x.mean(-1, keepdim=True),
        "constant_norm_rescale": bias * x.norm(dim=-1, keepdim=True) / toys.D_MODEL**0.5,
    }[normalisation]
    ours = only(llama, theirs)
    assert close(ours.decode(ours.encode(x)) + constant, theirs(x).detach())


@every_kind
def test_decoded_units_and_error_are_the_activation(llama: Any, architecture: str, normalisation: str) -> None:
    ours, x = only(llama, make(architecture, normalisation)), activations()
    units, error = split(ours, x, x)
    assert close(ours.decode(units) + error, x)
    assert not ours.lossless


@every_kind
def test_nothing_is_remembered_between_calls(llama: Any, architecture: str, normalisation: str) -> None:
    theirs = make(architecture, normalisation)
    ours = only(llama, theirs)
    module = inspect.getclosurevars(inspect.unwrap(ours.encoder)).nonlocals["module"]
    before = [set(vars(m)) for m in (theirs, module)]
    small, large = activations(), activations(scale=10.0)
    units = ours.encode(small)
    expected = ours.decode(units)
    ours.encode(large)
    assert torch.equal(ours.decode(units), expected)
    assert torch.equal(ours.encode(small), units)
    assert [set(vars(m)) for m in (theirs, module)] == before


@every_kind
def test_the_callers_sae_stays_as_it_was(llama: Any, architecture: str, normalisation: str) -> None:
    theirs = make(architecture, normalisation).train()
    weights = {name: (p, p.clone(), p.requires_grad) for name, p in theirs.named_parameters()}
    cfg, names = copy.deepcopy(theirs.cfg.to_dict()), set(vars(theirs))
    basis = nvs.bases.sae(llama, source=[theirs])
    nvs.attribution.attribution_patching(llama, basis, toys.pairs())
    assert theirs.cfg.to_dict() == cfg
    assert set(vars(theirs)) == names
    assert theirs.training
    for name, p in theirs.named_parameters():
        same, values, requires_grad = weights[name]
        assert p is same
        assert torch.equal(p, values)
        assert p.requires_grad == requires_grad


def test_weights_that_need_no_conversion_are_not_copied(llama: Any) -> None:
    theirs = make("standard")
    assert only(llama, theirs).decoder.data_ptr() == theirs.W_dec.data_ptr()


@pytest.mark.parametrize("case", BASES, ids=lambda case: case.name)
def test_pull_back_is_the_adjoint_of_decode_and_directions_are_its_rows(model: Any, case: BasisCase) -> None:
    for dictionary in case.make(model, toys.pairs()).dictionaries:
        generator = torch.Generator().manual_seed(2)
        units = torch.randn(2, 3, dictionary.width, generator=generator, dtype=torch.float64, requires_grad=True)
        gradient = torch.randn(2, 3, dictionary.d, generator=generator, dtype=torch.float64)
        expected = torch.autograd.grad((dictionary.decode(units) * gradient).sum(), units)[0]
        assert close(dictionary.pull_back(gradient), expected)
        one_more = torch.eye(dictionary.width, dtype=torch.float64)[None]
        rows = dictionary.decode(one_more)[0] - dictionary.decode(torch.zeros_like(one_more))[0]
        some = torch.tensor([dictionary.width - 1, 0, 2])
        assert close(dictionary.directions(some).double(), rows[some])


@pytest.mark.parametrize("method", ["attribution_patching", "relp", "integrated_gradients", "activation_patching"])
def test_an_identity_sae_is_the_raw_basis_bit_for_bit(gpt2: Any, method: str) -> None:
    identity = [identity_sae(f"blocks.{layer}.hook_mlp_out") for layer in range(2)]
    assert_equal_to_the_raw_basis(gpt2, method, nvs.bases.sae(gpt2, source=identity))


def test_so_is_one_that_was_saved(model: Any, tmp_path: Path) -> None:
    for layer in range(2):
        save(identity_sae(f"blocks.{layer}.hook_mlp_out"), tmp_path / str(layer))
    assert_equal_to_the_raw_basis(model, "attribution_patching", nvs.bases.sae(model, source=tmp_path))


def assert_equal_to_the_raw_basis(model: Any, method: str, identity: nvs.Basis) -> None:
    raw, pairs = nvs.bases.mlp_outputs(model), toys.pairs(3)
    scores = [getattr(nvs.attribution, method)(model, basis, pairs) for basis in (raw, identity)]
    assert torch.equal(scores[0].values, scores[1].values)
    for ablation in ("mean", "counterfactual", "zero_units", "zero_site"):
        a, b = (
            nvs.evaluate(model, basis, s, pairs, ablation=ablation, sizes=lambda total: (0, 3, 20, total))
            for basis, s in zip((raw, identity), scores, strict=True)
        )
        assert (a.sizes, a.n_error_nodes, a.n_total) == (b.sizes, b.n_error_nodes, b.n_total)
        for curve in ("whole", "empty", "circuit", "complement"):
            assert torch.equal(getattr(a, curve), getattr(b, curve))


def test_an_encoder_from_a_float32_file_works_in_the_precision_of_a_float64_model(llama: Any, tmp_path: Path) -> None:
    theirs = make("jumprelu").to(torch.float32)
    (ours,) = nvs.bases.sae(llama, source=save(theirs, tmp_path)).dictionaries
    x = activations()
    units = ours.encode(x)
    assert units.dtype == torch.float64
    assert close(ours.decode(units), theirs.to(torch.float64)(x).detach())


def test_a_bfloat16_model_is_scored_in_float32() -> None:
    model = copy.deepcopy(toys.model("llama")).to(torch.bfloat16)
    assert model.cfg.dtype == torch.bfloat16
    basis, pairs = nvs.bases.sae(model, source=toys.saes(architecture="topk", k=3)), toys.pairs()
    assert all(isinstance(d, Affine) and d.decoder.dtype == torch.float32 for d in basis.dictionaries)
    scores = nvs.attribution.relp(model, basis, pairs)
    assert scores.values.isfinite().all()
    curve = nvs.evaluate(model, basis, scores, pairs, sizes=lambda total: [total])
    # Writing back what was read rounds to bfloat16 once more, at most by one step (2 ** -8) per site.
    assert curve.all_nodes is not None
    assert torch.allclose(curve.all_nodes, curve.whole, atol=2**-6 * float(curve.whole.abs().max()))


class _Nonlinear(StandardSAE):
    def decode(self, feature_acts: torch.Tensor) -> torch.Tensor:
        return super().decode(feature_acts) ** 2


def test_a_decoder_that_is_not_affine_is_refused(llama: Any) -> None:
    theirs = make("standard")
    nonlinear = _Nonlinear(theirs.cfg)
    nonlinear.load_state_dict(theirs.state_dict())
    with pytest.raises(InputError, match=r"decoder of _Nonlinear is not units @ W_dec \+ b_dec"):
        nvs.bases.sae(llama, source=[nonlinear])


class _Doubled(StandardSAE):
    def encode(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().encode(x)


def test_an_sae_of_the_callers_own_class_keeps_its_own_encoder(llama: Any) -> None:
    theirs = make("standard")
    doubled = _Doubled(theirs.cfg)
    doubled.load_state_dict(theirs.state_dict())
    assert close(only(llama, doubled).encode(activations()), 2 * only(llama, theirs).encode(activations()))
    some = torch.tensor([3, 1])
    assert close(
        only(llama, doubled).encode_some(activations(), some), 2 * only(llama, theirs).encode(activations())[..., some]
    )
