"""How stable circuits are: overlaps by hand and by chance, resamples against a slow oracle, and what a study writes."""

from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from pathlib import Path
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
from neuron_vs_sae.core import files
from neuron_vs_sae.core.nodes import NodeIndex, NodeScores
from neuron_vs_sae.models.loading import load_model
from neuron_vs_sae.running.comparison import compare
from neuron_vs_sae.statistics.overlap import by_chance, in_common, jaccard
from neuron_vs_sae.studies.study import Study, make_study

# Two orders and their first k.


def test_what_two_orders_have_in_common_by_hand() -> None:
    one, other = torch.tensor([3, 1, 2, 0]), torch.tensor([1, 3, 0, 2])
    found = in_common(one, other, [1, 2, 3, 4])
    assert [nodes.tolist() for nodes in found] == [[], [3, 1], [3, 1], [3, 1, 2, 0]]
    assert jaccard(np.array([0, 1, 2]), 2).tolist() == [0, 1 / 3, 1]


@pytest.mark.parametrize(("total", "size"), [(4, 2), (6, 3), (7, 5), (5, 5), (5, 1)])
def test_chance_is_the_mean_over_all_circuits_of_that_size(total: int, size: int) -> None:
    common = np.array([len(set(nodes) & set(range(size))) for nodes in combinations(range(total), size)])
    assert by_chance(total, size) == pytest.approx((common.mean() / size, jaccard(common, size).mean()))


def test_chance_by_hand() -> None:
    """Of the six pairs of four nodes one is the pair itself, four share a node with it and one shares none."""
    assert by_chance(4, 2) == pytest.approx((1 / 2, (4 * 1 / 3 + 1) / 6))


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


# What a study writes.


@pytest.fixture(scope="module")
def tiny(checkpoint: Path) -> Any:
    return load_model(checkpoint)


@pytest.fixture(scope="module")
def a_study(checkpoint: Path, task_files: tuple[Path, Path], sae_folder: Path) -> Callable[..., Study]:
    settings = {
        "model": str(checkpoint), "task": str(task_files[0]), "eval_task": str(task_files[1]), "examples": 12,
        "eval_examples": 4, "basis": ["mlp_neurons", f"sae:{sae_folder}"], "method": ["relp", "delta", "random"],
        "sizes": [1, 5, 20, "all"], "resamples": 100, "folds": 4,
    }  # fmt: skip
    return lambda **changed: make_study({**settings, **changed})


