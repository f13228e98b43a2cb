"""Where SAEs come from: folders, sae-lens' registry, objects. Configurations are read first, weights only when needed."""

import contextlib
import hashlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from types import NoneType
from typing import Any
from unittest.mock import patch

import torch

from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.core.reading import check_regular, exists
from neuron_vs_sae.default import MODELS
from neuron_vs_sae.models.hub import check_cached, commit, why
from neuron_vs_sae.models.presets import located, preset_of, same_model

Source = str | Path | torch.nn.Module | Sequence[Any]
"""A folder, `RELEASE`, `RELEASE/ID`, an SAE, several of these joined by `+`, or a list of them."""


SAE_FILES = ("cfg.json", "sae_weights.safetensors")
"""What a folder of an SAE holds, in sae-lens' form."""


@dataclass(frozen=True)
class Candidate:
    """An SAE that has not been loaded: its sae-lens configuration, and how to load it."""

    name: str
    cfg: Any
    load: Callable[[], tuple[Any, dict[str, Any]]]
    """(the SAE, where it came from), in sae-lens' own type."""
    key: Any = None
    """Equal keys mean the same SAE; None: an object that the caller holds."""


def candidates(source: Source, revision: str | None = None) -> list[Candidate]:
    """All SAEs that `source` names; only configurations are read. Raises `InputError` for what is missing or damaged.

    `revision` is a branch, tag or commit of the hub, for releases of the registry alone.
    """
    if isinstance(source, (str, Path)):
        parts = [source] if exists(Path(source)) else str(source).split("+")
        return [candidate for part in parts for candidate in _named(part, revision)]
    if isinstance(source, torch.nn.Module):
        return [_given(source)]
    several = [(candidates(part, revision) if isinstance(part, (str, Path)) else [_given(part)]) for part in source]
    return [candidate for part in several for candidate in part]


def _named(text: str | Path, revision: str | None) -> list[Candidate]:
    folder = located(text)
    if not exists(folder):
        return _in_registry(str(text), revision)
    if revision is not None:
        raise InputError(
            f"{folder} is a folder, which has no revision {revision!r}: only releases of the registry have"
        )
    return [_in_folder(f) for f in _folders(folder)]


def _given(sae: Any) -> Candidate:
    from sae_lens import SAE, TrainingSAE

    if not isinstance(sae, SAE) or isinstance(sae, TrainingSAE):
        raise InputError(
            f"a {type(sae).__name__} is no SAE to use: give sae-lens' inference SAEs (save a training SAE with "
            "save_inference_model, and load that)"
        )
    name = str(sae.cfg.metadata.hook_name)
    return Candidate(name, sae.cfg, lambda: (sae, {"name": name, "given": "as an object", **_described(sae)}))


def _folders(path: Path) -> list[Path]:
    """Every sae-lens folder below a folder, or the one that a file of an SAE lies in."""
    if path.exists() and not path.is_dir():
        if path.name not in SAE_FILES:
            raise InputError(f"{path} is not a file of an SAE: name its folder, or its {' or '.join(SAE_FILES)}")
        below = [path.parent] if all((path.parent / file).exists() for file in SAE_FILES) else []
    else:
        below = sorted(file.parent for file in path.rglob(SAE_FILES[0]) if (file.parent / SAE_FILES[1]).exists())
    if not below:
        raise InputError(
            f"no SAE in {path}: a sae-lens folder holds cfg.json and sae_weights.safetensors, and there is none below it"
        )
    return below


def _in_folder(folder: Path) -> Candidate:
    from sae_lens import SAE
    from sae_lens.loading.pretrained_sae_loaders import get_sae_lens_config_from_disk, handle_config_defaulting

    def load() -> tuple[Any, dict[str, Any]]:
        with _readable(folder):
            loaded = SAE.load_from_disk(folder)
        digest = hashlib.sha256()
        for file in SAE_FILES:
            with (folder / file).open("rb") as stream:
                hashlib.file_digest(stream, lambda: digest)
        packaged = folder.is_relative_to(MODELS)
        path = f"this package's {folder.relative_to(MODELS)}" if packaged else str(folder)
        return loaded, {"name": folder.name, "path": path, "sha256": digest.hexdigest(), **_described(loaded)}

    for file in SAE_FILES:
        check_regular(folder / file)
    with _readable(folder):
        files = [(folder / file).stat() for file in SAE_FILES]
        key = (folder.resolve(), *((file.st_mtime_ns, file.st_size) for file in files))
        return Candidate(
            folder.name, _config(handle_config_defaulting(get_sae_lens_config_from_disk(folder))), load, key
        )


@contextlib.contextmanager
def _readable(folder: Path) -> Iterator[None]:
    from safetensors import SafetensorError

    try:
        with quiet():
            yield
    except (
        OSError, AttributeError, KeyError, IndexError, TypeError, ValueError, AssertionError, RuntimeError, SafetensorError
    ) as error:  # fmt: skip
        raise InputError(
            f"the SAE in {folder} cannot be loaded by sae-lens: {type(error).__name__}: {error}. Its files are damaged, or "
            "not of sae-lens"
        ) from error


def _in_registry(source: str, revision: str | None) -> list[Candidate]:
    release, _, wanted = source.partition("/")
    known = ids(release, source)
    chosen = [sae_id for sae_id in known if not wanted or sae_id == wanted or fnmatchcase(sae_id, wanted)]
    if not chosen:
        raise InputError(
            f"release {release} has no SAE {wanted!r}; it has {', '.join(known[:8])}{' ...' if len(known) > 8 else ''}"
        )
    return [_registered(release, sae_id, revision) for sae_id in chosen]


