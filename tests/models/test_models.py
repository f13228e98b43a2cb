"""Models: what a folder holds is what runs, nothing else is run, and what cannot be loaded says why."""

import json
import pickle
import shutil
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import BRIDGED, CONFIGS, VARIANTS, VOCAB, checkpoint, in_hub_cache
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from transformer_lens import loading_from_pretrained
from transformer_lens.supported_models import OFFICIAL_MODEL_NAMES
from transformers import AutoModelForCausalLM
from transformers.utils import logging

import neuron_vs_sae as nvs
from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.models.loading import load_model, prepare
from neuron_vs_sae.models.names import known_models
from neuron_vs_sae.models.presets import presets, same_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return checkpoint(tmp_path / "toy")


def edited(folder: Path, **changes: Any) -> Path:
    """The folder with its config.json changed; None takes a key out."""
    file = folder / "config.json"
    config = {**json.loads(file.read_text()), **changes}
    file.write_text(json.dumps({k: v for k, v in config.items() if v is not None}))
    return folder


TOKENS = torch.randint(VOCAB, (3, 12), generator=torch.Generator().manual_seed(1))


def expected_logits(folder: Path) -> torch.Tensor:
    with torch.no_grad():
        return AutoModelForCausalLM.from_pretrained(folder).eval()(TOKENS).logits


# What a folder holds is what runs


@pytest.mark.parametrize("kind", [*CONFIGS, *VARIANTS])
def test_a_folders_logits_are_transformers(kind: str, tmp_path: Path) -> None:
    model = load_model(checkpoint(tmp_path / "toy", kind))
    assert torch.allclose(model(TOKENS), expected_logits(tmp_path / "toy"), atol=1e-4)  # float32, other order of sums
    assert model.cfg.model_name == "toy"
    assert not any(p.requires_grad for p in model.parameters())
    assert not model.training


@pytest.mark.parametrize("kind", ["gemma3 that sees", "qwen3_5 that sees"])
def test_loading_a_model_that_sees_starts_no_process(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """transformer-lens' bridge would have pip install what its images need, and another torch with it."""
    started: list[Any] = []

    def start(*command: Any, **_: Any) -> None:
        started.append(command)
        raise OSError("no process")

    monkeypatch.setattr(subprocess, "Popen", start)
    assert load_model(checkpoint(tmp_path / "toy", kind), backend="bridge")
    assert started == []


@pytest.mark.parametrize("kind", BRIDGED)
def test_what_the_bridge_alone_knows_is_transformers_there_and_refused_elsewhere(kind: str, tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "toy", kind)
    assert torch.allclose(load_model(folder, backend="bridge")(TOKENS), expected_logits(folder), atol=1e-4)
    with pytest.raises(InputError, match="is not currently supported"):
        load_model(folder)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("my-llama-x", "gpt2"),
        ("Meta-Llama-3-8B", "llama"),
        ("albert/gemma-2-2b", "gpt2"),
        ("phi-t5-bert-hubert", "llama"),
        ("google/gemma-2-2b", "gemma2"),
        ("roneneldan/TinyStories", "gpt2"),
        ("llama/NeelNanda/x", "pythia"),
    ],
)
def test_a_folders_name_says_nothing_about_what_is_in_it(name: str, kind: str, tmp_path: Path) -> None:
    model = load_model(checkpoint(tmp_path / name, kind))
    assert torch.allclose(model(TOKENS), expected_logits(tmp_path / name), atol=1e-4)
    assert model.cfg.model_name == name.split("/")[-1]


def test_a_relative_path_means_the_same_folder(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    checkpoint(tmp_path / "gpt2", "pythia")  # transformer-lens would take it for what "gpt2" means
    assert load_model("toy").cfg.model_name == "toy"
    assert torch.allclose(load_model("gpt2")(TOKENS), expected_logits(tmp_path / "gpt2"), atol=1e-4)
    monkeypatch.chdir(folder)
    assert load_model(".").cfg.model_name == "toy"
    assert Path.cwd() == folder


def test_the_tokenizer_is_the_folders(folder: Path) -> None:
    assert load_model(folder).tokenizer("w3 w5", add_special_tokens=False).input_ids == [3, 5]


def test_processed_weights_keep_every_difference_of_logits(tmp_path: Path) -> None:
    for kind in ("llama", "gpt2", "gemma2", "pythia"):
        checkpoint(tmp_path / kind, kind)
        raw, processed = (
            load_model(tmp_path / kind, process_weights=process, dtype="float64")(TOKENS) for process in (False, True)
        )
        differences = [logits - logits[..., :1] for logits in (raw, processed)]
        assert torch.allclose(*differences, atol=1e-6), kind  # rotary angles and norms are float32 inside
    assert not torch.allclose(raw, processed)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "pythia"])
