"""What the console shows of a finished study: one table of neurons and trained dictionaries, and the answer in sentences."""

from dataclasses import dataclass
from typing import Any

import pandas as pd

from neuron_vs_sae.report.caption import accepted
from neuron_vs_sae.report.names import basis_names, heading, level_name, task_names, with_role
from neuron_vs_sae.report.robust_tables import RobustTables, confirmatory, of_pair, usual_levels
from neuron_vs_sae.report.words import answers, why_no_answer
from neuron_vs_sae.studies.result import Result
from neuron_vs_sae.studies.rows import rows_with


@dataclass(frozen=True)
class ConsoleTable:
    """`headers` and `rows` of text, what the table is of (`title`), what its numbers mean (`note`), and the answer (`sentences`)."""

    title: str
    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str
    sentences: tuple[str, ...]


def console_table(result: Result, curves: pd.DataFrame, tables: RobustTables | None) -> ConsoleTable:
    """A row per task: the number of nodes that a faithfulness of 80 % takes in neurons and in each trained dictionary (in every basis,
    where there is no such pair), and the verdict on each dictionary. `curves` is `per_curve(result)`.

    Sizes are under the study's first method, ablation, error policy and seed; verdicts over all specifications.
    """
    names, tasks = basis_names(result.study.basis), task_names(result.summary["task"])
    usual = {name: level for name, level in usual_levels(result).items() if name in curves}
    rows = rows_with(curves, **usual, seed=result.study.seed[0])
    pairs = confirmatory(result)
    bases = with_role(result.study.basis, "neurons", "trained") if pairs else list(result.study.basis)
    judged = pairs if tables is not None else []
    cells = [
        (
            name,
            *(_size(rows_with(rows, task=task, basis=basis)) for basis in bases),
            *(_verdict(tables, pair, task, names) for pair in judged),
        )
        for task, name in tasks.items()
    ]
    verdicts = [f"neurons or {names[b]}" for _, b in judged] if len(judged) > 1 else ["verdict"] * len(judged)
    first = usual_levels(result)
    case = ", ".join(f"{heading(name)}: {level_name(name, first[name])}" for name in ("method", "ablation", "errors"))
    seeds = result.study.seed
    case += f", seed {seeds[0]} of {', '.join(map(str, seeds))}" if len(seeds) > 1 else ""
    sentences = [sentence for answer in answers(result, tables) for sentence in answer.sentences]
    return ConsoleTable(
        title=f"{result.summary['model'].iloc[0]}: nodes for a faithfulness of 0.8 ({case})",
        headers=("task", *(names[basis] for basis in bases), *verdicts),
        rows=tuple(cells),
        note="In brackets: how many of them are error nodes, which stand for what a dictionary does not reconstruct.",
        sentences=(*(sentences or (why_no_answer(result),)), *accepted(result)),
    )


def _size(rows: pd.DataFrame) -> str:
    """`100 (5)`: nodes, and how many of them are error nodes; a dash where the level is not reached."""
    if rows.empty or pd.isna(rows["size_at_level"].iloc[0]):
        return "-"
    errors: Any = rows["error_nodes_at_level"].iloc[0]
    size = f"{float(rows['size_at_level'].iloc[0]):,.0f}"
    return size if pd.isna(errors) or not errors else f"{size} ({float(errors):.0f})"


def _verdict(tables: RobustTables | None, pair: tuple[str, str], task: str, names: dict[str, str]) -> str:
    """Who is better, in a few words."""
    rows = rows_with(of_pair(tables.robustness, pair), task=task).to_dict("records") if tables is not None else []
    if not rows:
        return "not compared"
    verdict = str(rows[0]["verdict"])
    if verdict == "depends":
        factor = rows[0]["decided_by"]
        return f"depends on {heading(factor)}" if isinstance(factor, str) and factor else "depends"
    return {"a better": "neurons", "b better": names[pair[1]]}.get(verdict, verdict)
