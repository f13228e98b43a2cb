"""SAEs of sae-lens: the only file that knows it. Sites come from each SAE's own configuration, never from its name."""

import contextlib
import hashlib
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from neuron_vs_sae.bases._sites import layer_numbers, widths
from neuron_vs_sae.basis import Affine, Basis, Site
from neuron_vs_sae.default import MODELS
from neuron_vs_sae.errors import InputError
from neuron_vs_sae.models import same_model
from neuron_vs_sae.presets import located, source_for
from neuron_vs_sae.splice import precision

# The scale that these put on each token is folded into the units; the shift and the scaled bias go to the error.
_PER_TOKEN = ("layer_norm", "constant_norm_rescale")


def sae(
    model: Any,
    *,
    source: str | Path | torch.nn.Module | Sequence[Any] | None = None,
    site: str | None = None,
    layers: str | None = None,
    any_model: bool = False,
) -> Basis:
    """Autoencoders at any number of sites.

    `source` is a folder (every sae-lens folder below it), `RELEASE` or `RELEASE/ID` of sae-lens' registry, or one or
    more loaded `sae_lens.SAE` objects; without one, the model's preset says which. `site` keeps one kind (`hook_mlp_out`), `layers` some layers. An SAE trained with a per-token
    normalisation (`layer_norm`, `constant_norm_rescale`) has that token's scale folded into its units; what else the
    normalisation adds is in the error. `any_model=True` accepts SAEs trained on another model (a base model's SAEs
    on its chat version).
    Raises `InputError` for an SAE whose model, hook or width is not this model's, whose normalisation was not folded,
    whose weights are not finite, or whose decoder is not affine in its units alone.
    """
    if source is None:
        source, site = source_for(model.cfg.model_name, "saes", site)
    return from_saes(model, "sae", load(source), site, layers, any_model, transcoders=False)


def from_saes(
    model: Any,
    name: str,
    found: Sequence[tuple[Any, dict[str, Any]]],
    site: str | None,
    layers: str | None,
    any_model: bool,
    *,
    transcoders: bool,
) -> Basis:
    """The basis of loaded SAEs (or transcoders), each with its provenance, in the order in which the model runs."""
    wanted = layer_numbers(model, layers)
    of_type = [(_site(s, where, model), s, where) for s, where in found if _is_transcoder(s) == transcoders]
    chosen = [one for one in of_type if one[0].layer in wanted and site in (None, one[0].kind)]
    if not chosen:
        what, other = ("transcoders", "sae") if transcoders else ("autoencoders", "transcoder")
        kinds = ", ".join(sorted({at.kind for at, _, _ in of_type}))
        raise InputError(
            f"no {what}{f' at {site}' if site else ''}{f' in layers {layers}' if layers else ''} among {len(found)} loaded; "
            + (f"kinds of site there: {kinds}" if kinds else f"for what is there the basis is '{other}'")
        )
    width = widths(model, (hook for at, _, _ in chosen for hook in (at.reads, at.writes)))
    for at, s, where in chosen:
        _check(s, where["name"], at, width, model, any_model)
    reached = list(width)
    chosen.sort(key=lambda one: (reached.index(one[0].writes), one[0].head or 0))
    return Basis(
        name=name,
        sites=tuple(at for at, _, _ in chosen),
        dictionaries=tuple(dictionary(s, model) for _, s, _ in chosen),
        provenance={"saes": [where for _, _, where in chosen]},
    )


