"""What the largest m units of each token keep of a site's activation, and of the predictions made from it.

Units are ranked token by token by |value| x |write vector|: what is kept is what each writes most, in every basis alike.
A basis without error keeps everything only with all of its units, so it does not win by construction.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from neuron_vs_sae.catalog.corpora import Batch, Corpus
from neuron_vs_sae.core.basis import Basis, Site
from neuron_vs_sae.core.dictionary import Dictionary
from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.core.variance import explained_variance
from neuron_vs_sae.execution.passes import logits
from neuron_vs_sae.execution.splice import Edit, home, read


@dataclass(frozen=True, eq=False)
class Frontier:
    """Sums over the tokens of each context, so that contexts can be drawn again; float64.

    `lost` is |activation - what the `sizes` largest units write|², `spread` |activation - its mean over the corpus|². Cross-entropies are
    in nats, summed over the tokens predicted: of the model, with the site's activation zero, and with what each size keeps
    in its place. `carriers` sums the participation ratio of the units' contributions: how many units carry a token.
    """

    basis: str
    site: str
    width: int
    sizes: tuple[int, ...]
    tokens: Float[Tensor, " contexts"]
    carriers: Float[Tensor, " contexts"]
    spread: Float[Tensor, " contexts"]
    lost: Float[Tensor, "contexts sizes"]
    predicted: Float[Tensor, " contexts"]
    ce_model: Float[Tensor, " contexts"]
    ce_zero: Float[Tensor, " contexts"]
    ce_kept: Float[Tensor, "contexts sizes"]

    @property
    def explained_variance(self) -> Float[Tensor, " sizes"]:
        """Of the whole corpus: 1 is the activation itself, 0 its mean, below 0 worse than the mean."""
        return explained_variance(self.lost.sum(0), self.spread.sum())

    @property
    def ce_score(self) -> Float[Tensor, " sizes"]:
        """`(CE_zero - CE_kept) / (CE_zero - CE_model)`: 1 is the model, 0 the site's activation set to zero."""
        return (self.ce_zero.sum() - self.ce_kept.sum(0)) / (self.ce_zero.sum() - self.ce_model.sum())

    @property
    def effective_units(self) -> float:
        """Mean over tokens of `(sum of contributions)² / sum of their squares`, a contribution being |value| x |write vector|."""
        return float(self.carriers.sum() / self.tokens.sum())


def frontier(
    model: Any, basis: Basis, corpus: Corpus, *, sizes: Sequence[int] | None = None, batch_size: int = 16
) -> list[Frontier]:
    """The frontier of each site of the basis, one site at a time, the rest of the model running live.

    `sizes` default to 0, 1, 2, 5, 10, ... and all units; a size beyond a dictionary's width means all of it. The activation is replaced
    at the tokens of the text (not at BOS or padding), and the predictions made there of the next token are counted. Cost: three
    forward passes per site, one of them no further than the site, and one per site and size. Raises `InputError` where setting a site to zero changes no prediction.
    """
    if sizes is not None and (not sizes or min(sizes) < 0):
        raise InputError(f"sizes {list(sizes)}: give numbers of units per token, 0 or more (--sizes)")
    frontiers = []
    for s in range(len(basis.sites)):
        parts = [
            _of_batch(model, basis, s, batch, grid(basis.dictionaries[s].width, sizes))
            for batch in corpus.batches(batch_size)
        ]
        frontiers.append(_joined(basis, s, grid(basis.dictionaries[s].width, sizes), parts))
    return frontiers


def grid(width: int, sizes: Sequence[int] | None) -> tuple[int, ...]:
    """The sizes that a dictionary of this width is run at, ascending."""
    asked = sizes if sizes is not None else [0, *(m * 10**e for e in range(7) for m in (1, 2, 5)), width]
    return tuple(sorted({min(size, width) for size in asked}))


@dataclass(frozen=True, eq=False)
class _Part:
    """A batch's sums per context; `total` and `squares` of the activation give the spread."""

    tokens: Float[Tensor, " contexts"]
    total: Float[Tensor, "contexts d"]
    squares: Float[Tensor, " contexts"]
    carriers: Float[Tensor, " contexts"]
    lost: Float[Tensor, "contexts sizes"]
    predicted: Float[Tensor, " contexts"]
    entropies: Float[Tensor, "contexts runs"]


