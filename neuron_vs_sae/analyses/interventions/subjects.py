"""What an intervention acts on: prompts, the places in them, and the activations of the plain model there."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from neuron_vs_sae.core.basis import Basis, Site
from neuron_vs_sae.core.conventions import SteerAt
from neuron_vs_sae.core.errors import InputError, check_choice
from neuron_vs_sae.core.pairs import PromptPairs
from neuron_vs_sae.execution.splice import home, precision, read


@dataclass(frozen=True, eq=False)
class Subject:
    """Prompts, where in them units are changed, and the activations at a basis's hooks, of which nothing has been changed."""

    tokens: Int[Tensor, "batch pos"]
    length: Int[Tensor, " batch"]
    where: Bool[Tensor, "batch pos"]
    activations: dict[str, Float[Tensor, "batch pos ..."]]


def subject(
    model: Any,
    basis: Basis,
    tokens: Int[Tensor, "batch pos"],
    length: Int[Tensor, " batch"],
    where: Bool[Tensor, "batch pos"],
) -> Subject:
    """These prompts with the activations that the basis reads and writes."""
    tokens, length = tokens.to(home(model)), length.to(home(model))
    return Subject(tokens, length, where.to(home(model)), read(model, tokens, length, basis.hooks))


def places(pairs: PromptPairs, at: SteerAt) -> Bool[Tensor, "batch pos"]:
    """The prompts' last tokens, or all their tokens but BOS."""
    check_choice("place to steer at", at, SteerAt)
    positions = torch.arange(pairs.positions, device=pairs.length.device)
    if at == "answer":
        return positions == pairs.length[:, None] - 1
    return pairs.real & (positions >= int(pairs.bos))


def landed(model: Any, site: Site, vectors: Float[Tensor, "*batch site_d"]) -> Float[Tensor, "*batch d"]:
    """Vectors at a site as its layer adds them up: MLP neurons times `W_out`, heads' values times `W_O`, others as they are.

    So the norm of a change of neurons and that of a change of features of the MLP's output are norms of the same vector.
    """
    if site.kind not in ("mlp.hook_post", "attn.hook_z"):
        return vectors
    block = model.blocks[site.layer]
    if site.kind == "mlp.hook_post":
        matrix = block.mlp.W_out
    else:
        matrix = block.attn.W_O.flatten(0, 1) if site.head is None else block.attn.W_O[site.head]
    return vectors @ matrix.detach().to(vectors)


def site_norms(model: Any, basis: Basis, of: Subject) -> list[Float[Tensor, "batch pos"]]:
    """Per site the norm of what its layer adds there: the denominator of relative norms."""
    norms = []
    for site in basis.sites:
        x = landed(model, site, site.view(of.activations[site.writes]).to(precision(model)))
        bias = None
        if site.kind == "mlp.hook_post":
            bias = model.blocks[site.layer].mlp.b_out
        elif site.kind == "attn.hook_z":
            bias = model.blocks[site.layer].attn.b_O
        norms.append((x if bias is None else x + bias.detach().to(x)).norm(dim=-1))
    return norms


def check_finite(name: str, values: tuple[float, ...]) -> None:
    """Raises `InputError` for an empty grid, and for one that holds NaN or infinity."""
    if not values:
        raise InputError(f"no {name} is given: give one or more numbers")
    if not torch.tensor(values, dtype=torch.float64).isfinite().all():
        raise InputError(f"{name} {list(values)}: give finite numbers (there is NaN or infinity among them)")
