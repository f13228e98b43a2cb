"""Presets: each name, site and width is that of sae-lens' registry and of the model, without a network."""

import re
import socket
from pathlib import Path
from typing import Any

import pytest
import toys
from huggingface_hub.errors import EntryNotFoundError
from sae_lens.loading import pretrained_sae_loaders as loaders
from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory
from transformer_lens import loading_from_pretrained
from transformers import GPT2Config

import neuron_vs_sae as nvs
from neuron_vs_sae import default
from neuron_vs_sae.catalog.dictionaries.sources import candidates, ids, known_releases
from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.core.lookup import bound
from neuron_vs_sae.models import presets
from neuron_vs_sae.models.names import known_models
from neuron_vs_sae.models.presets import same_model
from neuron_vs_sae.studies.study import Study

PRESETS = {name: preset for name, preset in presets.presets().items() if name not in default.NAMES}
every_preset = pytest.mark.parametrize("name", PRESETS)

# Layers, width of the residual stream, heads times their size: of each model's own configuration on the hub.
SHAPES = {
    "gpt2-small": (12, 768, 768),
    "pythia-70m-deduped": (6, 512, 512),
    "gemma-2-2b": (26, 2304, 2048),
    "gemma-2-9b": (42, 3584, 4096),
    "gemma-3-270m": (18, 640, 1024),
    "gemma-3-270m-it": (18, 640, 1024),
    "gemma-3-1b": (26, 1152, 1024),
    "gemma-3-1b-it": (26, 1152, 1024),
    "gemma-3-4b": (34, 2560, 2048),
    "gemma-3-4b-it": (34, 2560, 2048),
    "llama-3.1-8b": (32, 4096, 4096),
    "llama-3.1-8b-instruct": (32, 4096, 4096),
    "qwen3-0.6b": (28, 1024, 2048),
    "qwen3-1.7b": (28, 2048, 2048),
    "qwen3-4b": (36, 2560, 4096),
    "qwen3-8b": (36, 4096, 4096),
    "qwen3-14b": (40, 5120, 5120),
    "qwen3-1.7b-base": (28, 2048, 2048),
    "qwen3-8b-base": (36, 4096, 4096),
    "qwen3-30b-a3b-base": (48, 2048, 4096),
    "qwen3.5-2b-base": (24, 2048, None),  # what its heads write is no site of its SAEs
    "qwen3.5-9b-base": (32, 4096, None),
    "qwen3.5-27b": (64, 5120, None),
    "qwen3.5-35b-a3b-base": (40, 2048, None),
}
# Sites that a release does not cover at every layer.
PARTIAL = {"llama-3.1-8b-instruct-andyrdt": 7}


LEFT_OUT: dict[str, str] = {}


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refused(socket.socket):
        def __init__(self, *args: Any, **kwargs: Any):
            raise OSError("a socket was opened")

    monkeypatch.setattr(socket, "socket", Refused)
    monkeypatch.setattr(socket, "getaddrinfo", Refused)


def sources() -> list[Any]:
    """(preset, saes or transcoders, kind of site, source) of all presets."""
    return [
        pytest.param(name, what, site, source, id=f"{name}-{what}-{site}-{source}")
        for name, preset in PRESETS.items()
        for what in ("saes", "transcoders")
        for site, several in getattr(preset, what).items()
        for source in several
    ]


def chosen(source: str) -> list[str]:
    """The ids that a source takes; `*` stands for anything."""
    release, _, pattern = source.partition("/")
    wanted = re.compile(re.escape(pattern).replace(r"\*", ".*") if pattern else ".*")
    return [one for one in ids(release) if wanted.fullmatch(one)]


def layer(text: str) -> int:
    """The first number: ids and paths of every release begin with their layer's."""
    return int(re.search(r"(?:layer_?|blocks\.|^[lL])(\d+)", text)[1])  # pyright: ignore[reportOptionalSubscript]


@pytest.mark.parametrize(("name", "what", "site", "source"), sources())
def test_a_source_is_of_that_model_and_has_one_sae_per_layer(name: str, what: str, site: str, source: str) -> None:
    preset = PRESETS[name]
    release = get_pretrained_saes_directory()[source.split("/")[0]]
    assert preset.any_model or same_model(release.model, preset.model)
    found = chosen(source)
    at_site = [one for one in found if hook_of(source, one).endswith(f".{site}")]
    layers = [layer(hook_of(source, one)) for one in at_site]
    n_layers = SHAPES[name][0]
    assert len(set(layers)) == len(layers) == PARTIAL.get(source, n_layers)
    assert max(layers) < n_layers


