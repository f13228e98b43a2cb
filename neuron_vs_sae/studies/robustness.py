"""An answer that survives: per task and pair of bases the verdict over all specifications, and what decides it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Shaped

from neuron_vs_sae.statistics.bootstrap import interval
from neuron_vs_sae.statistics.decision import first_order, turn
from neuron_vs_sae.statistics.estimates import SCORES
from neuron_vs_sae.statistics.joint import JointTest, joint_test
from neuron_vs_sae.statistics.permutation import sign_flip
from neuron_vs_sae.studies.families import adjusted, family, has_robust_verdict
from neuron_vs_sae.studies.findings import MORE_IS_BETTER, Finding, decide, differ, findings, unbeaten
from neuron_vs_sae.studies.multiverse import CONVENTIONS, Multiverse, of_finding, pooled
from neuron_vs_sae.studies.result import Result
from neuron_vs_sae.studies.study import Study

AGREEMENT = 0.95
"""The share of specifications that must say the same."""
COLUMNS = [
    "task", "basis_a", "basis_b", "score", "n_specifications", "share_a_better", "share_b_better", "share_equivalent",
    "median_difference", "low", "high", "p_joint", "p_joint_holm", "decided_by", "decided_share", "verdict", "family",
    "resolution", "median_t", "n_significant_a", "n_significant_b", "disqualified_by", "share_control_wins",
    *(f"share_by_{name}" for name in CONVENTIONS), "turn_factor", "turn_from", "turn_to", "turn_share", "n", "n_clusters",
]  # fmt: skip


def robustness(result: Result) -> pd.DataFrame:
    """One row per task, pair of bases and score, and one for the mean over tasks (`task` is "all", where there are several).

    Pairs are those with neurons and those of two trained dictionaries; `specifications` has all.

    `share_a_better`, `share_b_better`, `share_equivalent`: of specifications by their own verdict (`specifications`).
    `median_difference`: the median over specifications of a less b, with its BCa interval. `p_joint`: the joint sign-flip test of the
    median t (`joint.joint_test`), no smaller than `resolution`; `p_joint_holm` adjusts it within its `family` and score.
    `n_significant_a` and `_b`: specifications that stay significant after the max-|t| adjustment.

    `verdict`, the first that holds: `equivalent` where at least 95 % of specifications are; `a better` (`b better` likewise) where
    `p_joint_holm` < alpha with the median t in its favour, at least one specification is significant for it, none for the other, at
    least 95 % of those that are not equivalent favour it, and no control disqualifies (`undecided` where one does); `depends` where significant
    specifications (max-|t|) disagree, or all levels but one of a convention with three or more agree; else `undecided`.

    `disqualified_by`: the controls that the basis favoured by the median does not beat in more than 5 % of the specifications that
    it wins (`share_control_wins`: of all controls). `decided_by`: the convention with the largest first-order share of the
    estimates' variance (`decided_share`; all of them in `share_by_...`), empty where they do not vary. `turn_factor`, `turn_from`,
    `turn_to`: the one change of convention that turns the sign in most specifications, and in what share.
    """
    return judged([row for pair in findings(result) for row in rows_of(pair, result.study)], result.study)


def rows_of(pair: Sequence[Finding], study: Study) -> list[dict[str, Any]]:
    """The rows of one pair of bases, before p-values are adjusted: `verdict` holds what is said if `p_joint_holm` is not significant,
    `candidate` the basis that is better if it is."""
    rows = []
    if not pair or not has_robust_verdict(pair[0].comparison.basis_a, pair[0].comparison.basis_b):
        return rows
    for score in SCORES:
        multiverses = [each for finding in pair if (each := of_finding(finding, score)) is not None]
        together = pooled(multiverses) if len(multiverses) > 1 else None
        for each in [*multiverses, *([together] if together else [])]:
            names = {"task": each.task, "basis_a": pair[0].comparison.basis_a, "basis_b": pair[0].comparison.basis_b}
            rows.append({**names, "score": score, "family": family(names["basis_a"], names["basis_b"]), **verdict_of(
                each, score, names["basis_a"], study
            )})  # fmt: skip
    return rows


def judged(rows: list[dict[str, Any]], study: Study) -> pd.DataFrame:
    """The table of `rows_of` all pairs, with adjusted p-values and verdicts."""
    table = pd.DataFrame(rows, columns=[*COLUMNS, "candidate"])
    table["p_joint_holm"] = adjusted(table, "p_joint", ["family", "score"])["p_holm"]
    wins = (table["p_joint_holm"] < 1 - study.confidence) & (table["candidate"] != "")
    table["verdict"] = table["verdict"].where(~wins | (table["verdict"] == "equivalent"), table["candidate"])
    return table.reindex(columns=COLUMNS)


def verdict_of(each: Multiverse, score: str, basis_a: str, study: Study) -> dict[str, Any]:
    """The columns of one row but for its names and adjusted p (see `robustness`, `rows_of`)."""
    sign, alpha = MORE_IS_BETTER[score], 1 - study.confidence
    flips, seed = study.sign_flips, study.seed[0]
    joint = joint_test(sign * each.contrasts, each.clusters, flips=flips, seed=seed)
    columns = differ(each.difference, study.confidence, study.margin)
    p = sign_flip(each.contrasts, each.clusters, flips=flips, seed=seed) if each.p is None else each.p
    verdicts = decide(columns, p, sign, alpha)
    favour = np.sign(sign * each.difference.value)
    stays = np.where((joint.p_max_t < alpha) & (verdicts != "equivalent"), np.sign(joint.t), 0.0)
    ahead = "a" if joint.median_t > 0 else "b"
    beaten_by, share_flagged = _disqualified(each, verdicts, ahead, sign, basis_a, study)
    shares = first_order(each.difference.value, each.factors)
    decided_by = max(shares, key=lambda name: shares[name])
    turned = turn(each.difference.value, each.factors)
    candidate = _candidate(verdicts, favour, joint)
    otherwise = _otherwise(verdicts, favour, stays, each.factors)
    if candidate and beaten_by and otherwise != "equivalent":
        otherwise = "undecided"  # what decides is the control, and no convention
    median = each.difference.median()
    ends = interval(median, study.confidence)
    return {
        "n_specifications": len(verdicts),
        "share_a_better": float((verdicts == "a better").mean()),
        "share_b_better": float((verdicts == "b better").mean()),
        "share_equivalent": float((verdicts == "equivalent").mean()),
        "median_difference": median.value[0],
        "low": ends.low[0],
        "high": ends.high[0],
        "p_joint": joint.p,
        "resolution": joint.resolution,
        "median_t": joint.median_t,
        "n_significant_a": int((stays > 0).sum()),
        "n_significant_b": int((stays < 0).sum()),
        "decided_by": decided_by if shares[decided_by] > 0 else "",
        "decided_share": shares[decided_by],
        **{f"share_by_{name}": share for name, share in shares.items()},
        "turn_factor": turned.factor if turned else "",
        "turn_from": turned.start if turned else "",
        "turn_to": turned.end if turned else "",
        "turn_share": turned.share if turned else 0.0,
        "disqualified_by": "; ".join(beaten_by),
        "share_control_wins": share_flagged,
        "verdict": otherwise,
        "candidate": "" if beaten_by else candidate,
        "n": len(each.clusters.cluster),
        "n_clusters": each.clusters.n_clusters,
    }


def _candidate(verdicts: Shaped[np.ndarray, " k"], favour: Float[np.ndarray, " k"], joint: JointTest) -> str:
    """The basis that is better if the joint test says so: `a better`, `b better` or nothing."""
    for side, name, other in ((1.0, "a better", "b better"), (-1.0, "b better", "a better")):
        if joint.median_t * side > 0 and (verdicts == name).any() and _agree(verdicts, favour * side, other):
            return name
    return ""


def _agree(verdicts: Shaped[np.ndarray, " k"], favour: Float[np.ndarray, " k"], other: str) -> bool:
    """Whether 95 % of the specifications that are not equivalent favour one basis, and none is significant for the other."""
    different = verdicts != "equivalent"
    return bool(different.any() and (favour[different] > 0).mean() >= AGREEMENT and not (verdicts == other).any())


def _otherwise(
    verdicts: Shaped[np.ndarray, " k"],
    favour: Float[np.ndarray, " k"],
    stays: Float[np.ndarray, " k"],
    factors: dict[str, list[str]],
) -> str:
    """The verdict where neither basis is better: `equivalent`, `depends` or `undecided`."""
    if (verdicts == "equivalent").mean() >= AGREEMENT:
        return "equivalent"
    if (stays > 0).any() and (stays < 0).any():
        return "depends"
    for levels in factors.values():
        names = np.array(levels)
        said = [
            _of_level(verdicts[names == level], favour[names == level], stays[names == level])
            for level in dict.fromkeys(levels)
        ]
        if len(said) > 2 and any(said.count(answer) == len(said) - 1 for answer in set(said) - {""}):
            return "depends"
    return "undecided"


def _of_level(
    verdicts: Shaped[np.ndarray, " k"], favour: Float[np.ndarray, " k"], stays: Float[np.ndarray, " k"]
) -> str:
    """What the specifications of one level say by themselves; nothing where they do not agree, or none stays significant."""
    if (verdicts == "equivalent").mean() >= AGREEMENT:
        return "equivalent"
    for side, name, other in ((1.0, "a better", "b better"), (-1.0, "b better", "a better")):
        if (stays * side > 0).any() and _agree(verdicts, favour * side, other):
            return name
    return ""


def _disqualified(
    each: Multiverse, verdicts: Shaped[np.ndarray, " k"], ahead: str, sign: float, basis_a: str, study: Study
) -> tuple[list[str], float]:
    """The controls that the basis ahead does not beat, and the share of its wins that some control does not let stand."""
    wins: Bool[np.ndarray, " k"] = verdicts == f"{ahead} better"
    flagged, names = np.zeros(len(wins), dtype=bool), []
    for i, control in enumerate(each.controls):
        if (control.of == basis_a) == (ahead == "a") and wins.any():
            if each.unbeaten is None:
                own = unbeaten(control, wins, np.full(len(wins), sign), each.clusters, study)
            else:
                own = each.unbeaten[i]
            flagged |= own
            if own.sum() > (1 - AGREEMENT) * wins.sum():
                names.append(control.basis)
    return names, float(flagged.sum() / max(wins.sum(), 1))
