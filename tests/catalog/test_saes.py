"""SAEs and transcoders of sae-lens as bases: exact, at the site that their configuration names, or refused."""

import copy
import inspect
import itertools
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
import toys
from sae_lens import SAE, StandardSAE, TrainingSAE
from sae_lens.loading import pretrained_sae_loaders, pretrained_saes_directory
from sae_lens.loading.pretrained_saes_directory import PretrainedSAELookup
from tables import BASES, BasisCase, identity_sae
from transformer_lens.components import LayerNormPre

import neuron_vs_sae as nvs
from neuron_vs_sae.catalog.dictionaries.diagnosis import explained_variance
from neuron_vs_sae.catalog.dictionaries.sources import known_releases
from neuron_vs_sae.core.dictionary import Affine, split
from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.core.lookup import bound
from neuron_vs_sae.execution.splice import read

HOOK = "blocks.0.hook_mlp_out"

ARCHITECTURES: dict[str, dict[str, Any]] = {
    "standard": {},
    "standard, b_dec not subtracted": {"apply_b_dec_to_input": False},
    "jumprelu": {},
    "topk": {"k": 3},
    "topk, rescaled": {"k": 3, "rescale_acts_by_decoder_norm": True},
    "abstopk": {"k": 3},
    "abstopk, rescaled": {"k": 3, "rescale_acts_by_decoder_norm": True},
    "gated": {},
    "matching_pursuit": {"max_iterations": 4},
    "matching_pursuit, no b_dec": {"max_iterations": 4, "apply_b_dec_to_input": False},
}
NORMALISATIONS = ("none", "layer_norm", "constant_norm_rescale")
TRANSCODERS = ("transcoder", "skip_transcoder", "jumprelu_transcoder", "jumprelu_skip_transcoder")

every_kind = pytest.mark.parametrize(
    ("architecture", "normalisation"), list(itertools.product(ARCHITECTURES, NORMALISATIONS))
)


def make(architecture: str, normalisation: str = "none", **more: Any) -> SAE:
    made = toys.sae(
        HOOK,
        architecture=architecture.split(",")[0],
        normalize_activations=normalisation,
        **ARCHITECTURES[architecture],
        **more,
    )
    if architecture.startswith("matching_pursuit"):  # its encoder takes directions to have length 1
        made.W_dec.data /= made.W_dec.data.norm(dim=-1, keepdim=True)
    return made


