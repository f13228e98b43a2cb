"""A basis of the SAEs or transcoders that a source names, in the order in which the model runs."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary, WeakValueDictionary, ref

import torch

from neuron_vs_sae.catalog.dictionaries.autoencoder import dictionary, is_transcoder
from neuron_vs_sae.catalog.dictionaries.fit import check_configuration, check_weights, is_centred
from neuron_vs_sae.catalog.dictionaries.sites import layer_numbers, widths
from neuron_vs_sae.catalog.dictionaries.sources import Candidate, Source, candidates
from neuron_vs_sae.catalog.dictionaries.streaming import Shelf, Streamed
from neuron_vs_sae.core.basis import Affine, Basis, Dictionary, Site
from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.execution.splice import precision
from neuron_vs_sae.models.presets import source_for

# Every SAE in use, and where it came from: bases that share one (`sae:DIR` and `random_sae:DIR`) load it once.
_IN_USE: WeakValueDictionary[Any, Affine] = WeakValueDictionary()


_FROM: WeakKeyDictionary[Dictionary, dict[str, Any]] = WeakKeyDictionary()


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
    of_type = [one for one in found if is_transcoder(one.cfg) == transcoders]
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
    centred = is_centred(model)
    for at, one in chosen:
        check_configuration(one, at, width, model, any_model, centred)
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
    check_weights(theirs, one.name)
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


def _writes(cfg: Any) -> str | None:
    return cfg.metadata.hook_name_out if is_transcoder(cfg) else cfg.metadata.hook_name


def _layer(hook: str | None) -> int:
    return int(hook.split(".")[1]) if hook and hook.startswith("blocks.") else 0


def _kind(cfg: Any) -> str:
    hook = _writes(cfg)
    return Site(_layer(hook), hook, hook).kind if hook else "unknown"


def _site(one: Candidate, model: Any) -> Site:
    metadata, transcoder, known = one.cfg.metadata, is_transcoder(one.cfg), model.hook_dict
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
    unit_wise = made.unit_wise
    if unit_wise is not None:
        normalised = unit_wise.normalised
        unit_wise = replace(unit_wise, normalised=lambda y: normalised(y * weight + bias))
    return Affine(lambda y: made.encode(y * weight + bias), made.decoder, made.offset, unit_wise=unit_wise)