def test_the_bridge_processes_weights_as_transformer_lens_does(kind: str, tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / kind, kind)
    hooked, bridge = (load_model(folder, backend=backend, process_weights=True) for backend in ("hooked", "bridge"))
    assert torch.allclose(hooked(TOKENS), bridge(TOKENS), atol=1e-4)
    hook = "blocks.1.hook_resid_post"
    values = [model.run_with_cache(TOKENS, names_filter=hook)[1][hook] for model in (hooked, bridge)]
    assert torch.allclose(*values, atol=1e-4)
    assert hooked.cfg.model_name == bridge.cfg.model_name == kind


def test_a_folder_has_no_revision(folder: Path) -> None:
    with pytest.raises(InputError, match="is a folder, which has no revision 'main': only models of the hub have"):
        load_model(folder, revision="main")


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "float16"])
def test_the_dtype_is_the_one_asked_for(folder: Path, dtype: str) -> None:
    model = load_model(folder, dtype=dtype)
    assert {str(p.dtype) for p in model.parameters()} == {f"torch.{dtype}"}
    assert str(model.cfg.dtype) == f"torch.{dtype}"


def test_an_unknown_dtype_or_device_is_refused(folder: Path) -> None:
    with pytest.raises(InputError, match="no dtype 'float8'; there are: float32, float64, bfloat16, float16"):
        load_model(folder, dtype="float8")
    with pytest.raises(InputError, match=r"device 'gpu' \(--device\) cannot be used: "):
        load_model(folder, device="gpu")
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match=r"device 'cuda' \(--device\) cannot be used: "):
            load_model(folder, device="cuda")


