"""How stable circuits are: resamples and folds by hand, and against a slow oracle."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tables
import torch
import toys

import neuron_vs_sae as nvs
from neuron_vs_sae.analyses.circuits import stability
from neuron_vs_sae.analyses.circuits.folds import RESAMPLES, Choice, Folds, folds_of, resampled_circuits
from neuron_vs_sae.core.nodes import NodeIndex, NodeScores

# Scores of groups of prompts.

SOME_BASES = [case for case in tables.BASES if case.name in {"mlp_neurons", "sae", "sae three kinds", "transcoder"}]
OF_PROMPTS = [case for case in tables.METHODS if case.mean_over_prompts]


def pairs_of(n: int, templates: tuple[str, ...] = ()) -> nvs.PromptPairs:
    made = toys.pairs(n=n)
    tags = tuple({"template": templates[i * i % len(templates)]} if templates else {} for i in range(n))
    return replace(made, tags=tags)


@pytest.mark.parametrize(
    ("method", "positions"),
    [
        pytest.param(method, positions, id=f"{method.id} {positions}")
        for method in OF_PROMPTS
        for positions in ("separate", "pooled")
        if positions == "separate" or method.id in {"relp", "activation_patching", "delta"}
    ],
)
def test_a_methods_scores_are_the_mean_of_its_folds_and_a_templates_are_its_prompts_own(
    method: Any, positions: Any, llama: Any
) -> None:
    pairs = pairs_of(5, ("a", "b", "c"))
    folds = folds_of(pairs, 3, seed=1)
    assert folds.templates == ("b", "a")  # squares are 0 or 1 modulo 3
    weights = folds.prompts[: folds.n_folds].double() / len(pairs)
    for case in SOME_BASES if method.name == "relp" else SOME_BASES[1:2]:
        basis = case.make(llama, pairs)
        alone = method(llama, basis, pairs, positions=positions)
        found = method(llama, basis, folds.marked(pairs), positions=positions, batch_size=3)
        assert alone.by_group is None
        assert found.by_group is not None
        close = 1e-5 * float(alone.values.abs().max())  # groups are kept in float32
        torch.testing.assert_close(found.values, alone.values, rtol=0, atol=1e-12)
        torch.testing.assert_close(
            weights @ found.by_group[: folds.n_folds].double(), alone.values, rtol=0, atol=close, check_dtype=False
        )
        for g, name in enumerate(folds.templates, folds.n_folds):
            rows = [i for i, tag in enumerate(pairs.tags) if tag["template"] == name]
            its = method(llama, basis, pairs.take(rows), positions=positions).values
            torch.testing.assert_close(found.by_group[g].double(), its, rtol=0, atol=close)


def test_a_method_that_is_no_mean_over_prompts_has_no_scores_of_groups(llama: Any) -> None:
    pairs = pairs_of(6)
    scores = nvs.attribution.random(llama, nvs.bases.mlp_neurons(llama), folds_of(pairs, 3, 0).marked(pairs))
    assert scores.by_group is None


@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_scores_of_groups_do_not_depend_on_the_batch_size(batch_size: int, gpt2: Any) -> None:
    pairs = pairs_of(9)
    marked, basis = folds_of(pairs, 4, 0).marked(pairs), nvs.bases.sae(gpt2, source=toys.saes())
    one, other = (nvs.attribution.relp(gpt2, basis, marked, batch_size=n).by_group for n in (3, batch_size))
    torch.testing.assert_close(one, other, rtol=0, atol=1e-6 * float(one.abs().max()))


def test_folds_part_the_prompts_evenly_and_at_random() -> None:
    folds = folds_of(pairs_of(11), 4, seed=0)
    assert folds.members.sum(1).tolist() == [1] * 11
    assert sorted(folds.prompts.tolist()) == [2, 3, 3, 3]
    assert not torch.equal(folds.members, folds_of(pairs_of(11), 4, seed=1).members)
    assert folds_of(pairs_of(3), 20, seed=0).members.sum(0).tolist() == [1, 1, 1]  # a prompt each, where they are few
    assert folds_of(pairs_of(11), 1, seed=0).members.shape == (11, 0)
    assert folds_of(pairs_of(4, ("the only one",)), 2, seed=0).templates == ()


def test_the_commonest_templates_are_scored_apart() -> None:
    many = tuple({"template": str(i // 2)} for i in range(2 * 25 - 1))  # the last has one prompt, the others two
    pairs = replace(toys.pairs(n=len(many)), tags=many)
    folds = folds_of(pairs, 2, seed=0)
    assert len(folds.templates) == 20
    assert set(folds.prompts[2:].tolist()) == {2}


def test_folds_make_the_variance_of_a_resampled_mean_too_small_by_one_over_folds() -> None:
    """In expectation over the deal: 3 / 4 of `variance / n` at four folds."""
    values = torch.randn(12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    pairs = pairs_of(12)
    variances = []
    for seed in range(1000):
        fold_means = folds_of(pairs, 4, seed).members.double().T @ values / 3
        variances.append(float(fold_means.var(correction=0)) / 4)  # of the mean of four draws with replacement
    assert np.mean(variances) / (float(values.var()) / 12) == pytest.approx(0.75, abs=0.06)  # 4 standard errors


# Resamples.


def scores_of(by_group: Any, folds: Folds) -> NodeScores:
    """Scores with these folds' means, of one site whose last node is its error."""
    table = torch.as_tensor(by_group, dtype=torch.float32)
    weights = folds.prompts.double() / len(folds.members)
    index = NodeIndex(("site",), (table.shape[1] - 1,), None)
    return NodeScores(index, weights @ table.double(), table)


