"""A basis of the SAEs or transcoders that a source names, in the order in which the model runs."""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from weakref import ref

import torch

from neuron_vs_sae.catalog.dictionaries.autoencoder import dictionary, is_transcoder
from neuron_vs_sae.catalog.dictionaries.fit import check_configuration, check_weights, is_centred
from neuron_vs_sae.catalog.dictionaries.selection import Selection
from neuron_vs_sae.catalog.dictionaries.sites import layer_numbers, widths
from neuron_vs_sae.catalog.dictionaries.sources import Candidate, Source, candidates
from neuron_vs_sae.catalog.dictionaries.streaming import Shelf
from neuron_vs_sae.core.basis import Basis, Site
from neuron_vs_sae.core.dictionary import Affine, Dictionary
from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.execution.splice import precision
from neuron_vs_sae.models.presets import source_for


def from_saes(
    model: Any, name: str, source: Source | None, select: Selection, shelf: Shelf | None, *, transcoders: bool
) -> Basis:
    """The basis of the SAEs (or transcoders) that `source` names and `select` keeps, in the order in which the model runs.

    Raises `InputError` where none is kept, two are at one site, or one does not fit the model.
    """
    if source is None:
        kind = "transcoders" if transcoders else "saes"
        source, site, others = source_for(model.cfg.model_name, kind, select.site)
        select = replace(select, site=site, any_model=select.any_model or others)
    chosen = _chosen(model, candidates(source, select.revision), select, transcoders)
    _check_one_per_site(name, chosen)
    width = widths(model, (hook for site, _ in chosen for hook in (site.reads, site.writes)))
    centred = is_centred(model)
    for site, candidate in chosen:
        check_configuration(candidate, site, width, model, select.any_model, centred)
    order = list(width)
    chosen.sort(key=lambda pair: (order.index(pair[0].writes), pair[0].head or 0))
    shelf = Shelf() if shelf is None else shelf
    loaded = [_load(candidate, site, model, shelf) for site, candidate in chosen]
    return Basis(
        name=name,
        sites=tuple(site for site, _ in chosen),
        dictionaries=tuple(dictionary for dictionary, _ in loaded),
        provenance={"saes": [came_from for _, came_from in loaded]},
        trained=True,
    )


def _chosen(
    model: Any, there: Sequence[Candidate], select: Selection, transcoders: bool
) -> list[tuple[Site, Candidate]]:
    """The selected SAEs of the right type, with their sites. Raises `InputError` where there are none."""
    of_type = [candidate for candidate in there if is_transcoder(candidate.cfg) == transcoders]
    layers = layer_numbers(model, select.layers)
    chosen = [
        (_site(candidate, model), candidate)
        for candidate in of_type
        if select.site in (None, _kind(candidate.cfg))
        and (select.layers is None or _layer(_writes(candidate.cfg)) in layers)
    ]
    if not chosen:
        what, other = ("transcoders", "sae") if transcoders else ("autoencoders", "transcoder")
        wanted = f" at {select.site}" if select.site else ""
        wanted += f" in layers {select.layers}" if select.layers else ""
        kinds = ", ".join(sorted({_kind(candidate.cfg) for candidate in of_type}))
        raise InputError(
            f"no {what}{wanted} among the {len(there)} SAEs of the source; "
            + (f"kinds of site: {kinds}" if kinds else f"these make the basis '{other}'")
        )
    return chosen


def _check_one_per_site(basis: str, chosen: Sequence[tuple[Site, Candidate]]) -> None:
    by_site = defaultdict(list)
    for site, candidate in chosen:
        by_site[site.name].append(candidate.name)
    for name, several in by_site.items():
        if len(several) > 1:
            raise InputError(
                f"basis '{basis}' has more than one dictionary at {name}: name one SAE per site (sae:DIR/SUBFOLDER, "
                f"sae:RELEASE/ID, or a pattern such as sae:RELEASE/layer_*_width_16k); there are {', '.join(several[:4])}"
                f"{' and others' if len(several) > 4 else ''}"
            )


