"""SAEs of sae-lens as a basis. Sites come from each SAE's own configuration, never from its name."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary, WeakValueDictionary, ref

import torch
from jaxtyping import Float, Int
from torch import Tensor

from neuron_vs_sae.bases._sites import layer_numbers, widths
from neuron_vs_sae.bases._sources import Candidate, Source, candidates, quiet
from neuron_vs_sae.basis import Affine, Basis, Dictionary, Site
from neuron_vs_sae.errors import InputError
from neuron_vs_sae.models import same_model
from neuron_vs_sae.presets import source_for
from neuron_vs_sae.shelf import Shelf, Streamed
from neuron_vs_sae.splice import precision

# The scale that these put on each token is folded into the units; the shift and the scaled bias go to the error.
_PER_TOKEN = ("layer_norm", "constant_norm_rescale")
# Architectures whose units do not look at each other, and the encoder's parameters that have a column per unit.
_UNIT_WISE = ("standard", "jumprelu", "gated", "transcoder", "skip_transcoder", "jumprelu_transcoder")
_PER_UNIT = ("W_enc", "b_enc", "threshold", "b_gate", "b_mag", "r_mag")


# Every SAE in use, and where it came from: bases that share one (`sae:DIR` and `random_sae:DIR`) load it once.
_IN_USE: WeakValueDictionary[Any, Affine] = WeakValueDictionary()
_FROM: WeakKeyDictionary[Dictionary, dict[str, Any]] = WeakKeyDictionary()


def sae(
    model: Any,
    *,
    source: Source | None = None,
    site: str | None = None,
    layers: str | None = None,
    any_model: bool = False,
    revision: str | None = None,
    shelf: Shelf | None = None,
) -> Basis:
    """Autoencoders at any number of sites.

    `source` is a folder (every sae-lens folder below it), `RELEASE` or `RELEASE/ID` of sae-lens' registry (`*` in an ID
    stands for anything), several of these joined by `+`, a list of them, or loaded `sae_lens.SAE` objects; without one,
    the model's preset has it, at `hook_mlp_out` or `site`. `site` keeps one kind (`hook_mlp_out`), `layers` some layers:
    weights are read of those alone. An SAE trained with a per-token
    normalisation (`layer_norm`, `constant_norm_rescale`) has that token's scale folded into its units; what else the
    normalisation adds is in the error. `any_model=True` accepts SAEs trained on another model (a base model's SAEs
    on its chat version). `revision` pins the hub's branch, tag or commit of a release. With a `shelf` (`Shelf(gib)`) no more
    than fits on it is in memory at a time, and the rest is read again when it is used: the same numbers, slower.
    Raises `InputError` for an SAE whose model, hook or width is not this model's, whose normalisation was not folded,
    whose weights are not finite, or whose decoder is not affine in its units alone.
    """
    return from_saes(model, "sae", source, site, layers, any_model, revision, shelf, transcoders=False)


def from_saes(
    model: Any,
    name: str,
    source: Source | None,
    site: str | None,
    layers: str | None,
    any_model: bool,
    revision: str | None,
    shelf: Shelf | None,
    *,
    transcoders: bool,
) -> Basis:
    """The basis of the SAEs (or transcoders) that `source` names, in the order in which the model runs."""
    if source is None:
        source, site, others = source_for(model.cfg.model_name, "transcoders" if transcoders else "saes", site)
        any_model = any_model or others
    found = candidates(source, revision)
    of_type = [one for one in found if _is_transcoder(one.cfg) == transcoders]
    wanted = layer_numbers(model, layers)
    chosen = [
        (_site(one, model), one)
        for one in of_type
        if site in (None, _kind(one.cfg)) and (layers is None or _layer(_writes(one.cfg)) in wanted)
    ]
    if not chosen:
        what, other = ("transcoders", "sae") if transcoders else ("autoencoders", "transcoder")
        kinds = ", ".join(sorted({_kind(one.cfg) for one in of_type}))
        raise InputError(
            f"no {what}{f' at {site}' if site else ''}{f' in layers {layers}' if layers else ''} among the {len(found)} there; "
            + (f"kinds of site: {kinds}" if kinds else f"for what is there the basis is '{other}'")
        )
    _check_one_per_site(name, chosen)
    width = widths(model, (hook for at, _ in chosen for hook in (at.reads, at.writes)))
    centred = _is_centred(model)
    for at, one in chosen:
        _check(one, at, width, model, any_model, centred)
    reached = list(width)
    chosen.sort(key=lambda found: (reached.index(found[0].writes), found[0].head or 0))
    loaded = [_load(one, at, model, shelf) for at, one in chosen]
    return Basis(
        name=name,
        sites=tuple(at for at, _ in chosen),
        dictionaries=tuple(made for made, _ in loaded),
        provenance={"saes": [where for _, where in loaded]},
    )


def _check_one_per_site(basis: str, chosen: Sequence[tuple[Site, Candidate]]) -> None:
    by_site = defaultdict(list)
    for at, one in chosen:
        by_site[at.name].append(one.name)
    for name, several in by_site.items():
        if len(several) > 1:
            raise InputError(
                f"basis '{basis}' has more than one dictionary at {name}: name one SAE per site (sae:DIR/SUBFOLDER, "
                f"sae:RELEASE/ID, or a pattern such as sae:RELEASE/layer_*_width_16k); there are {', '.join(several[:4])}"
                f"{' and others' if len(several) > 4 else ''}"
            )


def _load(one: Candidate, at: Site, model: Any, shelf: Shelf | None) -> tuple[Dictionary, dict[str, Any]]:
    """(its `Dictionary`, where it came from): the one in use, if there is one."""
    if shelf is not None:
        return _streamed(one, at, model, shelf)
    key = one.key and (one.key, precision(model), next(model.parameters()).device)
    made = _IN_USE.get(key)
    if made is None:
        made = _read(one, model)
        if key is not None:
            _IN_USE[key] = made
    return _reading(made, at, one.cfg, model), _FROM[made]


def _read(one: Candidate, model: Any) -> Affine:
    theirs, where = one.load()
    _check_weights(theirs, one.name)
    made = dictionary(theirs, model)
    _FROM[made] = where
    return made


def _streamed(one: Candidate, at: Site, model: Any, shelf: Shelf) -> tuple[Dictionary, dict[str, Any]]:
    first: dict[str, Any] = {}

    def read() -> Affine:
        made = _read(one, model)
        where = _FROM[made]
        if first.setdefault("where", where) != where:
            raise InputError(f"SAE {one.name} has changed while it was in use: its files are not those it began with")
        reading = _reading(made, at, one.cfg, model)
        _FROM[reading] = where
        return reading

    values = one.cfg.d_sae * (one.cfg.d_in + getattr(one.cfg, "d_out", one.cfg.d_in))
    size = values * torch.empty(0, dtype=precision(model)).element_size()
    place = (one.key or id(one), at, ref(model))
    made = shelf.get(place, size, read)
    first["where"] = _FROM[made]
    return Streamed(shelf, place, size, read), _FROM[made]


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
    normalised = module.cfg.normalize_activations in _PER_TOKEN and not _is_transcoder(sae.cfg)

    def scaled(encoder: Any, y: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch k"]:
        with torch.no_grad():
            units = type(module).encode(encoder, y)
            # Taken off the module at once: sae-lens would keep the scale there until the next decode.
            scale = _take_scale(module)
            return units * scale if normalised else units

    def encode(y: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch width"]:
        return scaled(module, y)

    def encode_some(y: Float[Tensor, "*batch d_in"], units: Int[Tensor, " k"]) -> Float[Tensor, "*batch k"]:
        return scaled(_UnitsOf(module, units), y)

    unit_wise = module.cfg.architecture() in _UNIT_WISE
    offset = torch.zeros_like(bias) if normalised else bias
    made = Affine(encode, decoder, offset, some=encode_some if unit_wise else None)
    made.lossless = not _is_transcoder(sae.cfg) and _gives_back(made, dtype, device)
    return made


class _UnitsOf:
    """Stands in for an SAE in its own `encode`, with only some of its units: sae-lens' code, on fewer columns."""

    def __init__(self, module: Any, units: Int[Tensor, " k"]):
        self._module = module
        for name, parameter in module.named_parameters():
            if name in _PER_UNIT:
                setattr(self, name, parameter[..., units])

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


