"""How stable circuits are: between resamples of the discovery prompts, templates, seeds and methods.

A circuit here is the first k nodes of a ranking, none of which has a score of 0. Two circuits of one size are compared by the
share of their k nodes that they have in common (`mean`) and by their Jaccard index, each beside what a random circuit of that
size would give (`chance`). Column `against` says which comparison it is, and `other` what the circuit is compared with:

- `resamples`: the circuit with those of 200 bootstrap resamples of its discovery prompts. The prompts are dealt at random
  into `folds`, and whole folds are drawn with replacement, so that nothing is attributed twice. The price: the
  variance of a resampled score is too small by a factor of `1 - 1 / folds` in expectation (95 % of what it should be at 20
  folds, where resampling 100 prompts one by one has 99 %), and is itself an estimate from so few parts. With as many
  folds as prompts it is the ordinary bootstrap. `low` and `high` are quantiles over resamples, at the study's confidence;
  they say how much of this circuit a resample loses. They are not an interval for the overlap with another sample's
  circuit, which is usually lower, because this circuit was discovered on the very prompts that are resampled; `seed` measures
  that overlap.
- `template`: the circuit of one template's discovery prompts with that of all the others', without a common prompt.
  With few prompts it is low for lack of prompts alone.
- `seed`: the circuits of two seeds, whose discovery prompts were drawn anew; `n_shared` of them are the same. In a basis
  that is fitted to the discovery prompts (pca, random_sae), a node is the unit of the same number.
- `method`: the circuits of two methods on the same prompts.

Nodes that at least 95 % of the resamples keep are the circuit's core; those that some keep, but fewer, are contingent.
Error nodes count as nodes; beside each count stands how many of them are error nodes.

Sources: Méloux et al. 2025 (arXiv 2510.00845), who resample prompts and compare circuits; core and contingent after
Parekh 2026 (arXiv 2603.00523), where pruning thresholds of edges vary instead. The definitions are ours.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from neuron_vs_sae.analyses.circuits.folds import Choice, Folds, Resampled, resampled_circuits
from neuron_vs_sae.core.nodes import NodeScores
from neuron_vs_sae.statistics.overlap import by_chance, in_common, jaccard

CORE = 0.95
"""The share of resamples that keep a core node."""

LARGEST = 1000
"""The largest circuit whose stability is reported: scores ranked later are close to zero and to each other."""

COLUMNS = [
    "task", "basis", "method", "seed", "errors", "against", "other", "size", "mean", "low", "high", "chance", "jaccard",
    "jaccard_low", "jaccard_high", "jaccard_chance", "core", "contingent", "error_nodes", "common_error_nodes",
    "core_error_nodes", "contingent_error_nodes", "n_total", "n_discovery", "n_other", "n_shared", "key",
]  # fmt: skip
_NUMBERS = (
    "mean", "low", "high", "chance", "jaccard", "jaccard_low", "jaccard_high", "jaccard_chance", "common_error_nodes",
)  # fmt: skip
CIRCUIT = ["task", "basis", "method", "seed", "errors", "rank", "node", "is_error", "score", "size", "kept"]


def sizes_told(sizes: Sequence[int], total: int) -> tuple[int, ...]:
    """Those of a study's sizes that are informative: at least one node, not all of them, and at most `LARGEST`."""
    return tuple(k for k in sizes if 0 < k < total and k <= LARGEST)