def _of_batch(model: Any, basis: Basis, s: int, batch: Batch, sizes: Sequence[int]) -> _Part:
    site, dictionary = basis.sites[s], basis.dictionaries[s]
    tokens, length, real = (x.to(home(model)) for x in (batch.tokens, batch.length, batch.real))
    seen = read(model, tokens, length, list(dict.fromkeys((site.reads, site.writes))))
    x = site.view(seen[site.writes])
    kept, carriers = _kept(dictionary, site.view(seen[site.reads]), sizes)
    lost, runs = [], [x, torch.zeros_like(x)]
    for units in kept:
        decoded = dictionary.decode(units)
        lost.append(_sum((x - decoded).double().square().sum(-1), real))
        runs.append(decoded)
    entropies = [
        _cross_entropy(model, site, tokens, length, real, torch.where(real[..., None], run, x)) for run in runs
    ]
    present = torch.tensor([context is not None for context in batch.contexts])
    pairs = real[:, :-1] & real[:, 1:]
    sums = _Part(
        tokens=real.double().sum(1),
        total=torch.where(real[..., None], x.double(), 0.0).sum(1),
        squares=_sum(x.double().square().sum(-1), real),
        carriers=_sum(carriers, real),
        lost=torch.stack(lost, 1),
        predicted=pairs.double().sum(1),
        entropies=torch.stack(entropies, 1),
    )
    return _Part(**{name: getattr(sums, name).cpu()[present] for name in _Part.__dataclass_fields__})


def _kept(
    dictionary: Dictionary, y: Float[Tensor, "batch pos d_in"], sizes: Sequence[int]
) -> tuple[list[Float[Tensor, "batch pos width"]], Float[Tensor, "batch pos"]]:
    """Per size the units with all but the largest contributions at zero; and each token's participation ratio."""
    with torch.no_grad():
        units = dictionary.encode(y)
    every = torch.arange(dictionary.width, device=y.device)
    norms = torch.cat([dictionary.directions(some).norm(dim=-1) for some in every.split(4096)])
    contribution = (units * norms).abs()
    order = contribution.sort(dim=-1, descending=True, stable=True).indices[..., : max(sizes)]
    kept = [torch.zeros_like(units).scatter(-1, order[..., :m], units.gather(-1, order[..., :m])) for m in sizes]
    squares = contribution.double().square().sum(-1)
    ratio = torch.where(squares > 0, contribution.double().sum(-1).square() / squares, 0.0)
    return kept, ratio


def _cross_entropy(
    model: Any,
    site: Site,
    tokens: Int[Tensor, "batch pos"],
    length: Int[Tensor, " batch"],
    real: Bool[Tensor, "batch pos"],
    instead: Float[Tensor, "batch pos d"],
) -> Float[Tensor, " batch"]:
    """Nats summed over each context's predictions, `instead` being at the site."""
    last = f"blocks.{model.cfg.n_layers - 1}.hook_resid_post"
    edits: list[Edit] = [(site.writes, lambda x: site.put(x, instead))]
    resid = read(model, tokens, length, [last], edits)[last]
    with torch.no_grad():
        log_probabilities = logits(model, resid[:, :-1].flatten(0, 1).to(model.cfg.dtype)).log_softmax(-1)
    nats = -log_probabilities.gather(1, tokens[:, 1:].flatten()[:, None])[:, 0].unflatten(0, (len(tokens), -1))
    return _sum(nats.double(), real[:, :-1] & real[:, 1:])


def _sum(values: Float[Tensor, "batch pos"], where: Bool[Tensor, "batch pos"]) -> Float[Tensor, " batch"]:
    return torch.where(where, values.double(), 0.0).sum(1)


def _joined(basis: Basis, s: int, sizes: tuple[int, ...], parts: Sequence[_Part]) -> Frontier:
    joined = _Part(**{name: torch.cat([getattr(part, name) for part in parts]) for name in _Part.__dataclass_fields__})
    mean = joined.total.sum(0) / joined.tokens.sum()
    ce_model, ce_zero = joined.entropies[:, 0], joined.entropies[:, 1]
    if abs(float(ce_zero.sum() - ce_model.sum())) <= 1e-6 * float(joined.predicted.sum()):
        raise InputError(
            f"setting {basis.sites[s].name} to zero changes no prediction of the corpus, so there is nothing to keep: take another site "
            "or a longer corpus (--contexts)"
        )
    return Frontier(
        basis=basis.name,
        site=basis.sites[s].name,
        width=basis.dictionaries[s].width,
        sizes=sizes,
        tokens=joined.tokens,
        carriers=joined.carriers,
        spread=joined.squares - 2 * joined.total @ mean + joined.tokens * mean.square().sum(),
        lost=joined.lost,
        predicted=joined.predicted,
        ce_model=ce_model,
        ce_zero=ce_zero,
        ce_kept=joined.entropies[:, 2:],
    )
