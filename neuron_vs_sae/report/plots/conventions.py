"""Comparisons in pictures: a forest of differences by task, and every specification of one task in order."""

from typing import Any

import plotly.graph_objects as go

from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.report.escaping import in_figure
from neuron_vs_sae.report.names import basis_names, heading, level_name, task_names
from neuron_vs_sae.report.plots.choices import task_or_first
from neuron_vs_sae.report.plots.style import POLICIES, colours_of, finished, panels, place, plain
from neuron_vs_sae.report.robust_tables import (
    FACTORS,
    SCORE,
    RobustTables,
    confirmatory,
    forest_rows,
    of_pair,
    robust_tables,
    usual_levels,
)
from neuron_vs_sae.studies.result import Result
from neuron_vs_sae.studies.rows import rows_with


def forest(result: Result, *, score: str = SCORE) -> go.Figure:
    """Neurons' area less each trained dictionary's, a row per task, a colour and marker per error policy, with intervals; open: no win.

    Of the study's first method, ablation and metric, with size counted in nodes. Raises `InputError` where nothing was compared.
    """
    tables, pairs = _compared(result)
    names, tasks = basis_names(result.study.basis), task_names(result.summary["task"])
    titles = [f"{names[a]} less {names[b]}" for a, b in pairs]
    figure = panels(titles, columns=2, height=60 + 52 * len(tasks))
    policies = [policy for policy in POLICIES if policy in result.study.errors]
    order = list(tasks)
    for panel, pair in enumerate(pairs):
        rows = forest_rows(result, tables, pair, score)
        for i, policy in enumerate(policies):
            mine = rows_with(rows, errors=policy)
            look, offset = POLICIES[policy], 0.25 * ((len(policies) - 1) / 2 - i)
            name = f"error nodes {level_name('errors', policy)}"
            symbols = [f"{look.marker}{'' if verdict.endswith('better') else '-open'}" for verdict in mine["verdict"]]
            ends = [mine["high"] - mine["estimate"], mine["estimate"] - mine["low"]]
            figure.add_trace(
                go.Scatter(
                    x=plain(mine["estimate"]), y=[len(order) - 1 - order.index(task) + offset for task in mine["task"]], mode="markers",
                    name=name, legendgroup=name, showlegend=panel == 0,
                    marker={"color": look.colour, "symbol": symbols, "size": 9},
                    error_x={"array": plain(ends[0]), "arrayminus": plain(ends[1]), "color": look.colour, "thickness": 2, "width": 0},
                ),
                **place(panel, min(2, len(pairs))),
            )  # fmt: skip
    better = "← neurons better" if score == "completeness" else "neurons better →"
    figure.add_vline(x=0, line={"color": "#888888", "width": 1})
    figure.update_xaxes(title=f"difference in area under {score}     {better}")
    figure.update_yaxes(
        tickvals=list(range(len(order))), ticktext=[in_figure(tasks[task]) for task in reversed(order)],
        range=[-0.6, len(order) - 0.4],
    )  # fmt: skip
    usual = usual_levels(result)
    how = " · ".join(f"{heading(name)}: {level_name(name, usual[name])}" for name in FACTORS if name != "errors")
    return finished(
        figure,
        f"Neurons against trained dictionaries: {result.summary['model'].iloc[0]}",
        f"{how} · open: no win (undecided or equivalent)",
    )


def specification_curve(
    result: Result, *, task: str | None = None, basis: str | None = None, score: str = SCORE
) -> go.Figure:
    """Every specification's difference of neurons and `basis` (default: the first trained dictionary) on a task, in growing order, and
    below the choices that made each. Raises `InputError` where nothing was compared, or not this."""
    tables, pairs = _compared(result)
    task = task_or_first(result, task)
    pair = next((pair for pair in pairs if basis in (None, pair[1])), None)
    if pair is None:
        raise InputError(f"neurons are not compared with {basis!r}; they are with: {', '.join(b for _, b in pairs)}")
    rows = rows_with(of_pair(tables.specifications, pair, score), task=task).sort_values("estimate", kind="stable")
    if rows.empty:
        raise InputError(f"there is no specification of task {task!r} and score {score!r}")
    names, tasks, colours = (
        basis_names(result.study.basis),
        task_names(result.summary["task"]),
        colours_of(result.study.basis),
    )
    factors = [name for name in FACTORS if name in rows and len(set(rows[name])) > 1]
    levels = [(name, level) for name in factors for level in rows[name].drop_duplicates()]
    figure = panels(["", ""], columns=1, height=max(240, 11 * len(levels)))
    at = list(range(1, len(rows) + 1))
    for verdict, colour, label in (
        ("a better", colours[pair[0]], f"{names[pair[0]]} better"),
        ("b better", colours[pair[1]], f"{names[pair[1]]} better"),
        (None, "#808080", "neither"),
    ):
        kept = [
            (row["verdict"] == verdict) if verdict else row["verdict"] not in ("a better", "b better")
            for row in rows.to_dict("records")
        ]
        mine = rows.loc[kept]
        figure.add_trace(
            go.Scatter(
                x=[x for x, keep in zip(at, kept, strict=True) if keep], y=plain(mine["estimate"]), mode="markers", name=in_figure(label),
                marker={"color": colour, "size": 6},
                error_y={"array": plain(mine["high"] - mine["estimate"]), "arrayminus": plain(mine["estimate"] - mine["low"]), "width": 0},
            ),
            row=1, col=1,
        )  # fmt: skip
    for i, (name, level) in enumerate(levels):
        used: Any = [x for x, own in zip(at, rows[name], strict=True) if own == level]
        figure.add_trace(
            go.Scatter(
                x=used, y=[len(levels) - i] * len(used), mode="markers", showlegend=False, hoverinfo="skip",
                marker={"symbol": "line-ns-open", "size": 7, "color": "#808080"},
            ),
            row=2, col=1,
        )  # fmt: skip
    ticks = [in_figure(f"{heading(name)}: {level_name(name, str(level))}") for name, level in levels]
    figure.update_yaxes(tickvals=[len(levels) - i for i in range(len(levels))], ticktext=ticks, row=2, col=1)
    figure.update_yaxes(title=f"difference in {score}", row=1, col=1)
    figure.update_xaxes(title="specifications, in growing order", row=2, col=1)
    return finished(
        figure,
        f"{tasks[task]}: every specification",
        f"{names[pair[0]]} less {names[pair[1]]} · {len(rows)} specifications",
    )


def _compared(result: Result) -> tuple[RobustTables, list[tuple[str, str]]]:
    tables, pairs = robust_tables(result.folder), confirmatory(result)
    if tables is None or not pairs:
        raise InputError(
            f"{result.folder} holds no comparison of neurons with a trained dictionary: it needs both bases and two prompts, and "
            "specifications.parquet and robustness.csv (`nvs report` writes them)"
        )
    return tables, pairs
