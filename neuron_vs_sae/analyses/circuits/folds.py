"""Circuits of bootstrap resamples of the discovery prompts, from scores that were kept per group of prompts."""

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
"""The number of bootstrap resamples of the folds; each gives a ranking of the nodes."""

MOST_TEMPLATES = 20
"""The most templates that are scored apart, the commonest first: each takes memory (`Folds`)."""

_HELD = 1 << 24  # scores of resamples held at a time, 64 MiB


@dataclass(frozen=True, eq=False)
class Folds:
    """The groups of discovery prompts that are scored apart: first the folds, then the templates by name.

    While attribution runs, each group takes a float32 per node of all bases that are attributed together; none of it is written.
    """

    members: Bool[Tensor, "batch groups"]
    n_folds: int
    templates: tuple[str, ...]

    def marked(self, pairs: PromptPairs) -> PromptPairs:
        """The pairs, marked with their groups; unchanged where there are none."""
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
        """The same at those sizes that every ranking reaches."""
        shortest = min(int(((scores.values != 0) & self.among).sum()) for scores in rankings)
        return replace(self, sizes=tuple(k for k in self.sizes if k <= shortest))

    @property
    def largest(self) -> int:
        return max(self.sizes, default=0)

    def order(self, scores: NodeScores) -> Int[Tensor, " k"]:
        """The nodes of the largest circuit, best first."""
        return scores.order(rank_by=self.rank_by, among=self.among)[: self.largest]


@dataclass(frozen=True, eq=False)
class Resampled:
    """Per resample and size: how many nodes the circuit has in common with that of all prompts (`common`), how many of these are error
    nodes, and how many nodes it has (`lengths`), fewer than the size where fewer have a score in that resample. `kept` is, per size,
    the share of resamples that keep each of `nodes`; they keep no others."""

    common: Int[np.ndarray, "resamples sizes"]
    common_errors: Int[np.ndarray, "resamples sizes"]
    lengths: Int[np.ndarray, "resamples sizes"]
    nodes: Int[Tensor, " some"]
    kept: Float[Tensor, "sizes some"]


def resampled_circuits(scores: NodeScores, folds: Folds, choice: Choice, seed: int) -> Resampled:
    """The circuits of `RESAMPLES` draws of the folds with replacement: the same draws for every basis and method.

    A node whose score is 0 in every fold is in no resample's circuit, so only the others are ranked; one whose score is 0 in a
    resample is in none of that resample's circuits. Cost: `RESAMPLES` sorts of the nodes that are left.
    """
    assert scores.by_group is not None  # groups were marked
    order, by_fold = choice.order(scores), scores.by_group[: folds.n_folds]
    ranked = choice.among & (by_fold != 0).any(0)
    ranked[order] = True
    nodes = ranked.nonzero().flatten()
    values, is_error = by_fold[:, nodes], scores.index.is_error[nodes]
    rank = torch.full((len(scores.index),), choice.largest)
    rank[order] = torch.arange(len(order))
    rank = rank[nodes]

    common, common_errors, lengths = np.zeros((3, RESAMPLES, len(choice.sizes)), dtype=np.int64)
    kept = torch.zeros(len(choice.sizes), len(nodes))
    weights = _draws(folds, seed)
    for rows in torch.arange(RESAMPLES).split(max(1, _HELD // len(nodes))):
        drawn = weights[rows] @ values
        keys = drawn.abs() if choice.rank_by == "absolute" else drawn
        keys = keys.masked_fill(drawn == 0, -torch.inf)
        top = torch.sort(keys, descending=True, stable=True).indices[:, : choice.largest]
        has_score = drawn.gather(1, top) != 0
        for i, k in enumerate(choice.sizes):
            first, there = top[:, :k], has_score[:, :k]
            both = (rank[first] < k) & there
            common[rows, i] = both.sum(1)
            common_errors[rows, i] = (both & is_error[first]).sum(1)
            lengths[rows, i] = there.sum(1)
            kept[i] += torch.bincount(first[there], minlength=len(nodes))
    return Resampled(common, common_errors, lengths, nodes, kept / RESAMPLES)


def _draws(folds: Folds, seed: int) -> Float[Tensor, "resamples folds"]:
    """The weight of each fold's mean in each resample: how often it was drawn, times its prompts; rows sum to 1."""
    times = np.random.default_rng(seed).multinomial(folds.n_folds, [1 / folds.n_folds] * folds.n_folds, RESAMPLES)
    prompts = torch.from_numpy(times) * folds.prompts[: folds.n_folds]
    return (prompts / prompts.sum(1, keepdim=True)).float()
