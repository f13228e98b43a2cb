"""`nvs check` refuses what would give a number that means nothing, and says why; and what half precision changes."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import toys
from sae_lens import SAE
from safetensors.torch import load_file

import neuron_vs_sae as nvs
from neuron_vs_sae.catalog.dictionaries.diagnosis import reconstruction
from neuron_vs_sae.core.building import build, check_bos
from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.execution.splice import read, run


@pytest.fixture(scope="module")
def prompts(stories: Any, assets: Path) -> nvs.PromptPairs:
    file = assets / "tasks" / "stories260K" / "gender_pronoun_train.jsonl"
    return nvs.tasks.from_file(stories, path=file).take(range(32))


def trained(assets: Path, layer: int = 2) -> SAE:
    return SAE.load_from_disk(assets / "saes" / "stories260K" / "jumprelu" / f"blocks.{layer}.hook_mlp_out")


@pytest.mark.assets
def test_trained_saes_and_transcoders_belong_where_they_say(
    stories: Any, assets: Path, prompts: nvs.PromptPairs
) -> None:
    folder = assets / "saes" / "stories260K"
    reconstruction(stories, nvs.bases.sae(stories, source=folder / "jumprelu"), prompts)
    reconstruction(stories, nvs.bases.sae(stories, source=folder / "standard"), prompts)
    reconstruction(stories, nvs.bases.transcoder(stories, source=folder / "transcoder"), prompts)


@pytest.mark.assets
@pytest.mark.parametrize("site", ["hook_attn_out", "hook_resid_post", "hook_resid_mid"])
def test_a_wrong_site_is_named(stories: Any, assets: Path, prompts: nvs.PromptPairs, site: str) -> None:
    theirs = trained(assets)
    theirs.cfg.metadata.hook_name = f"blocks.2.{site}"
    message = (
        rf"the sae at blocks\.2\.{site} explains .*its site is wrong\. At blocks\.2\.hook_mlp_out it explains 0\.9"
    )
    with pytest.raises(InputError, match=message):
        reconstruction(stories, nvs.bases.sae(stories, source=theirs), prompts)


@pytest.mark.assets
@pytest.mark.parametrize(("layer", "said"), [(2, 3), (2, 1), (4, 3), (0, 1), (1, 0)])
def test_a_shifted_layer_is_named(stories: Any, assets: Path, prompts: nvs.PromptPairs, layer: int, said: int) -> None:
    theirs = trained(assets, layer)
    theirs.cfg.metadata.hook_name = f"blocks.{said}.hook_mlp_out"
    message = (
        rf"its layer is shifted\. At blocks\.{layer}\.hook_mlp_out it explains 0\.9.: correct hook_name in its cfg"
    )
    with pytest.raises(InputError, match=message):
        reconstruction(stories, nvs.bases.sae(stories, source=theirs), prompts)


@pytest.mark.assets
def test_a_dropped_normalisation_is_named(stories: Any, assets: Path, prompts: nvs.PromptPairs) -> None:
    """An SAE of activations scaled to a mean norm of sqrt(d), whose scale is neither in its weights nor in its cfg.json."""
    theirs, hook = trained(assets), "blocks.2.hook_mlp_out"
    x = read(stories, prompts.clean, prompts.length, [hook])[hook]
    scale = x.shape[-1] ** 0.5 / float(x[:, 1:].norm(dim=-1).mean())
    theirs.W_enc.data /= scale
    theirs.W_dec.data *= scale
    theirs.b_dec.data *= scale
    with pytest.raises(
        InputError, match=r"its normalisation was dropped\. .*a mean norm of sqrt\(d\) it explains 0\.9"
    ):
        reconstruction(stories, nvs.bases.sae(stories, source=theirs), prompts)


@pytest.mark.assets
def test_a_wrong_model_is_named(stories: Any, assets: Path, prompts: nvs.PromptPairs) -> None:
    other = copy.deepcopy(stories)
    generator = torch.Generator().manual_seed(0)
    for p in other.parameters():
        if p.ndim > 1:
            p.data = torch.randn(p.shape, generator=generator) * p.std()
    basis = nvs.bases.sae(
        other, source=assets / "saes" / "stories260K" / "jumprelu", select=nvs.Selection(site="hook_mlp_out")
    )
    with pytest.raises(InputError, match="it is an SAE of another model, or of other weights of this one"):
        reconstruction(other, basis, prompts)
    poor = reconstruction(other, basis, prompts, strict=False)  # or a poor one: a study says how poor
    assert min(poor.explained) < 0.2


@pytest.mark.assets
def test_a_study_refuses_a_shifted_layer_before_it_writes_anything(assets: Path, tmp_path: Path) -> None:
    theirs = trained(assets)
    theirs.cfg.metadata.hook_name = "blocks.1.hook_mlp_out"
    theirs.save_model(tmp_path / "sae")
    study = nvs.Study(
        model=str(assets / "models" / "stories260K"), basis=(f"sae:{tmp_path}/sae",), examples=30, eval_examples=8,
        task=(str(assets / "tasks" / "stories260K" / "gender_pronoun_train.jsonl"),),
    )  # fmt: skip
    with pytest.raises(InputError, match="its layer is shifted"):
        nvs.compare(study, tmp_path / "results")
    assert not (tmp_path / "results" / "study.json").exists()


@pytest.mark.assets
def test_controls_may_explain_what_they_like(stories: Any, assets: Path, prompts: nvs.PromptPairs) -> None:
    folder = assets / "saes" / "stories260K" / "jumprelu"
    reconstruction(
        stories,
        nvs.bases.random_sae(stories, source=folder, select=nvs.Selection(site="hook_mlp_out"), prompts=prompts),
        prompts,
    )


def test_a_prompt_with_bos_in_its_text_is_refused(tokenizer: Any) -> None:
    def pairs(*texts: str) -> nvs.PromptPairs:
        rows = [{"clean": f"ann {text}", "corrupt": f"bob {text}", "answer": " she", "foil": " he"} for text in texts]
        return build("toy", tokenizer, rows)

    check_bos(tokenizer, pairs("saw a cat", "met a dog"))
    with pytest.raises(InputError, match=r"the prompt 'ann saw <s> cat' of task 'toy' holds BOS \('<s>'\) 2 times"):
        check_bos(tokenizer, pairs("met a dog", "saw <s> cat"))


@pytest.mark.parametrize("run_it", ["check", "compare"])
def test_a_study_looks_at_its_prompts_before_it_runs(run_it: str, checkpoint: Path, tmp_path: Path) -> None:
    def study(clean: str, corrupt: str) -> nvs.Study:
        file = tmp_path / "pairs.jsonl"
        rows = [{"clean": f"{clean} {animal}", "corrupt": f"{corrupt} {animal}", "answer": " she", "foil": " he"}
                for animal in ("cat", "dog", "hen", "a", "saw", "met")]  # fmt: skip
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return nvs.Study(
            model=str(checkpoint), task=(str(file),), basis=("mlp_outputs",), examples=3, eval_examples=2, sizes=(0, 2)
        )

    def go(study: nvs.Study) -> Any:
        return nvs.check(study) if run_it == "check" else nvs.compare(study, tmp_path / "results")

    with pytest.raises(InputError, match=r"holds BOS \('<s>'\) 2 times"):
        go(study("ann saw <s>", "bob saw <s>"))
    with pytest.raises(
        InputError, match=r"task 'pairs' has a prompt of 42 tokens, and the model is loaded for at most 32"
    ):
        go(study("ann" + " saw" * 39, "bob" + " saw" * 39))


# Half precision


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", ["llama", "gemma2"])
def test_logits_of_half_precision_are_not_rounded_to_it(kind: str, dtype: torch.dtype) -> None:
    """They are the unembedding of what was rounded before it, in float32, with the soft-cap after that."""
    model, pairs = copy.deepcopy(toys.model(kind)).to(dtype), toys.pairs()
    ours = run(model, pairs.clean, pairs.length)
    last = read(model, pairs.clean, pairs.length, ["ln_final.hook_normalized"])["ln_final.hook_normalized"][:, -1]
    expected = (last.to(dtype) * model.ln_final.w).float() @ model.W_U.float() + model.b_U.float()
    cap = model.cfg.output_logits_soft_cap
    expected = expected if cap <= 0 else cap * torch.tanh(expected / cap)
    assert ours.dtype == torch.float32
    assert torch.allclose(ours, expected, atol=1e-5)
    assert not torch.equal(ours, ours.to(dtype).float())


@pytest.mark.assets
def test_bfloat16_ranks_as_float32_does(stories: Any, assets: Path, tmp_path: Path) -> None:
    """Top-100 overlap, measured: 99 of neurons, 97 of SAE units (chance: below 1); stored is what each was."""
    task = assets / "tasks" / "stories260K" / "gender_pronoun_train.jsonl"
    tops: dict[str, list[set[int]]] = {}
    for dtype in ("float32", "bfloat16"):
        study = nvs.Study(
            model=str(assets / "models" / "stories260K"), dtype=dtype, task=(str(task),), examples=30, eval_examples=8,
            basis=("mlp_neurons", f"sae:{assets}/saes/stories260K/jumprelu@hook_mlp_out"), sizes=(0, 100), resamples=100,
        )  # fmt: skip
        found = nvs.compare(study, tmp_path / dtype)
        scores = load_file(tmp_path / dtype / "scores.safetensors")
        tops[dtype] = [set(scores[key].abs().topk(100).indices.tolist()) for key in sorted(scores)]
        record = json.loads((tmp_path / dtype / "study.json").read_text())
        assert record["provenance"]["dtype"] == record["study"]["dtype"] == dtype
        (bases,) = record["bases"].values()
        for basis in bases.values():
            assert min(basis["explained_variance"]) > 0.8
        assert set(found.summary["dtype"]) == {dtype}
    for full, half in zip(tops["float32"], tops["bfloat16"], strict=True):
        assert len(full & half) >= 90
