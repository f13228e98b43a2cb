"""What groups of units are worth: how they hold on other prompts, and which hidden variable each of them tells."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from neuron_vs_sae.analyses.graphs.profiles import Profiles
from neuron_vs_sae.analyses.graphs.supernodes import UNASSIGNED, Affinity, Supernodes, described, supernodes
from neuron_vs_sae.core.basis import Basis


@dataclass(frozen=True)
class Telling:
    """A value of a hidden variable and the group that tells it: AUROC where it was chosen, and on other prompts."""

    value: str
    group: int
    chosen: float
    auroc: float
    n: int


def activity(
    groups: Supernodes, prompts: Sequence[Profiles]
) -> tuple[Float[np.ndarray, "prompts groups"], Float[np.ndarray, " prompts"]]:
    """(per prompt and group the |total| of its members, per prompt the share of |total| of units that are in no group).

    Prompts may be others than the groups were made on: a unit is assigned by what it is.
    """
    of = dict(zip(groups.keys, groups.group.tolist(), strict=True))
    table, unknown = np.zeros((len(prompts), len(groups.labels))), np.zeros(len(prompts))
    for row, prompt in enumerate(prompts):
        sizes = prompt.total.abs().tolist()
        for key, size in zip(prompt.keys, sizes, strict=True):
            group = of.get(key, UNASSIGNED)
            if group == UNASSIGNED:
                unknown[row] += size
            else:
                table[row, group] += size
        unknown[row] /= max(sum(sizes), 1e-12)
    return table, unknown


def telling_groups(
    table: Float[np.ndarray, "prompts groups"], values: Sequence[str], chosen_on: Bool[np.ndarray, " prompts"]
) -> list[Telling]:
    """For each value with a prompt in both halves, the group whose activity tells it from all others best where it is chosen."""
    labels, tellings = np.array(values), []
    for value in sorted(set(values)):
        mine = labels == value
        if not all(0 < (mine & half).sum() < half.sum() for half in (chosen_on, ~chosen_on)):
            continue
        scores = np.array([auroc(table[chosen_on, g], mine[chosen_on]) for g in range(table.shape[1])])
        best = int(scores.argmax())
        on_others = auroc(table[~chosen_on, best], mine[~chosen_on])
        tellings.append(Telling(value, best, float(scores[best]), on_others, int(mine.sum())))
    return tellings


def auroc(scores: Float[np.ndarray, " n"], positive: Bool[np.ndarray, " n"]) -> float:
    """The probability that a positive has the larger score, ties counting half."""
    from scipy.stats import rankdata

    ranks, n = rankdata(scores), int(positive.sum())
    return float((ranks[positive].sum() - n * (n + 1) / 2) / (n * (len(scores) - n)))


def at_random(groups: Supernodes, seed: int) -> Supernodes:
    """Groups of the same sizes, of the same units dealt out anew."""
    assigned = np.flatnonzero(groups.group != UNASSIGNED)
    dealt = groups.group.copy()
    dealt[assigned] = np.random.default_rng(seed).permutation(dealt[assigned])
    return Supernodes(groups.keys, dealt, groups.labels, groups.coverage, groups.unsupported)


def by_directions(basis: Basis, groups: Supernodes, prompts: Sequence[Profiles], seed: int) -> Supernodes:
    """As many groups by k-means of the units' write vectors, each sign its own: what geometry alone says. One width of site only."""
    import torch
    from sklearn.cluster import KMeans

    sites = {site.name: dictionary for site, dictionary in zip(basis.sites, basis.dictionaries, strict=True)}
    vectors = [
        (1 if sign == "+" else -1) * sites[site].directions(torch.tensor([unit]))[0] for site, unit, sign in groups.keys
    ]
    unit = torch.stack([vector / vector.norm() for vector in vectors]).numpy()
    assigned = np.flatnonzero(groups.group != UNASSIGNED)
    group = np.full(len(groups.keys), UNASSIGNED)
    group[assigned] = KMeans(len(groups.labels), n_init="auto", random_state=seed).fit_predict(unit[assigned])
    nothing = np.zeros((len(unit), len(unit)))
    return described(prompts, Affinity(groups.keys, nothing, nothing.astype(int)), group, 0)


def by_correlation(groups: Supernodes, prompts: Sequence[Profiles], seed: int) -> Supernodes:
    """As many groups by how the units' totals go together over prompts: what co-occurrence alone says."""
    from sklearn.cluster import AgglomerativeClustering

    del seed  # there is nothing to draw
    place = {key: i for i, key in enumerate(groups.keys)}
    table = np.zeros((len(groups.keys), len(prompts)))
    for column, prompt in enumerate(prompts):
        for key, total in zip(prompt.keys, prompt.total.tolist(), strict=True):
            table[place[key], column] = total
    centred = table - table.mean(1, keepdims=True)
    unit = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)
    assigned = np.flatnonzero(groups.group != UNASSIGNED)
    group = np.full(len(groups.keys), UNASSIGNED)
    model = AgglomerativeClustering(len(groups.labels), metric="precomputed", linkage="average")
    group[assigned] = model.fit_predict(1 - unit[assigned] @ unit[assigned].T)
    nothing = np.zeros((len(table), len(table)))
    return described(prompts, Affinity(groups.keys, nothing, nothing.astype(int)), group, 0)


def split_half(prompts: Sequence[Profiles], groups: Supernodes, *, min_support: int, seed: int) -> float:
    """The adjusted Rand index of groups made on one half of the prompts and on the other, over the units that both assign."""
    from sklearn.metrics import adjusted_rand_score

    order = np.random.default_rng(seed).permutation(len(prompts))
    halves = []
    for part in (order[::2], order[1::2]):
        groups_of_half = supernodes(
            [prompts[i] for i in sorted(part)], k=len(groups.labels), min_support=min_support, seed=seed
        )
        halves.append(
            {
                key: g
                for key, g in zip(groups_of_half.keys, groups_of_half.group.tolist(), strict=True)
                if g != UNASSIGNED
            }
        )
    shared = sorted(halves[0].keys() & halves[1].keys())
    return float(adjusted_rand_score([halves[0][key] for key in shared], [halves[1][key] for key in shared]))
