"""Estimated against exact effects: how well a method predicts activation patching."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float
from scipy.stats import pearsonr, spearmanr

from neuron_vs_sae.core.lookup import parse
from neuron_vs_sae.report.cases import ranked
from neuron_vs_sae.report.escaping import in_figure
from neuron_vs_sae.report.names import basis_names
from neuron_vs_sae.report.plots.choices import task_or_first
from neuron_vs_sae.report.plots.style import colours_of, finished, markers_of, panels, place, plain
from neuron_vs_sae.studies.result import Result

_DRAWN = 400


@dataclass(frozen=True)
class Agreement:
    """How an estimate agrees with the exact effect over nodes: correlations, and the least-squares slope of estimate on exact."""

    pearson: float
    spearman: float
    slope: float


def agreement(exact: Float[np.ndarray, " nodes"], estimate: Float[np.ndarray, " nodes"]) -> Agreement:
    """How they agree; NaN where one of them does not vary."""
    if np.ptp(exact) == 0 or np.ptp(estimate) == 0:
        return Agreement(float("nan"), float("nan"), float("nan"))
    linear: Any = pearsonr(exact, estimate)
    ranks: Any = spearmanr(exact, estimate)
    return Agreement(float(linear[0]), float(ranks[0]), float(np.cov(exact, estimate)[0, 1] / np.var(exact, ddof=1)))


def exact_method(result: Result) -> str | None:
    """The study's method that is exact, `activation_patching`; None where it has none."""
    return next((m for m in result.study.method if parse("attribution", m).name == "activation_patching"), None)


def against_exact(result: Result, *, task: str | None = None, method: str | None = None) -> go.Figure:
    """Scores of `method` against activation patching's, a panel per basis, with Pearson, Spearman and slope over all nodes.

    The nodes of the largest exact or estimated effect are drawn, so that few points stand for many thousands at the origin.
    Raises `KeyError` where the study has no activation patching, or no such task or method.
    """
    exact_name = exact_method(result)
    if exact_name is None:
        raise KeyError("the study has no method activation_patching to judge others by")
    others = [name for name in ranked(list(result.study.method))[0] if name != exact_name]
    task, method = task_or_first(result, task), method or next(iter(others), exact_name)
    bases = list(result.study.basis)
    names, colours, markers = basis_names(bases), colours_of(bases), markers_of(bases)
    pairs = {
        basis: tuple(
            result.scores(task=task, basis=basis, method=m).values.double().numpy() for m in (exact_name, method)
        )
        for basis in bases
    }
    agreed = {basis: agreement(*pairs[basis]) for basis in bases}
    titles = [
        f"{names[basis]}: r {agreed[basis].pearson:.3f}, ρ {agreed[basis].spearman:.3f}, slope {agreed[basis].slope:.2f}"
        for basis in bases
    ]
    columns = 1 if len(bases) == 1 else 2
    figure = panels(titles, columns=columns, height=320)
    for panel, basis in enumerate(bases):
        exact, estimate = pairs[basis]
        drawn = np.argsort(-np.maximum(np.abs(exact), np.abs(estimate)), kind="stable")[:_DRAWN]
        ends = [float(min(exact.min(), estimate.min())), float(max(exact.max(), estimate.max()))]
        points = go.Scatter(
            x=plain(exact[drawn]), y=plain(estimate[drawn]), mode="markers", name=in_figure(names[basis]),
            marker={"color": colours[basis], "symbol": markers[basis], "size": 6, "opacity": 0.75},
        )  # fmt: skip
        equal = go.Scatter(
            x=plain(ends), y=plain(ends), mode="lines", showlegend=False, hoverinfo="skip",
            line={"color": "#888888", "width": 1, "dash": "dot"},
        )  # fmt: skip
        where = place(panel, columns)
        figure.add_traces([points, equal], rows=[where["row"]] * 2, cols=[where["col"]] * 2)
    figure.update_xaxes(title="exact effect")
    figure.update_yaxes(title="estimate", col=1)
    how = f"method {method} against {exact_name} · over all nodes; the {_DRAWN} largest are drawn · dotted: equal"
    return finished(figure, f"{task}: estimated against exact effects", how)
