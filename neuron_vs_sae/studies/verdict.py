"""Which basis is better, in which sense of size, and whether the prompts at hand can tell: from a result's values per prompt."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from neuron_vs_sae.core import files
from neuron_vs_sae.core.curve import Curve
from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.core.lookup import parse
from neuron_vs_sae.statistics.bootstrap import Estimate, interval, minimum_detectable, tail
from neuron_vs_sae.statistics.estimates import SCORES, bottom, estimates, tops
from neuron_vs_sae.statistics.multiplicity import benjamini_hochberg, holm
from neuron_vs_sae.statistics.permutation import contrast, sign_flip
from neuron_vs_sae.statistics.random_effects import across
from neuron_vs_sae.statistics.resampling import Draws
from neuron_vs_sae.statistics.size_measures import MEASURES, area_weights, common_range
from neuron_vs_sae.studies import result
from neuron_vs_sae.studies.rows import draws_of, to_curve, to_groups
from neuron_vs_sae.studies.study import Study

COLUMNS = [
    "task", "method", "ablation", "errors", "basis_a", "basis_b", "size_measure", "score", "a", "b", "difference", "low",
    "high", "p", "p_holm", "p_bh", "p_equivalence", "margin", "minimum_detectable", "n", "n_clusters", "verdict", "seed",
    "range_low", "range_high",
]  # fmt: skip
ACROSS = [
    "method", "ablation", "errors", "basis_a", "basis_b", "size_measure", "score", "n_tasks", "n_seeds", "a_better",
    "b_better", "equivalent", "undecided", "mean", "low", "high", "degrees_of_freedom", "task_variance", "seed_variance",
    "rest_variance", "depends_on_size", "n_depending", "n_reversed", "note",
]  # fmt: skip
_CASE = ["task", "method", "ablation", "errors", "seed"]
_PAIR = ["method", "ablation", "errors", "basis_a", "basis_b"]


@dataclass(frozen=True, eq=False)
class _Areas:
    """One basis in one case: per score its areas over every size measure, estimated and prompt by prompt."""

    estimate: dict[str, Estimate]
    top: dict[str, Float[np.ndarray, "batch measures"]]
    bottom: Float[np.ndarray, "batch 1"]


def verdicts(found: "result.Result", *, against: str | None = None) -> pd.DataFrame:
    """One row per task x method x ablation x errors (x seed) x pair of bases x size measure x score.

    `a` and `b` are the bases' areas: the score's mean over the size measure, on the stretch (`range_low` to `range_high`) that
    all bases of the case reach. `difference` is a less b, with its paired BCa interval over prompts (or their clusters);
    `p` is the sign-flip test's, `p_holm` and `p_bh` adjust it for all rows of the same size measure and score: over tasks,
    seeds, methods, ablations, error policies and pairs. `p_equivalence` is that of two one-sided tests (BCa) against a difference of `margin`; it is not adjusted.
    `minimum_detectable`: the true difference that this comparison alone finds with a power of 80 %.

    `verdict`, with alpha one less the study's confidence: `equivalent` where `p_equivalence` < alpha (the interval of level
    1 - 2 alpha lies within the margin), even if the difference is significant, for it is then a small one; else `a better` or `b
    better` where the interval excludes 0 and `p_holm` < alpha; else `undecided`. More faithfulness is better, and LESS completeness.

    Pairs are `against` (default: `mlp_neurons` where the study has it, else its first basis) with every other. No row where
    there is one basis, one cluster, or no common stretch. All is conditional on the rankings, the ablation's values and
    the size axes, which are the sample's own. Raises `InputError` where the study has no basis `against`.
    """
    study = found.study
    first = _reference(study) if against is None else against
    if first not in study.basis:
        raise InputError(f"no basis {first!r} in this study; there are: {', '.join(study.basis)}")
    drawn = draws_of(found.curves, study.resamples)
    seed = int(found.curves["seed"].iloc[0])
    rows = [row for case in _cases(found) for row in _compare(*case, first, drawn, study, seed)]
    table = pd.DataFrame(rows, columns=[c for c in COLUMNS if c not in {"p_holm", "p_bh", "verdict"}])
    return _judged(table, 1 - study.confidence)


def _reference(study: Study) -> str:
    neurons = [text for text in study.basis if parse("bases", text).name == "mlp_neurons"]
    return (neurons or list(study.basis))[0]


def _cases(found: "result.Result") -> Iterator[tuple[dict[str, Any], dict[str, pd.DataFrame]]]:
    for _, case in found.curves.groupby(_CASE, sort=False):
        yield {c: case[c].iloc[0] for c in _CASE}, {str(b): rows for b, rows in case.groupby("basis", sort=False)}


def _compare(
    case: dict[str, Any], by_basis: dict[str, pd.DataFrame], first: str, drawn: Any, study: Study, seed: int
) -> list[dict[str, Any]]:
    groups = to_groups(next(iter(by_basis.values())))
    others = [basis for basis in by_basis if basis != first]
    if first not in by_basis or not others or groups.n_clusters < 2:
        return []
    curves = {basis: to_curve(rows) for basis, rows in by_basis.items()}
    measures = [m for m in MEASURES if m != "change" or all(c.change is not None for c in curves.values())]
    ranges = {m: found for m in measures if (found := common_range(list(curves.values()), m)) is not None}
    areas = {basis: _areas(curve, ranges, drawn(groups)) for basis, curve in curves.items()}
    keys = [(other, score) for other in others for score in SCORES]
    a = areas[first]
    contrasts = [contrast(a.top[s], a.bottom, areas[o].top[s], areas[o].bottom) for o, s in keys]
    p = sign_flip(np.concatenate(contrasts, 1), groups, flips=study.sign_flips, seed=seed).reshape(len(keys), -1)
    rows = []
    for (other, score), p_values in zip(keys, p, strict=True):
        ours, theirs = a.estimate[score], areas[other].estimate[score]
        columns = differ(ours, theirs, study.confidence, study.margin)
        for i, (measure, (low, high)) in enumerate(ranges.items()):
            rows.append(
                {
                    **case,
                    "basis_a": first,
                    "basis_b": other,
                    "size_measure": measure,
                    "score": score,
                    "a": ours.value[i],
                    "b": theirs.value[i],
                    **{name: values[i] for name, values in columns.items()},
                    "p": p_values[i],
                    "margin": study.margin,
                    "n": len(groups.cluster),
                    "n_clusters": groups.n_clusters,
                    "range_low": low,
                    "range_high": high,
                }
            )
    return rows


def _areas(curve: Curve, ranges: dict[str, tuple[float, float]], draws: Draws) -> _Areas:
    weights = np.stack([area_weights(curve, m, *stretch) for m, stretch in ranges.items()], 1)
    return _Areas(
        estimate={score: each.weighted(weights) for score, each in estimates(curve, draws).items()},
        top={score: top @ weights for score, top in tops(curve).items()},
        bottom=bottom(curve),
    )


def differ(a: Estimate, b: Estimate, confidence: float, margin: float) -> dict[str, Float[np.ndarray, " k"]]:
    """`difference` (a less b), its interval `low` to `high`, `p_equivalence` and `minimum_detectable` (see `verdicts`)."""
    difference = a - b
    found = interval(difference, confidence)
    return {
        "difference": difference.value,
        "low": found.low,
        "high": found.high,
        "p_equivalence": np.maximum(tail(difference, -margin), 1 - tail(difference, margin)),
        "minimum_detectable": minimum_detectable(difference, 1 - confidence),
    }


def _judged(table: pd.DataFrame, alpha: float) -> pd.DataFrame:
    """The table with adjusted p-values and verdicts."""
    table = table.assign(p_holm=np.nan, p_bh=np.nan)
    for _, family in table.groupby(["size_measure", "score"], sort=False):
        p = family["p"].to_numpy(np.float64)
        table.loc[family.index, "p_holm"], table.loc[family.index, "p_bh"] = holm(p), benjamini_hochberg(p)
    above, below = table["low"] > 0, table["high"] < 0
    better = np.where((table["score"] == "faithfulness") == above, "a better", "b better")
    real = (above | below) & (table["p_holm"] < alpha)
    table["verdict"] = np.where(table["p_equivalence"] < alpha, "equivalent", np.where(real, better, "undecided"))
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
                    **{c: case[c].iloc[0] for c in (*_PAIR, "size_measure", "score")},
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
    """`verdicts.csv` and `verdicts_across_tasks.csv`: without rows where there is nothing to compare."""
    table = verdicts(found)
    across = across_tasks(table, found.study.confidence)
    files.write(found.folder / "verdicts.csv", lambda file: table.to_csv(file, index=False))
    files.write(found.folder / "verdicts_across_tasks.csv", lambda file: across.to_csv(file, index=False))
