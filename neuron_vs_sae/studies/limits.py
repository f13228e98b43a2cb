"""What a study cannot decide, known before it runs: a family of comparisons that is too large for its number of prompts."""

from collections.abc import Mapping
from dataclasses import dataclass

from scipy.stats import t

from neuron_vs_sae.core.lookup import parse
from neuron_vs_sae.statistics.permutation import resolution
from neuron_vs_sae.studies.families import CONFIRMATORY, family
from neuron_vs_sae.studies.study import Study


@dataclass(frozen=True)
class Limit:
    """What one task's prompts can show in the confirmatory family of robust verdicts.

    `family` is the number of comparisons that Holm's adjustment counts (tasks and their mean x pairs), `needed` the p that the clearest
    of them must reach, `resolution` the smallest that the task's clusters can give (`2 / 2 ** n`), `clusters_needed` how many
    would give it, and `detectable` the difference, in standard deviations of the prompts' contrasts, that is found at
    `needed` with a power of 80 %.
    """

    task: str
    n_clusters: int
    family: int
    needed: float
    resolution: float
    clusters_needed: int
    detectable: float

    @property
    def decidable(self) -> bool:
        """Whether any difference, however clear, can be called better on this task."""
        return self.resolution < self.needed

    @property
    def message(self) -> str:
        """A warning to give before the run; empty where the task can be decided."""
        if self.decidable:
            return ""
        return (
            f"task '{self.task}' has {self.n_clusters} evaluation clusters, whose sign flips give no p below {self.resolution:.2g}; "
            f"in a family of {self.family} comparisons the clearest needs p < {self.needed:.2g}, so neither basis can be called better "
            f"there. Give at least {self.clusters_needed} clusters (--eval-examples), or ask about fewer tasks or dictionaries"
        )


def family_size(study: Study, n_tasks: int) -> int:
    """Comparisons of one score in the confirmatory family: neurons against each trained dictionary, per task and over all tasks."""
    first = [basis for basis in study.basis if parse("bases", basis).name == "mlp_neurons"]
    pairs = sum(family(a, b) == CONFIRMATORY for a in first for b in study.basis)
    return pairs * (n_tasks + (n_tasks > 1))


def limits(study: Study, clusters: Mapping[str, int]) -> list[Limit]:
    """A limit per task, from the number of clusters (prompts, without `cluster_by`) that each has for evaluation.

    Empty where the study compares no neurons with a trained dictionary.
    """
    size = family_size(study, len(clusters))
    if not size:
        return []
    needed = (1 - study.confidence) / size
    enough = next(n for n in range(2, 1000) if resolution(n) < needed)
    return [Limit(task, n, size, needed, resolution(n), enough, _detectable(n, needed)) for task, n in clusters.items()]


def _detectable(n: int, alpha: float) -> float:
    """The standardised mean that a two-sided t test of n values finds at alpha with a power of 80 %; infinite for one value."""
    if n < 2:
        return float("inf")
    return float((t.isf(alpha / 2, n - 1) + t.ppf(0.8, n - 1)) / n**0.5)
