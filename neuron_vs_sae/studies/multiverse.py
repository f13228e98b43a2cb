"""All specifications of one comparison side by side, on one task or on all: what the robust verdict is read from."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from neuron_vs_sae.statistics.bootstrap import Estimate
from neuron_vs_sae.statistics.resampling import Clusters
from neuron_vs_sae.studies.comparing import Control
from neuron_vs_sae.studies.families import baselines
from neuron_vs_sae.studies.findings import Finding

CONVENTIONS = ("errors", "size_measure", "method", "ablation", "metric")
"""The factors of the design: what an author chooses."""
ALL_TASKS = "all"


@dataclass(frozen=True, eq=False)
class Multiverse:
    """k specifications of one pair of bases by one score: the level of every convention, the difference of areas (a less b),
    its contrast per prompt, and the controls' contrasts in the same specifications. Seeds are averaged.

    `p` is each one's sign-flip p and `unbeaten` marks what each control does not let stand (`findings.Finding`), where
    they are known: of one task and seed.
    """

    task: str
    factors: dict[str, list[str]]
    difference: Estimate
    contrasts: Float[np.ndarray, "batch k"]
    clusters: Clusters
    controls: tuple[Control, ...]
    p: Float[np.ndarray, " k"] | None = None
    unbeaten: tuple[Bool[np.ndarray, " k"], ...] | None = None

    def names(self) -> list[tuple[str, ...]]:
        return list(zip(*self.factors.values(), strict=True))

    def mixed(self, weights: Float[np.ndarray, "k m"], factors: dict[str, list[str]]) -> "Multiverse":
        """`m` weighted means of the specifications."""
        controls = tuple(Control(c.basis, c.of, c.contrasts @ weights) for c in self.controls)
        return Multiverse(
            self.task, factors, self.difference.weighted(weights), self.contrasts @ weights, self.clusters, controls
        )


def of_finding(finding: Finding, score: str) -> Multiverse | None:
    """The specifications by this score, seeds averaged; without baselines, and those that some seed lacks. None where none is left."""
    comparison, labels = finding.comparison, finding.comparison.labels
    keys = [tuple(map(str, row)) for row in labels[list(CONVENTIONS)].itertuples(index=False, name=None)]
    usable = (labels["score"] == score).to_numpy(dtype=bool) & ~baselines(labels["method"])
    places: dict[tuple[str, ...], list[int]] = {}
    for place in np.flatnonzero(usable):
        places.setdefault(keys[place], []).append(int(place))
    n_seeds = len(set(labels["seed"]))
    whole = {key: own for key, own in places.items() if len(own) == n_seeds}
    if not whole:
        return None
    factors = {name: [key[i] for key in whole] for i, name in enumerate(CONVENTIONS)}
    seeds = np.array(list(whole.values()))
    columns = seeds.ravel()
    controls = tuple(Control(c.basis, c.of, c.contrasts[:, columns]) for c in comparison.controls)
    p, unbeaten = finding.rows["p"].to_numpy(np.float64)[columns], tuple(flags[columns] for flags in finding.unbeaten)
    difference, contrasts = comparison.difference.take(columns), comparison.contrasts[:, columns]
    every = Multiverse(comparison.task, factors, difference, contrasts, comparison.clusters, controls, p, unbeaten)
    if n_seeds == 1:
        return every
    return every.mixed(np.kron(np.eye(len(whole)), np.full((n_seeds, 1), 1 / n_seeds)), factors)


def pooled(tasks: Sequence[Multiverse]) -> Multiverse | None:
    """The mean over tasks, each weighing the same, of the specifications that all tasks have; clusters lie within tasks.

    Controls are pooled where all tasks have them. None where tasks share no specification.
    """
    shared = [key for key in tasks[0].names() if all(key in set(task.names()) for task in tasks)]
    if not shared:
        return None
    factors = {name: [key[i] for key in shared] for i, name in enumerate(tasks[0].factors)}
    columns = [np.array([task.names().index(key) for key in shared]) for task in tasks]
    clusters, sizes = _side_by_side([task.clusters for task in tasks]), [len(task.contrasts) for task in tasks]
    # The mean over all prompts is then the mean over tasks of each task's mean.
    scales = [sum(sizes) / (len(tasks) * size) for size in sizes]

    def together(parts: Sequence[Float[np.ndarray, "_ k"]]) -> Float[np.ndarray, "batch k"]:
        return np.concatenate([scale * x[:, own] for scale, x, own in zip(scales, parts, columns, strict=True)])

    names = [[(c.of, c.basis) for c in task.controls] for task in tasks]
    common = [name for name in names[0] if all(name in own for own in names)]
    by_name = [{(c.of, c.basis): c.contrasts for c in task.controls} for task in tasks]
    return Multiverse(
        ALL_TASKS,
        factors,
        _mean([task.difference.take(own) for task, own in zip(tasks, columns, strict=True)]),
        together([task.contrasts for task in tasks]),
        clusters,
        tuple(Control(basis, of, together([own[of, basis] for own in by_name])) for of, basis in common),
    )


def _side_by_side(tasks: Sequence[Clusters]) -> Clusters:
    """The clusters of several tasks, numbered through: a cluster and a stratum lie within their task."""
    clusters, strata, n_clusters, n_strata = [], [], 0, 0
    for own in tasks:
        clusters.append(own.cluster + n_clusters)
        strata.append(own.stratum + n_strata)
        n_clusters, n_strata = n_clusters + own.n_clusters, n_strata + len(own.strata)
    return Clusters(np.concatenate(clusters), np.concatenate(strata))


def _mean(tasks: Sequence[Estimate]) -> Estimate:
    """The mean of estimates that were drawn independently: each cluster is left out of its own task."""
    k = len(tasks)
    value = np.mean([task.value for task in tasks], axis=0)
    left_out = np.concatenate([value + (task.left_out - task.value) / k for task in tasks])
    strata, offset = [], 0
    for task in tasks:
        strata += [members + offset for members in task.strata]
        offset += len(task.left_out)
    replicates = np.zeros_like(tasks[0].replicates)
    for task in tasks:
        replicates += task.replicates / k
    return Estimate(value, replicates, left_out, tuple(strata))
