"""The answer in sentences, from the rows that hold it: page, console and README all take it from here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from neuron_vs_sae.report.names import (
    basis_name,
    basis_names,
    factor_name,
    level_name,
    listed,
    setting_name,
    task_names,
)
from neuron_vs_sae.report.robust_tables import (
    ALL_TASKS,
    SCORE,
    RobustTables,
    confirmatory,
    error_ranked_first,
    of_pair,
)
from neuron_vs_sae.studies.result import Result
from neuron_vs_sae.studies.rows import rows_with

MINUS = "\u2212"


@dataclass(frozen=True)
class Pair:
    """The names of two bases: `a` and `b` in the plural; `dictionary` names what the units of `b` come from."""

    a: str
    b: str
    dictionary: str


@dataclass(frozen=True)
class Answer:
    """The answer on one pair of bases (their specs), in two sentences: who is better where, and by how much."""

    bases: tuple[str, str]
    sentences: tuple[str, str]


def answers(result: Result, tables: RobustTables | None) -> list[Answer]:
    """The answer on neurons and each trained dictionary, in the study's order; none where nothing was compared."""
    if tables is None:
        return []
    names, tasks = basis_names(result.study.basis), task_names(result.summary["task"])
    given: list[Answer] = []
    for a, b in confirmatory(result):
        rows = of_pair(tables.robustness, (a, b))
        if len(rows):
            pair = Pair(names[a], names[b], basis_name(b).dictionary)
            given.append(Answer((a, b), answer(rows, pair, tasks, error_ranked_first(result, b))))
    return given


def answer(
    rows: pd.DataFrame, pair: Pair, tasks: Mapping[str, str], error_first: Sequence[str] = ()
) -> tuple[str, str]:
    """Two sentences on one pair and score, from its rows of `robustness.csv`: a row per task, and one of task `all` where there are several.

    `tasks` are the tasks' names by task; `error_first` those on which the first-ranked node of `b` is an error node.
    """
    by_task = rows.loc[rows["task"] != ALL_TASKS].to_dict("records")
    overall = rows_with(rows, task=ALL_TASKS).to_dict("records") or (by_task if len(by_task) == 1 else [])
    where = [tasks[task] for task in error_first]
    amount = (
        _how_much(overall[0], len(by_task), pair, where)
        if overall
        else "The tasks share no specification to take a mean over."
    )
    return _who(by_task, pair, tasks), amount


def signed(value: float, digits: int = 3) -> str:
    """`+0.086`, or with a minus sign of the same width."""
    text = f"{value:+.{digits}f}"
    return text.replace("-", MINUS)


def interval(low: float, high: float) -> str:
    """`[-0.012, +0.086]`, as `signed` writes its ends."""
    return f"[{signed(low)}, {signed(high)}]"


def deciding(row: Mapping[Any, Any]) -> str:
    """What decides a comparison, in words: `how error nodes are treated`, or `the convention` where none stands out.

    Two where the convention that explains most of the variance is another than the one whose change turns the sign most often.
    """
    factors = [row.get("decided_by"), row.get("turn_factor") if row.get("turn_share", 0) > 0 else None]
    names = dict.fromkeys(factor_name(factor) for factor in factors if isinstance(factor, str) and factor)
    return listed(names) or "the convention"


def share_decided(row: Mapping[Any, Any], pair: Pair, task: str) -> str:
    """One sentence under the specification curve: how the specifications split, and which convention they split by."""
    n = int(row["n_specifications"])
    split = (
        f"On {task}, {_percent(row['share_a_better'])} of {n} specifications find {pair.a} better and "
        f"{_percent(row['share_b_better'])} find {pair.b} better"
    )
    if pd.isna(row["decided_share"]) or not isinstance(row["decided_by"], str) or not row["decided_by"]:
        return f"{split}."
    by = f"{factor_name(row['decided_by'])} explains {_percent(row['decided_share'])} of the variance between them"
    return f"{split}; {by}.{_turn(row)}"


def _turn(row: Mapping[Any, Any]) -> str:
    """The one change of convention that turns the sign most often, as a sentence after a space; empty where none does."""
    factor = row.get("turn_factor")
    if not isinstance(factor, str) or not factor or not row["turn_share"]:
        return ""
    start, end = (level_name(factor, str(row[name])) for name in ("turn_from", "turn_to"))
    return f" Changing {setting_name(factor)} from “{start}” to “{end}” turns the sign in {_percent(row['turn_share'])} of otherwise equal cases."


def why_no_answer(result: Result) -> str:
    """Why a study has no answer on neurons and dictionaries."""
    prompts = min(int(n) for n in result.summary["n_eval"])
    if prompts == 1:
        return "Nothing was compared: the study has one evaluation prompt, and one prompt bears no test."
    if not confirmatory(result):
        return (
            "No trained dictionary was compared with neurons: an answer needs MLP neurons and one, and the study's bases are "
            f"{listed(basis_names(result.study.basis).values())}."
        )
    return "Nothing was compared: the folder holds no robustness.csv. Run `nvs report` on it."


