"""Whether an SAE belongs to a model and a site: refused where it does not, and what the trained ones explain."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import toys
from sae_lens import SAE, TrainingSAE
from saes import HOOK, make, save

import neuron_vs_sae as nvs
from neuron_vs_sae.catalog.dictionaries.diagnosis import explained_on
from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.execution.splice import read


@pytest.mark.parametrize("hook", ["blocks.2.hook_mlp_out", "blocks.0.hook_mlp_outt", "blocks.0.mlp.hook_in"])
def test_a_hook_that_the_model_does_not_have_is_refused(llama: Any, hook: str) -> None:
    with pytest.raises(InputError, match=rf"for hook '{hook}', which model 'toy-llama' \(2 layers\) does not have"):
        nvs.bases.sae(llama, source=[toys.sae(hook)])


def test_a_hook_without_a_vector_per_token_is_refused(llama: Any) -> None:
    with pytest.raises(InputError, match=r"'blocks.0.attn.hook_pattern' is no site: it holds a matrix over positions"):
        nvs.bases.sae(llama, source=[toys.sae("blocks.0.attn.hook_pattern")])


def test_the_wrong_width_is_refused(llama: Any) -> None:
    with pytest.raises(InputError, match=f"takes 12 and writes 12 dimensions, but {HOOK} of the model has 8 and"):
        nvs.bases.sae(llama, source=[toys.sae(HOOK, d=12)])
    with pytest.raises(
        InputError, match=r"takes 8 and writes 8 dimensions, but blocks.0.attn.hook_z of the model has 4"
    ):
        nvs.bases.sae(llama, source=[toys.sae("blocks.0.attn.hook_z", metadata={"hook_head_index": 0})])


@pytest.mark.parametrize(
    ("trained_on", "used_on"),
    [
        ("gpt2-small", "gpt2"),
        ("gpt2", "gpt2-small"),
        ("openai-community/gpt2", "gpt2"),
        ("google/gemma-2-2b", "gemma-2-2b"),
        ("pythia-70m-deduped", "EleutherAI/pythia-70m-deduped"),
        ("Stories260K", "stories260K"),
    ],
)
def test_names_of_one_model_are_one(trained_on: str, used_on: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = toys.model("llama")
    monkeypatch.setattr(model.cfg, "model_name", used_on)
    assert nvs.bases.sae(model, source=toys.saes(model_name=trained_on))


def test_an_sae_of_another_model_is_refused_unless_it_is_meant(llama: Any) -> None:
    with pytest.raises(
        InputError, match="was trained on model 'gemma-2-2b', not on 'toy-llama': use that model's SAEs"
    ):
        nvs.bases.sae(llama, source=toys.saes(model_name="gemma-2-2b"))
    assert nvs.bases.sae(llama, source=toys.saes(model_name="gemma-2-2b"), select=nvs.Selection(any_model=True))


@pytest.mark.parametrize("normalisation", ["expected_average_only_in", "covariance_whitening"])
def test_a_normalisation_that_is_not_in_the_weights_is_refused(llama: Any, normalisation: str) -> None:
    with pytest.raises(
        InputError, match=f"normalize_activations='{normalisation}', which is not in its weights: fold it"
    ):
        nvs.bases.sae(llama, source=[make("standard", normalisation)])


def test_an_sae_of_centred_weights_wants_a_centred_model(gpt2: Any) -> None:
    """sae-lens' own note of how the model was loaded, and a model that was loaded otherwise."""
    made = toys.sae(HOOK, metadata={"model_from_pretrained_kwargs": {"center_writing_weights": True}})
    with pytest.raises(InputError, match=r"trained on centred weights .*center_writing_weights.*--process-weights"):
        nvs.bases.sae(gpt2, source=made)
    centred = copy.deepcopy(gpt2)
    centred.embed.W_E.data -= centred.embed.W_E.mean(-1, keepdim=True)
    assert nvs.bases.sae(centred, source=made).sites[0].writes == HOOK


