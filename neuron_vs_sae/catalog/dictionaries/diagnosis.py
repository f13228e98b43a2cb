"""Why an SAE does not explain the activations of its site: it is tried at every other place where it might belong."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from neuron_vs_sae.core.basis import Basis, Site
from neuron_vs_sae.core.dictionary import Dictionary, split
from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.core.pairs import PromptPairs
from neuron_vs_sae.core.variance import explained_variance
from neuron_vs_sae.execution.splice import read

# SAEs explain .6 to 1 of the variance of what they were trained on; one layer or site away they were measured to explain
# -9 to .55. So below `_SUSPICIOUS` other places are tried, and a place where `_BETTER` more is explained is named.
_SUSPICIOUS, _BETTER, _NOTHING = 0.6, 0.25, 0.2
# Tokens that an SAE is looked at on, and that it is then tried on at every other place: a share of long prompts is enough.
_SEEN, _SEARCHED = 2048, 512


def explained_on(x: Float[Tensor, "batch pos d"], error: Float[Tensor, "batch pos d"], pairs: PromptPairs) -> float:
    """The explained variance of `x` over all real tokens but BOS, `error` being what the reconstruction leaves."""
    real = pairs.real
    if pairs.bos:
        real[:, 0] = False
    x, error = x[real].double(), error[real].double()
    return float(explained_variance((error**2).sum(), ((x - x.mean(0)) ** 2).sum()))


@dataclass(frozen=True)
class Reconstruction:
    """How a basis does on some prompts' clean tokens, per site: active units per token, and explained variance."""

    active: tuple[float, ...]
    explained: tuple[float, ...]


def reconstruction(model: Any, basis: Basis, pairs: PromptPairs, *, strict: bool = True) -> Reconstruction:
    """How well each site is reconstructed on the clean prompts of `pairs`: the first 32 of them, of long ones as many as hold
    2048 tokens. Other places are tried on 512 tokens.

    Raises `InputError`, naming the likely fault, for a trained SAE that explains next to nothing of its site; controls, SAEs with
    a frozen decoder among them, are not held to that. If not `strict`, it raises only where the fault is located (another layer,
    another site, a lost normalisation): an SAE that explains nothing anywhere may simply be poor.
    """
    pairs = _first(pairs, min(32, len(pairs)), _SEEN)
    values = read(model, pairs.clean, pairs.length, basis.hooks)
    frozen = [bool(sae.get("frozen_decoder")) for sae in basis.provenance.get("saes", ())] or [False] * len(basis.sites)
    active, explained = [], []
    for site, dictionary, is_control in zip(basis.sites, basis.dictionaries, frozen, strict=True):
        x = site.view(values[site.writes])
        units, error = split(dictionary, site.view(values[site.reads]), x)
        active.append(float((units != 0).sum(-1).double().mean()))
        explained.append(explained_on(x, error, pairs))
        if basis.trained and not is_control:
            _refuse(model, basis.name, site, dictionary, _first(pairs, len(pairs), _SEARCHED), explained[-1], strict)
    return Reconstruction(tuple(active), tuple(explained))