def all_nodes(scores: NodeScores, sizes: tuple[int, ...], rank_by: Any = "absolute") -> Choice:
    return Choice(torch.ones(len(scores.index), dtype=torch.bool), sizes, rank_by)


@pytest.mark.checked
def test_two_prompts_resampled_by_hand() -> None:
    """Scores (3, 0, 1) and (0, 2, 1). Drawn twice, the first ranks 0 2 1, the second 1 2 0; each once gives (1.5, 1, 1),
    which is the whole's: 0 1 2, the tie to the earlier node."""
    folds = folds_of(pairs_of(2), 2, seed=0)
    # The deal decides which prompt is which fold; the scores are given by fold.
    found = resampled_circuits(s := scores_of([[3, 0, 1], [0, 2, 1]], folds), folds, all_nodes(s, (1, 2)), seed=0)
    assert found.nodes.tolist() == [0, 1, 2]
    (first, second, third), both = found.kept[0].tolist(), found.kept[1].tolist()
    assert third == 0
    assert first + second == pytest.approx(1)
    assert both[0] == first  # all but twice the second prompt
    twice_first = 1 - both[1]
    assert both[2] == pytest.approx(twice_first + second)
    assert (twice_first, second) == pytest.approx((0.25, 0.25), abs=0.1)  # 3 standard errors of 200 draws
    assert found.common[:, 0].mean() == pytest.approx(first)
    assert set(found.common[:, 1]) == {1, 2}  # 0 2 and 1 2 share one node with 0 1
    assert found.common_errors[:, 1].max() == 0  # node 2 is the error node, and not in the circuit


@pytest.mark.parametrize("rank_by", ["absolute", "signed"])
@pytest.mark.parametrize("seed", range(4))
def test_resamples_are_what_ranking_all_nodes_of_each_gives(seed: int, rank_by: Any) -> None:
    """Small whole numbers: many ties, many nodes that are zero everywhere; four folds, so that float32 is exact."""
    generator = torch.Generator().manual_seed(seed)
    table = torch.randint(-2, 3, (4, 60), generator=generator) * (torch.rand(60, generator=generator) < 0.4)
    folds = folds_of(pairs_of(8), 4, seed)
    scores = scores_of(table, folds)
    among = torch.rand(60, generator=generator) < 0.8
    choice = Choice(among, (1, 2, 5, 20, 40), rank_by)
    found = resampled_circuits(scores, folds, choice, seed)

    times = np.random.default_rng(seed).multinomial(4, [0.25] * 4, RESAMPLES)
    whole = scores.order(rank_by=rank_by, among=among).tolist()
    kept = np.zeros((5, 60))
    for r in range(RESAMPLES):
        drawn = NodeScores(scores.index, torch.from_numpy(times[r] / 4) @ table.double())
        order = drawn.order(rank_by=rank_by, among=among).tolist()
        for i, k in enumerate(choice.sizes):
            kept[i, order[:k]] += 1 / RESAMPLES
            common = set(order[:k]) & set(whole[:k])
            assert found.common[r, i] == len(common)
            assert found.common_errors[r, i] == (59 in common)
    ours = np.zeros((5, 60))
    ours[:, found.nodes] = found.kept
    np.testing.assert_allclose(ours, kept, atol=1e-6)


def rows_within(scores: NodeScores, folds: Folds, choice: Choice) -> pd.DataFrame:
    rows, _ = stability.within(scores, folds, choice, confidence=0.95, seed=0)
    return stability.typed(rows).set_index("size")


def test_prompts_that_all_say_the_same_give_one_circuit_and_all_of_it_is_core() -> None:
    folds = folds_of(pairs_of(12), 5, seed=0)
    values = torch.randn(40, generator=torch.Generator().manual_seed(0)).expand(5, 40)
    rows = rows_within(scores := scores_of(values, folds), folds, all_nodes(scores, (1, 5, 20)))
    for column in ("mean", "low", "high", "jaccard", "jaccard_low", "jaccard_high"):
        assert rows[column].tolist() == [1, 1, 1]
    assert rows["core"].tolist() == [1, 5, 20]
    assert rows["contingent"].tolist() == [0, 0, 0]