def written(cfg: dict[str, Any]) -> str:
    return cfg["metadata"].get("hook_name_out") or cfg["metadata"]["hook_name"]


def hook_of(source: str, one: str) -> str:
    """The hook that an SAE writes, from sae-lens' own loaders where these need no file, or else from what is registered."""
    release = get_pretrained_saes_directory()[source.split("/")[0]]
    path, known = release.saes_map[one], release.conversion_func
    if known in ("gemma_2", "gemma_2_transcoder", "qwen_scope"):
        return written(loaders.load_sae_config_from_huggingface(release.release, one))
    kinds = {
        "gemma_3": {"mlp_out": "hook_mlp_out", "attn_out": "attn.hook_z", "resid_post": "hook_resid_post", "transcoder": "hook_mlp_out"},
        "llama_scope": {"M-": "hook_mlp_out", "A-": "hook_attn_out", "R-": "hook_resid_post"},
        "mwhanna_transcoder": {"layer_": "hook_mlp_out"},
        "dictionary_learning_1": {"resid_post": "hook_resid_post"},
        "connor_rob_hook_z": {"_z_": "attn.hook_z"},
    }  # fmt: skip
    if known is None:
        return one
    (kind,) = {hook for part, hook in kinds[known].items() if part in path}
    number = re.search(r"_L(\d+)_|[-_]L(\d+)[MAR]-|layer_(\d+)", path)
    assert number is not None
    return f"blocks.{next(part for part in number.groups() if part)}.{kind}"


