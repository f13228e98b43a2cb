"""The later steps of a cell: the curves of one basis, under every ablation, error policy and metric."""

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from neuron_vs_sae.analyses.circuits.evaluation import evaluate_policies
from neuron_vs_sae.analyses.circuits.options import EvaluationOptions
from neuron_vs_sae.core.conventions import ErrorPolicy
from neuron_vs_sae.core.curve import Curve
from neuron_vs_sae.core.errors import NothingToExplainError
from neuron_vs_sae.core.nodes import NodeScores
from neuron_vs_sae.core.sizes import Sizes
from neuron_vs_sae.statistics.resampling import Clusters, clusters_of
from neuron_vs_sae.studies.cells import Cell, CellFiles, Outcome, Step
from neuron_vs_sae.studies.circuits.discovering import discovery_names, label_of, stored_scores
from neuron_vs_sae.studies.circuits.sizes import alike, index_of, sizes_of
from neuron_vs_sae.studies.loaded import Loaded, Task
from neuron_vs_sae.studies.rows import to_rows
from neuron_vs_sae.studies.study import Study


def judging_step(loaded: Loaded[Study], task: Task, cell: Cell, text: str) -> Step:
    """The curves of that basis: the table `curves`."""
    method = str(cell["method"])

    def compute(files: CellFiles) -> Outcome:
        scores = stored_scores(loaded, task, text, files)
        return Outcome({"curves": pd.concat(curves_of(loaded, task, text, method, scores), ignore_index=True)})

    return Step(judging_name(loaded.spec, text), compute)


def judging_name(study: Study, text: str) -> str:
    """The name of that basis's step, by its number: its text may contain characters that a file name cannot."""
    return f"curves{study.basis.index(text)}"


def curves_of(loaded: Loaded[Study], task: Task, text: str, method: str, scores: NodeScores) -> Iterator[pd.DataFrame]:
    """The rows of every curve. Error policies whose circuits are the same are run once, and their rows copied.

    Raises `NothingToExplainError` where ablating everything leaves a metric where it was.
    """
    study, basis = loaded.spec, loaded.basis(task, text)
    of_policies = alike(study, basis, index_of(study, basis, task.evaluation))
    for ablation in study.ablation:
        options = options_of(study, task, sizes_of(study, method, scores.index), ablation)
        judged = judge(loaded, task, text, scores, options, [policies[0] for policies in of_policies])
        curves: dict[ErrorPolicy, tuple[Curve, ...]] = {}
        for policies, of_metrics in zip(of_policies, judged, strict=True):
            for metric, curve in zip(study.metric, of_metrics, strict=True):
                try:
                    _ = curve.denominator  # raises now, not after all other curves have run
                except NothingToExplainError as error:
                    which = label_of(discovery_names(task, text, method))
                    raise NothingToExplainError(
                        f"{which}, ablation {ablation}, errors {policies[0]}, metric {metric}: {error}"
                    ) from None
            curves |= dict.fromkeys(policies, of_metrics)
        for errors in study.errors:
            for metric, curve in zip(study.metric, curves[errors], strict=True):
                labels = curve_labels(loaded, task, text, method, ablation=ablation, errors=errors, metric=metric)
                yield to_rows(curve, labels, evaluation_clusters(study, task))


def judge(
    loaded: Loaded[Study],
    task: Task,
    text: str,
    scores: NodeScores,
    options: EvaluationOptions,
    policies: Sequence[ErrorPolicy],
) -> list[tuple[Curve, ...]]:
    """Per error policy the curves of a basis's circuits, one per metric."""
    basis, batch_size, engine = loaded.basis(task, text), loaded.batch_size, loaded.engine
    return evaluate_policies(
        loaded.model, basis, scores, task.evaluation, options, policies, batch_size=batch_size, engine=engine
    )  # fmt: skip


def options_of(study: Study, task: Task, sizes: Sizes, ablation: str) -> EvaluationOptions:
    """How the task's circuits of these sizes are judged under one ablation, by all of the study's metrics."""
    return EvaluationOptions(
        sizes=sizes,
        metrics=study.metric,
        ablation=ablation,
        rank_by=study.rank_by,
        source=task.discovery if study.mean_source == "discovery" else None,
        seed=task.seed,
        measure_change=True,
    )


def evaluation_clusters(study: Study, task: Task) -> Clusters:
    """The clusters and strata by which the task's evaluation prompts are resampled. Raises `InputError` for a tag that defines none."""
    return clusters_of(task.evaluation.tags, study.cluster_by, study.stratify_by, task.name)


def curve_labels(
    loaded: Loaded[Study], task: Task, text: str, method: str, *, ablation: str, errors: str, metric: str
) -> dict[str, Any]:
    """The columns that are the same in every row of a curve: what it is of, and every convention behind it."""
    study, basis = loaded.spec, loaded.basis(task, text)
    return {
        "model": loaded.model.cfg.model_name,
        "task": task.name,
        "basis": text,
        "site": basis.kind,
        "method": method,
        "ablation": ablation,
        "errors": errors,
        "positions": study.positions,
        "rank_by": study.rank_by,
        "metric": metric,
        "n_discovery": len(task.discovery),
        "seed": task.seed,
        "attribution_metric": study.explained_metric,
        "pairing": study.pairing,
        "mean_source": study.mean_source,
        "dtype": study.dtype,
        "backend": study.backend,
        "revision": study.revision or "",
        "prepend_bos": study.prepend_bos,
        "process_weights": study.process_weights,
        "split_by": task.split_by,
        "cluster_by": study.cluster_by,
        "stratify_by": study.stratify_by,
        "n_overlap": task.evaluation.overlap(task.discovery),
        "accept_poor_sae": study.accept_poor_sae,
        "key": study.key,
    }
