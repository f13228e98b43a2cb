"""Circuits of bootstrap resamples of the discovery prompts, from scores that were kept by groups of prompts."""

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from neuron_vs_sae.core.conventions import RankBy
from neuron_vs_sae.core.nodes import NodeScores
from neuron_vs_sae.core.pairs import PromptPairs

RESAMPLES = 200
"""Resamples of the folds; each is a ranking of the nodes."""

MOST_TEMPLATES = 20
"""Templates that are scored apart, the commonest first: each takes memory (`Folds`)."""

_HELD = 1 << 24  # scores of resamples held at a time, 64 MiB


@dataclass(frozen=True, eq=False)
class Folds:
    """Folds of the discovery prompts that are scored apart: first the folds, then templates by name.

    Each takes a float32 per node of all bases that are attributed together, for as long as that lasts; nothing of it is
    written.
    """

    members: Bool[Tensor, "batch groups"]
    folds: int
    templates: tuple[str, ...]

    def marked(self, pairs: PromptPairs) -> PromptPairs:
        """The pairs with their groups; as they are where there is none."""
        return replace(pairs, groups=self.members) if self.members.shape[1] else pairs

    @property
    def prompts(self) -> Int[Tensor, " groups"]:
        """How many prompts each group has."""
        return self.members.sum(0)


def folds_of(pairs: PromptPairs, folds: int, seed: int) -> Folds:
    """`folds` folds of sizes that differ by at most one (as many as pairs, if those are fewer), dealt at random by `seed`,
    and the templates (values of the tag `template`) where there are several. One fold: no groups at all."""
    n = len(pairs)
    if folds == 1 or n == 1:
        return Folds(torch.zeros(n, 0, dtype=torch.bool), 0, ())
    folds = min(folds, n)
    fold = torch.randperm(n, generator=torch.Generator().manual_seed(seed)) % folds
    tags = [tag.get("template") for tag in pairs.tags]
    several = Counter(tag for tag in tags if tag is not None).most_common(MOST_TEMPLATES)
    templates = tuple(name for name, _ in several) if len(set(tags)) > 1 else ()
    members = [fold == i for i in range(folds)] + [torch.tensor([tag == name for tag in tags]) for name in templates]
    return Folds(torch.stack(members, 1), folds, templates)


@dataclass(frozen=True, eq=False)
class Choice:
    """How circuits are chosen from scores: candidates, order, and the sizes (of at least one node) to compare."""

    among: Bool[Tensor, " nodes"]
    sizes: tuple[int, ...]
    rank_by: RankBy

    def for_scores(self, *rankings: NodeScores) -> "Choice":
        """The same at those sizes that no ranking fills with nodes of score 0, whose order is their place alone."""
        scored = [(s.values if self.rank_by == "signed" else s.values.abs()) > 0 for s in rankings]
        most = min(int((some & self.among).sum()) for some in scored)
        return replace(self, sizes=tuple(k for k in self.sizes if k <= most))

    @property
    def largest(self) -> int:
        return max(self.sizes, default=0)

    def order(self, scores: NodeScores) -> Int[Tensor, " k"]:
        """The nodes of the largest circuit, best first."""
        return scores.order(rank_by=self.rank_by, among=self.among)[: self.largest]


@dataclass(frozen=True, eq=False)
class Resampled:
    """Per resample and size, how many nodes (and how many of these error nodes) the circuit has in common with the whole
    set's, and per size the share of resamples that keep each of `nodes`; they keep no other."""

    common: Int[np.ndarray, "resamples sizes"]
    common_errors: Int[np.ndarray, "resamples sizes"]
    nodes: Int[Tensor, " some"]
    kept: Float[Tensor, "sizes some"]


def resample(scores: NodeScores, groups: Folds, choice: Choice, seed: int) -> Resampled:
    """The circuits of `RESAMPLES` draws of the folds with replacement: the same draws for every basis and method.

    Exact, ties included: nodes that are zero in every fold are zero in every resample, so that only the first of them
    can be chosen and no others need be ranked. Cost: `RESAMPLES` sorts of the nodes that are left.
    """
    assert scores.by_group is not None  # groups were marked
    order, by_fold = choice.order(scores), scores.by_group[: groups.folds]
    zero = choice.among & (by_fold == 0).all(0)
    ranked = choice.among & ~zero
    ranked[zero.nonzero().flatten()[: choice.largest]] = True
    ranked[order] = True
    nodes = ranked.nonzero().flatten()
    values, is_error = by_fold[:, nodes], scores.index.is_error[nodes]
    rank = torch.full((len(scores.index),), choice.largest)
    rank[order] = torch.arange(len(order))
    rank = rank[nodes]

    common, common_errors = np.zeros((2, RESAMPLES, len(choice.sizes)), dtype=np.int64)
    kept = torch.zeros(len(choice.sizes), len(nodes))
    weights = _draws(groups, seed)
    for rows in torch.arange(RESAMPLES).split(max(1, _HELD // len(nodes))):
        keys = weights[rows] @ values
        keys = keys.abs() if choice.rank_by == "absolute" else keys
        found = torch.sort(keys, descending=True, stable=True).indices[:, : choice.largest]
        for i, k in enumerate(choice.sizes):
            first = found[:, :k]
            both = rank[first] < k
            common[rows, i] = both.sum(1)
            common_errors[rows, i] = (both & is_error[first]).sum(1)
            kept[i] += torch.bincount(first.flatten(), minlength=len(nodes))
    return Resampled(common, common_errors, nodes, kept / RESAMPLES)


def _draws(groups: Folds, seed: int) -> Float[Tensor, "resamples folds"]:
    """The weight of every fold's mean in every resample's: how often it was drawn, times its prompts; rows sum to 1."""
    times = np.random.default_rng(seed).multinomial(groups.folds, [1 / groups.folds] * groups.folds, RESAMPLES)
    prompts = torch.from_numpy(times) * groups.prompts[: groups.folds]
    return (prompts / prompts.sum(1, keepdim=True)).float()
