"""Units of many prompts' graphs grouped by what they are made of and what they are for.

Two units are alike as far as, in the prompts where both survive pruning, their values come from the same tokens and they raise the
same targets: the harmonic mean of both cosines (negative ones count 0), averaged over those prompts. Pairs that meet in fewer
than `min_support` prompts have no likeness that is known, so it is 0; a unit without any such pair is left unassigned, rather
than forced into a group.
Source: the affinity of ADAG (arXiv 2604.07615) as its paper defines it; spectral clustering is scikit-learn's.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from neuron_vs_sae.analyses.graphs.profiles import Key, Profiles, label
from neuron_vs_sae.core.errors import InputError

UNASSIGNED = -1


@dataclass(frozen=True, eq=False)
class Affinity:
    """How alike units are, and in how many prompts each pair (on the diagonal: each unit) was seen."""

    keys: tuple[Key, ...]
    likeness: Float[np.ndarray, "keys keys"]
    support: Int[np.ndarray, "keys keys"]


@dataclass(frozen=True, eq=False)
class Supernodes:
    """Groups of units. `group` is each unit's (`UNASSIGNED` where nothing is known of it), `labels` what each group is about.

    `coverage` is the share of all |total| that assigned units hold, `unsupported` the share of pairs within groups that never met
    in enough prompts.
    """

    keys: tuple[Key, ...]
    group: Int[np.ndarray, " keys"]
    labels: tuple[str, ...]
    coverage: float
    unsupported: float

    def members(self, group: int) -> set[Key]:
        return {key for key, of in zip(self.keys, self.group.tolist(), strict=True) if of == group}


def affinity(prompts: Sequence[Profiles], min_support: int) -> Affinity:
    """The likeness of every pair of units that meet in at least `min_support` prompts, 0 for the others."""
    keys = tuple(sorted({key for prompt in prompts for key in prompt.keys}))
    place = {key: i for i, key in enumerate(keys)}
    total, support = np.zeros((len(keys), len(keys))), np.zeros((len(keys), len(keys)), dtype=int)
    for prompt in prompts:
        rows = np.array([place[key] for key in prompt.keys], dtype=int)
        views = [_cosines(table) for table in (prompt.sources, prompt.uses)]
        both = views[0] + views[1]
        harmonic = torch.where(both > 0, 2 * views[0] * views[1] / both.clamp(min=1e-12), 0.0)
        total[np.ix_(rows, rows)] += harmonic.numpy()
        support[np.ix_(rows, rows)] += 1
    likeness = np.where(support >= min_support, total / np.maximum(support, 1), 0.0)
    return Affinity(keys, likeness, support)


def supernodes(prompts: Sequence[Profiles], *, k: int | None = None, min_support: int = 2, seed: int = 0) -> Supernodes:
    """`k` groups of units by spectral clustering; by default as many as the largest gap between eigenvalues tells.

    Raises `InputError` without scikit-learn, and where too few units meet in enough prompts to be grouped.
    """
    alike = affinity(prompts, min_support)
    outside = alike.likeness - np.diag(np.diag(alike.likeness))
    known = np.flatnonzero((outside > 0).any(1))
    groups = groups_of_gap(outside[np.ix_(known, known)]) if k is None else k
    if not 1 <= groups < len(known):
        raise InputError(
            f"{groups} groups of {len(known)} units that meet in at least {min_support} of {len(prompts)} prompts: trace more prompts, "
            "or ask for fewer groups or less support"
        )
    group = np.full(len(alike.keys), UNASSIGNED)
    group[known] = _spectral(alike.likeness[np.ix_(known, known)], groups, seed)
    return described(prompts, alike, group, min_support)


def described(
    prompts: Sequence[Profiles], alike: Affinity, group: Int[np.ndarray, " keys"], min_support: int
) -> Supernodes:
    """Groups with their labels and how well they are supported, however they were made."""
    mass = dict.fromkeys(alike.keys, 0.0)
    for prompt in prompts:
        for key, total in zip(prompt.keys, prompt.total.abs().tolist(), strict=True):
            mass[key] += total
    held = np.array([mass[key] for key in alike.keys])
    together = (group[:, None] == group) & (group != UNASSIGNED)[:, None] & ~np.eye(len(group), dtype=bool)
    labels = []
    for g in range(int(group.max(initial=UNASSIGNED)) + 1):
        members = {key for key, of in zip(alike.keys, group.tolist(), strict=True) if of == g}
        labels.append(label(members, list(prompts)))
    return Supernodes(
        keys=alike.keys,
        group=group,
        labels=tuple(labels),
        coverage=float(held[group != UNASSIGNED].sum() / max(held.sum(), 1e-12)),
        unsupported=float((alike.support < min_support)[together].mean()) if together.any() else 0.0,
    )


def groups_of_gap(likeness: Float[np.ndarray, "n n"], most: int = 40) -> int:
    """As many groups as there are small eigenvalues of the normalised Laplacian before its largest gap, at least 2."""
    if len(likeness) < 3:
        return len(likeness)
    degree = np.maximum(likeness.sum(1), 1e-12)
    laplacian = np.eye(len(likeness)) - likeness / np.sqrt(degree[:, None] * degree)
    values = np.linalg.eigvalsh(laplacian)[: min(most, len(likeness) - 1) + 1]
    return 1 + int(np.argmax(np.diff(values)[1:])) + 1 if len(values) > 2 else 2


def _spectral(likeness: Float[np.ndarray, "n n"], k: int, seed: int) -> Int[np.ndarray, " n"]:
    check_installed()
    from sklearn.cluster import SpectralClustering

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Graph is not fully connected", UserWarning)
        model = SpectralClustering(k, affinity="precomputed", random_state=seed, assign_labels="cluster_qr")
        return model.fit_predict(likeness)


def check_installed() -> None:
    """Raises `InputError` where scikit-learn is not installed."""
    from importlib.util import find_spec

    if find_spec("sklearn") is None:
        raise InputError("supernodes need scikit-learn: pip install 'neuron_vs_sae[graphs]'")


def _cosines(table: Float[Tensor, "keys n"]) -> Float[Tensor, "keys keys"]:
    """The cosine of every pair of rows, negative ones and those of rows of zeros as 0."""
    unit = table / table.norm(dim=1, keepdim=True).clamp(min=1e-12)
    return (unit @ unit.T).clamp(0, 1)
