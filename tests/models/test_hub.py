"""The hub's cache: with it and without a network, models and SAEs of any revision are there, and are what they say."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import toys
from checkpoints import D_MODEL, checkpoint, in_hub_cache
from huggingface_hub import constants
from sae_lens.loading import pretrained_sae_loaders as loaders
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

import neuron_vs_sae as nvs
from neuron_vs_sae.catalog.dictionaries.sources import candidates
from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.models.loading import load_model
from neuron_vs_sae.models.names import model_commit
from neuron_vs_sae.running import runner

TOKENS = torch.tensor([[0, 5, 9, 3, 12]])
RELEASE, REPO = "gpt2-small-mlp-out-v5-32k", "jbloom/GPT2-Small-OAI-v5-32k-mlp-out-SAEs"
OLDER = "0ddba11" + "0" * 33


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and no network."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "home" / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "home" / "hub"


def saes(folder: Path, seed: int = 0) -> Path:
    """The first two layers of the release, for the little GPT-2."""
    for layer in range(2):
        hook = f"blocks.{layer}.hook_mlp_out"
        made = toys.sae(hook, d=D_MODEL, width=20, seed=seed + layer, model_name="gpt2-small", dtype="float32")
        made.float().save_model(folder / f"v5_32k_layer_{layer}")
    return folder


@pytest.mark.parametrize(
    ("name", "repo", "kind"),
    [
        ("gpt2-small", "gpt2", "gpt2"),
        ("pythia-14m", "EleutherAI/pythia-14m", "pythia"),
        ("gemma-2-2b", "google/gemma-2-2b", "gemma2"),
        ("google/gemma-3-270m", "google/gemma-3-270m", "gemma3"),
        ("Qwen/Qwen3-0.6B", "Qwen/Qwen3-0.6B", "qwen3"),
    ],
)
@pytest.mark.parametrize("backend", ["hooked", "bridge"])
def test_a_cached_model_of_the_hub_is_transformers_own(
    name: str, repo: str, kind: str, backend: str, cache: Path, tmp_path: Path
) -> None:
    folder = checkpoint(tmp_path / "one", kind)
    snapshot = in_hub_cache(cache, repo, folder)
    model = load_model(name, backend=backend)
    with torch.no_grad():
        expected = AutoModelForCausalLM.from_pretrained(folder).eval()(TOKENS).logits
        assert torch.allclose(model(TOKENS), expected, atol=1e-4)  # float32, other order of sums
    assert model.tokenizer("w3 w5", add_special_tokens=False).input_ids == [3, 5]
    assert model_commit(name) == snapshot.name
    assert load_model(snapshot).cfg.model_name == repo.split("/")[-1]  # not the commit that the folder is called


def test_a_revision_is_the_one_that_is_loaded_and_recorded(cache: Path, tmp_path: Path) -> None:
    newest = in_hub_cache(cache, "gpt2", checkpoint(tmp_path / "new", "gpt2"))
    older = checkpoint(tmp_path / "old", "gpt2")
    weights = load_file(older / "model.safetensors")
    weights["transformer.wte.weight"] *= 0.5
    save_file(weights, older / "model.safetensors", metadata={"format": "pt"})
    in_hub_cache(cache, "gpt2", older, commit=OLDER, main=False)
    for backend in ("hooked", "bridge"):
        new, old = (load_model("gpt2", backend=backend, revision=revision) for revision in (None, OLDER))
        assert torch.equal(old.W_E, 0.5 * new.W_E)
    assert model_commit("gpt2") == newest.name
    assert model_commit("gpt2", OLDER) == OLDER
    with pytest.raises(InputError, match="model gpt2 cannot be loaded: "):
        load_model("gpt2", revision="f00d" * 10)


def test_a_model_of_the_hub_that_comes_out_otherwise_is_refused(cache: Path, tmp_path: Path) -> None:
    """transformer-lens knows Gemma 2 without rope scaling."""
    folder = checkpoint(tmp_path / "one", "gemma2")
    config = json.loads((folder / "config.json").read_text())
    config["rope_parameters"] = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}
    (folder / "config.json").write_text(json.dumps(config))
    in_hub_cache(cache, "google/gemma-2-2b", folder)
    for dtype in ("float32", "bfloat16"):
        with pytest.raises(
            InputError, match=r"gemma-2-2b computes other numbers in transformer-lens .*--backend bridge"
        ):
            load_model("gemma-2-2b", dtype=dtype)
        assert load_model("gemma-2-2b", dtype=dtype, backend="bridge")


def test_a_releases_revision_is_the_one_that_is_loaded_and_recorded(cache: Path, tmp_path: Path) -> None:
    in_hub_cache(cache, "gpt2", checkpoint(tmp_path / "model", "gpt2"))
    newest = in_hub_cache(cache, REPO, saes(tmp_path / "new"))
    in_hub_cache(cache, REPO, saes(tmp_path / "old", seed=7), commit=OLDER, main=False)
    model, source = load_model("gpt2"), f"{RELEASE}/blocks.[01].hook_mlp_out"
    new, old = (
        nvs.bases.sae(model, source=source, select=nvs.Selection(revision=revision)) for revision in (None, OLDER)
    )
    assert [where["commit"] for where in new.provenance["saes"]] == [newest.name] * 2
    assert [where["commit"] for where in old.provenance["saes"]] == [OLDER] * 2
    units = torch.arange(3)
    assert not torch.equal(new.dictionaries[0].directions(units), old.dictionaries[0].directions(units))
    with pytest.raises(InputError, match=f"SAE {RELEASE}/blocks.0.hook_mlp_out cannot be loaded: "):
        nvs.bases.sae(model, source=source, select=nvs.Selection(revision="f00d" * 10))
    with pytest.raises(
        InputError, match="is a folder, which has no revision 'main': only releases of the registry have"
    ):
        nvs.bases.sae(model, source=tmp_path / "new", select=nvs.Selection(revision="main"))


def test_an_unfinished_study_does_not_go_on_with_another_commit(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_hub_cache(cache, "gpt2", checkpoint(tmp_path / "model", "gpt2"))
    in_hub_cache(cache, REPO, saes(tmp_path / "new"))
    study = nvs.Study(
        model="gpt2", task=(write_pairs(tmp_path / "pairs.jsonl"),), examples=8, eval_examples=4, sizes=(0, 5), resamples=100, accept_poor_sae=True,
        basis=(f"sae:{RELEASE}/blocks.[01].hook_mlp_out",),
    )  # fmt: skip
    monkeypatch.setattr(runner, "compute_cells", stopped)
    with pytest.raises(KeyboardInterrupt):
        nvs.compare(study, tmp_path / "results")
    monkeypatch.undo()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    in_hub_cache(cache, REPO, saes(tmp_path / "old", seed=7), commit=OLDER, main=False)
    branch = cache / f"models--{REPO.replace('/', '--')}" / "refs" / "main"
    newest = branch.read_text()
    branch.write_text(OLDER)
    with pytest.raises(
        nvs.FolderError, match=f"begun with commit {newest} of .*blocks.0.hook_mlp_out; the hub's is now {OLDER}"
    ):
        nvs.compare(study, tmp_path / "results")
    branch.write_text(newest)
    assert nvs.compare(study, tmp_path / "results").summary["size"].tolist()[:2] == [0, 5]


def stopped(*_: Any) -> None:
    raise KeyboardInterrupt


def write_pairs(file: Path) -> str:
    rows: list[dict[str, Any]] = [
        {"clean": f"w{a} w{b} w3", "corrupt": f"w{a + 9} w{b} w3", "answer": " w5", "foil": " w6"}
        for a in range(2, 6) for b in range(2, 9)
    ]  # fmt: skip
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


def test_shapes_that_sae_lens_asks_the_network_for_are_read_from_the_cache(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gemma Scope 2's configurations have no widths."""
    place = "mlp_out_all/layer_3_width_16k_l0_small"
    there = tmp_path / "scope" / place
    there.mkdir(parents=True)
    (there / "config.json").write_text(
        json.dumps({"architecture": "jump_relu", "model_name": "gemma-v3-270m-pt", "hf_hook_point_in": "x"})
    )
    save_file({"w_enc": torch.zeros(6, 10), "w_dec": torch.zeros(10, 6)}, there / "params.safetensors")
    monkeypatch.setattr(loaders.requests, "get", lambda *_, **__: pytest.fail("the network was asked"))
    from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

    release = get_pretrained_saes_directory()["gemma-scope-2-270m-pt-mlp-all"]
    (sae_id,) = [one for one, path in release.saes_map.items() if path == place]
    in_hub_cache(cache, release.repo_id, tmp_path / "scope")
    (found,) = candidates(f"gemma-scope-2-270m-pt-mlp-all/{sae_id}")
    assert (found.cfg.d_in, found.cfg.d_sae) == (6, 10)
    assert found.cfg.metadata.hook_name == "blocks.3.hook_mlp_out"


