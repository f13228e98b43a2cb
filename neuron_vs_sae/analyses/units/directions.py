"""What a unit adds to the residual stream, whatever its site, so that units of different bases can be compared.

A unit's *write vector*."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from neuron_vs_sae.analyses.units.selection import Units
from neuron_vs_sae.core.basis import Basis, Site
from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.execution.passes import norms_last
from neuron_vs_sae.execution.splice import home, precision

_RESIDUAL = ("hook_resid_pre", "hook_resid_mid", "hook_resid_post", "hook_mlp_out", "hook_attn_out")


def writes(model: Any, basis: Basis, units: Units) -> Float[Tensor, "units d"]:
    """What one more of each unit adds to the residual stream at its layer.

    The decoder's row; of an MLP neuron (`mlp.hook_post`) the row of `W_out`, of a head's coordinate (`attn.hook_z`) that of
    `W_O`. Where the block normalises what it writes (Gemma 2, OLMo 2), that norm's weights are applied and its scale, which
    differs from token to token, is left out: the length is then in units of that scale. Raises `InputError` for a site that
    does not lead to the residual stream by a matrix.
    """
    rows = [
        residual(model, site, dictionary.directions(at.to(home(model))))
        for site, dictionary, at in zip(basis.sites, basis.dictionaries, units.at, strict=True)
        if len(at)
    ]
    return torch.cat(rows)


def all_writes(model: Any, basis: Basis, s: int) -> Float[Tensor, "units d"]:
    """The same for every unit of site `s`."""
    every = torch.arange(basis.dictionaries[s].width, device=home(model))
    return residual(model, basis.sites[s], basis.dictionaries[s].directions(every))


def residual(model: Any, site: Site, vectors: Float[Tensor, "k site_d"]) -> Float[Tensor, "k d"]:
    """Vectors at a site as the residual stream gets them."""
    wide = precision(model)
    if site.kind in _RESIDUAL:
        return vectors.to(wide)
    if site.layer >= 0 and site.kind in ("mlp.hook_post", "attn.hook_z"):
        block = model.blocks[site.layer]
        if site.kind == "mlp.hook_post":
            matrix = block.mlp.W_out
        else:
            matrix = block.attn.W_O.flatten(0, 1) if site.head is None else block.attn.W_O[site.head]
        written = vectors.to(wide) @ matrix.detach().to(wide)
        after = _norm_after(model, block, site.kind)
        return written if after is None else through_norm(after, written)
    raise InputError(
        f"site {site.name} does not lead to the residual stream by a matrix, so its units have no direction there; sites that do: "
        f"{', '.join((*_RESIDUAL, 'mlp.hook_post', 'attn.hook_z'))}"
    )


def lands_at(model: Any, site: Site) -> str:
    """The first hook of the residual stream that contains what is written at the site."""
    joined = model.cfg.attn_only or model.cfg.parallel_attn_mlp
    middle = "hook_resid_post" if joined else "hook_resid_mid"
    kinds = {
        "attn.hook_z": middle,
        "hook_attn_out": middle,
        "mlp.hook_post": "hook_resid_post",
        "hook_mlp_out": "hook_resid_post",
    }
    return f"blocks.{site.layer}.{kinds.get(site.kind, site.kind)}"


def through_norm(norm: Any, vectors: Float[Tensor, "k d"]) -> Float[Tensor, "k d"]:
    """A small change after a norm whose scale is held constant at 1: centred if it is a LayerNorm, times its weights."""
    if type(norm).__name__.startswith("LayerNorm"):
        vectors = vectors - vectors.mean(-1, keepdim=True)
    weight = getattr(norm, "w", None)
    return vectors if weight is None else vectors * weight.detach().to(vectors)


def unembedded(model: Any, vectors: Float[Tensor, "k d"]) -> Float[Tensor, "k vocab"]:
    """The change of the logits that a vector in the last residual stream makes, less its mean over the vocabulary.

    The final norm's scale is held constant at 1 and the soft-cap left out: neither changes which token gains more.
    """
    if model.cfg.normalization_type is not None:
        vectors = through_norm(model.ln_final, vectors)
    change = vectors @ model.W_U.detach().to(vectors)
    return change - change.mean(-1, keepdim=True)


def neuron_reads(model: Any, site: Site, units: Int[Tensor, " k"]) -> dict[str, Float[Tensor, "k d"]]:
    """The directions that MLP neurons read their input along: `up`, and `gate` where there is one."""
    mlp = model.blocks[site.layer].mlp
    parts = {"up": mlp.W_in} | ({"gate": mlp.W_gate} if hasattr(mlp, "W_gate") else {})
    return {name: matrix.detach().T[units.to(matrix.device)].to(precision(model)) for name, matrix in parts.items()}


def _norm_after(model: Any, block: Any, kind: str) -> Any | None:
    """The norm that the block applies to what its MLP or attention gives."""
    number = 2 if kind == "mlp.hook_post" else 1
    return getattr(block, f"ln{number}") if norms_last(model) else getattr(block, f"ln{number}_post", None)