def activations(d: int = toys.D_MODEL, scale: float = 1.0) -> torch.Tensor:
    """Vectors whose sizes and means differ from token to token."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, 6, d, generator=generator, dtype=torch.float64)
    return scale * (torch.arange(1.0, 7.0)[:, None] * x + torch.arange(6.0)[:, None]).double()


def only(model: Any, sae: SAE, **options: Any) -> Affine:
    (found,) = nvs.bases.sae(model, source=[sae], **options).dictionaries
    assert isinstance(found, Affine)
    return found


def close(a: torch.Tensor, b: torch.Tensor) -> bool:
    return torch.allclose(a, b, rtol=1e-12, atol=1e-12)  # float64 rounding of sums of ten terms


def save(sae: SAE, folder: Path, **changes: Any) -> Path:
    """Saved as sae-lens saves it, then with its cfg.json changed: `metadata__hook_name=...` reaches into the metadata."""
    sae.save_model(folder)
    cfg = json.loads((folder / "cfg.json").read_text())
    for key, value in changes.items():
        *path, last = key.split("__")
        inner = cfg[path[0]] if path else cfg
        inner[last] = value
    (folder / "cfg.json").write_text(json.dumps(cfg))
    return folder


# What is written


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
    assert torch.allclose(curve.circuit[-1], curve.whole, atol=2**-6 * float(curve.whole.abs().max()))


# Where it is written


SITES = ("hook_resid_pre", "attn.hook_z", "hook_attn_out", "hook_resid_mid", "hook_mlp_out", "hook_resid_post")


def test_sites_of_several_kinds_are_in_the_order_in_which_the_model_runs(llama: Any) -> None:
    saes = [toys.sae(f"blocks.{layer}.{site}") for layer in (1, 0) for site in sorted(SITES)]
    saes += [toys.sae("ln_final.hook_normalized"), toys.sae("hook_embed")]
    basis = nvs.bases.sae(llama, source=saes)
    expected = [f"blocks.{layer}.{site}" for layer in (0, 1) for site in SITES]
    assert [site.name for site in basis.sites] == ["hook_embed", *expected, "ln_final.hook_normalized"]


@pytest.mark.parametrize("site", SITES)
def test_the_site_is_the_configurations_whatever_the_folder_is_called(llama: Any, site: str, tmp_path: Path) -> None:
    save(toys.sae(f"blocks.1.{site}"), tmp_path / "blocks.0.hook_mlp_in")
    (found,) = nvs.bases.sae(llama, source=tmp_path).sites
    assert (found.reads, found.writes, found.layer, found.kind) == (f"blocks.1.{site}", f"blocks.1.{site}", 1, site)


def test_hook_z_is_encoded_with_its_heads_flattened(model: Any) -> None:
    pairs, hook = toys.pairs(), "blocks.1.attn.hook_z"
    theirs = toys.sae(hook, reshape_activations="hook_z")
    basis = nvs.bases.sae(model, source=[theirs])
    z = read(model, pairs.clean, pairs.length, [hook])
    units = theirs.encode(z[hook]).detach()
    features = basis.features(z)
    assert close(features.units[0], units)
    assert close(z[hook].flatten(2) - features.errors[0], theirs.decode(units).detach().flatten(2))


def test_an_sae_of_one_head_sees_and_writes_that_head_only(model: Any) -> None:
    pairs, hook = toys.pairs(), "blocks.0.attn.hook_z"
    heads = [toys.sae(hook, d=4, width=6, seed=h, metadata={"hook_head_index": h}) for h in (1, 0)]
    basis = nvs.bases.sae(model, source=heads)
    assert [site.name for site in basis.sites] == [f"{hook}.0", f"{hook}.1"]
    z = read(model, pairs.clean, pairs.length, [hook])
    features = basis.features(z)
    for head, theirs in ((0, heads[1]), (1, heads[0])):
        assert close(features.units[head], theirs.encode(z[hook][:, :, head]).detach())
        put = basis.sites[head].put(z[hook], torch.zeros(*pairs.clean.shape, 4).double())
        assert torch.equal(put[:, :, 1 - head], z[hook][:, :, 1 - head])
        assert not put[:, :, head].any()


def test_two_saes_at_one_site_of_a_folder_are_refused(llama: Any, tmp_path: Path) -> None:
    for name in ("narrow", "wide"):
        save(make("standard"), tmp_path / name)
    with pytest.raises(InputError, match=rf"more than one dictionary at {HOOK}: name one SAE per site"):
        nvs.bases.sae(llama, source=tmp_path)
    assert len(nvs.bases.sae(llama, source=tmp_path / "wide").sites) == 1


def test_a_site_and_layers_choose_among_what_a_folder_holds(llama: Any, tmp_path: Path) -> None:
    for site in ("hook_mlp_out", "hook_attn_out"):
        for layer, one in enumerate(toys.saes(site)):
            save(one, tmp_path / f"{site}-{layer}")

    def names(text: str) -> list[str]:
        return [site.name for site in bound("bases", text)(llama).sites]

    assert len(names(f"sae:{tmp_path}")) == 4
    assert names(f"sae:{tmp_path}@hook_mlp_out") == ["blocks.0.hook_mlp_out", "blocks.1.hook_mlp_out"]
    assert names(f"sae:{tmp_path}@hook_attn_out,layers=1") == ["blocks.1.hook_attn_out"]
    with pytest.raises(InputError, match="no autoencoders at hook_resid_post among the 4 there; kinds of site: hook_a"):
        names(f"sae:{tmp_path}@hook_resid_post")
    with pytest.raises(InputError, match="layers='5': the model has layers 0-1"):
        names(f"sae:{tmp_path},layers=5")


def test_an_sae_saved_on_a_gpu_loads_where_there_is_none(llama: Any, tmp_path: Path) -> None:
    assert nvs.bases.sae(llama, source=save(make("standard"), tmp_path, device="cuda:3")).hooks == (HOOK,)


def test_one_sae_needs_no_list(llama: Any) -> None:
    assert nvs.bases.sae(llama, source=make("standard")).hooks == (HOOK,)


# The registry


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> dict[str, SAE]:
    """A registry of one release of two SAEs, which are made here instead of downloaded."""
    saes = {f"layer_{layer}/width_10": one for layer, one in enumerate(toys.saes(model_name="toy-llama"))}
    release = PretrainedSAELookup(
        release="toy-llama-mlp", repo_id="toys/saes", model="toy-llama", conversion_func=None,
        saes_map={name: name for name in saes}, expected_var_explained={}, expected_l0={}, neuronpedia_id={},
        norm_scaling_factor={}, config_overrides=None,
    )  # fmt: skip
    monkeypatch.setattr(pretrained_saes_directory, "get_pretrained_saes_directory", lambda: {"toy-llama-mlp": release})
    described = {name: one.cfg.to_dict() for name, one in saes.items()}
    monkeypatch.setattr(pretrained_sae_loaders, "load_sae_config_from_huggingface", lambda _, sae_id: described[sae_id])
    monkeypatch.setattr(SAE, "from_pretrained", staticmethod(lambda release, sae_id: saes[sae_id]))
    return saes


def test_a_release_gives_all_its_saes_and_an_id_gives_one(llama: Any, registry: dict[str, SAE]) -> None:
    whole = nvs.bases.sae(llama, source="toy-llama-mlp")
    assert whole.hooks == ("blocks.0.hook_mlp_out", "blocks.1.hook_mlp_out")
    assert [where["id"] for where in whole.provenance["saes"]] == list(registry)
    one = bound("bases", "sae:toy-llama-mlp/layer_1/width_10@hook_mlp_out")(llama)
    assert one.hooks == ("blocks.1.hook_mlp_out",)
    assert one.provenance["saes"][0]["release"] == "toy-llama-mlp"


def test_an_id_with_a_star_is_every_id_that_fits(llama: Any, registry: dict[str, SAE]) -> None:
    assert len(nvs.bases.sae(llama, source="toy-llama-mlp/layer_*/width_10").sites) == len(registry)
    assert nvs.bases.sae(llama, source="toy-llama-mlp/*_1/*").hooks == ("blocks.1.hook_mlp_out",)
    with pytest.raises(InputError, match=r"has no SAE 'layer_\*/width_20'; it has layer_0/width_10, layer_1/width_10$"):
        nvs.bases.sae(llama, source="toy-llama-mlp/layer_*/width_20")


def test_only_the_weights_that_a_site_and_layers_ask_for_are_read(
    llama: Any, registry: dict[str, SAE], monkeypatch: pytest.MonkeyPatch
) -> None:
    read_ids: list[str] = []

    def load(release: str, sae_id: str) -> SAE:
        read_ids.append(sae_id)
        return registry[sae_id]

    monkeypatch.setattr(SAE, "from_pretrained", staticmethod(load))
    shelf = nvs.Shelf()
    one = nvs.bases.sae(llama, "toy-llama-mlp", select=nvs.Selection(site="hook_mlp_out", layers="1"), shelf=shelf)
    assert read_ids == ["layer_1/width_10"]
    with pytest.raises(InputError, match="no autoencoders at hook_attn_out among the 2 SAEs of the source"):
        nvs.bases.sae(llama, source="toy-llama-mlp", select=nvs.Selection(site="hook_attn_out"))
    both = nvs.bases.sae(llama, source="toy-llama-mlp", shelf=shelf)
    assert read_ids == ["layer_1/width_10", "layer_0/width_10"]  # the other is in use
    assert both.dictionaries[1] is one.dictionaries[0]
    assert both.provenance["saes"][1] == one.provenance["saes"][0]


def test_an_sae_of_a_folder_is_loaded_once_while_it_is_in_use_and_again_when_its_file_has_changed(
    llama: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[Path] = []
    load = SAE.load_from_disk
    monkeypatch.setattr(SAE, "load_from_disk", lambda folder: loaded.append(folder) or load(folder))
    folder = save(make("standard"), tmp_path / "sae")
    given = {"prompts": toys.pairs(), "shelf": nvs.Shelf()}
    bases = [bound("bases", text, **given)(llama) for text in (f"sae:{folder}", f"random_sae:{tmp_path}")]
    assert loaded == [folder]
    save(make("standard", seed=1), folder)
    again = nvs.bases.sae(llama, source=folder, shelf=given["shelf"])
    assert loaded == [folder, folder]
    assert again.provenance["saes"][0]["sha256"] != bases[0].provenance["saes"][0]["sha256"]


def test_sources_are_listed_with_a_plus_or_in_a_list(llama: Any, tmp_path: Path) -> None:
    for site in ("hook_mlp_out", "hook_attn_out"):
        save(toys.sae(f"blocks.0.{site}"), tmp_path / site)
    mlp, attention = tmp_path / "hook_mlp_out", tmp_path / "hook_attn_out" / "sae_weights.safetensors"
    expected = ("blocks.0.hook_attn_out", "blocks.0.hook_mlp_out")
    assert bound("bases", f"sae:{mlp}+{attention}")(llama).hooks == expected
    assert nvs.bases.sae(llama, source=[mlp, str(attention)]).hooks == expected
    assert nvs.bases.sae(llama, source=[toys.sae("blocks.0.hook_attn_out"), mlp]).hooks == expected
    with pytest.raises(
        InputError, match=rf"more than one dictionary at {HOOK}: name one SAE per site .*there are hook_"
    ):
        nvs.bases.sae(llama, source=[mlp, mlp])


@pytest.mark.usefixtures("registry")
def test_an_id_that_a_release_does_not_have_is_refused_with_those_it_has(llama: Any) -> None:
    with pytest.raises(InputError, match=r"has no SAE 'layer_7'; it has layer_0/width_10, layer_1/width_10$"):
        nvs.bases.sae(llama, source="toy-llama-mlp/layer_7")


def test_an_unknown_release_is_refused_with_the_nearest_of_the_real_registry(llama: Any) -> None:
    with pytest.raises(InputError, match=r"neither a folder nor a release.*nearest releases: .*gpt2-small-mlp-tm"):
        nvs.bases.sae(llama, source="gpt2-small-mlp-tn")


def test_known_releases_are_those_of_a_model_under_any_of_its_names() -> None:
    of_gpt2 = {name for name, _ in known_releases("gpt2")}
    assert {"gpt2-small-mlp-tm", "gpt2-small-res-jb"} <= of_gpt2
    assert of_gpt2 == {name for name, _ in known_releases("gpt2-small")}
    assert of_gpt2 < {name for name, _ in known_releases()}


# Transcoders


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
    assert close(curve.circuit[-1], curve.whole)
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
        with pytest.raises(InputError, match=r"no metadata\.hook_name_out|the basis is 'transcoder'"):
            basis(llama, source=[theirs])


# Refusals


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


class _Touch:
    """Unpickling it leaves a file behind."""

    def __init__(self, file: Path):
        self.file = file

    def __reduce__(self) -> Any:
        return Path.touch, (self.file,)


def test_damaged_files_are_refused_and_never_unpickled(llama: Any, tmp_path: Path) -> None:
    weights = save(make("standard"), tmp_path / "sae") / "sae_weights.safetensors"
    whole, ran = weights.read_bytes(), tmp_path / "ran"
    for content in (whole[: len(whole) // 2], b"", pickle.dumps(_Touch(ran))):
        weights.write_bytes(content)
        with pytest.raises(
            InputError, match=f"the SAE in {weights.parent} cannot be loaded by sae-lens: SafetensorError"
        ):
            nvs.bases.sae(llama, source=tmp_path)
    assert not ran.exists()
    pickle.loads(pickle.dumps(_Touch(ran)))
    assert ran.exists()  # it would have


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"d_sae": 11}, "RuntimeError: .*size mismatch"),
        ({"architecture": "squared"}, "KeyError: 'squared'"),
        ({"normalize_activations": "sometimes"}, "ValueError: normalize_activations must be none"),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused(
    llama: Any, changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=f"(?s)cannot be loaded by sae-lens: {message}"):
        nvs.bases.sae(llama, source=save(make("standard"), tmp_path, **changes))


def test_a_configuration_that_is_no_json_is_refused(llama: Any, tmp_path: Path) -> None:
    save(make("standard"), tmp_path)
    (tmp_path / "cfg.json").write_text("{")
    with pytest.raises(InputError, match="cannot be loaded by sae-lens: JSONDecodeError"):
        nvs.bases.sae(llama, source=tmp_path)


def test_a_configuration_without_a_hook_is_refused(llama: Any, tmp_path: Path) -> None:
    save(make("standard"), tmp_path / "nameless", metadata__hook_name=None)
    with pytest.raises(InputError, match=r"SAE nameless has no metadata\.hook_name, so its site is unknown"):
        nvs.bases.sae(llama, source=tmp_path)


def test_a_folder_without_an_sae_is_refused(llama: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"no SAE in {tmp_path}: a sae-lens folder holds cfg.json"):
        nvs.bases.sae(llama, source=tmp_path)
    (save(make("standard"), tmp_path / "one") / "sae_weights.safetensors").rename(tmp_path / "one" / "sae_weights.pt")
    with pytest.raises(InputError, match=f"no SAE in {tmp_path}"):
        nvs.bases.sae(llama, source=tmp_path)


# The trained SAEs of stories260K


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
            explained_variance(site.view(values[site.writes]), error, pairs),
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
