"""Control: an untrained SAE of the same shape and sparsity as a trained one."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from neuron_vs_sae.catalog.bases.sae import sae
from neuron_vs_sae.catalog.dictionaries.selection import Selection
from neuron_vs_sae.catalog.dictionaries.sources import Source
from neuron_vs_sae.catalog.dictionaries.streaming import Shelf
from neuron_vs_sae.core.basis import Basis
from neuron_vs_sae.core.dictionary import Affine, Dictionary
from neuron_vs_sae.core.pairs import PromptPairs
from neuron_vs_sae.core.unit_wise import UnitWise
from neuron_vs_sae.execution.splice import precision, read

_TOKENS = 2**14
"""Tokens that a control is calibrated on: its one threshold and one scale per site need no more, and memory holds their pre-activations."""


def random_sae(
    model: Any,
    source: Source | None = None,
    *,
    prompts: PromptPairs,
    select: Selection = Selection(),
    shelf: Shelf | None = None,
    seed: int = 0,
    batch_size: int = 64,
) -> Basis:
    """Random unit directions as encoder and decoder, at the sites, widths and L0 of the SAEs of `source`.

    A unit is `d . (x - mean)` where that exceeds a threshold, else 0 (JumpReLU); one threshold per site gives the trained
    SAE's mean L0 on the clean and corrupt `prompts` (BOS apart), and one scale per site makes the reconstruction as good there as its
    directions allow (least squares); of long prompts or many, on some of them, evenly spaced, with some 16,000 tokens. Claims about trained SAEs must beat it (arXiv 2501.17727, 2602.14111).
    """
    shelf = Shelf() if shelf is None else shelf
    trained = sae(model, source, select=select, shelf=shelf)
    samples = _read_by(model, trained, prompts, batch_size)
    dictionaries: list[Dictionary] = []
    targets = []
    for i, (site, like) in enumerate(zip(trained.sites, trained.dictionaries, strict=True)):
        x = torch.cat(samples[site.name])
        l0 = float((like.encode(x[None]) != 0).sum(-1).double().mean())
        draw = partial(_directions, like.width, like.d, 1000 * seed + i, precision(model), x.device)
        make = _calibrated(draw, x, l0)
        size = like.width * like.d * 2 * x.element_size()
        dictionaries.append(shelf.take(object(), size, lambda make=make: (make(), {}))[0])
        targets.append(l0)
    provenance = {"like": trained.provenance["saes"], "seed": seed, "l0": targets, "calibrated_on": prompts.name}
    return Basis("random_sae", trained.sites, tuple(dictionaries), provenance)


def _read_by(model: Any, basis: Basis, prompts: PromptPairs, batch_size: int) -> dict[str, list[Float[Tensor, "n d"]]]:
    """Per site, what is read there at the real tokens (BOS excepted) of clean and corrupt prompts: of all, or of every n-th."""
    every = -(-2 * len(prompts) * prompts.positions // _TOKENS)
    prompts = prompts.take(range(0, len(prompts), every)) if every > 1 else prompts
    samples: dict[str, list[Tensor]] = {site.name: [] for site in basis.sites}
    for batch in prompts.batches(batch_size):
        real = batch.real
        if prompts.bos:
            real[:, 0] = False  # its norm can be many times the others', and it would take all the active units
        for tokens in (batch.clean, batch.corrupt):
            values = read(model, tokens, batch.length, basis.hooks)
            for site in basis.sites:
                samples[site.name].append(site.view(values[site.reads])[real])
    return samples


def _directions(width: int, d: int, seed: int, dtype: torch.dtype, device: torch.device) -> Float[Tensor, "width d"]:
    drawn = torch.randn(width, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (drawn / drawn.norm(dim=1, keepdim=True)).to(device, dtype)


def _calibrated(
    directions: Callable[[], Float[Tensor, "width d"]], x: Float[Tensor, "n d"], l0: float
) -> Callable[[], Affine]:
    """A function that makes the control: its threshold and scale are fitted once, to `x`; its directions are drawn at every call."""
    mean, rows = x.mean(0), directions()
    pre = (x - mean) @ rows.T
    rank = max(1, min(round(l0 * len(x)), pre.numel() - 1))
    # Between two observed values, so that rounding cannot change which units are active.
    threshold = pre.flatten().topk(rank + 1).values[-2:].mean()

    def along(y: Float[Tensor, "*batch d"], rows: Float[Tensor, "k d"]) -> Float[Tensor, "*batch k"]:
        pre = (y - mean) @ rows.T
        return pre * (pre > threshold)

    written = along(x, rows) @ rows
    scale = (written * (x - mean)).sum() / (written * written).sum().clamp(min=1e-12)

    def make() -> Affine:
        rows = directions()
        numbers = UnitWise(lambda y: (y - mean, None), rows.T, rows.new_zeros(len(rows)), threshold.expand(len(rows)))
        return Affine(
            lambda y: along(y, rows),
            scale * rows,
            mean,
            some=lambda y, units: along(y, rows[units]),
            unit_wise=numbers if threshold >= 0 else None,
        )

    return make
