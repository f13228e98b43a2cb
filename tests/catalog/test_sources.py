"""Where SAEs come from: objects, folders and releases, the sites that their configurations name, files that are damaged."""

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
import toys
from sae_lens import SAE
from sae_lens.loading import pretrained_sae_loaders, pretrained_saes_directory
from sae_lens.loading.pretrained_saes_directory import PretrainedSAELookup
from saes import HOOK, close, make, save

import neuron_vs_sae as nvs
from neuron_vs_sae.catalog.dictionaries.sources import known_releases
from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.core.lookup import bound
from neuron_vs_sae.execution.splice import read

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
    with pytest.raises(
        InputError, match="no autoencoders at hook_resid_post among the 4 SAEs of the source; kinds of site: hook_a"
    ):
        names(f"sae:{tmp_path}@hook_resid_post")
    with pytest.raises(InputError, match="layers='5': the model has layers 0-1"):
        names(f"sae:{tmp_path},layers=5")


def test_an_sae_saved_on_a_gpu_loads_where_there_is_none(llama: Any, tmp_path: Path) -> None:
    assert nvs.bases.sae(llama, source=save(make("standard"), tmp_path, device="cuda:3")).hooks == (HOOK,)


def test_one_sae_needs_no_list(llama: Any) -> None:
    assert nvs.bases.sae(llama, source=make("standard")).hooks == (HOOK,)


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


def test_a_file_that_is_none_of_an_saes_is_refused_and_its_neighbour_not_taken(llama: Any, tmp_path: Path) -> None:
    folder = save(make("standard"), tmp_path / "sae")
    save(make("standard"), folder / "below", metadata__hook_name="blocks.1.hook_mlp_out")
    (folder / "notes.txt").write_text("notes")
    with pytest.raises(
        InputError, match=r"notes.txt is not a file of an SAE: name its folder, or its cfg.json or sae_w"
    ):
        nvs.bases.sae(llama, folder / "notes.txt")
    assert nvs.bases.sae(llama, folder / "cfg.json").hooks == (HOOK,)
    assert len(nvs.bases.sae(llama, folder).sites) == 2


@pytest.mark.parametrize("text", ["[]", "3", '{"metadata": null}', '{"architecture": "standard", "metadata": []}'])
def test_a_configuration_of_another_shape_is_refused(text: str, llama: Any, tmp_path: Path) -> None:
    folder = save(make("standard"), tmp_path / "odd")
    (folder / "cfg.json").write_text(text)
    with pytest.raises(InputError, match="odd"):
        nvs.bases.sae(llama, folder)


@pytest.mark.parametrize("hook", ["blocks.x.hook_mlp_out", "blocks.", "blocks..hook_mlp_out"])
def test_a_hook_of_another_form_is_refused(hook: str, llama: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"SAE odd is for hook '.*', which model 'toy-llama' .* does not have"):
        nvs.bases.sae(llama, save(make("standard"), tmp_path / "odd", metadata__hook_name=hook))