def test_a_node_that_outweighs_all_others_in_every_prompt_is_always_core() -> None:
    folds = folds_of(pairs_of(20), 10, seed=0)
    values = torch.randn(10, 50, generator=torch.Generator().manual_seed(0))
    values[:, 49] = -100.0  # the error node
    scores = scores_of(values, folds)
    _, nodes = stability.within(scores, folds, choice := all_nodes(scores, (1, 10, 30)), confidence=0.95, seed=0)
    rows = rows_within(scores, folds, choice)
    assert (rows.loc[1, "mean"], rows.loc[1, "core"], rows.loc[1, "contingent"]) == (1, 1, 0)
    assert rows["core_error_nodes"].tolist() == rows["error_nodes"].tolist() == [1, 1, 1]
    assert rows["common_error_nodes"].tolist() == [1, 1, 1]
    assert rows["contingent_error_nodes"].tolist() == [0, 0, 0]
    assert rows.loc[30, "contingent"] > 10  # and noise is not
    assert nodes.iloc[0][["node", "is_error", "size", "kept"]].tolist() == ["site/error", True, 1, 1]
    assert nodes["size"].tolist() == [1] + [10] * 9 + [30] * 20


def test_unrelated_scores_agree_at_chance() -> None:
    """Means over 400 pairs of rankings of 100 nodes: at chance within 4 standard errors of the hypergeometric."""
    generator = torch.Generator().manual_seed(0)
    index = NodeIndex(("site",), (99,), None)
    draws = [NodeScores(index, torch.randn(100, generator=generator, dtype=torch.float64)) for _ in range(800)]
    choice = all_nodes(draws[0], (5, 20, 50))
    found = pd.DataFrame(
        row for one, other in zip(draws[::2], draws[1::2], strict=True) for row in stability.between(choice, one, other)
    )
    for size, rows in found.groupby("size"):
        assert rows["chance"].iloc[0] == int(str(size)) / 100
        error = rows["mean"].std() / len(rows) ** 0.5
        assert rows["mean"].mean() == pytest.approx(rows["chance"].iloc[0], abs=4 * error)
        assert rows["jaccard"].mean() == pytest.approx(rows["jaccard_chance"].iloc[0], abs=4 * error)


def test_a_circuit_is_not_told_where_it_holds_nodes_without_a_score() -> None:
    """Their order is their place in the dictionary, which every resample shares."""
    folds = folds_of(pairs_of(6), 3, seed=0)
    values = torch.zeros(3, 30)
    values[:, :4], values[:, 4] = 1 + torch.arange(4), -1.0
    scores = scores_of(values, folds)
    assert rows_within(scores, folds, all_nodes(scores, (2, 4, 5, 6, 10))).index.tolist() == [2, 4, 5]
    assert rows_within(scores, folds, all_nodes(scores, (2, 4, 5, 6), "signed")).index.tolist() == [2, 4, 5]
    assert stability.between(all_nodes(scores, (10,)), scores, scores) == []


def test_a_resample_whose_ranking_ends_early_has_a_smaller_circuit() -> None:
    """Two prompts, (3, 2, 0, 0) and (0, 0, 1, 0): both drawn, three nodes have a score; one of them twice, two nodes or one."""
    folds = folds_of(pairs_of(2), 2, seed=0)
    scores = scores_of([[3, 2, 0, 0], [0, 0, 1, 0]], folds)
    found = resampled_circuits(scores, folds, all_nodes(scores, (1, 3)), seed=0)
    assert found.nodes.tolist() == [0, 1, 2]
    assert {tuple(pair) for pair in zip(found.common[:, 1], found.lengths[:, 1], strict=True)} == {
        (3, 3),
        (2, 2),
        (1, 1),
    }
    rows = rows_within(scores, folds, all_nodes(scores, (3,)))
    share = found.common[:, 1].mean() / 3
    assert rows.loc[3, "mean"] == pytest.approx(share)
    assert rows.loc[3, "jaccard"] == pytest.approx(share), "what is missing is in no union but the whole set's"


def test_nothing_is_told_of_candidates_without_a_score() -> None:
    folds = folds_of(pairs_of(6), 3, seed=0)
    values = torch.zeros(3, 30)
    values[:, :5] = 1.0
    scores = scores_of(values, folds)
    unscored = Choice(torch.arange(30) >= 5, (1, 2), "absolute")
    rows, nodes = stability.within(scores, folds, unscored, confidence=0.95, seed=0)
    assert rows == []
    assert nodes.empty


def test_sizes_told_are_those_that_tell_something() -> None:
    assert stability.sizes_told((0, 1, 5, 1000, 2000, 5000), 5000) == (1, 5, 1000)
    assert stability.sizes_told((0, 1, 5), 5) == (1,)
