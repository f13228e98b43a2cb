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
from neuron_vs_sae.basis import Affine, Basis, Site, in_model_order
from neuron_vs_sae.errors import InputError
from neuron_vs_sae.models import same_model
from neuron_vs_sae.splice import precision

# The scale that these put on each token is folded into the units; the shift and the scaled bias go to the error.
_PER_TOKEN = ("layer_norm", "constant_norm_rescale")


def sae(
    model: Any,
    *,
    source: str | Path | Sequence[Any],
    site: str | None = None,
    layers: str | None = None,
    any_model: bool = False,
) -> Basis:
    """Autoencoders at any number of sites.

    `source` is a folder (every sae-lens folder below it), `RELEASE` or `RELEASE/ID` of sae-lens' registry, or loaded
    `sae_lens.SAE` objects. `site` keeps one kind (`hook_mlp_out`), `layers` some layers. An SAE trained with a per-token
    normalisation (`layer_norm`, `constant_norm_rescale`) has that token's scale folded into its units; what else the
    normalisation adds is in the error. `any_model=True` accepts SAEs trained on another model (a base model's SAEs
    on its chat version).
    Raises `InputError` for an SAE whose model, hook or width is not this model's, whose normalisation was not folded,
    whose weights are not finite, or whose decoder is not affine in its units alone.
    """
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
    """The basis of loaded SAEs (or transcoders), each with its provenance, in the model's own order."""
    of_type = [(s, where) for s, where in found if bool(s.cfg.metadata.hook_name_out) == transcoders]
    kinds = sorted({_site(s, model).kind for s, _ in of_type})
    chosen = [
        (s, where)
        for s, where in of_type
        if (site is None or _site(s, model).kind == site) and _site(s, model).layer in layer_numbers(model, layers)
    ]
    if not chosen:
        what = "transcoders" if transcoders else "autoencoders"
        raise InputError(
            f"no {what} {'at ' + site if site else ''} among {len(found)} loaded"
            f"{' in layers ' + layers if layers else ''}; kinds of site there: {', '.join(kinds) or 'none'}"
        )
    for s, where in chosen:
        _check(s, where, model, any_model)
    sites = [_site(s, model) for s, _ in chosen]
    order = in_model_order(sites, list(model.hook_dict))
    return Basis(
        name=name,
        sites=tuple(sites[i] for i in order),
        dictionaries=tuple(dictionary(chosen[i][0], model) for i in order),
        provenance={"saes": [chosen[i][1] for i in order]},
    )


def dictionary(sae: Any, model: Any) -> Affine:
    """A `Dictionary` of one sae-lens SAE or transcoder, in the precision of the model's scores."""
    dtype, device = precision(model), next(model.parameters()).device
    module = _own(sae, dtype, device)
    decoder = module.W_dec.detach()
    if getattr(module.cfg, "rescale_acts_by_decoder_norm", False):
        decoder = decoder / decoder.norm(dim=-1, keepdim=True)
    normalised = module.cfg.normalize_activations in _PER_TOKEN
    transcoder = bool(module.cfg.metadata.hook_name_out)
    offset = torch.zeros_like(module.b_dec) if normalised and not transcoder else module.b_dec.detach()

    def encode(y: Float[Tensor, "batch pos d_in"]) -> Float[Tensor, "batch pos width"]:
        with torch.no_grad():
            shaped = _unflattened(module, model, y)
            units = module.encode(shaped)
            units = units.to_dense() if units.is_sparse else units
            # The scale is taken off the module at once: sae-lens would keep it there until the next decode.
            scale = _take_scale(module)
            return units if scale is None or transcoder else units * scale

    made = Affine(encode, decoder, offset)
    if not transcoder and not normalised:
        made.lossless = _gives_back(made, dtype, device)
        _check_decoder(sae, module, model, made)
    return made


def _own(sae: Any, dtype: torch.dtype, device: torch.device) -> Any:
    """The same SAE as a module of our own, in that precision; its weights are shared where they need no conversion.

    Built anew, not copied: sae-lens' normalisations are closures over the module that they were made for, and in a copy
    would go on writing to the original.
    """
    with _quiet():
        made = type(sae).from_dict({**sae.cfg.to_dict(), "device": "meta"})
    made.load_state_dict(sae.state_dict(), assign=True)
    made.cfg.device = str(device)
    return made.to(dtype=dtype, device=device).eval().requires_grad_(False)


def _unflattened(module: Any, model: Any, y: Float[Tensor, "*batch d"]) -> Tensor:
    if module.cfg.reshape_activations != "hook_z":
        return y
    return y.unflatten(-1, (model.cfg.n_heads, model.cfg.d_head))


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