def test_more_devices_than_there_are_are_refused(folder: Path) -> None:
    with pytest.raises(InputError, match=r"2 devices were requested \(--n-devices\), and there are 1 of kind 'cpu'"):
        load_model(folder, device="cpu", n_devices=2)
    with pytest.raises(InputError, match="0 devices were requested"):
        load_model(folder, n_devices=0)


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "float16"])
def test_logits_that_come_out_otherwise_are_refused(folder: Path, dtype: str) -> None:
    """transformer-lens passes over a rope scaling that it does not know."""
    edited(folder, rope_parameters={"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0})
    with pytest.raises(InputError, match="computes other numbers in transformer-lens than in transformers"):
        load_model(folder, dtype=dtype)
    assert load_model(folder, dtype=dtype, backend="bridge")


@pytest.mark.parametrize("kind", [*CONFIGS, "olmoe"])
def test_half_precision_of_every_architecture_is_transformers_up_to_rounding(kind: str, tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "toy", kind)
    for dtype in ("bfloat16", "float16"):
        if kind in ("mixtral", "olmoe"):
            with pytest.raises(InputError, match=r"transformer-lens cannot run .* in torch\..* Try --backend bridge"):
                load_model(folder, dtype=dtype)
        else:
            assert load_model(folder, dtype=dtype)
        assert load_model(folder, dtype=dtype, backend="bridge")


def test_an_overflow_in_half_precision_is_told_from_a_wrong_model(folder: Path) -> None:
    file = folder / "model.safetensors"
    weights = load_file(file)
    weights["model.layers.1.mlp.down_proj.weight"] *= 3e4
    save_file(weights, file, metadata={"format": "pt"})
    assert load_model(folder)
    with pytest.raises(InputError, match=r"too narrow for it \(--dtype bfloat16 or float32\)"):
        load_model(folder, dtype="float16")


# Nothing else is run


class _Touch:
    """Unpickling it leaves a file behind."""

    def __init__(self, file: Path):
        self.file = file

    def __reduce__(self) -> Any:
        return Path.touch, (self.file,)


def test_pickled_weights_are_refused_alone_and_never_unpickled_beside_others(folder: Path, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(_Touch(ran)))
    assert load_model(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(
        InputError, match=r"has no \*\.safetensors: save the model with .* \(pickled weights are not read"
    ):
        load_model(folder)
    save_file({"w": torch.zeros(1)}, folder / "adapter.safetensors")
    with pytest.raises(InputError, match="cannot be loaded"):
        load_model(folder)
    assert not ran.exists()


def test_honest_pickles_are_not_read_either(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").rename(folder / "adapter.safetensors")
    with pytest.raises(InputError, match=r"cannot be loaded: .*no file named model.safetensors"):
        load_model(folder)


def test_a_folders_own_code_runs_only_when_it_is_trusted(folder: Path, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    (folder / "custom.py").write_text(
        f"from pathlib import Path\nPath({str(ran)!r}).touch()\n"
        "from transformers import LlamaConfig as Config, LlamaForCausalLM as Model\n"
        "class Own(Config):\n    model_type = 'own'\nclass OwnModel(Model):\n    config_class = Own\n"
    )
    mapped = {"AutoConfig": "custom.Own", "AutoModelForCausalLM": "custom.OwnModel"}
    edited(folder, auto_map=mapped)
    assert load_model(folder)  # of a family that transformers knows: its own code, not the folder's
    edited(folder, model_type="own")
    with pytest.raises(InputError, match=r"(?s)cannot be loaded: .*trust_remote_code"):
        load_model(folder)
    assert not ran.exists()
    load_model(folder, trust_remote_code=True)
    assert ran.exists()


def test_a_models_pickle_from_the_hub_is_refused_unless_it_is_trusted() -> None:
    with pytest.raises(InputError, match="NeelNanda/GELU_1L512W_C4_Code is published as a pickle, which can run code"):
        load_model("gelu-1l")


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refused(socket.socket):
        def __init__(self, *args: Any, **kwargs: Any):
            raise OSError("a socket was opened")

    monkeypatch.setattr(socket, "socket", Refused)
    monkeypatch.setattr(socket, "create_connection", Refused)
    monkeypatch.setattr(socket, "getaddrinfo", Refused)


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("kind", ["llama", "gpt2", "gemma2"])
def test_a_folder_needs_no_network(kind: str, tmp_path: Path) -> None:
    assert load_model(checkpoint(tmp_path / "toy", kind))


@pytest.mark.usefixtures("no_network")
def test_a_hub_model_without_network_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # or it would try for half a minute
    with pytest.raises(InputError, match="model EleutherAI/pythia-14m cannot be loaded: it is not in the local cache"):
        load_model("pythia-14m")


@pytest.mark.parametrize("name", ["folder", "pythia-14m", "gelu-1l"])
def test_transformer_lens_and_transformers_are_left_as_they_were(
    name: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loaded from a folder, through transformers from the hub, and by transformer-lens alone."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    in_hub_cache(tmp_path / "hub", "EleutherAI/pythia-14m", checkpoint(tmp_path / "pythia", "pythia"))

    def state() -> tuple[Any, ...]:
        return (
            tuple(OFFICIAL_MODEL_NAMES),
            loading_from_pretrained.NEED_REMOTE_CODE_MODELS,
            loading_from_pretrained.AutoConfig,
            loading_from_pretrained.convert_hf_model_config,
            logging.is_progress_bar_enabled(),
            Path.cwd(),
        )

    before = state()
    if name != "gelu-1l":
        load_model(folder if name == "folder" else name)
        assert state() == before

    def fail(*_: Any, **__: Any) -> None:
        assert state() != before  # while it loads they are not
        raise ValueError("on purpose")

    monkeypatch.setattr(loading_from_pretrained, "get_pretrained_state_dict", fail)
    monkeypatch.setattr(loading_from_pretrained, "get_pretrained_model_config", fail)
    with pytest.raises(InputError, match="cannot be loaded: on purpose"):
        load_model(folder if name == "folder" else name, trust_remote_code=name == "gelu-1l")
    assert state() == before


def test_no_name_of_the_hub_turns_remote_code_on_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """transformer-lens does for some names, phi-2 among them."""
    asked: list[bool] = []

    def record(name: str, **options: Any) -> None:
        asked.append(options["trust_remote_code"])
        raise ValueError("enough")

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", record)
    for trusted in (False, True):
        with pytest.raises(InputError, match="enough"):
            load_model("microsoft/phi-2", trust_remote_code=trusted)
    assert asked == [False, True]


# What cannot be loaded says why


def test_unknown_names_are_refused_with_names_near_them() -> None:
    with pytest.raises(InputError, match=r"model 'gpt2-smal' is not a known model; similar names: (?:\S+, )*gpt2\b"):
        load_model("gpt2-smal")
    with pytest.raises(
        InputError, match=r"model 'EleutherAI/pythia-70' is no such folder, and no known model; .*pythia-70m"
    ):
        load_model("EleutherAI/pythia-70")
    with pytest.raises(InputError, match=r"model './gpt2' is no such folder"):
        load_model("./gpt2")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "config.json").unlink(), "is not a model folder: it has no config.json"),
        (lambda f: (f / "config.json").write_text("{"), "config.json is damaged: Expecting property name"),
        (lambda f: edited(f, architectures=None), "names no 'architectures', so it does not say"),
        (lambda f: [t.unlink() for t in f.glob("tokenizer*")], "has no tokenizer: save it with tokenizer.save_pretr"),
        (lambda f: (f / "model.safetensors").write_bytes(b"x" * 100), "cannot be loaded: "),
        (lambda f: edited(f, intermediate_size=20), "cannot be loaded: |lacks weights"),
        (lambda f: edited(f, num_hidden_layers=3), r"lacks weights that its config.json asks for: model\.layers\.2"),
        (lambda f: edited(f, num_hidden_layers=1), r"weights of more than the 1 layers of its config.json: \S*\.1\."),
        (lambda f: edited(f, architectures=["T5Model"]), "cannot be loaded: |is not currently supported"),
    ],
)  # fmt: skip
def test_a_damaged_folder_is_refused(folder: Path, damage: Callable[[Path], Any], message: str) -> None:
    damage(folder)
    with pytest.raises(InputError, match=message):
        load_model(folder)


def test_a_cut_off_download_is_refused(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-200])
    with pytest.raises(InputError, match=f"model {folder} cannot be loaded: "):
        load_model(folder)


def test_nan_in_a_models_weights_is_refused_by_the_parameters_name(folder: Path) -> None:
    file = folder / "model.safetensors"
    weights = load_file(file)
    weights["model.layers.1.mlp.down_proj.weight"][2, 3] = torch.nan
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"model 'toy' has NaN or infinite weights in blocks\.1\.mlp\.W_out: its file"):
        load_model(folder)


