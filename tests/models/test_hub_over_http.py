"""Models and SAEs come from the hub by its own client, over HTTP; what goes wrong there is said in a sentence, and nothing wrong is used."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import toys
from checkpoints import D_MODEL, checkpoint
from hub_standin import Fault, Hub, serving
from huggingface_hub import constants, file_download
from huggingface_hub.errors import LocalEntryNotFoundError
from huggingface_hub.utils import _http

import neuron_vs_sae as nvs
from neuron_vs_sae.catalog.dictionaries.sources import candidates
from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.models.hub import why
from neuron_vs_sae.models.loading import load_model
from neuron_vs_sae.models.names import model_commit

MODEL = "someone/tiny-gpt2"
RELEASE, REPO = "gpt2-small-mlp-out-v5-32k", "jbloom/GPT2-Small-OAI-v5-32k-mlp-out-SAEs"
SAE = f"{RELEASE}/blocks.0.hook_mlp_out"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    """A small GPT-2 and the first two layers of a release, as that is laid out."""
    folder = tmp_path_factory.mktemp("hub")
    for layer in range(2):
        made = toys.sae(
            f"blocks.{layer}.hook_mlp_out", d=D_MODEL, width=20, seed=layer, model_name="tiny-gpt2", dtype="float32"
        )
        made.float().save_model(folder / "saes" / f"v5_32k_layer_{layer}")
    with serving() as hub:
        hub.repository(MODEL).add(checkpoint(folder / "model", "gpt2"))
        hub.repository(REPO).add(folder / "saes")
        yield hub


@pytest.fixture
def hub(served: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """It, for this process and with an empty cache; a client that does not wait between attempts."""
    monkeypatch.setattr(constants, "ENDPOINT", served.endpoint)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", served.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    for module in (file_download, _http):  # between attempts
        monkeypatch.setattr(module, "time", SimpleNamespace(**{**vars(time), "sleep": lambda seconds: None}))
    served.faults.clear()
    served.asked.clear()
    yield served
    served.faults.clear()


def test_a_model_and_saes_are_fetched_once_and_recorded_by_commit(hub: Hub) -> None:
    model = load_model(MODEL, backend="bridge")
    basis = nvs.bases.sae(model, f"{RELEASE}/blocks.[01].hook_mlp_out")
    assert model_commit(MODEL) == hub.repositories[MODEL].branches["main"]
    assert {sae["commit"] for sae in basis.provenance["saes"]} == {hub.repositories[REPO].branches["main"]}
    fetched = [line for line in hub.asked if line.startswith("GET") and line.endswith(".safetensors")]
    assert len(fetched) == 3
    load_model(MODEL, backend="bridge")
    nvs.bases.sae(model, f"{RELEASE}/blocks.[01].hook_mlp_out")
    assert [line for line in hub.asked if line.startswith("GET") and line.endswith(".safetensors")] == fetched


def test_a_pinned_revision_is_the_one_that_is_fetched(hub: Hub, tmp_path: Path) -> None:
    older = hub.repositories[MODEL].branches["main"]
    folder = checkpoint(tmp_path / "newer", "gpt2")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "layer_norm_epsilon": 1e-3}))
    newer = hub.repositories[MODEL].add(folder)
    try:
        assert load_model(MODEL, backend="bridge", revision=older).cfg.eps == pytest.approx(1e-5)
        assert load_model(MODEL, backend="bridge").cfg.eps == pytest.approx(1e-3)
        assert (model_commit(MODEL, older), model_commit(MODEL)) == (older, newer)
        with pytest.raises(InputError, match=r"the hub has no such revision of it.*--revision"):
            load_model(MODEL, backend="bridge", revision="f00d" * 10)
    finally:
        hub.repositories[MODEL].branches["main"] = older


FAULTS: list[tuple[Fault, str]] = [
    ("gated", r"it is gated: accept its terms on its page on the hub, then log in \(`hf auth login`, or HF_TOKEN\)"),
    ("private", r"the hub has no repository of that name, or it is private"),
    ("busy", r"the hub asks to wait \(429, too many requests\)"),
]


@pytest.mark.parametrize(("fault", "said"), FAULTS)
def test_what_the_hub_refuses_is_said_with_what_to_do(fault: Fault, said: str, hub: Hub) -> None:
    hub.faults = {"config.json": fault, "cfg.json": fault}
    with pytest.raises(InputError, match=rf"model {MODEL} cannot be loaded: .*{said}") as caught:
        load_model(MODEL, backend="bridge")
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=rf"SAE {SAE} cannot be loaded: .*{said}") as caught:
        candidates(SAE)
    assert "\n" not in str(caught.value)


def test_what_is_not_there_is_said(hub: Hub) -> None:
    with pytest.raises(InputError, match="the hub has no repository of that name, or it is private"):
        load_model("someone/else", backend="bridge")
    with pytest.raises(
        InputError, match=r"SAE .*blocks.7.hook_mlp_out cannot be loaded: the hub's repository lacks a file"
    ):
        candidates(f"{RELEASE}/blocks.7.hook_mlp_out")


def test_a_connection_that_breaks_off_in_the_middle_of_a_file_is_taken_up_again(hub: Hub) -> None:
    hub.faults = {"model.safetensors": "broken off"}
    model = load_model(MODEL, backend="bridge")
    assert not hub.faults
    assert len([line for line in hub.asked if line.startswith("GET") and line.endswith("model.safetensors")]) == 2
    assert bool(model.W_E.isfinite().all())


@pytest.mark.parametrize("what", ["model", "sae"])
def test_a_file_whose_hash_is_wrong_is_not_used(what: str, hub: Hub) -> None:
    sound = load_model(MODEL, backend="bridge") if what == "sae" else None
    hub.faults = {".safetensors": "forged"}
    for _ in range(2):  # nor afterwards, from the cache
        with pytest.raises(
            InputError, match=r"safetensors of .* in the local cache is not what the hub says it is: .*Delete"
        ):
            load_model(MODEL, backend="bridge") if sound is None else nvs.bases.sae(sound, SAE)


def test_an_offline_run_has_what_is_in_the_cache_and_asks_for_nothing(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = load_model(MODEL, backend="bridge")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.asked.clear()
    again = load_model(MODEL, backend="bridge")
    assert torch.equal(first.W_E, again.W_E)
    assert not hub.asked
    with pytest.raises(InputError, match=r"it is not in the local cache, and the hub was not asked or not reached"):
        candidates(SAE)


def test_a_hub_that_does_not_answer_is_given_up(hub: Hub) -> None:
    hub.faults = {"cfg.json": "silent"}
    with pytest.raises(
        InputError, match=rf"SAE {SAE} cannot be loaded: the connection to the hub broke off: the same command"
    ):
        candidates(SAE)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (TimeoutError("read"), "did not answer in time"),
        (ConnectionError("reset"), "the connection to the hub broke off"),
        (LocalEntryNotFoundError("offline"), "it is not in the local cache, and the hub was not asked or not reached"),
        (ValueError("first line\nsecond"), "^first line$"),
    ],
)
def test_why_something_could_not_be_had_is_found_below_what_wraps_it(error: Exception, said: str) -> None:
    wrapped = OSError("We could not connect\nto the hub")
    wrapped.__cause__ = error
    assert re.search(said, why(error if isinstance(error, ValueError) else wrapped))


@pytest.mark.long
@pytest.mark.assets
def test_a_whole_study_by_names_of_the_hub(assets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a user's shell does it: the trained model, its tokenizer and SAEs by name, with revisions; then again without a network."""
    trained, tasks = assets / "saes" / "stories260K" / "jumprelu", assets / "tasks" / "stories260K"
    for layer in range(2):
        (tmp_path / "saes" / f"v5_32k_layer_{layer}").mkdir(parents=True)
        for file in (trained / f"blocks.{layer}.hook_mlp_out").iterdir():
            (tmp_path / "saes" / f"v5_32k_layer_{layer}" / file.name).write_bytes(file.read_bytes())
    with serving() as hub:
        model = hub.repository("karpathy/stories260K").add(assets / "models" / "stories260K")
        saes = hub.repository(REPO).add(tmp_path / "saes")
        given: list[Any] = [
            "--model", "karpathy/stories260K", "--revision", model, "--backend", "bridge", "--task", tasks / "gender_pronoun_train.jsonl",
            "--eval-task", tasks / "gender_pronoun_test.jsonl", "--examples", 8, "--eval-examples", 4, "--sizes", "1,10",
            "--resamples", 100, "--basis", "mlp_neurons,layers=0-1", "--out", "first",
            "--basis", f"sae:{RELEASE}/blocks.[01].hook_mlp_out,revision={saes}",
        ]  # fmt: skip
        ended = subprocess.run(
            [sys.executable, "-m", "neuron_vs_sae", "compare", *map(str, given)], cwd=tmp_path, capture_output=True, text=True,
            env={**os.environ, "HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"},
            timeout=300, check=False,
        )  # fmt: skip
        assert ended.returncode == 0, ended.stderr
        assert f"GET /karpathy/stories260K/resolve/{model}/model.safetensors" in hub.asked
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "home" / "hub"))
    first = nvs.load(tmp_path / "first")
    second = nvs.compare(first.study, tmp_path / "second")
    assert (first.folder / "curves.parquet").read_bytes() == (second.folder / "curves.parquet").read_bytes()
    for found in (first, second):
        assert found.record["provenance"]["model_commit"] == model
        used = found.bases[found.study.basis[1]]
        assert [sae["commit"] for sae in used["saes"]] == [saes] * 2
        assert min(used["explained_variance"]) > 0.8