def _check_decoder(sae: Any, module: Any, model: Any, made: Affine) -> None:
    x = _probe(made.d, made.decoder.dtype, made.decoder.device)
    with torch.no_grad():
        units = module.encode(_unflattened(module, model, x))
        theirs = module.decode(units).reshape(x.shape)
        dense = units.to_dense() if units.is_sparse else units
    if not torch.allclose(theirs, made.decode(dense), atol=1e-4, rtol=1e-3):
        raise InputError(
            f"the decoder of {type(sae).__name__} is not units @ W_dec + b_dec, so a unit has no fixed direction: "
            "this kind of SAE cannot be a basis"
        )


def _site(sae: Any, model: Any) -> Site:
    metadata = sae.cfg.metadata
    reads = metadata.hook_name
    if not reads:
        raise InputError("an SAE's configuration has no metadata.hook_name, so its site is unknown; add it to cfg.json")
    writes = metadata.hook_name_out or reads
    for hook in (reads, writes):
        if hook not in model.hook_dict:
            raise InputError(
                f"an SAE's hook {hook!r} is not a hook of model '{model.cfg.model_name}' ({model.cfg.n_layers} layers): "
                f"the SAE is for {metadata.model_name or 'another model'}"
            )
    layer = int(writes.split(".")[1]) if writes.startswith("blocks.") else 0
    head = metadata.hook_head_index_out if metadata.hook_name_out else metadata.hook_head_index
    return Site(layer, reads, writes, head)


def _check(sae: Any, where: dict[str, Any], model: Any, any_model: bool) -> None:
    cfg, site = sae.cfg, _site(sae, model)
    label = where["name"]
    theirs = cfg.metadata.model_name
    if theirs and not any_model and not same_model(theirs, model.cfg.model_name):
        raise InputError(
            f"SAE {label} was trained on model '{theirs}', not on '{model.cfg.model_name}': use that model's SAEs, or say "
            "any_model=true if you mean it (a base model's SAEs on its chat version)"
        )
    read_width, written_width = widths(model, [site.reads, site.writes])
    if site.head is not None:
        read_width = written_width = model.cfg.d_head
    d_out = getattr(cfg, "d_out", cfg.d_in)
    if (cfg.d_in, d_out) != (read_width, written_width):
        raise InputError(
            f"SAE {label} takes {cfg.d_in} and writes {d_out} dimensions, but {site.reads} of the model has {read_width} and "
            f"{site.writes} {written_width}: it is an SAE of another model or another site"
        )
    if cfg.normalize_activations not in ("none", *_PER_TOKEN):
        raise InputError(
            f"SAE {label} has normalize_activations='{cfg.normalize_activations}', whose scale is not in its weights: fold it "
            "first (sae.fold_activation_norm_scaling_factor(factor) in sae-lens) and save it again"
        )
    if cfg.architecture() == "temporal":
        raise InputError(
            f"SAE {label} is a temporal SAE: its units depend on earlier tokens, so it is not a basis of a site"
        )
    bad = [n for n, p in sae.named_parameters() if not bool(p.isfinite().all())]
    if bad:
        raise InputError(f"SAE {label} has NaN or infinite values in {', '.join(bad)}: its file is damaged")


def load(source: str | Path | Sequence[Any]) -> list[tuple[Any, dict[str, Any]]]:
    """(SAE, provenance) of a folder, of a release of sae-lens' registry (`RELEASE`, `RELEASE/ID`), or of SAE objects."""
    if not isinstance(source, (str, Path)):
        return [(s, {"name": f"{s.cfg.metadata.hook_name}", "given": "as an object"}) for s in source]
    folder = Path(source)
    if folder.is_dir():
        return [_from_folder(f) for f in _folders(folder)]
    return _from_registry(str(source))


def _folders(folder: Path) -> list[Path]:
    found = sorted(f.parent for f in folder.rglob("cfg.json") if (f.parent / "sae_weights.safetensors").exists())
    if not found:
        raise InputError(
            f"no SAE in {folder}: a sae-lens folder holds cfg.json and sae_weights.safetensors, and there is none below it"
        )
    return found


def _from_folder(folder: Path) -> tuple[Any, dict[str, Any]]:
    from sae_lens import SAE

    digest = hashlib.sha256((folder / "cfg.json").read_bytes())
    digest.update((folder / "sae_weights.safetensors").read_bytes())
    try:
        with _quiet():
            loaded = SAE.load_from_disk(folder)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"the SAE in {folder} cannot be loaded by sae-lens: {error}") from error
    return loaded, {"name": folder.name, "path": str(folder), "sha256": digest.hexdigest(), **_described(loaded)}


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
        with _quiet():
            loaded = SAE.from_pretrained(release, one)
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
    """Silences the one warning that says how the model should have been loaded; `nvs check` compares that itself."""
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
