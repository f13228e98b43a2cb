"""The answer in sentences, from the rows that hold it: what page, console and README say, so that they never differ."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from neuron_vs_sae.report.multiverse import (
    ALL_TASKS,
    SCORE,
    Multiverse,
    confirmatory,
    error_ranked_first,
    of_pair,
)
from neuron_vs_sae.report.names import basis_name, basis_names, factor_name, listed, task_names
from neuron_vs_sae.studies import result
from neuron_vs_sae.studies.rows import rows_with

MINUS = "\u2212"


@dataclass(frozen=True)
class Pair:
    """What two bases are called: `a` and `b` in the plural, `dictionary` for what the units of `b` come from."""

    a: str
    b: str
    dictionary: str


@dataclass(frozen=True)
class Answer:
    """The answer on one pair of bases (their specs), in two sentences: who is better where, and by how much."""

    bases: tuple[str, str]
    sentences: tuple[str, str]


def answers(found: "result.Result", tables: Multiverse | None) -> list[Answer]:
    """The answer on neurons and each trained dictionary, in the study's order; none where nothing was compared."""
    if tables is None:
        return []
    names, tasks = basis_names(found.study.basis), task_names(found.summary["task"])
    told = []
    for a, b in confirmatory(found):
        rows = of_pair(tables.robustness, (a, b))
        if len(rows):
            pair = Pair(names[a], names[b], basis_name(b).dictionary)
            told.append(Answer((a, b), answer(rows, pair, tasks, error_ranked_first(found, b))))
    return told


def answer(
    rows: pd.DataFrame, pair: Pair, tasks: Mapping[str, str], error_first: Sequence[str] = ()
) -> tuple[str, str]:
    """Two sentences on one pair and score, from its rows of `robustness.csv`: a row per task, and one of task `all` where there are several.

    `tasks` are the tasks' names by task; `error_first` those on which the first-ranked node of `b` is an error node.
    """
    by_task = rows.loc[rows["task"] != ALL_TASKS].to_dict("records")
    overall = rows_with(rows, task=ALL_TASKS).to_dict("records") or by_task[:1]
    return _who(by_task, pair, tasks), _how_much(overall[0], len(by_task), pair, [tasks[task] for task in error_first])


def signed(value: float, digits: int = 3) -> str:
    """`+0.086`, or with a minus sign of the same width."""
    text = f"{value:+.{digits}f}"
    return text.replace("-", MINUS)


def interval(low: float, high: float) -> str:
    """`[-0.012, +0.086]`, as `signed` writes its ends."""
    return f"[{signed(low)}, {signed(high)}]"


def deciding(row: Mapping[Any, Any]) -> str:
    """What decides a comparison that depends on a convention: `how error nodes are treated`, or `the convention` where none stands out."""
    factor = row.get("decided_by")
    return factor_name(str(factor)) if isinstance(factor, str) and factor else "the convention"


def share_decided(row: Mapping[Any, Any], pair: Pair, task: str) -> str:
    """One sentence under the specification curve: how the specifications split, and which convention they split by."""
    n = int(row["n_specifications"])
    split = (
        f"On {task}, {_percent(row['share_a_better'])} of {n} specifications find {pair.a} better and "
        f"{_percent(row['share_b_better'])} find {pair.b} better"
    )
    if pd.isna(row["decided_share"]) or not isinstance(row["decided_by"], str) or not row["decided_by"]:
        return f"{split}."
    return f"{split}; {factor_name(row['decided_by'])} explains {_percent(row['decided_share'])} of the variance between them."


def why_no_answer(found: "result.Result") -> str:
    """Why a study has no answer on neurons and dictionaries."""
    prompts = min(int(n) for n in found.summary["n_eval"])
    if prompts == 1:
        return "Nothing was compared: the study has one evaluation prompt, and one prompt bears no test."
    if not confirmatory(found):
        return (
            "Nothing was compared: an answer needs MLP neurons and a trained dictionary, and the study's bases are "
            f"{listed(basis_names(found.study.basis).values())}."
        )
    return "Nothing was compared: the folder holds no robustness.csv. Run `nvs report` on it."


def _who(rows: Sequence[Mapping[Any, Any]], pair: Pair, tasks: Mapping[str, str]) -> str:
    """Who is better on which tasks, and on which that depends, or is not known."""
    by_verdict = {
        verdict: [tasks[row["task"]] for row in rows if row["verdict"] == verdict]
        for verdict in ("a better", "b better", "equivalent", "undecided")
    }
    if len(rows) == 1:
        return _of_one_task(rows[0], pair, tasks[rows[0]["task"]])
    for_a, for_b = by_verdict["a better"], by_verdict["b better"]
    if for_a or for_b:
        first, second = ((pair.a, for_a), (pair.b, for_b)) if for_a else ((pair.b, for_b), (pair.a, for_a))
        rest = f"on {len(second[1])} ({listed(second[1])})" if second[1] else "on none"
        head = f"{_capital(first[0])} are robustly better on {len(first[1])} of {len(rows)} tasks ({listed(first[1])}) and {second[0]} {rest}"
    else:
        head = f"Neither {pair.a} nor {pair.b} are robustly better on any of the {len(rows)} tasks"
    depending: dict[str, list[str]] = {}
    for row in rows:
        if row["verdict"] == "depends":
            depending.setdefault(deciding(row), []).append(tasks[row["task"]])
    others = [f"on {listed(names)} the answer depends on {factor}" for factor, names in depending.items()]
    if by_verdict["equivalent"]:
        others.append(f"on {listed(by_verdict['equivalent'])} they are equivalent")
    if by_verdict["undecided"]:
        others.append(f"on {listed(by_verdict['undecided'])} it is undecided")
    return f"{head}; {listed(others)}." if others else f"{head}."


def _of_one_task(row: Mapping[Any, Any], pair: Pair, task: str) -> str:
    return {
        "a better": f"On {task}, {pair.a} are robustly better than {pair.b}.",
        "b better": f"On {task}, {pair.b} are robustly better than {pair.a}.",
        "equivalent": f"On {task}, {pair.a} and {pair.b} are equivalent.",
        "depends": f"On {task}, whether {pair.a} or {pair.b} are better depends on {deciding(row)}.",
        "undecided": f"On {task}, it is undecided whether {pair.a} or {pair.b} are better.",
    }[row["verdict"]]


def _how_much(row: Mapping[Any, Any], n_tasks: int, pair: Pair, error_first: Sequence[str]) -> str:
    """The difference with its interval, whom it favours, and where the dictionary's first node is an error node."""
    low, high = float(row["low"]), float(row["high"])
    scope = f"the mean difference over the {n_tasks} tasks" if n_tasks > 1 else "the difference"
    favours = (
        f"in favour of {pair.a}"
        if low > 0
        else f"in favour of {pair.b}"
        if high < 0
        else "which favours neither of them"
    )
    amount = (
        f"In the median specification {scope} in area under {SCORE} is {signed(float(row['median_difference']))} "
        f"{interval(low, high)}, {favours}"
    )
    if not error_first:
        return f"{amount}."
    where = f"on {listed(error_first)} " if n_tasks > 1 else ""
    return f"{amount}; {where}{pair.dictionary}'s top-ranked node is an error node, which stands for everything that it does not reconstruct."


def _percent(share: Any) -> str:
    return f"{float(share):.0%}".replace("%", " %")


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
