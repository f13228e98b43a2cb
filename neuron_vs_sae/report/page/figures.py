"""The page's figures as data, and the captions that say what is drawn."""

from dataclasses import dataclass
from typing import Any

from neuron_vs_sae.report.names import basis_name, basis_names, heading, level_name, task_names
from neuron_vs_sae.report.page.circuit import circuit
from neuron_vs_sae.report.page.curves import curves, distributions
from neuron_vs_sae.report.plots.style import POLICIES, colours_of
from neuron_vs_sae.report.robust_tables import (
    FACTORS,
    SCORE,
    RobustTables,
    confirmatory,
    flagged,
    forest_rows,
    of_pair,
    usual_levels,
)
from neuron_vs_sae.report.words import Pair, share_decided
from neuron_vs_sae.studies.result import Result


@dataclass(frozen=True)
class Figure:
    """`kind` is the script's function that draws `data`; one `by_task` shows a task at a time."""

    kind: str
    title: str
    caption: str
    data: dict[str, Any]
    by_task: bool = True


def figures(result: Result, compared: RobustTables | None) -> dict[str, Figure]:
    """Every figure of the page by its name; those of comparisons only where bases were compared."""
    alone = {
        "curves": Figure(
            "curves", "Faithfulness and completeness against size", _curves_caption(result), curves(result)
        ),
        "circuit": Figure("circuit", "The circuit", _circuit_caption(result), circuit(result)),
        "distributions": Figure(
            "distributions",
            "Distributions of scores",
            "How many nodes score at least as much, for scores above and below 0; both axes are logarithmic.",
            distributions(result),
        ),
    }
    if compared is None or not confirmatory(result):
        return alone
    return {
        "forest": forest(result, compared),
        **alone,
        "specifications": specifications(result, compared),
    }


def forest(result: Result, compared: RobustTables) -> Figure:
    """Neurons less each trained dictionary, a row per task, a mark per error policy."""
    names, tasks = basis_names(result.study.basis), task_names(result.summary["task"])
    policies = [policy for policy in POLICIES if policy in result.study.errors]
    panels = []
    for pair in confirmatory(result):
        rows = forest_rows(result, compared, pair)
        points: dict[str, list[dict[str, Any]]] = {task: [] for task in tasks}
        for row in rows.to_dict("records"):
            points[row["task"]].append(
                {
                    "level": policies.index(row["errors"]), "value": row["estimate"], "low": row["low"], "high": row["high"],
                    "decided": row["verdict"].endswith("better"), "verdict": _said(row["verdict"], names[pair[0]], names[pair[1]]),
                }
            )  # fmt: skip
        panels.append(
            {
                "label": f"{names[pair[0]]} less {names[pair[1]]}", "a": "neurons", "b": basis_name(pair[1]).dictionary,
                "rows": [{"task": tasks[task], "points": points[task]} for task in tasks],
            }
        )  # fmt: skip
    usual = usual_levels(result)
    fixed = ", ".join(
        f"{heading(name)}: {level_name(name, usual[name])}" for name in ("method", "ablation", "metric", "size_measure")
    )
    seeds = result.study.seed
    fixed += f", seed: {seeds[0]} of {len(seeds)}" if len(seeds) > 1 else ""
    caption = (
        f"Difference in area under {SCORE}, with {result.study.confidence:.0%} intervals. A hollow mark is no win: undecided, or equivalent. "
        f"Fixed here: {fixed}; every other convention is under “Does the answer survive?”."
    )
    levels = [
        {"label": level_name("errors", policy), "colour": POLICIES[policy].colour, "shape": POLICIES[policy].marker}
        for policy in policies
    ]
    data = {
        "panels": panels,
        "levels": levels,
        "label": "Forest plot of the difference in area by task and error policy",
    }
    return Figure("forest", "The difference, task by task", caption, data, by_task=False)


def specifications(result: Result, compared: RobustTables) -> Figure:
    """Every specification of every task, pair and score, and what decides between them."""
    names, tasks = basis_names(result.study.basis), task_names(result.summary["task"])
    pairs = confirmatory(result)
    table = compared.specifications
    factors = [name for name in FACTORS if name in table and len(set(table[name])) > 1]
    levels = {name: table[name].drop_duplicates().tolist() for name in factors}
    order = list(tasks)
    scores = table["score"].drop_duplicates().tolist()
    rows: list[dict[str, Any]] = []
    said: list[dict[str, Any]] = []
    for number, pair in enumerate(pairs):
        called = Pair(names[pair[0]], names[pair[1]], "")
        for score in scores:
            chosen = of_pair(table, pair, score)
            rows += [
                {
                    "task": order.index(row["task"]), "pair": number, "score": score, "value": row["estimate"], "low": row["low"],
                    "high": row["high"], "verdict": row["verdict"], "control": control,
                    "levels": [levels[name].index(row[name]) for name in factors],
                }
                for row, control in zip(chosen.to_dict("records"), flagged(chosen), strict=True)
            ]  # fmt: skip
            said += [
                {"task": order.index(row["task"]), "pair": number, "score": score, "text": share_decided(row, called, tasks[row["task"]])}
                for row in of_pair(compared.robustness, pair, score).to_dict("records")
                if row["task"] in tasks
            ]  # fmt: skip
    colours = colours_of(result.study.basis)
    data = {
        "tasks": list(tasks.values()),
        "pairs": [{"a": names[a], "b": names[b], "colourA": colours[a], "colourB": colours[b]} for a, b in pairs],
        "scores": scores,
        "factors": [{"label": heading(name), "levels": [level_name(name, str(level)) for level in levels[name]]} for name in factors],
        "verdicts": {"a better": "neurons better", "b better": "dictionary better"},
        "rows": rows,
        "said": said,
    }  # fmt: skip
    caption = (
        "Each column is one specification: the difference in area with its interval, in the colour of the basis that its own test "
        "finds better, grey where none or where they are equivalent, hollow where the winner does not beat its control. The marks below say which choices made it."
    )
    return Figure("specifications", "Every specification", caption, data)


def _said(verdict: str, a: str, b: str) -> str:
    return {"a better": f"{a} better", "b better": f"{b} better"}.get(verdict, verdict)


def _curves_caption(result: Result) -> str:
    chance = any(method.startswith("random") for method in result.study.method)
    grey = (
        " Grey: from the lowest to the highest interval of circuits of randomly ranked nodes, in any basis."
        if chance
        else ""
    )
    return (
        f"Bands are pointwise {result.study.confidence:.0%} intervals over prompts. The third panel is the share of a circuit's nodes "
        f"that are error nodes.{grey}"
    )


def _circuit_caption(result: Result) -> str:
    method = level_name("method", usual_levels(result)["method"])
    where = "tokens of one discovery prompt" if result.study.positions == "separate" else "all positions together"
    return (
        f"The nodes of largest |score| by {method}, mean over the discovery prompts; layers by {where}. The area of a square is the "
        "node's share of the sum of |score| in its basis; hatched: error nodes; outlined: nodes that hinder the answer. Choose a square "
        "to read what it is."
    )