@pytest.mark.parametrize(("name", "what", "site", "source"), sources())
def test_the_widths_that_the_registry_knows_are_those_of_the_model(
    name: str, what: str, site: str, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    preset, (_, d_model, d_heads) = PRESETS[name], SHAPES[name]
    release = get_pretrained_saes_directory()[source.split("/")[0]]
    expected = d_heads if site == "attn.hook_z" else d_model
    if release.conversion_func in ("gemma_2", "gemma_2_transcoder", "qwen_scope"):
        cfg = candidates(source)[0].cfg
        assert cfg.d_in == expected
        assert (cfg.metadata.hook_name_out or cfg.metadata.hook_name) == hook_of(source, chosen(source)[0])
        width = re.search(r"width_(\d+)k|w(\d+)k", source)
        assert width is None or int(width[1] or width[2]) in (cfg.d_sae // 1000, cfg.d_sae // 1024)
    elif release.conversion_func == "gemma_3":
        # What it makes of a repository without configurations, but for the shapes, which are in the weights.
        monkeypatch.setattr(loaders, "hf_hub_download", _no_entry)
        shapes = {"w_enc": [expected, 16384], "w_dec": [16384, expected]}
        monkeypatch.setattr(loaders, "get_safetensors_tensor_shapes", lambda *_: shapes)
        cfg = candidates(source)[0].cfg
        assert same_model(cfg.metadata.model_name, preset.model)
        assert (cfg.metadata.hook_name_out or cfg.metadata.hook_name) == hook_of(source, chosen(source)[0])
    else:
        pytest.skip("sae-lens' registry holds no width of this release: it stands in the SAE's own file on the hub")


def _no_entry(*_: Any, **__: Any) -> str:
    raise EntryNotFoundError("no such file")


@every_preset
def test_the_models_shape_is_its_configuration_classs(name: str) -> None:
    """transformer-lens has some models' shapes by name; for GPT-2 transformers' defaults are the model's."""
    preset, (n_layers, d_model, d_heads) = PRESETS[name], SHAPES[name]
    if name == "gpt2-small":
        config = GPT2Config()
        assert (config.n_layer, config.n_embd) == (n_layers, d_model)
    elif name.startswith(("gemma", "llama")):
        config = loading_from_pretrained.convert_hf_model_config(preset.model)
        assert (config["n_layers"], config["d_model"]) == (n_layers, d_model)
        assert config["n_heads"] * config["d_head"] == d_heads
    elif preset.backend == "hooked":
        assert preset.model in loading_from_pretrained.OFFICIAL_MODEL_NAMES


@every_preset
def test_a_preset_decides_what_the_study_leaves_open(name: str) -> None:
    preset = PRESETS[name]
    study = Study(model=name, task=("a.jsonl",), basis=("sae",))
    assert (study.dtype, study.prepend_bos, study.backend) == (preset.dtype, preset.prepend_bos, preset.backend)
    other = Study(model=name, task=("a.jsonl",), basis=("sae",), dtype="float64")
    assert other.dtype == "float64"
    assert preset.paper
    assert 0.5 < (preset.memory_gib or 0) < 300


@every_preset
def test_a_model_under_any_of_its_names_has_its_presets_saes(name: str) -> None:
    preset = PRESETS[name]
    for model in (name, preset.model, preset.model.split("/")[-1]):
        assert presets.preset_of(model) is preset
    if preset.saes:
        source, site, others = presets.source_for(preset.model, "saes", None)
        assert source == preset.saes[site][0]
        assert site == ("hook_mlp_out" if "hook_mlp_out" in preset.saes else "hook_resid_post")
        assert others == name.endswith("-instruct")
        with pytest.raises(InputError, match="has no saes at hook_q; it has: hook_"):
            presets.source_for(preset.model, "saes", "hook_q")


@pytest.mark.parametrize(
    "name", ["gemma-2-2b", "google/Gemma-2-2b", "GEMMA-2-2B", "gemma-3-1b-pt", "Llama-3.1-8B", "Qwen3-8B"]
)
def test_a_preset_decides_under_any_spelling(name: str) -> None:
    study, preset = Study(model=name, task=("a.jsonl",), basis=("sae",)), presets.preset_of(name)
    assert preset is not None
    assert (study.dtype, study.prepend_bos, study.backend) == (preset.dtype, preset.prepend_bos, preset.backend)
    assert study.dtype == "bfloat16"


def test_every_release_of_the_models_that_are_preset_is_in_a_preset_or_left_out_for_a_reason() -> None:
    """So that a release which sae-lens adds is looked at."""
    used = {source.split("/")[0] for _, _, _, source in (one.values for one in sources())}
    families = re.compile(r"(?i)qwen-?scope|qwen3.*transcoder")
    for release in get_pretrained_saes_directory():
        if families.search(release):
            assert release in used or release in LEFT_OUT, release


def test_a_model_without_a_preset_needs_a_source(llama: Any) -> None:
    with pytest.raises(InputError, match="there is no preset with saes of model 'toy-llama': say which"):
        bound("bases", "sae")(llama)
    with pytest.raises(InputError, match="there is no preset with transcoders of model 'toy-llama'"):
        nvs.bases.transcoder(llama)


def test_a_presets_saes_are_its_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    model = toys.model("llama")
    for site in ("hook_mlp_out", "hook_resid_post"):
        for number, one in enumerate(toys.saes(site)):
            one.save_model(tmp_path / f"{site}-{number}")
    saes = {site: (str(tmp_path),) for site in ("hook_mlp_out", "hook_resid_post")}
    mine = presets.Preset(model="toys/toy-llama", saes=saes)
    monkeypatch.setattr(presets, "presets", lambda: {"toy": mine})
    assert nvs.bases.sae(model).kind == "hook_mlp_out"
    assert bound("bases", "sae@hook_resid_post,layers=1")(model).hooks == ("blocks.1.hook_resid_post",)


def test_models_that_are_preset_are_listed_first_with_what_there_is() -> None:
    listed = known_models()
    assert [name for name, _ in listed[: len(PRESETS) + 2]] == [*default.NAMES, *PRESETS]
    text = dict(listed)["gemma-2-2b"]
    assert "google/gemma-2-2b, bfloat16, BOS, about 13.3 GiB" in text
    assert "arXiv 2408.00118" in text
    assert "bfloat16, no BOS, bridge" in dict(listed)["qwen3-30b-a3b-base"]
    assert "transcoders at hook_mlp_out" in text


def test_saes_that_fit_a_model_are_listed_with_what_its_preset_takes() -> None:
    listed = known_releases("gemma-2-2b")
    assert dict(listed)["gemma-scope-2b-pt-transcoders"].endswith("; preset gemma-scope-2b-pt-transcoders@hook_mlp_out")
    assert ["preset" in text for _, text in listed] == sorted(["preset" in text for _, text in listed], reverse=True)
    assert dict(known_releases("google/gemma-2-2b")) == dict(listed)
    assert "llama_scope_lxm_8x" in dict(known_releases("llama-3.1-8b-instruct"))  # its base model's
    assert not known_releases("a model that nobody knows")