def _own(sae: Any, dtype: torch.dtype, device: torch.device) -> Any:
    """The same SAE as a module of our own, in that precision; its weights are shared where they need no conversion.

    It takes and gives flat vectors, and decodes without undoing a normalisation. Built anew, not copied: sae-lens'
    normalisations are closures over the module that they were made for, and in a copy would go on writing to the original.
    """
    cfg = type(sae.cfg).from_dict({**sae.cfg.to_dict(), "device": "meta", "reshape_activations": "none"})
    with quiet():
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


def _is_transcoder(cfg: Any) -> bool:
    return hasattr(cfg, "d_out") or bool(cfg.metadata.hook_name_out)


def _writes(cfg: Any) -> str | None:
    return cfg.metadata.hook_name_out if _is_transcoder(cfg) else cfg.metadata.hook_name


def _layer(hook: str | None) -> int:
    return int(hook.split(".")[1]) if hook and hook.startswith("blocks.") else 0


def _kind(cfg: Any) -> str:
    hook = _writes(cfg)
    return Site(_layer(hook), hook, hook).kind if hook else "unknown"


def _site(one: Candidate, model: Any) -> Site:
    metadata, transcoder, known = one.cfg.metadata, _is_transcoder(one.cfg), model.hook_dict
    reads, writes = _reads(one.cfg), _writes(one.cfg)
    if not reads or not writes:
        raise InputError(
            f"the configuration of SAE {one.name} has no metadata.{'hook_name_out' if reads else 'hook_name'}, so its site "
            "is unknown; add it to its cfg.json"
        )
    if reads.endswith(_MLP_INPUT) and reads not in known:
        reads = reads.replace(_MLP_INPUT, ".ln2.hook_normalized")
    for hook in (reads, writes):
        if hook not in known:
            raise InputError(
                f"SAE {one.name} is for hook {hook!r}, which model '{model.cfg.model_name}' ({model.cfg.n_layers} layers) "
                f"does not have: it is for {metadata.model_name or 'another model'}"
            )
    return Site(_layer(writes), reads, writes, metadata.hook_head_index_out if transcoder else metadata.hook_head_index)