def _registered(release: str, sae_id: str, revision: str | None) -> Candidate:
    from sae_lens import SAE
    from sae_lens.loading import pretrained_sae_loaders as loaders, pretrained_saes_directory as registry

    repo = registry.get_pretrained_saes_directory()[release].repo_id

    def load() -> tuple[Any, dict[str, Any]]:
        with _reachable(release, sae_id, revision):
            loaded = SAE.from_pretrained(release, sae_id)
        check_cached(repo, revision)
        where = {"name": f"{release}/{sae_id}", "release": release, "id": sae_id, "repo": repo}
        return loaded, {**where, "commit": commit(repo, revision), **_described(loaded)}

    with _reachable(release, sae_id, revision):
        cfg = _config(loaders.load_sae_config_from_huggingface(release, sae_id))
    return Candidate(f"{release}/{sae_id}", cfg, load, (release, sae_id, revision))


@contextlib.contextmanager
def _reachable(release: str, sae_id: str, revision: str | None) -> Iterator[None]:
    try:
        with quiet(), _read_from(revision):
            yield
    except Exception as error:  # the hub's client and sae-lens' loaders raise errors of many types
        raise InputError(f"SAE {release}/{sae_id} cannot be loaded: {why(error)}") from error


@contextlib.contextmanager
def _read_from(revision: str | None) -> Iterator[None]:
    """Makes sae-lens read a revision instead of the main branch, and tensor shapes from the cache, where it has the file, instead of
    the network."""
    from huggingface_hub import try_to_load_from_cache
    from sae_lens.loading import pretrained_sae_loaders as loaders
    from safetensors import safe_open

    pinned = {} if revision is None else {"revision": revision}
    ask = loaders.get_safetensors_tensor_shapes

    def shapes(repo: str, filename: str) -> dict[str, list[int]]:
        cached = try_to_load_from_cache(repo, filename, **pinned)
        if not isinstance(cached, str):
            return ask(repo, filename)
        with safe_open(cached, "pt") as file:
            return {name: list(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 (it is no dict)

    with patch.multiple(
        loaders,
        hf_hub_download=partial(loaders.hf_hub_download, **pinned),
        hf_hub_url=partial(loaders.hf_hub_url, **pinned),
        get_safetensors_tensor_shapes=shapes,
    ):
        yield


def _config(completed: dict[str, Any]) -> Any:
    """sae-lens' own type of a configuration that it has read and completed (`handle_config_defaulting`)."""
    from sae_lens import SAE

    cfg = SAE.get_sae_config_class_for_architecture(completed["architecture"]).from_dict(completed)
    _check_types(cfg)
    return cfg


def _check_types(cfg: Any) -> None:
    """Raises `TypeError` for a configuration that sae-lens has taken, of which something that is read here is of no sensible type."""
    of_cfg = {"d_in": int, "d_sae": int, "normalize_activations": str}
    of_metadata = {
        "hook_name": (str, NoneType), "hook_name_out": (str, NoneType), "model_name": (str, NoneType),
        "hook_head_index": (int, NoneType), "model_from_pretrained_kwargs": (dict, NoneType),
    }  # fmt: skip
    for holder, kinds in ((cfg, of_cfg), (cfg.metadata, of_metadata)):
        for name, kind in kinds.items():
            value = getattr(holder, name)
            if not isinstance(value, kind) or isinstance(value, bool):
                raise TypeError(f"its {name} is {value!r}")
    if not (0 < cfg.d_in < 2**31 and 0 < cfg.d_sae < 2**31):
        raise TypeError(f"it would have {cfg.d_sae} units of {cfg.d_in} dimensions")


def _described(sae: Any) -> dict[str, Any]:
    cfg = sae.cfg
    return {
        "architecture": cfg.architecture(),
        "hook": cfg.metadata.hook_name,
        "hook_out": cfg.metadata.hook_name_out,
        "width": cfg.d_sae,
        "normalize_activations": cfg.normalize_activations,
        "sae_lens_version": cfg.metadata.sae_lens_version,
        "frozen_decoder": bool(cfg.metadata.frozen_decoder),
    }


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silences the warning about how the model should have been loaded, which `fit.py` checks itself."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"\s*This SAE has non-empty model_from_pretrained_kwargs")
        yield


def ids(release: str, source: str | None = None) -> list[str]:
    """The SAEs of a release of sae-lens' registry. Raises `InputError`, naming the nearest, for no such release."""
    from sae_lens.loading import pretrained_saes_directory as registry

    directory = registry.get_pretrained_saes_directory()
    if release not in directory:
        from difflib import get_close_matches

        near = get_close_matches(release, directory, n=5, cutoff=0.4)
        raise InputError(
            f"{source or release!r} is neither a folder nor a release of sae-lens' registry; nearest releases: "
            f"{', '.join(near) or 'none'} (`nvs list saes`)"
        )
    return list(directory[release].saes_map)


def known_releases(model: str | None = None) -> list[tuple[str, str]]:
    """(release, what it is) of sae-lens' registry; with `model`, those that fit it, its preset's first. Offline."""
    from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

    preset = None if model is None else preset_of(model)
    at: dict[str, list[str]] = {}
    for by_site in (preset.saes, preset.transcoders) if preset else ():
        for site, sources in by_site.items():
            for source in sources:
                at.setdefault(source.split("/")[0], []).append(f"{source}@{site}")
    directory = sorted(get_pretrained_saes_directory().items())
    fitting = [
        (name, release)
        for name, release in directory
        if model is None or name in at or same_model(model, release.model)
    ]
    return [
        (
            name,
            "; ".join(
                [f"{release.model}, {len(release.saes_map)} SAEs", *(f"preset {source}" for source in at.get(name, ()))]
            ),
        )
        for name, release in sorted(fitting, key=lambda entry: entry[0] not in at)
    ]