def test_a_temporal_sae_is_refused(llama: Any) -> None:
    temporal = toys.sae(HOOK, width=16, architecture="temporal", n_heads=2, bottleneck_factor=2, kval_topk=3)
    with pytest.raises(InputError, match="is a temporal SAE: its units depend on earlier tokens"):
        nvs.bases.sae(llama, source=[temporal])


def test_an_sae_that_is_still_in_training_is_refused(llama: Any) -> None:
    training = TrainingSAE.from_dict({"architecture": "batchtopk", "d_in": 8, "d_sae": 10, "k": 3})
    with pytest.raises(InputError, match="BatchTopKTrainingSAE is no SAE to use: give sae-lens' inference SAEs"):
        nvs.bases.sae(llama, source=[training])
    with pytest.raises(InputError, match="a int is no SAE to use"):
        nvs.bases.sae(llama, source=[3])


def test_nan_in_an_saes_weights_is_refused_by_the_parameters_name(llama: Any, tmp_path: Path) -> None:
    damaged = make("jumprelu")
    damaged.threshold.data[3] = torch.nan
    with pytest.raises(InputError, match="SAE damaged has NaN or infinite values in threshold: its file is damaged"):
        nvs.bases.sae(llama, source=save(damaged, tmp_path / "damaged"))


@pytest.fixture(scope="session")
def prompts(stories: Any, assets: Path) -> nvs.PromptPairs:
    file = assets / "tasks" / "stories260K" / "gender_pronoun_train.jsonl"
    return nvs.tasks.from_file(stories, path=file).take(range(64))


def quality(model: Any, basis: nvs.Basis, pairs: nvs.PromptPairs) -> list[tuple[float, float]]:
    """(explained variance, mean active units) of every site on the clean prompts but BOS."""
    values = read(model, pairs.clean, pairs.length, basis.hooks)
    features = basis.features(values)
    return [
        (
            explained_on(site.view(values[site.writes]), error, pairs),
            float((units[:, 1:] != 0).sum(-1).double().mean()),
        )
        for site, units, error in zip(basis.sites, features.units, features.errors, strict=True)
    ]


@pytest.mark.assets
@pytest.mark.parametrize(("kind", "n"), [("jumprelu", 15), ("standard", 5), ("transcoder", 1)])
def test_every_trained_sae_loads_and_explains_the_tasks_prompts(
    stories: Any, assets: Path, prompts: nvs.PromptPairs, kind: str, n: int
) -> None:
    make_basis = nvs.bases.transcoder if kind == "transcoder" else nvs.bases.sae
    basis = make_basis(stories, source=assets / "saes" / "stories260K" / kind)
    assert len(basis.sites) == n
    for site, (variance, active) in zip(basis.sites, quality(stories, basis, prompts), strict=True):
        assert variance > 0.5, site.name
        assert 3 < active < 60, site.name


@pytest.mark.assets
@pytest.mark.parametrize("wrong", ["blocks.2.hook_attn_out", "blocks.2.hook_resid_post", "blocks.4.hook_mlp_out"])
def test_a_trained_sae_explains_nothing_at_another_site_or_layer(
    stories: Any, assets: Path, prompts: nvs.PromptPairs, wrong: str, tmp_path: Path
) -> None:
    theirs = SAE.load_from_disk(assets / "saes" / "stories260K" / "jumprelu" / "blocks.2.hook_mlp_out")
    for name, hook in (("right", "blocks.2.hook_mlp_out"), ("wrong", wrong)):
        save(theirs, tmp_path / name, metadata__hook_name=hook)
    found = [
        quality(stories, nvs.bases.sae(stories, source=tmp_path / name), prompts)[0] for name in ("right", "wrong")
    ]
    (right, _), (other, _) = found
    assert right > 0.8
    assert other < 0.2