def typed(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """The rows as a table with all columns; what a comparison does not have is missing."""
    texts = dict.fromkeys(("task", "basis", "method", "errors", "against", "other", "key"), "string")
    types = dict.fromkeys(COLUMNS, "Int64") | dict.fromkeys(_NUMBERS, "float64") | texts
    return pd.DataFrame(rows, columns=COLUMNS).astype(types)


def within(
    scores: NodeScores, folds: Folds, choice: Choice, *, confidence: float, seed: int
) -> tuple[list[dict[str, Any]], pd.DataFrame]:
    """(a row per comparison within one discovery and per size, a table of the nodes of its largest circuit, best first).

    Both are empty where the scores are not kept by group (one fold, or a method that is no mean over prompts), and where no
    size has a circuit of nodes with a score.
    """
    chosen, n = choice.for_scores(scores), len(folds.members)
    if scores.by_group is None or not chosen.sizes:
        return [], pd.DataFrame(columns=CIRCUIT)
    resampled, order, is_error = (
        resampled_circuits(scores, folds, chosen, seed),
        chosen.order(scores),
        scores.index.is_error,
    )
    rows: list[dict[str, Any]] = []
    for i, k in enumerate(chosen.sizes):
        common = resampled.common[:, i], resampled.common_errors[:, i], resampled.lengths[:, i]
        row = _row(chosen, k, common, is_error[order[:k]], confidence)
        facts = {"against": "resamples", "n_discovery": n, "n_other": n}
        rows.append({**row, **facts, **_core(resampled.kept[i], is_error[resampled.nodes])})
    for g, template in enumerate(folds.templates, folds.n_folds):
        its, its_n = scores.by_group[g].double(), int(folds.prompts[g])
        others = (scores.values * n - its * its_n) / (n - its_n)
        facts = {"against": "template", "other": template, "n_discovery": n - its_n, "n_other": its_n, "n_shared": 0}
        rankings = [NodeScores(scores.index, values) for values in (others, its)]
        rows += [{**row, **facts} for row in between(choice, *rankings)]
    return rows, _circuit(scores, chosen, order, resampled)


def between(choice: Choice, scores: NodeScores, others: NodeScores) -> list[dict[str, Any]]:
    """A row per size of what the circuits of two scores of the same nodes have in common; without an interval."""
    chosen, is_error = choice.for_scores(scores, others), scores.index.is_error
    first, second = chosen.order(scores), chosen.order(others)
    rows = []
    for k, both in zip(chosen.sizes, in_common(first, second, chosen.sizes), strict=True):
        common = np.array([len(both)]), np.array([int(is_error[both].sum())]), np.array([k])
        rows.append(_row(chosen, k, common, is_error[first[:k]], None))
    return rows


def _row(
    choice: Choice,
    size: int,
    common: tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"], Int[np.ndarray, " n"]],
    is_error: Bool[Tensor, " size"],
    confidence: float | None,
) -> dict[str, Any]:
    """What a circuit of `size` has in common with others: `common` counts the nodes that both have, how many of these are error
    nodes, and how many the other has."""
    n_both, n_errors, n_other = common
    total = int(choice.among.sum())
    chance, jaccard_chance = by_chance(total, size)
    share, index = n_both / size, jaccard(n_both, size, n_other)
    row = {
        "size": size, "mean": float(share.mean()), "chance": chance, "jaccard": float(index.mean()),
        "jaccard_chance": jaccard_chance, "error_nodes": int(is_error.sum()),
        "common_error_nodes": float(n_errors.mean()), "n_total": total,
    }  # fmt: skip
    if confidence is not None:
        ends = [(1 - confidence) / 2, (1 + confidence) / 2]
        row["low"], row["high"] = np.quantile(share, ends).tolist()
        row["jaccard_low"], row["jaccard_high"] = np.quantile(index, ends).tolist()
    return row


def _core(kept: Float[Tensor, " some"], is_error: Bool[Tensor, " some"]) -> dict[str, int]:
    core = kept >= CORE
    contingent = (kept > 0) & ~core
    return {
        "core": int(core.sum()),
        "contingent": int(contingent.sum()),
        "core_error_nodes": int((core & is_error).sum()),
        "contingent_error_nodes": int((contingent & is_error).sum()),
    }


def _circuit(scores: NodeScores, choice: Choice, order: Int[Tensor, " k"], resampled: Resampled) -> pd.DataFrame:
    """Per node of the largest circuit its score, the smallest size that holds it, and the share of resamples whose circuit
    of that size keeps it."""
    place = torch.full((len(scores.index),), -1)
    place[resampled.nodes] = torch.arange(len(resampled.nodes))
    sizes = torch.tensor(sorted(choice.sizes), dtype=torch.long)
    which = torch.searchsorted(sizes, torch.arange(1, len(order) + 1))  # the first size that is not smaller
    return pd.DataFrame(
        {
            "rank": range(1, len(order) + 1),
            "node": [scores.index.name(node) for node in order.tolist()],
            "is_error": scores.index.is_error[order].numpy(),
            "score": scores.values[order].numpy(),
            "size": sizes[which].numpy(),
            "kept": resampled.kept[which, place[order]].double().numpy(),
        },
        columns=CIRCUIT,
    )
