"""Differences between bases, prompt by prompt."""

import numpy as np
import plotly.graph_objects as go
from jaxtyping import Float

from neuron_vs_sae.report.escaping import in_figure
from neuron_vs_sae.report.names import basis_names
from neuron_vs_sae.report.plots.choices import method_or_first, task_or_first
from neuron_vs_sae.report.plots.style import colours_of, finished, markers_of, panels, plain
from neuron_vs_sae.studies.result import Result


def differences(
    result: Result,
    *,
    task: str | None = None,
    method: str | None = None,
    ablation: str | None = None,
    errors: str | None = None,
    size: int = 100,
) -> go.Figure:
    """What each evaluation prompt adds to the difference in faithfulness between the study's first basis and each other, at one size.

    Prompts are in growing order, basis by basis; the mean of a line is the difference of the two faithfulnesses, so a difference that a
    few prompts make can be seen. `size` is the nearest that both were run at. Raises `KeyError` where there are no such curves or only one basis.
    """
    first, *others = result.study.basis
    if not others:
        raise KeyError("the study has one basis, so there is no difference between bases")
    task, method = task_or_first(result, task), method_or_first(result, method)
    ablation, errors = ablation or result.study.ablation[0], errors or result.study.errors[0]
    names = basis_names(result.study.basis)
    colours, markers = colours_of(result.study.basis), markers_of(result.study.basis)
    curves = {
        basis: result.curve(task=task, basis=basis, method=method, ablation=ablation, errors=errors)
        for basis in result.study.basis
    }
    common = sorted(set.intersection(*(set(curve.sizes) for curve in curves.values())))
    at = min(common, key=lambda k: (abs(k - size), k))
    figure = panels([f"at {at} nodes"], columns=1, height=330)
    parts = {
        basis: per_prompt(curve.circuit[curve.sizes.index(at)].numpy(), curve.whole.numpy(), curve.empty.numpy())
        for basis, curve in curves.items()
    }
    for basis in others:
        added = parts[first] - parts[basis]
        order = np.argsort(added, kind="stable")
        figure.add_trace(
            go.Scatter(
                x=list(range(1, len(order) + 1)), y=plain(added[order]), mode="markers+lines",
                name=in_figure(f"minus {names[basis]}: mean {added.mean():+.3f}"), text=[f"prompt {i}" for i in order],
                line={"color": colours[basis], "width": 1}, marker={"symbol": markers[basis], "size": 6},
            )
        )  # fmt: skip
    figure.add_hline(y=0, line={"color": "#888888", "width": 1, "dash": "dot"})
    figure.update_xaxes(title="evaluation prompts, in growing order")
    figure.update_yaxes(title="added to the difference")
    how = f"faithfulness of {names[first]} minus each other's · method {method} · ablation {ablation} · errors {errors}"
    return finished(figure, f"{task}: differences between bases, prompt by prompt", how)


def per_prompt(
    kept: Float[np.ndarray, " batch"], whole: Float[np.ndarray, " batch"], empty: Float[np.ndarray, " batch"]
) -> Float[np.ndarray, " batch"]:
    """What each prompt adds to a faithfulness: their mean is `(F(C) - F(empty)) / (F(M) - F(empty))`, a ratio of means."""
    return (kept - empty) / (whole.mean() - empty.mean())
