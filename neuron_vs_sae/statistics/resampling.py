"""How prompts are resampled: whole clusters, within strata, with the same draws for everything measured on those prompts."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from neuron_vs_sae.core.errors import InputError


@dataclass(frozen=True, eq=False)
class Clusters:
    """Each prompt's cluster and stratum, numbered from 0. Clusters are drawn; every stratum keeps its number of clusters.

    Clusters are independent of each other (a template, a lemma; by default every prompt is one); strata are fixed by the
    design (a case). Every cluster lies in one stratum.
    """

    cluster: Int[np.ndarray, " batch"]
    stratum: Int[np.ndarray, " batch"]

    @property
    def n_clusters(self) -> int:
        return int(self.cluster.max()) + 1

    def sums(self, values: Float[np.ndarray, "batch k"]) -> Float[np.ndarray, "clusters k"]:
        """Sums over each cluster's prompts."""
        sums = np.zeros((self.n_clusters, values.shape[1]))
        np.add.at(sums, self.cluster, values)
        return sums

    @property
    def strata(self) -> list[Int[np.ndarray, " members"]]:
        """The clusters of each stratum."""
        of_cluster = np.zeros(self.n_clusters, dtype=np.int64)
        of_cluster[self.cluster] = self.stratum
        return [np.flatnonzero(of_cluster == h) for h in range(int(self.stratum.max()) + 1)]


@dataclass(frozen=True, eq=False)
class Draws:
    """How often each cluster counts in each bootstrap resample. Values go in summed by cluster (`Clusters.sums`)."""

    clusters: Clusters
    counts: Float[np.ndarray, "resamples clusters"]

    def resampled(self, sums: Float[np.ndarray, "clusters k"]) -> Float[np.ndarray, "resamples k"]:
        """The sum over prompts in every resample. In memory the resamples of one quantity lie side by side, to be sorted."""
        return (sums.T @ self.counts.T).T

    def left_out(self, sums: Float[np.ndarray, "clusters k"]) -> Float[np.ndarray, "clusters k"]:
        """The sum over prompts with each cluster left out in turn, the others of its stratum counting for it."""
        total, without = sums.sum(0), np.empty_like(sums)
        for members in self.clusters.strata:
            inside = sums[members]
            n = len(members)
            without[members] = total - inside.sum(0) + (inside.sum(0) - inside) * n / max(n - 1, 1)
        return without


def independent(n: int) -> Clusters:
    """`n` prompts, each of them a cluster, in one stratum."""
    return Clusters(np.arange(n), np.zeros(n, dtype=np.int64))


def clusters_of(tags: Sequence[dict[str, str]], cluster_by: str, stratify_by: str, task: str) -> Clusters:
    """The clusters and strata of prompts with these tags; an empty name means none.

    Raises `InputError` where a prompt lacks the tag, where all have the same value, where a cluster lies in two strata,
    and where a stratum is a single cluster (it could not vary).
    """
    clusters = independent(len(tags))
    cluster = _numbered(tags, cluster_by, "--cluster-by", task) if cluster_by else clusters.cluster
    stratum = _numbered(tags, stratify_by, "--stratify-by", task) if stratify_by else clusters.stratum
    clusters = Clusters(cluster, stratum)
    for c in range(clusters.n_clusters):
        inside = np.unique(stratum[cluster == c])
        if len(inside) > 1:
            first = tags[int(np.flatnonzero(cluster == c)[0])]
            raise InputError(
                f"{cluster_by} {first[cluster_by]!r} of task '{task}' has prompts of {len(inside)} values of {stratify_by!r}: what is "
                "drawn together cannot lie in two strata. Use --cluster-by or --stratify-by alone, or another tag"
            )
    alone = [h for h, members in enumerate(clusters.strata) if len(members) < 2] if stratify_by else []
    if alone:
        value = tags[int(np.flatnonzero(stratum == alone[0])[0])][stratify_by]
        what = f"one {cluster_by}" if cluster_by else "one prompt"
        raise InputError(
            f"{stratify_by} {value!r} of task '{task}' has {what} for evaluation, so nothing can vary within it: give more "
            "(--eval-examples), or do not stratify"
        )
    return clusters


def _numbered(tags: Sequence[dict[str, str]], name: str, option: str, task: str) -> Int[np.ndarray, " batch"]:
    lacking = [i for i, tag in enumerate(tags) if name not in tag]
    if lacking:
        known = sorted({key for tag in tags for key in tag})
        raise InputError(
            f"evaluation pair {lacking[0]} of task '{task}' has no tag {name!r} ({option}); its tags are: "
            f"{', '.join(known) or 'none'}"
        )
    values = list(dict.fromkeys(tag[name] for tag in tags))
    if len(values) == 1:
        raise InputError(
            f"tag {name!r} is {values[0]!r} in all {len(tags)} evaluation pairs of task '{task}': {option} needs one that "
            "takes two values or more"
        )
    return np.array([values.index(tag[name]) for tag in tags], dtype=np.int64)


def draw(clusters: Clusters, resamples: int, seed: int | tuple[int, ...]) -> Draws:
    """`resamples` draws with replacement of each stratum's clusters, by `seed`."""
    rng = np.random.default_rng(seed)
    counts = np.zeros((resamples, clusters.n_clusters))
    for members in clusters.strata:
        n = len(members)
        drawn = rng.integers(0, n, (resamples, n)) + n * np.arange(resamples)[:, None]
        counts[:, members] = np.bincount(drawn.ravel(), minlength=resamples * n).reshape(resamples, n)
    return Draws(clusters, counts)
