"""Transcoders of sae-lens: what they read, what they write, and what is left to the error of the written site."""

import copy
from typing import Any

import pytest
import torch
import toys
from saes import HOOK, TRANSCODERS, activations, close
from transformer_lens.components import LayerNormPre

import neuron_vs_sae as nvs
from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.execution.splice import read


@pytest.mark.parametrize("architecture", TRANSCODERS)
def test_a_transcoder_leaves_what_it_does_not_predict_to_the_error_of_the_written_site(
    model: Any, architecture: str
) -> None:
    saes, pairs = toys.transcoders(architecture=architecture), toys.pairs()
    basis = nvs.bases.transcoder(model, source=saes)
    assert [site.name for site in basis.sites] == ["blocks.0.hook_mlp_out", "blocks.1.hook_mlp_out"]
    values = read(model, pairs.clean, pairs.length, basis.hooks)
    features = basis.features(values)
    for layer, (site, theirs) in enumerate(zip(basis.sites, saes, strict=True)):
        y, x = values[site.reads], values[site.writes]
        assert site.reads == f"blocks.{layer}.ln2.hook_normalized"
        assert close(features.units[layer], theirs.encode(y).detach())
        skip = y @ theirs.W_skip.T if "skip" in architecture else torch.zeros_like(x)
        assert close(x - features.errors[layer] + skip, theirs(y).detach())


@pytest.mark.parametrize("architecture", TRANSCODERS)
def test_keeping_all_of_a_transcoder_and_its_errors_is_the_model(architecture: str) -> None:
    """The sites of Gemma Scope's transcoders, in a model that normalises what its MLP writes."""
    model, pairs = toys.model("gemma2"), toys.pairs()
    basis = nvs.bases.transcoder(model, source=toys.transcoders(architecture=architecture))
    scores = nvs.attribution.attribution_patching(model, basis, pairs)
    curve = nvs.evaluate(model, basis, scores, pairs, sizes=lambda total: [0, total])
    assert curve.all_nodes is not None
    assert close(curve.all_nodes, curve.whole)
    assert not torch.allclose(curve.circuit[0], curve.whole, atol=1e-3)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gemma2"])
@pytest.mark.parametrize(
    "hook", [{"hook": "blocks.1.mlp.hook_in"},
             {"hook": "blocks.1.hook_mlp_in", "hf_hook_name": "model.layers.1.pre_feedforward_layernorm.output"}],
    ids=["mwhanna's", "Gemma Scope 2's"],
)  # fmt: skip
def test_a_transcoder_of_what_enters_the_mlp_reads_the_norms_output_with_its_weights(
    kind: str, hook: dict[str, str]
) -> None:
    model, pairs = toys.model(kind), toys.pairs()
    metadata = {"hook_name_out": "blocks.1.hook_mlp_out", **{k: v for k, v in hook.items() if k != "hook"}}
    theirs = toys.sae(hook["hook"], architecture="transcoder", metadata=metadata)
    basis = nvs.bases.transcoder(model, source=[theirs])
    entered: dict[str, torch.Tensor] = {}
    module = model.blocks[1].mlp
    handle = module.register_forward_pre_hook(lambda _, given: entered.update(x=given[0]))
    values = read(model, pairs.clean, pairs.length, basis.hooks)
    handle.remove()
    features = basis.features(values)
    assert close(features.units[0], theirs.encode(entered["x"]).detach())
    assert close(values["blocks.1.hook_mlp_out"] - features.errors[0], theirs(entered["x"]).detach())


def test_such_a_transcoder_needs_the_norms_weights(gpt2: Any) -> None:
    model = copy.deepcopy(gpt2)
    model.blocks[1].ln2 = LayerNormPre(model.cfg)
    model.setup()
    theirs = toys.sae(
        "blocks.1.mlp.hook_in", architecture="transcoder", metadata={"hook_name_out": "blocks.1.hook_mlp_out"}
    )
    with pytest.raises(InputError, match=r"a transcoder at blocks\.1\.mlp\.hook_in needs the weights of the norm"):
        nvs.bases.transcoder(model, source=[theirs])


def test_a_per_token_normalisation_of_a_transcoders_input_leaves_its_output_alone(llama: Any) -> None:
    theirs = toys.sae(
        "blocks.0.ln2.hook_normalized", architecture="transcoder", normalize_activations="layer_norm",
        metadata={"hook_name_out": HOOK},
    )  # fmt: skip
    (ours,) = nvs.bases.transcoder(llama, source=[theirs]).dictionaries
    x = activations()
    assert close(ours.decode(ours.encode(x)), theirs(x).detach())


def test_a_hook_that_the_model_does_not_run_is_refused_until_it_does(llama: Any) -> None:
    theirs = toys.sae("blocks.0.hook_mlp_in", architecture="transcoder", metadata={"hook_name_out": HOOK})
    with pytest.raises(InputError, match=r"never runs it.*use_hook_mlp_in for hook_mlp_in"):
        nvs.bases.transcoder(llama, source=[theirs])
    model = copy.deepcopy(llama)
    model.set_use_hook_mlp_in(True)
    basis, pairs = nvs.bases.transcoder(model, source=[theirs]), toys.pairs()
    values = read(model, pairs.clean, pairs.length, basis.hooks)
    assert close(basis.features(values).units[0], theirs.encode(values["blocks.0.hook_mlp_in"]).detach())


def test_a_transcoder_is_no_autoencoder_and_the_other_way_round(llama: Any) -> None:
    with pytest.raises(
        InputError, match="no autoencoders among the 2 SAEs of the source; these make the basis 'transcoder'"
    ):
        nvs.bases.sae(llama, source=toys.transcoders())
    with pytest.raises(InputError, match="no transcoders among the 2 SAEs of the source; these make the basis 'sae'"):
        nvs.bases.transcoder(llama, source=toys.saes())


def test_a_transcoder_that_does_not_say_where_it_writes_is_refused(llama: Any) -> None:
    theirs = toys.sae("blocks.0.ln2.hook_normalized", architecture="transcoder")
    for basis in (nvs.bases.transcoder, nvs.bases.sae):
        with pytest.raises(InputError, match=r"no metadata\.hook_name_out|these make the basis 'transcoder'"):
            basis(llama, source=[theirs])