def test_a_model_made_elsewhere_is_prepared_the_same_way(folder: Path) -> None:
    model = load_model(folder).train().requires_grad_(True)
    assert prepare(model) is model
    assert not model.training
    assert not any(p.requires_grad for p in model.parameters())
    model.blocks[0].attn.W_Q.data[0, 0, 0] = torch.inf
    with pytest.raises(InputError, match=r"NaN or infinite weights in blocks\.0\.attn\.W_Q"):
        prepare(model)


# Names


def test_aliases_and_organisations_name_the_same_model() -> None:
    assert same_model("gpt2", "gpt2-small")
    assert same_model("google/gemma-2-2b", "gemma-2-2b")
    assert same_model("Llama-3.1-8B", "meta-llama/Llama-3.1-8B")
    assert same_model("anybody/stories260K", "stories260k")
    assert not same_model("gpt2", "gpt2-medium")
    assert not same_model("gemma-2-2b", "gemma-2-2b-it")


def test_known_models_are_presets_and_transformer_lens_own() -> None:
    found = dict(known_models())
    assert set(found) == set(OFFICIAL_MODEL_NAMES) | set(presets())
    assert "gpt2-small" in found["gpt2"]


@pytest.mark.assets
def test_stories_logits_are_transformers(stories: Any, assets: Path, tmp_path: Path) -> None:
    theirs = AutoModelForCausalLM.from_pretrained(assets / "models" / "stories260K").eval()
    tokens = stories.to_tokens("Once upon a time there was a little girl")
    with torch.no_grad():
        assert torch.allclose(stories(tokens), theirs(tokens).logits, atol=1e-4)
    elsewhere = shutil.copytree(assets / "models" / "stories260K", tmp_path / "gemma-bert")
    assert torch.equal(load_model(elsewhere)(tokens), stories(tokens))
    assert nvs.bases.mlp_neurons(stories).dictionaries[0].width == 172


@pytest.mark.parametrize("backend", ["hooked", "bridge"])
def test_a_gpt2_of_any_mlp_width_is_loaded(backend: Any, tokenizer: Any, tmp_path: Path) -> None:
    """transformer-lens' own reading takes four times the model's width."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(vocab_size=len(tokenizer), n_embd=16, n_layer=1, n_head=2, n_positions=32, n_inner=24)
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "narrow")
    tokenizer.save_pretrained(tmp_path / "narrow")
    model = load_model(tmp_path / "narrow", backend=backend)  # which compares its numbers with transformers'
    assert nvs.bases.mlp_neurons(model).dictionaries[0].width == 24