# What enters the MLP: a hook of the bridge. HookedTransformer has one just before the norm's weights are applied.
_MLP_INPUT = ".mlp.hook_in"


def _reads(cfg: Any) -> str | None:
    """sae-lens gives Gemma Scope 2's transcoders a hook before the norm; by its own note of their place they read after."""
    metadata = cfg.metadata
    if str(metadata.hf_hook_name).endswith("pre_feedforward_layernorm.output"):
        return str(metadata.hook_name).replace(".hook_mlp_in", _MLP_INPUT)
    return metadata.hook_name


def _reading(made: Affine, site: Site, cfg: Any, model: Any) -> Affine:
    """The dictionary, of what is read at the site: a norm's weights are put on first where the hook is before them."""
    reads = _reads(cfg)
    if reads == site.reads:
        return made
    norm = model.blocks[site.layer].ln2
    if not hasattr(norm, "w"):
        raise InputError(
            f"a transcoder at {reads} needs the weights of the norm before the MLP, which process_weights folded away: load "
            "the model without it"
        )
    weight = norm.w.detach().to(made.decoder.dtype)
    bias = norm.b.detach().to(made.decoder.dtype) if hasattr(norm, "b") else torch.zeros_like(weight)
    return Affine(lambda y: made.encode(y * weight + bias), made.decoder, made.offset)


def _check(one: Candidate, site: Site, width: dict[str, int], model: Any, any_model: bool, centred: bool) -> None:
    label, cfg = one.name, one.cfg
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
    wanted = bool((cfg.metadata.model_from_pretrained_kwargs or {}).get("center_writing_weights"))
    if centred and not wanted:
        raise InputError(
            f"SAE {label} was trained on raw weights, and this model's are centred, so their activations differ: load the model "
            "without process_weights"
        )
    if wanted and not centred:
        raise InputError(
            f"SAE {label} was trained on centred weights (center_writing_weights), and this model's are not, so their "
            "activations differ: load the model with process_weights=True (--process-weights)"
        )


def _check_weights(sae: Any, label: str) -> None:
    """What is known only when it is loaded: sae-lens folds some normalisations then."""
    cfg = sae.cfg
    if cfg.normalize_activations not in ("none", *_PER_TOKEN):
        raise InputError(
            f"SAE {label} has normalize_activations='{cfg.normalize_activations}', which is not in its weights: fold it first "
            "(sae.fold_activation_norm_scaling_factor or sae.fold_activation_whitening of sae-lens) and save it again"
        )
    bad = [n for n, p in sae.named_parameters() if not bool(p.isfinite().all())]
    if bad:
        raise InputError(f"SAE {label} has NaN or infinite values in {', '.join(bad)}: its file is damaged")


def _is_centred(model: Any) -> bool:
    """What writes to the residual stream has mean 0 over its coordinates."""
    written = model.W_E[:1000].double()  # of some tokens: a vocabulary can be of gigabytes
    return bool(written.mean(-1).abs().max() < 1e-4 * written.abs().max())