def dictionary(sae: Any, model: Any) -> Affine:
    """A `Dictionary` of one sae-lens SAE or transcoder, in the precision of the model's scores."""
    dtype, device = precision(model), next(model.parameters()).device
    module = _own(sae, dtype, device)
    decoder = module.W_dec.detach()
    if getattr(module.cfg, "rescale_acts_by_decoder_norm", False):
        decoder = decoder / decoder.norm(dim=-1, keepdim=True)
    with torch.no_grad():
        bias = module.decode(torch.zeros(1, 1, module.cfg.d_sae, dtype=dtype, device=device))[0, 0]
        some = _probe(module.cfg.d_sae, dtype, device)
        if not torch.allclose(module.decode(some), some @ decoder + bias, atol=1e-4, rtol=1e-3):
            raise InputError(
                f"the decoder of {type(sae).__name__} is not units @ W_dec + b_dec, so a unit has no fixed direction: "
                "this kind of SAE cannot be a basis"
            )
    normalised = module.cfg.normalize_activations in _PER_TOKEN and not _is_transcoder(sae)

    def encode(y: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch width"]:
        with torch.no_grad():
            units = module.encode(y)
            # Taken off the module at once: sae-lens would keep the scale there until the next decode.
            scale = _take_scale(module)
            return units * scale if normalised else units

    made = Affine(encode, decoder, torch.zeros_like(bias) if normalised else bias)
    made.lossless = _gives_back(made, dtype, device)
    return made


def _own(sae: Any, dtype: torch.dtype, device: torch.device) -> Any:
    """The same SAE as a module of our own, in that precision; its weights are shared where they need no conversion.

    It takes and gives flat vectors, and decodes without undoing a normalisation. Built anew, not copied: sae-lens'
    normalisations are closures over the module that they were made for, and in a copy would go on writing to the original.
    """
    cfg = type(sae.cfg).from_dict({**sae.cfg.to_dict(), "device": "meta", "reshape_activations": "none"})
    with _quiet():
        made = type(sae)(cfg)
    made.load_state_dict(sae.state_dict(), assign=True)
    made.run_time_activation_norm_fn_out = lambda x: x
    return made.to(dtype=dtype, device=device).eval().requires_grad_(False)


def _take_scale(module: Any) -> Tensor | None:
    if hasattr(module, "ln_std"):
        scale = module.ln_std
        del module.ln_std, module.ln_mu
        return scale
    if hasattr(module, "x_norm_coeff"):
        scale = 1 / module.x_norm_coeff
        del module.x_norm_coeff
        return scale
    return None


def _probe(d: int, dtype: torch.dtype, device: torch.device) -> Float[Tensor, "1 8 d"]:
    return torch.randn(1, 8, d, generator=torch.Generator().manual_seed(0), dtype=dtype).to(device)


def _gives_back(made: Affine, dtype: torch.dtype, device: torch.device) -> bool:
    """An autoencoder that returns any vector bit for bit is a raw basis, and has no error node either."""
    x = _probe(made.d, dtype, device)
    return made.width == made.d and torch.equal(made.decode(made.encode(x)), x)


def _is_transcoder(sae: Any) -> bool:
    return hasattr(sae.cfg, "d_out") or bool(sae.cfg.metadata.hook_name_out)


def _site(sae: Any, where: dict[str, Any], model: Any) -> Site:
    metadata = sae.cfg.metadata
    transcoder = _is_transcoder(sae)
    reads, writes = metadata.hook_name, metadata.hook_name_out if transcoder else metadata.hook_name
    if not reads or not writes:
        raise InputError(
            f"the configuration of SAE {where['name']} has no metadata.{'hook_name_out' if reads else 'hook_name'}, so its site "
            "is unknown; add it to its cfg.json"
        )
    for hook in (reads, writes):
        if hook not in model.hook_dict:
            raise InputError(
                f"SAE {where['name']} is for hook {hook!r}, which model '{model.cfg.model_name}' ({model.cfg.n_layers} layers) "
                f"does not have: it is for {metadata.model_name or 'another model'}"
            )
    layer = int(writes.split(".")[1]) if writes.startswith("blocks.") else 0
    return Site(layer, reads, writes, metadata.hook_head_index_out if transcoder else metadata.hook_head_index)


def _check(sae: Any, label: str, site: Site, width: dict[str, int], model: Any, any_model: bool) -> None:
    cfg = sae.cfg
    theirs = cfg.metadata.model_name
    if theirs and not any_model and not same_model(theirs, model.cfg.model_name):
        raise InputError(
            f"SAE {label} was trained on model '{theirs}', not on '{model.cfg.model_name}': use that model's SAEs, or say "
            "any_model=true if you mean it (a base model's SAEs on its chat version)"
        )
    if cfg.architecture() == "temporal":
        raise InputError(
            f"SAE {label} is a temporal SAE: its units depend on earlier tokens, so it is not a basis of a site"
        )
    read_width, written_width = (
        (width[site.reads], width[site.writes]) if site.head is None else (model.cfg.d_head, model.cfg.d_head)
    )
    d_out = getattr(cfg, "d_out", cfg.d_in)
    if (cfg.d_in, d_out) != (read_width, written_width):
        raise InputError(
            f"SAE {label} takes {cfg.d_in} and writes {d_out} dimensions, but {site.reads} of the model has {read_width} and "
            f"{site.writes} {written_width}: it is an SAE of another model or another site"
        )
    if cfg.normalize_activations not in ("none", *_PER_TOKEN):
        raise InputError(
            f"SAE {label} has normalize_activations='{cfg.normalize_activations}', which is not in its weights: fold it first "
            "(sae.fold_activation_norm_scaling_factor or sae.fold_activation_whitening of sae-lens) and save it again"
        )
    kwargs = cfg.metadata.model_from_pretrained_kwargs or {}
    if _is_centred(model) and not kwargs.get("center_writing_weights") and not any_model:
        raise InputError(
            f"SAE {label} was trained on raw weights, and this model's are centred, so their activations differ: load the model "
            "without process_weights, or say any_model=true if you mean it"
        )
    if kwargs.get("center_writing_weights") and not _is_centred(model):
        raise InputError(
            f"SAE {label} was trained on a model loaded with {kwargs}, and this one's weights are not centred, so their "
            "activations differ: load the model with process_weights=True (--process-weights)"
        )
    bad = [n for n, p in sae.named_parameters() if not bool(p.isfinite().all())]
    if bad:
        raise InputError(f"SAE {label} has NaN or infinite values in {', '.join(bad)}: its file is damaged")


def _is_centred(model: Any) -> bool:
    """What writes to the residual stream has mean 0 over its coordinates."""
    written = model.W_E.double()
    return bool(written.mean(-1).abs().max() < 1e-4 * written.abs().max())


def load(source: str | Path | torch.nn.Module | Sequence[Any]) -> list[tuple[Any, dict[str, Any]]]:
    """(SAE, provenance) of a folder, of a release of sae-lens' registry (`RELEASE`, `RELEASE/ID`), or of SAE objects."""
    from sae_lens import SAE, TrainingSAE

    if isinstance(source, (str, Path)):
        folder = located(source)
        return [_from_folder(f) for f in _folders(folder)] if folder.is_dir() else _from_registry(str(source))
    given: Sequence[Any] = [source] if isinstance(source, torch.nn.Module) else source
    for one in given:
        if not isinstance(one, SAE) or isinstance(one, TrainingSAE):
            raise InputError(
                f"a {type(one).__name__} is no SAE to use: give sae-lens' inference SAEs (save a training SAE with "
                "save_inference_model, and load that)"
            )
    return [(s, {"name": str(s.cfg.metadata.hook_name), "given": "as an object", **_described(s)}) for s in given]


def _folders(folder: Path) -> list[Path]:
    found = sorted(f.parent for f in folder.rglob("cfg.json") if (f.parent / "sae_weights.safetensors").exists())
    if not found:
        raise InputError(
            f"no SAE in {folder}: a sae-lens folder holds cfg.json and sae_weights.safetensors, and there is none below it"
        )
    return found


def _from_folder(folder: Path) -> tuple[Any, dict[str, Any]]:
    from sae_lens import SAE
    from safetensors import SafetensorError

    try:
        with _quiet():
            loaded = SAE.load_from_disk(folder)
    except (OSError, KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
        raise InputError(
            f"the SAE in {folder} cannot be loaded by sae-lens: {type(error).__name__}: {error}. Its files are damaged, or "
            "not of sae-lens"
        ) from error
    digest = hashlib.sha256()
    for file in ("cfg.json", "sae_weights.safetensors"):
        with (folder / file).open("rb") as stream:
            hashlib.file_digest(stream, lambda: digest)
    packaged = folder.is_relative_to(MODELS)
    path = f"this package's {folder.relative_to(MODELS)}" if packaged else str(folder)
    return loaded, {"name": folder.name, "path": path, "sha256": digest.hexdigest(), **_described(loaded)}


def _from_registry(source: str) -> list[tuple[Any, dict[str, Any]]]:
    from sae_lens import SAE
    from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

    directory = get_pretrained_saes_directory()
    release, _, sae_id = source.partition("/")
    if release not in directory:
        from difflib import get_close_matches

        near = get_close_matches(release, directory, n=5, cutoff=0.4)
        raise InputError(
            f"{source!r} is neither a folder nor a release of sae-lens' registry; nearest releases: {', '.join(near) or 'none'}"
            " (`nvs list saes`)"
        )
    ids = list(directory[release].saes_map)
    if sae_id and sae_id not in ids:
        raise InputError(
            f"release {release} has no SAE {sae_id!r}; it has {', '.join(ids[:8])}{' ...' if len(ids) > 8 else ''}"
        )
    found = []
    for one in [sae_id] if sae_id else ids:
        try:
            with _quiet():
                loaded = SAE.from_pretrained(release, one)
        except Exception as error:  # a hub and its loaders raise of every kind
            raise InputError(
                f"SAE {release}/{one} cannot be loaded: {str(error).splitlines()[0]}. It must be in the local cache, or the hub "
                "in reach"
            ) from error
        found.append((loaded, {"name": f"{release}/{one}", "release": release, "id": one, **_described(loaded)}))
    return found


def _described(sae: Any) -> dict[str, Any]:
    cfg = sae.cfg
    return {
        "architecture": cfg.architecture(),
        "hook": cfg.metadata.hook_name,
        "hook_out": cfg.metadata.hook_name_out,
        "width": cfg.d_sae,
        "normalize_activations": cfg.normalize_activations,
        "sae_lens_version": cfg.metadata.sae_lens_version,
    }


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silences the one warning that says how the model should have been loaded; `_check` compares that itself."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"\s*This SAE has non-empty model_from_pretrained_kwargs")
        yield


def known_releases(model: str | None = None) -> list[tuple[str, str]]:
    """(release, what it is) of sae-lens' registry; with `model`, those trained on it. Offline."""
    from sae_lens.loading.pretrained_saes_directory import get_pretrained_saes_directory

    return [
        (name, f"{release.model}, {len(release.saes_map)} SAEs")
        for name, release in sorted(get_pretrained_saes_directory().items())
        if model is None or same_model(model, release.model)
    ]