def test_a_whole_study_by_names_of_the_hub_runs_offline(tmp_path: Path) -> None:
    """As a user's shell does it: HF_HUB_OFFLINE=1 and a cache that was filled before."""
    cache = tmp_path / "home" / "hub"
    model = in_hub_cache(cache, "gpt2", checkpoint(tmp_path / "model", "gpt2"))
    there = in_hub_cache(cache, REPO, saes(tmp_path / "saes"))
    write_pairs(tmp_path / "pairs.jsonl")
    ended = subprocess.run(
        [sys.executable, "-m", "neuron_vs_sae", "compare", "--model", "gpt2-small", "--task", "pairs.jsonl",
         "--basis", "mlp_neurons", "--basis", f"sae:{RELEASE}/blocks.[01].hook_mlp_out", "--examples", "8",
         "--eval-examples", "4", "--sizes", "0,5,all", "--resamples", "100", "--accept-poor-sae", "--out", "results"],
        env={**os.environ, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1"},
        cwd=tmp_path, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    record = nvs.load(tmp_path / "results").record
    assert record["provenance"]["model_commit"] == model.name
    (bases,) = record["bases"].values()
    (used,) = [facts for text, facts in bases.items() if text.startswith("sae:")]
    assert [one["commit"] for one in used["saes"]] == [there.name] * 2