def _who(rows: Sequence[Mapping[Any, Any]], pair: Pair, tasks: Mapping[str, str]) -> str:
    """Who is better on which tasks, and on which that depends, or is not known."""
    by_verdict = {
        verdict: [tasks[row["task"]] for row in rows if row["verdict"] == verdict]
        for verdict in ("a better", "b better", "equivalent")
    }
    if len(rows) == 1:
        return _of_one_task(rows[0], pair, tasks[rows[0]["task"]])
    for_a, for_b = by_verdict["a better"], by_verdict["b better"]
    n = len(rows)
    if for_a or for_b:
        first, second = ((pair.a, for_a), (pair.b, for_b)) if for_a else ((pair.b, for_b), (pair.a, for_a))
        rest = f"{second[0]} on {len(second[1])} ({listed(second[1])})" if second[1] else f"{second[0]} on none"
        where = f"all {n} tasks" if len(first[1]) == n else f"{len(first[1])} of {n} tasks ({listed(first[1])})"
        head = f"{_capital(first[0])} are robustly better on {where}"
        head = head if len(first[1]) == n else f"{head}, {rest}"
    else:
        head = f"Neither {pair.a} nor {pair.b} are robustly better on any of the {n} tasks"
    depending: dict[str, list[str]] = {}
    for row in rows:
        if row["verdict"] == "depends":
            depending.setdefault(deciding(row), []).append(tasks[row["task"]])
    others = [f"{_on(names, n)} the answer depends on {factor}" for factor, names in depending.items()]
    if by_verdict["equivalent"]:
        others.append(f"{_on(by_verdict['equivalent'], n)} they are equivalent")
    undecided: dict[str, list[str]] = {}
    for row in rows:
        if row["verdict"] == "undecided":
            undecided.setdefault(_undecided(row, pair), []).append(tasks[row["task"]])
    others += [f"{_on(names, n)} {state}" for state, names in undecided.items()]
    if absent := [name for task, name in tasks.items() if task not in {row["task"] for row in rows}]:
        others.append(f"on {listed(absent)} nothing could be compared")
    return f"{head}; {listed(others)}." if others else f"{head}."


def _undecided(row: Mapping[Any, Any], pair: Pair) -> str:
    """`it is undecided`; where a control disqualifies, who is ahead, and of what control: that is then why."""
    controls = row.get("disqualified_by")
    if not isinstance(controls, str) or not controls:
        return "it is undecided"
    names = dict.fromkeys(basis_name(control).control for control in controls.split("; "))
    ahead = pair.a if row["median_t"] > 0 else pair.b
    return f"{ahead} are ahead, but not always beyond {listed(names)}"


def _on(names: Sequence[str], n_tasks: int) -> str:
    """`on ioi and successor`; `on all of them` where these are all of several."""
    return "on all of them" if len(names) == n_tasks > 1 else f"on {listed(names)}"


def _of_one_task(row: Mapping[Any, Any], pair: Pair, task: str) -> str:
    return {
        "a better": f"On {task}, {pair.a} are robustly better than {pair.b}.",
        "b better": f"On {task}, {pair.b} are robustly better than {pair.a}.",
        "equivalent": f"On {task}, {pair.a} and {pair.b} are equivalent.",
        "depends": f"On {task}, whether {pair.a} or {pair.b} are better depends on {deciding(row)}.",
        "undecided": f"On {task}, it is undecided whether {pair.a} or {pair.b} are better{_but(row, pair)}.",
    }[row["verdict"]]


def _but(row: Mapping[Any, Any], pair: Pair) -> str:
    """`: SAE features are ahead, but ...` where a control disqualifies."""
    state = _undecided(row, pair)
    return "" if state == "it is undecided" else f": {state}"


def _how_much(row: Mapping[Any, Any], n_tasks: int, pair: Pair, error_first: Sequence[str]) -> str:
    """The difference with its interval, whom it favours, and where the dictionary's first node is an error node."""
    low, high = float(row["low"]), float(row["high"])
    what = "mean difference" if n_tasks > 1 else "difference"
    favours = f"in favour of {pair.a}" if low > 0 else f"in favour of {pair.b}" if high < 0 else "which favours neither"
    amount = (
        f"The {what} in area under {SCORE} (median of {int(row['n_specifications'])} specifications) is "
        f"{signed(float(row['median_difference']))} {interval(low, high)}, {favours}"
    )
    if not error_first:
        return f"{amount}."
    where = "" if n_tasks == 1 else " on all tasks" if len(error_first) == n_tasks else f" on {listed(error_first)}"
    return f"{amount}; the {pair.dictionary}'s top-ranked node is an error node{where}."


def _percent(share: Any) -> str:
    return f"{float(share):.0%}".replace("%", " %")


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