def _first(pairs: PromptPairs, most: int, tokens: int) -> PromptPairs:
    """The first pairs: at most so many, with at most so many tokens in their clean prompts, and at least one."""
    return pairs.take(range(max(1, min(most, tokens // pairs.positions))))


def _refuse(
    model: Any, basis: str, site: Site, dictionary: Dictionary, pairs: PromptPairs, explained: float, strict: bool
) -> None:
    if not math.isfinite(explained) and not strict:
        return  # the study itself reports the consequence: nothing to explain, or a metric that is not finite
    if not math.isfinite(explained):
        raise InputError(
            f"the explained variance of {basis} at {site.name} is {explained}: its activations do not vary over the task's "
            "prompts, or overflow the model's dtype (--dtype float32 has more room)"
        )
    fault = _fault(model, site, dictionary, pairs, explained, strict) if explained < _SUSPICIOUS else None
    if fault is not None:
        raise InputError(
            f"the {basis} at {site.name} explains {explained:.2f} of the variance there on the task's prompts (1 is all, 0 "
            f"none): {fault}. Other places were tried on the {int(pairs.real.sum())} tokens of the first {len(pairs)} of the prompts"
        )


def _fault(
    model: Any, site: Site, dictionary: Dictionary, pairs: PromptPairs, explained: float, strict: bool
) -> str | None:
    moved, other = max(
        _elsewhere(model, site, dictionary, pairs), default=(-torch.inf, site), key=lambda tried: tried[0]
    )
    scaled, how = max(_normalised(model, site, dictionary, pairs), key=lambda tried: tried[0])
    if max(moved, scaled) < max(explained + _BETTER, _SUSPICIOUS):
        return (
            "it is an SAE of another model, or of other weights of this one, or a poor one. At no site of this model does it explain "
            "much, nor of normalised activations. --accept-poor-sae runs it all the same, and every table says so"
            if strict and explained < _NOTHING
            else None
        )
    if moved > scaled:
        what = "its layer is shifted" if other.kind == site.kind else "its site is wrong"
        return f"{what}. At {other.writes} it explains {moved:.2f}: correct hook_name in its cfg.json"
    return (
        f"its normalisation was dropped. Of activations {how} it explains {scaled:.2f}: set normalize_activations in its "
        "cfg.json, or fold the scale into its weights (sae.fold_activation_norm_scaling_factor of sae-lens)"
    )


def _elsewhere(model: Any, site: Site, dictionary: Dictionary, pairs: PromptPairs) -> Iterator[tuple[float, Site]]:
    """(explained variance, site) at the same kind of site of every other layer, and at every other kind of its width.

    A pass over the prompts per layer."""
    kinds = ("hook_resid_pre", "hook_resid_mid", "hook_resid_post", "hook_attn_out", "hook_mlp_out", "attn.hook_z")
    known = model.hook_dict
    for layer in range(model.cfg.n_layers):
        others = [_moved(site, layer)]
        if site.reads == site.writes and site.head is None:
            others += [Site(layer, f"blocks.{layer}.{kind}", f"blocks.{layer}.{kind}") for kind in kinds]
        others = [other for other in others if other != site and {other.reads, other.writes} <= known.keys()]
        hooks = tuple(dict.fromkeys(hook for other in others for hook in (other.reads, other.writes)))
        values = read(model, pairs.clean, pairs.length, hooks) if hooks else {}
        for other in others:
            explained = _explained(values, other, dictionary, pairs, lambda x: x)
            if explained is not None:
                yield explained, other


def _moved(site: Site, layer: int) -> Site:
    old, new = f"blocks.{site.layer}.", f"blocks.{layer}."
    return replace(site, layer=layer, reads=site.reads.replace(old, new), writes=site.writes.replace(old, new))


def _normalised(model: Any, site: Site, dictionary: Dictionary, pairs: PromptPairs) -> Iterator[tuple[float, str]]:
    """(explained variance, description) of activations normalised as SAE trainers normalise them."""
    d, values = dictionary.d, read(model, pairs.clean, pairs.length, (site.reads, site.writes))
    for what, normalise in {
        "scaled to a mean norm of sqrt(d)": lambda x: x * d**0.5 / x[:, 1:].norm(dim=-1).mean(),
        "scaled to a mean square of 1": lambda x: x / x[:, 1:].pow(2).sum(-1).mean().sqrt(),
        "scaled to a norm of sqrt(d) per token": lambda x: x * d**0.5 / x.norm(dim=-1, keepdim=True),
        "centred and scaled per token (layer_norm)": lambda x: (x - x.mean(-1, keepdim=True)) / x.std(-1, keepdim=True),
    }.items():
        explained = _explained(values, site, dictionary, pairs, normalise)
        yield (-torch.inf if explained is None else explained), what


def _explained(
    values: Mapping[str, Tensor],
    site: Site,
    dictionary: Dictionary,
    pairs: PromptPairs,
    change: Callable[[Tensor], Tensor],
) -> float | None:
    """The explained variance at a site of activations changed by `change`; None where the width differs."""
    y, x = change(site.view(values[site.reads])), change(site.view(values[site.writes]))
    try:
        _, error = split(dictionary, y, x)
    except RuntimeError:  # shapes that do not go together
        return None
    return explained_on(x, error, pairs)
