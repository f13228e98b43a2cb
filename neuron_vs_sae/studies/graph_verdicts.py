"""Which basis's graphs hold more in fewer units: areas of their scores over size, compared prompt by prompt."""

import pandas as pd
import torch

from neuron_vs_sae.core.curve import Curve
from neuron_vs_sae.statistics.bootstrap import Estimate, ratio
from neuron_vs_sae.statistics.resampling import draw, independent
from neuron_vs_sae.statistics.size_measures import area_weights, common_range
from neuron_vs_sae.studies.paired import pair_rows
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
    """A row per task, pair of bases, score and measure of size, without adjusted p-values; for tasks of two prompts or more."""
    tables = [pd.DataFrame(columns=["p"], dtype=float)]
    for task, rows in table.groupby("task", sort=False):
        n, bases = len(set(rows["index"])), set(rows["basis"])
        if task == "" or n < 2 or len(bases) < 2:
            continue
        draws = draw(independent(n), study.resamples, study.seed[0])
        for score in SCORES:
            curves = frontiers(rows, score)
            if not all(bool(curve.circuit.isfinite().all()) for curve in curves.values()):
                continue
            for measure in MEASURES:
                tables.append(_pairs(curves, str(task), score, measure, draws, n, study))
    return pd.concat([t for t in tables if len(t)] or tables, ignore_index=True)


def _pairs(
    curves: dict[str, Curve], task: str, score: str, measure: str, draws: object, n: int, study: TraceStudy
) -> pd.DataFrame:
    """All pairs by the mean of the score over the logarithm of size, each pair over the range that its two bases share."""
    names, tables = list(curves), []
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            ends = common_range([curves[a], curves[b]], measure)
            if ends is None:
                continue
            areas = {
                name: _estimate(curves[name], draws).weighted(area_weights(curves[name], measure, *ends)[:, None])
                for name in (a, b)
            }
            facts = {
                "question": "graphs", "task": task, "method": f"trace {study.slope}", "score": f"area_{score}", "size_measure": measure,
                "specification": f"{ends[0]:.4g} to {ends[1]:.4g} {measure}; errors {study.judged_errors}, ablation {study.ablation}",
            }  # fmt: skip
            tables.append(pair_rows(areas, facts, n, study.confidence, study.margin))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def _estimate(curve: Curve, draws: object) -> Estimate:
    """The score at every size, drawn over prompts: a ratio of means."""
    top = (curve.circuit - curve.empty).T.numpy()
    return ratio(top, (curve.whole - curve.empty)[:, None].numpy(), draws)  # pyright: ignore[reportArgumentType]
