"""The answer at column width: neurons less each trained dictionary, task by task, under each error policy."""

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.report.names import basis_names, level_name, task_names
from neuron_vs_sae.report.paper_style import COLUMN, LEGEND, SMALL, drawn_marker, plain, short
from neuron_vs_sae.report.plots.style import POLICIES
from neuron_vs_sae.report.robust_tables import SCORE, confirmatory, forest_rows, robust_tables
from neuron_vs_sae.studies.result import Result
from neuron_vs_sae.studies.rows import rows_with


def forest(result: Result, *, score: str = SCORE) -> Figure:
    """The difference in area with its interval, a row per task, a panel per trained dictionary, a colour and marker per error policy;
    open: no win (undecided or equivalent). Raises `InputError` where nothing was compared."""
    tables, pairs = robust_tables(result.folder), confirmatory(result)
    if tables is None or not pairs:
        raise InputError(f"{result.folder} holds no comparison of neurons with a trained dictionary")
    names, tasks = basis_names(result.study.basis), task_names(result.summary["task"])
    policies = [policy for policy in POLICIES if policy in result.study.errors]
    order, step = list(tasks), 0.8 / max(len(policies), 1)
    figure = Figure(
        figsize=(COLUMN, 0.45 + 0.15 * len(policies) + (0.25 + 0.26 * len(order)) * len(pairs)), layout="constrained"
    )
    panels = figure.subplots(len(pairs), 1, sharex=True, squeeze=False)[:, 0]
    for axes, pair in zip(panels, pairs, strict=True):
        rows = forest_rows(result, tables, pair, score)
        for i, policy in enumerate(policies):
            look, offset = POLICIES[policy], step * (i - (len(policies) - 1) / 2)
            for row in rows_with(rows, errors=policy).to_dict("records"):
                y = order.index(row["task"]) + offset
                style = drawn_marker(look.marker)
                face = {"markerfacecolor": "white"} if not row["verdict"].endswith("better") else {}
                axes.plot([row["low"], row["high"]], [y, y], color=look.colour, linewidth=1.2)
                axes.plot([row["estimate"]], [y], color=look.colour, markersize=3.4, **{**style, **face})
        axes.axvline(0, color="black", linewidth=0.7)
        axes.set_yticks(range(len(order)), [short(tasks[task], 18) for task in order])
        axes.set_ylim(len(order) - 0.5, -0.5)
        axes.set_title(f"{short(names[pair[0]])} less {short(names[pair[1]])}", fontsize=SMALL + 0.5)
        plain(axes, grid="x")
    better = "← neurons better" if score == "completeness" else "neurons better →"
    panels[-1].set_xlabel(f"area under {score}, {better}", fontsize=SMALL + 0.5)
    handles = [
        Line2D([], [], color=POLICIES[p].colour, markersize=3.4, **drawn_marker(POLICIES[p].marker)) for p in policies
    ]
    figure.legend(
        handles,
        [f"error nodes {level_name('errors', p)}" for p in policies],
        ncols=1 if len(policies) > 2 else 2,
        **LEGEND,
    )
    return figure
