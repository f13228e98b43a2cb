"""Which basis is better, in which sense of size, and whether the prompts at hand can tell: from a result's values per prompt."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from neuron_vs_sae.core import files
from neuron_vs_sae.statistics.random_effects import across
from neuron_vs_sae.studies.families import adjusted, family
from neuron_vs_sae.studies.findings import decide, findings, signs
from neuron_vs_sae.studies.result import Result
from neuron_vs_sae.studies.robustness import judged, rows_of
from neuron_vs_sae.studies.specifications import SUMMARY, joined, rows_of as specifications_of
from neuron_vs_sae.studies.study import Study

QUESTION = "circuits"
COLUMNS = [
    "question", "task", "method", "basis_a", "basis_b", "score", "size_measure", "a", "b", "difference", "low", "high", "p",
    "p_holm", "p_equivalence", "margin", "n", "n_clusters", "verdict", "specification", "family", "ablation", "errors", "metric",
    "p_bh", "minimum_detectable", "seed", "range_low", "range_high",
]  # fmt: skip
ACROSS = [
    "method", "ablation", "errors", "metric", "basis_a", "basis_b", "size_measure", "score", "family", "n_tasks", "n_seeds",
    "a_better", "b_better", "equivalent", "undecided", "mean", "low", "high", "degrees_of_freedom", "task_variance",
    "seed_variance", "rest_variance", "depends_on_size", "n_depending", "n_reversed", "note",
]  # fmt: skip
_CASE = ["method", "ablation", "errors", "metric", "basis_a", "basis_b", "size_measure", "score", "family"]
_VALUES = ["task", "seed", "difference", "verdict"]
_VERDICTS = ("a better", "b better", "equivalent", "undecided")
_Row = tuple[str, int, float, str]
_SPECIFICATION = ("errors", "ablation", "metric")


def verdicts(result: Result, *, against: str | None = None) -> pd.DataFrame:
    """One row per task x method x ablation x errors x metric (x seed) x pair of bases x size measure x score.

    `a` and `b` are the bases' areas: the score's mean over the size measure, on the stretch (`range_low` to `range_high`) that
    both bases of the pair reach; no third basis has a say in it. `difference` is a less b, with its paired BCa interval over
    prompts (or their clusters); `p` is the sign-flip test's. `p_holm` and `p_bh` adjust it for all rows of the same `family`, size
    measure and score: over tasks, seeds, methods, ablations, error policies and pairs. The `confirmatory` family is neurons
    against trained dictionaries, without baseline methods; the rest is `exploratory`. `p_equivalence` is that of two one-sided tests (BCa)
    against a difference of `margin`; it is not adjusted. `minimum_detectable`: the true difference that this comparison alone finds
    with a power of 80 %.

    `verdict`, with alpha one less the study's confidence: `equivalent` where `p_equivalence` < alpha (the interval of level
    1 - 2 alpha lies within the margin), even if the difference is significant, for it is then a small one; else `a better` or `b
    better` where the interval excludes 0 and `p_holm` < alpha; else `undecided`. More faithfulness is better, and LESS completeness.

    Every pair of bases is there once: `a` is neurons where one of the two is, else the one that the study names first. With `against`,
    that basis is `a` and every other `b`. No row where there is one basis, one cluster, or no common stretch. All is
    conditional on the rankings, the ablation's values and the size axes, which are the sample's own. Raises `InputError` where
    the study has no basis `against`.
    """
    return table_of([finding.rows for pair in findings(result, against) for finding in pair], result.study)


def table_of(rows: Sequence[pd.DataFrame], study: Study) -> pd.DataFrame:
    """The table of the rows of all comparisons (`findings.numbers`), with adjusted p-values and verdicts, task by task."""
    if not rows:
        return pd.DataFrame(columns=COLUMNS)
    order = {task: i for i, task in enumerate(dict.fromkeys(str(own["task"].iloc[0]) for own in rows))}
    table = pd.concat(sorted(rows, key=lambda own: order[str(own["task"].iloc[0])]), ignore_index=True)
    # Families are told once per pair and method, not once per row.
    families = {
        key: family(*key)
        for key in table[["basis_a", "basis_b", "method"]].drop_duplicates().itertuples(index=False, name=None)
    }
    table["family"] = [families[key] for key in zip(table["basis_a"], table["basis_b"], table["method"], strict=True)]
    table = table.join(adjusted(table, "p", ["family", "size_measure", "score"]))
    table["question"] = QUESTION
    labels = [[f"{name}={value}" for value in table[name]] for name in _SPECIFICATION]
    table["specification"] = [", ".join([*own, f"summary={SUMMARY}"]) for own in zip(*labels, strict=True)]
    numbers = {name: table[name].to_numpy(np.float64) for name in ("low", "high", "p_equivalence")}
    p_holm = table["p_holm"].to_numpy(np.float64)
    table["verdict"] = decide(numbers, p_holm, signs(table["score"]), 1 - study.confidence)
    return table.reindex(columns=COLUMNS)


def across_tasks(table: pd.DataFrame, confidence: float = 0.95) -> pd.DataFrame:
    """One row per method x ablation x errors x pair of bases x size measure x score: `verdicts` over tasks and seeds.

    Counts of each verdict; the mean difference with the interval of crossed random effects (`random_effects.across`: for
    other tasks like these, if these are a sample of them), what it varies by, and in `note` what that rests on. Tasks that
    lack a seed are counted but not averaged. `depends_on_size`: on some task (`n_depending` of them, seeds apart) this pair's
    verdict of this score is another by another size measure; on `n_reversed` of them a is better by one and b by another.
    """
    cases: dict[tuple[Any, ...], list[_Row]] = {}
    by_task: dict[tuple[Any, ...], dict[tuple[str, int], set[str]]] = {}
    # Plain tuples: there are thousands of cases of a few rows each.
    for *labels, task, seed, difference, verdict in table[[*_CASE, *_VALUES]].itertuples(index=False, name=None):
        cases.setdefault(tuple(labels), []).append((task, seed, difference, verdict))
        case = tuple(value for name, value in zip(_CASE, labels, strict=True) if name != "size_measure")
        by_task.setdefault(case, {}).setdefault((task, seed), set()).add(verdict)
    rows = []
    for labels, values in cases.items():
        named = dict(zip(_CASE, labels, strict=True))
        of_tasks = by_task[tuple(value for name, value in named.items() if name != "size_measure")].values()
        rows.append(
            {
                **named,
                **_over(values, confidence),
                "depends_on_size": any(len(verdicts) > 1 for verdicts in of_tasks),
                "n_depending": sum(len(verdicts) > 1 for verdicts in of_tasks),
                "n_reversed": sum({"a better", "b better"} <= verdicts for verdicts in of_tasks),
            }
        )
    return pd.DataFrame(rows, columns=ACROSS)


def _over(values: Sequence[_Row], confidence: float) -> dict[str, Any]:
    """Counts and the mean of one pair under one specification over tasks and seeds."""
    seeds = list(dict.fromkeys(seed for _, seed, _, _ in values))
    by_task: dict[str, dict[int, float]] = {}
    for task, seed, difference, _ in values:
        by_task.setdefault(task, {})[seed] = difference
    whole = [[own[seed] for seed in seeds] for own in by_task.values() if len(own) == len(seeds)]
    verdicts = [verdict for *_, verdict in values]
    return {
        "n_tasks": len(by_task),
        "n_seeds": len(seeds),
        **{name.replace(" ", "_"): verdicts.count(name) for name in _VERDICTS},
        **(vars(across(np.array(whole), confidence)) if whole else {"note": "no task has every seed"}),
    }


def write_verdicts(result: Result) -> None:
    """`verdicts.csv`, `verdicts_across_tasks.csv`, `specifications.parquet` and `robustness.csv`: without rows where there is nothing
    to compare. Comparisons are made once for all four."""
    study = result.study
    rows, specified, robust = [], [], []
    for pair in findings(result):
        rows += [finding.rows for finding in pair]
        specified += [specifications_of(finding) for finding in pair]
        robust += rows_of(pair, study)
    table = table_of(rows, study)
    over_tasks, specifications, survives = (
        across_tasks(table, study.confidence),
        joined(specified),
        judged(robust, study),
    )
    files.write(result.folder / "verdicts.csv", lambda file: _marked(table, study).to_csv(file, index=False))
    files.write(
        result.folder / "verdicts_across_tasks.csv", lambda file: _marked(over_tasks, study).to_csv(file, index=False)
    )
    files.write_table(result.folder / "specifications.parquet", _marked(specifications, study))
    files.write(result.folder / "robustness.csv", lambda file: _marked(survives, study).to_csv(file, index=False))


def _marked(table: pd.DataFrame, study: Study) -> pd.DataFrame:
    """The table, with a mark in every row where SAEs were accepted that explain next to nothing of their sites."""
    return table.assign(accept_poor_sae=True) if study.accept_poor_sae else table
