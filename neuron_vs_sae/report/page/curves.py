"""Curves and distributions of scores as data for the page: a case per combination of conventions, within a budget."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from neuron_vs_sae.report.cases import chance_envelope, drawable, ranked
from neuron_vs_sae.report.names import basis_names, heading, level_name, task_names, with_role
from neuron_vs_sae.report.plots.scores import tail_counts
from neuron_vs_sae.report.plots.style import colours_of, markers_of
from neuron_vs_sae.studies.result import Result

_CASE = ("errors", "ablation", "method", "metric")
_SCORES = ("faithfulness", "completeness")
_MOST_POINTS = 20_000
"""The most points of curves that the page carries, about 50 bytes each; further cases are left to `summary.csv`."""
_SHOWN = 3


def curves(result: Result) -> dict[str, Any]:
    """Per task, basis and case: sizes, numbers of error nodes, and both scores with their intervals."""
    rows = drawable(result.summary)
    methods, chance = ranked(rows["method"].unique().tolist())
    bases, tasks = list(result.study.basis), list(task_names(rows["task"]))
    levels = _levels(rows, methods)
    drawn: list[dict[str, Any]] = []
    for curve in _within_budget(rows.loc[rows["method"].isin(methods)], levels):
        first = curve.iloc[0]
        drawn.append(
            {
                "task": tasks.index(first["task"]), "basis": bases.index(first["basis"]),
                "case": [levels[name].index(first[name]) for name in levels],
                "sizes": curve["size"].tolist(), "errors": curve["n_error_nodes"].tolist(),
                **{score: [curve[f"{score}{end}"].tolist() for end in ("", "_low", "_high")] for score in _SCORES},
            }
        )  # fmt: skip
    return {
        "tasks": list(task_names(rows["task"]).values()),
        "bases": legend_entries(bases),
        "shown": [*range_of_shown(bases), "chance"],
        "choices": [
            {"label": heading(name), "levels": [level_name(name, str(level)) for level in values]}
            for name, values in levels.items()
        ],
        "curves": drawn,
        "chance": _chance(rows.loc[rows["method"].isin(chance)], tasks, levels),
    }


def distributions(result: Result) -> dict[str, Any]:
    """Per task and basis how many nodes score at least x, above and below 0, by the usual method."""
    bases = list(result.study.basis)
    tasks = task_names(result.summary["task"])
    method = ranked(list(result.study.method))[0][0]
    lines = [
        {"task": t, "basis": b, "helps": tail_counts(values), "hinders": tail_counts(-values)}
        for t, task in enumerate(tasks)
        for b, basis in enumerate(bases)
        for values in [result.scores(task=task, basis=basis, method=method).values.double().numpy()]
    ]
    return {
        "tasks": list(tasks.values()),
        "bases": legend_entries(bases),
        "shown": range_of_shown(bases),
        "lines": lines,
    }


def legend_entries(bases: Sequence[str]) -> list[dict[str, str]]:
    """The legend's entry for each basis: name, colour and marker."""
    names, colours, markers = basis_names(bases), colours_of(bases), markers_of(bases)
    return [{"label": names[basis], "colour": colours[basis], "shape": markers[basis]} for basis in bases]


def range_of_shown(bases: Sequence[str]) -> list[int]:
    """The numbers of the bases shown at first: neurons, then trained dictionaries, then the rest, three in all."""
    order = [*with_role(bases, "neurons"), *with_role(bases, "trained"), *with_role(bases, "coordinates", "control")]
    return sorted(list(bases).index(basis) for basis in order[:_SHOWN])


def _levels(rows: pd.DataFrame, methods: Sequence[str]) -> dict[str, list[str]]:
    return {name: list(methods) if name == "method" else rows[name].unique().tolist() for name in _CASE}


def _within_budget(rows: pd.DataFrame, levels: dict[str, list[str]]) -> list[pd.DataFrame]:
    """The curves of all tasks and bases, case by case, until there are too many points. Choices that no remaining case uses are
    removed from `levels`."""
    kept: list[pd.DataFrame] = []
    points = 0
    cases: Any = rows.groupby(list(_CASE), sort=False)
    for _, case in cases:
        if kept and points + len(case) > _MOST_POINTS:
            break
        points += len(case)
        kept += [curve.sort_values("size") for _, curve in case.groupby(["task", "basis"], sort=False)]
    for name, values in levels.items():
        there = {curve[name].iloc[0] for curve in kept}
        values[:] = [value for value in values if value in there]
    return kept


def _chance(rows: pd.DataFrame, tasks: list[str], levels: dict[str, list[str]]) -> list[dict[str, Any]]:
    """The envelope of random rankings by task and case; -1 stands for a convention that it does not depend on (the method)."""
    envelopes = []
    cases: Any = rows.groupby(["task", *(name for name in _CASE if name != "method")], sort=False)
    for (task, *case), part in cases:
        chosen = dict(zip((name for name in _CASE if name != "method"), case, strict=True))
        if all(level in levels[name] for name, level in chosen.items()):
            envelopes.append(
                {
                    "task": tasks.index(task),
                    "case": [-1 if name == "method" else levels[name].index(chosen[name]) for name in levels],
                    **{score: chance_envelope(part, score) for score in _SCORES},
                }
            )
    return envelopes