def _load(candidate: Candidate, site: Site, model: Any, shelf: Shelf) -> tuple[Dictionary, dict[str, Any]]:
    """(its `Dictionary`, where it came from), by way of the shelf."""

    def read() -> tuple[Dictionary, dict[str, Any]]:
        sae, came_from = candidate.load()
        check_weights(sae, candidate.name)
        try:
            read_by = dictionary(sae, model)
            read_by.encode(torch.zeros(1, 1, candidate.cfg.d_in, dtype=precision(model), device=read_by.decoder.device))
        except InputError:
            raise
        except (
            AttributeError,
            TypeError,
            ValueError,
            IndexError,
            RuntimeError,
        ) as error:  # a k of -1, a threshold of text, ...
            raise InputError(
                f"the SAE {candidate.name} cannot be run: {type(error).__name__}: {error}. Its cfg.json asks for what its weights do "
                "not hold, or sae-lens does not know"
            ) from error
        return _before_norm(read_by, site, candidate.cfg, model), came_from

    values = candidate.cfg.d_sae * (candidate.cfg.d_in + getattr(candidate.cfg, "d_out", candidate.cfg.d_in))
    size = values * torch.empty(0, dtype=precision(model)).element_size()
    # An SAE that the caller holds as an object has no key, and is shared with no other basis.
    return shelf.take((candidate.key or object(), site, ref(model)), size, read)


def _writes(cfg: Any) -> str | None:
    return cfg.metadata.hook_name_out if is_transcoder(cfg) else cfg.metadata.hook_name


def _layer(hook: str | None) -> int:
    block = re.match(r"blocks\.(\d+)\.", hook or "")
    return int(block[1]) if block else 0


def _kind(cfg: Any) -> str:
    hook = _writes(cfg)
    return Site(_layer(hook), hook, hook).kind if hook else "unknown"


def _site(candidate: Candidate, model: Any) -> Site:
    cfg, known = candidate.cfg, model.hook_dict
    metadata, transcoder = cfg.metadata, is_transcoder(cfg)
    reads, writes = _reads(cfg), _writes(cfg)
    if not reads or not writes:
        raise InputError(
            f"the configuration of SAE {candidate.name} has no metadata.{'hook_name_out' if reads else 'hook_name'}, so its site "
            "is unknown; add it to its cfg.json"
        )
    if reads.endswith(_MLP_INPUT) and reads not in known:
        reads = reads.replace(_MLP_INPUT, ".ln2.hook_normalized")
    for hook in (reads, writes):
        if hook not in known:
            raise InputError(
                f"SAE {candidate.name} is for hook {hook!r}, which model '{model.cfg.model_name}' ({model.cfg.n_layers} layers) "
                f"does not have: it is for {metadata.model_name or 'another model'}"
            )
    return Site(_layer(writes), reads, writes, metadata.hook_head_index_out if transcoder else metadata.hook_head_index)


# What enters the MLP: a hook of the bridge. HookedTransformer has one just before the norm's weights are applied.
_MLP_INPUT = ".mlp.hook_in"


def _reads(cfg: Any) -> str | None:
    """The hook that the dictionary reads. sae-lens gives Gemma Scope 2's transcoders a hook before the norm, although by its own note
    they read after it."""
    metadata = cfg.metadata
    if str(metadata.hf_hook_name).endswith("pre_feedforward_layernorm.output"):
        return str(metadata.hook_name).replace(".hook_mlp_in", _MLP_INPUT)
    return metadata.hook_name


def _before_norm(dictionary: Affine, site: Site, cfg: Any, model: Any) -> Affine:
    """The dictionary as a function of what is read at the site: the norm's weights are applied first where the hook lies before them."""
    reads = _reads(cfg)
    if reads == site.reads:
        return dictionary
    norm = model.blocks[site.layer].ln2
    if not hasattr(norm, "w"):
        raise InputError(
            f"a transcoder at {reads} needs the weights of the norm before the MLP, which process_weights folded away: load "
            "the model without it"
        )
    weight = norm.w.detach().to(dictionary.decoder.dtype)
    bias = norm.b.detach().to(dictionary.decoder.dtype) if hasattr(norm, "b") else torch.zeros_like(weight)
    unit_wise = dictionary.unit_wise()
    if unit_wise is not None:
        normalised = unit_wise.normalised
        unit_wise = replace(unit_wise, normalised=lambda y: normalised(y * weight + bias))
    return Affine(
        lambda y: dictionary.encode(y * weight + bias),
        dictionary.decoder,
        dictionary.offset,
        rows=lambda y, units: dictionary.reading(y * weight + bias, units)[0] * weight,
        unit_wise=unit_wise,
    )
