"""Which basis is better, in which sense of size, and whether the prompts at hand can tell: from a result's values per prompt."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from neuron_vs_sae.core import files
from neuron_vs_sae.statistics.random_effects import across
from neuron_vs_sae.studies import result
from neuron_vs_sae.studies.families import adjusted, family
from neuron_vs_sae.studies.findings import decide, findings
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
_PAIR = ["method", "ablation", "errors", "metric", "basis_a", "basis_b"]
_SPECIFICATION = ("errors", "ablation", "metric")


def verdicts(found: "result.Result", *, against: str | None = None) -> pd.DataFrame:
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
    return table_of([one.rows for pair in findings(found, against) for one in pair], found.study)


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
    table["verdict"] = decide(table, "p_holm", 1 - study.confidence)
    return table.reindex(columns=COLUMNS)


def across_tasks(table: pd.DataFrame, confidence: float = 0.95) -> pd.DataFrame:
    """One row per method x ablation x errors x pair of bases x size measure x score: `verdicts` over tasks and seeds.

    Counts of each verdict; the mean difference with the interval of crossed random effects (`random_effects.across`: for
    other tasks like these, if these are a sample of them), what it varies by, and in `note` what that rests on. Tasks that
    lack a seed are counted but not averaged. `depends_on_size`: on some task (`n_depending` of them, seeds apart) this pair's
    verdict of this score is another by another size measure; on `n_reversed` of them a is better by one and b by another.
    """
    rows = []
    for _, pair in table.groupby([*_PAIR, "score"], sort=False):
        by_task = pair.groupby(["task", "seed"], sort=False)["verdict"].agg(set)
        for _, case in pair.groupby("size_measure", sort=False):
            values = case.pivot(index="task", columns="seed", values="difference")
            whole = values.dropna()
            found = across(whole.to_numpy(np.float64), confidence) if len(whole) else None
            told = case["verdict"].tolist()
            rows.append(
                {
                    **{c: case[c].iloc[0] for c in (*_PAIR, "size_measure", "score", "family")},
                    "n_tasks": len(values),
                    "n_seeds": len(values.columns),
                    **{v.replace(" ", "_"): told.count(v) for v in _VERDICTS},
                    **(vars(found) if found else {"note": "no task has every seed"}),
                    "depends_on_size": any(len(of_task) > 1 for of_task in by_task),
                    "n_depending": sum(len(of_task) > 1 for of_task in by_task),
                    "n_reversed": sum({"a better", "b better"} <= of_task for of_task in by_task),
                }
            )
    return pd.DataFrame(rows, columns=ACROSS)


_VERDICTS: Sequence[str] = ("a better", "b better", "equivalent", "undecided")


def write_verdicts(found: "result.Result") -> None:
    """`verdicts.csv`, `verdicts_across_tasks.csv`, `specifications.parquet` and `robustness.csv`: without rows where there is nothing
    to compare. Comparisons are made once for all four."""
    study = found.study
    rows, specified, robust = [], [], []
    for pair in findings(found):
        rows += [one.rows for one in pair]
        specified += [specifications_of(one, study) for one in pair]
        robust += rows_of(pair, study)
    table = table_of(rows, study)
    over_tasks, specifications, survives = (
        across_tasks(table, study.confidence),
        joined(specified),
        judged(robust, study),
    )
    files.write(found.folder / "verdicts.csv", lambda file: table.to_csv(file, index=False))
    files.write(found.folder / "verdicts_across_tasks.csv", lambda file: over_tasks.to_csv(file, index=False))
    files.write(found.folder / "specifications.parquet", lambda file: specifications.to_parquet(file, index=False))
    files.write(found.folder / "robustness.csv", lambda file: survives.to_csv(file, index=False))