@pytest.fixture(scope="module")
def fresh(a_study: Callable[..., Study], tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> nvs.Result:
    return compare(a_study(), tmp_path_factory.mktemp("stability") / "out", model=tiny)


@pytest.mark.checked
def test_a_row_per_comparison_and_size_in_their_columns(fresh: nvs.Result, sae_folder: Path) -> None:
    rows = fresh.stability
    assert list(rows) == stability.COLUMNS
    assert list(pd.read_csv(fresh.folder / "stability.csv")) == stability.COLUMNS
    counts = rows.groupby(["basis", "against", "method", "other"], dropna=False).size()
    for basis in ("mlp_neurons", f"sae:{sae_folder}"):
        assert {(against, method) for against, method, _ in counts[basis].index} == {
            ("resamples", "relp"), ("resamples", "delta"), ("method", "relp"), ("method", "delta"),
        }  # fmt: skip
        assert counts[basis]["method"].index.tolist() == [("delta", "random"), ("relp", "delta"), ("relp", "random")]
    assert set(counts) == {3}  # sizes; all nodes are no choice
    resampled = rows[rows["against"] == "resamples"]
    assert (resampled["low"] <= resampled["high"]).all()
    assert (resampled["mean"] > resampled["chance"]).all()
    assert rows.loc[rows["against"] == "method", ["low", "core"]].isna().all(axis=None)
    assert set(rows["n_discovery"]) == {12}
    assert set(rows["key"]) == {fresh.study.key}


@pytest.mark.checked
def test_circuits_are_the_top_nodes_by_name(fresh: nvs.Result) -> None:
    nodes = pd.read_csv(fresh.folder / "circuits.csv")
    assert set(nodes["method"]) == {"relp", "delta"}
    for (basis, method), rows in nodes.groupby(["basis", "method"]):
        scores = fresh.scores(basis=str(basis), method=str(method))
        assert rows["node"].tolist() == scores.top(20).names
        assert rows["score"].to_numpy() == pytest.approx(scores.values[scores.top(20).nodes].numpy(), rel=1e-5)
        assert rows["size"].tolist() == [1] + [5] * 4 + [20] * 15
        assert rows["kept"].between(0, 1).all()
        one = fresh.stability.query("basis == @basis and method == @method and against == 'resamples' and size == 1")
        assert rows["kept"].iloc[0] == pytest.approx(float(one["mean"].iloc[0]))
        assert one["core"].iloc[0] == (rows["kept"].iloc[0] >= 0.95)


@pytest.mark.checked
def test_methods_are_compared_by_their_stored_scores(fresh: nvs.Result) -> None:
    one, other = (set(fresh.scores(basis="mlp_neurons", method=m).top(5).names) for m in ("relp", "delta"))
    row = fresh.stability.query(
        "basis == 'mlp_neurons' and method == 'relp' and against == 'method' and other == 'delta' and size == 5"
    ).iloc[0]
    assert row["mean"] == len(one & other) / 5
    assert (row["n_other"], row["n_shared"], row["n_total"], row["chance"]) == (12, 12, 240, 5 / 240)


STABILITY_FILES = ("stability.parquet", "stability.csv", "circuits.csv", "scores.safetensors", "curves.parquet")


def test_an_interrupted_study_ends_with_the_same_files(
    fresh: nvs.Result, a_study: Any, tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted between the scores of a method and the list of files that says they are whole."""
    write, begun = files.write_json, []

    def once(file: Path, *rest: Any) -> None:
        if begun:  # the record
            raise KeyboardInterrupt
        begun.append(file)
        write(file, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(files, "write_json", once)
        with pytest.raises(KeyboardInterrupt):
            compare(a_study(), tmp_path / "out", model=tiny)
    again = compare(a_study(), tmp_path / "out", model=tiny)
    for name in STABILITY_FILES:
        assert (again.folder / name).read_bytes() == (fresh.folder / name).read_bytes(), name


def test_one_fold_changes_no_score_and_leaves_resamples_out(
    fresh: nvs.Result, a_study: Any, tiny: Any, tmp_path: Path
) -> None:
    found = compare(a_study(folds=1), tmp_path / "out", model=tiny)
    scores = "scores.safetensors"
    assert (found.folder / scores).read_bytes() == (fresh.folder / scores).read_bytes()
    assert set(found.stability["against"]) == {"method"}
    assert pd.read_csv(found.folder / "circuits.csv").empty
    alone = compare(a_study(folds=1, method="relp"), tmp_path / "alone", model=tiny)
    assert alone.stability.empty
    assert list(alone.stability) == stability.COLUMNS


def test_templates_are_compared_with_all_the_others(a_study: Any, tiny: Any, task_files: Any, tmp_path: Path) -> None:
    """The template of a pair is its animal: three templates of four pairs each."""
    file = tmp_path / "saw.jsonl"
    file.write_text(task_files[0].read_text().replace('"animal"', '"template"'))
    study = a_study(task=str(file), basis="mlp_neurons", method="relp")
    found = compare(study, tmp_path / "out", model=tiny)
    rows = found.stability[found.stability["against"] == "template"]
    assert sorted(set(rows["other"])) == ["cat", "dog", "hen"]
    pairs = nvs.tasks.from_file(tiny, path=file)
    basis = nvs.bases.mlp_neurons(tiny)

    def top(keep: Callable[[str], bool]) -> list[str]:
        kept = [i for i, tags in enumerate(pairs.tags) if keep(tags["template"])]
        return nvs.attribution.relp(tiny, basis, pairs.take(kept)).top(20).names

    for animal in ("cat", "dog", "hen"):
        its, others = top(lambda t, animal=animal: t == animal), top(lambda t, animal=animal: t != animal)
        row = rows[(rows["other"] == animal) & (rows["size"] == 20)].iloc[0]
        assert row["mean"] == len(set(its) & set(others)) / 20
        assert (row["n_discovery"], row["n_other"], row["n_shared"]) == (8, 4, 0)


def test_every_error_policy_has_its_own_circuits(a_study: Any, tiny: Any, sae_folder: Path, tmp_path: Path) -> None:
    study = a_study(basis=f"sae:{sae_folder}", method="relp", errors=["nodes", "ablate"])
    rows = compare(study, tmp_path / "out", model=tiny).stability
    assert rows.groupby("errors")["n_total"].first().to_dict() == {"nodes": 210, "ablate": 200}
    assert (rows.loc[rows["errors"] == "ablate", ["error_nodes", "core_error_nodes"]] == 0).all(axis=None)
