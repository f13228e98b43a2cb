"""Which basis's graphs hold more in fewer units: areas of their scores over size, compared prompt by prompt."""

from collections.abc import Mapping
from itertools import combinations

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float

from neuron_vs_sae.core.curve import Curve
from neuron_vs_sae.statistics.bootstrap import Estimate, ratio
from neuron_vs_sae.statistics.permutation import contrast, sign_flip
from neuron_vs_sae.statistics.resampling import Clusters, Draws, clusters_of, draw
from neuron_vs_sae.statistics.size_measures import area_weights, common_range
from neuron_vs_sae.studies.families import family
from neuron_vs_sae.studies.paired import judged, pair_rows
from neuron_vs_sae.studies.tracing import TraceStudy

SCORES = ("replacement", "completeness", "faithfulness")
MEASURES = ("nodes", "fraction", "bits")


def frontiers(table: pd.DataFrame, score: str) -> dict[str, Curve]:
    """Per basis of one task's rows the score as a curve: a row per size, a column per prompt; `whole` is what it could be at most."""
    curves = {}
    for basis, rows in table.loc[~table["pruned"]].groupby("basis", sort=False):
        by_size = {
            column: _by_size(rows, column)
            for column in ("replacement", "completeness", "f_circuit", "f_empty", "f_model")
        }
        sizes = tuple(sorted(set(rows["k"])))
        if score == "faithfulness":
            circuit, empty, whole = by_size["f_circuit"], by_size["f_empty"][0], by_size["f_model"][0]
        else:
            circuit = by_size[score]
            empty, whole = torch.zeros_like(circuit[0]), torch.ones_like(circuit[0])
        curves[str(basis)] = Curve(
            sizes=sizes, n_error_nodes=(0,) * len(sizes), n_total=round(float(rows["n_total"].mean())), whole=whole, empty=empty,
            circuit=circuit, complement=torch.full_like(circuit, float("nan")),
        )  # fmt: skip
    return curves


def _by_size(rows: pd.DataFrame, column: str) -> torch.Tensor:
    table = rows.pivot_table(index="k", columns="index", values=column, dropna=False)
    return torch.from_numpy(table.to_numpy(copy=True)).double()


def compared(table: pd.DataFrame, study: TraceStudy) -> pd.DataFrame:
    """A row per task, pair of bases, score and measure of size, without adjusted p-values; for tasks of two prompts or more.

    `p` is the sign-flip test's of the area; `family` says whether the pair was declared beforehand (`families.family`).
    """
    tables = [pd.DataFrame(columns=["p", "family"])]
    for task, rows in table.groupby("task", sort=False):
        clusters = _clusters(rows, study, str(task))
        if task == "" or clusters is None or len(set(rows["basis"])) < 2:
            continue
        draws = draw(clusters, study.resamples, study.seed[0])
        for score in SCORES:
            curves = frontiers(rows, score)
            if not all(bool(curve.circuit.isfinite().all()) for curve in curves.values()):
                continue
            scored = {basis: (curve, _estimate(curve, draws)) for basis, curve in curves.items()}
            for measure in MEASURES:
                facts = {"question": "graphs", "task": task, "score": f"area_{score}", "size_measure": measure}
                tables.append(_pairs(scored, measure, facts, clusters, study))
    return pd.concat([t for t in tables if len(t)] or tables, ignore_index=True)


def judged_by_family(rows: pd.DataFrame, confidence: float) -> pd.DataFrame:
    """The rows with `p_holm` within each family of comparisons, and a `verdict`."""
    families = [judged(of_family, confidence) for _, of_family in rows.groupby("family", sort=False)]
    return pd.concat(families).sort_index() if families else judged(rows, confidence)


def _clusters(rows: pd.DataFrame, study: TraceStudy, task: str) -> Clusters | None:
    """How the task's prompts are drawn again; None where there is only one."""
    prompts = rows.drop_duplicates("index").sort_values("index")
    if len(prompts) < 2:
        return None
    pairs = zip(prompts["cluster"], prompts["stratum"], strict=True)
    tags = [{study.cluster_by: str(cluster), study.stratify_by: str(stratum)} for cluster, stratum in pairs]
    return clusters_of(tags, study.cluster_by, study.stratify_by, task)


def _pairs(
    scored: Mapping[str, tuple[Curve, Estimate]],
    measure: str,
    facts: dict[str, object],
    clusters: Clusters,
    study: TraceStudy,
) -> pd.DataFrame:
    """All pairs by the mean of the score over the logarithm of size, each pair over the range that its two bases share."""
    tables = []
    for a, b in combinations(scored, 2):
        ends = common_range([scored[a][0], scored[b][0]], measure)
        if ends is None:
            continue
        weights = {name: area_weights(scored[name][0], measure, *ends)[:, None] for name in (a, b)}
        areas = {name: scored[name][1].weighted(weights[name]) for name in (a, b)}
        sides = [(top @ weights[name], bottom) for name in (a, b) for top, bottom in (_parts(scored[name][0]),)]
        p = sign_flip(contrast(*sides[0], *sides[1]), clusters, flips=study.sign_flips, seed=study.seed[0])
        specification = (
            f"{ends[0]:.4g} to {ends[1]:.4g} {measure}; errors {study.judged_errors}, ablation {study.ablation}"
        )
        about = {**facts, "method": f"trace {study.slope}", "specification": specification, "family": family(a, b)}
        tables.append(pair_rows(areas, about, len(clusters.cluster), study.confidence, study.margin).assign(p=p))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def _estimate(curve: Curve, draws: Draws) -> Estimate:
    """The score at every size, drawn over prompts: a ratio of means."""
    return ratio(*_parts(curve), draws)


def _parts(curve: Curve) -> tuple[Float[np.ndarray, "batch sizes"], Float[np.ndarray, "batch 1"]]:
    """What the score is a ratio of, prompt by prompt."""
    return (curve.circuit - curve.empty).T.numpy(), (curve.whole - curve.empty)[:, None].numpy()
