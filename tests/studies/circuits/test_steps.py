"""The steps of a cell of circuits: what is computed once for several error policies, and what every metric has of its own."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import toys
from tables import identity_sae

import neuron_vs_sae as nvs
from neuron_vs_sae.running import runner
from neuron_vs_sae.running.planning import load_study
from neuron_vs_sae.studies.cells import CellFiles
from neuron_vs_sae.studies.circuits import judging
from neuron_vs_sae.studies.circuits.analysis import CIRCUITS
from neuron_vs_sae.studies.circuits.sizes import alike, sizes_of
from neuron_vs_sae.studies.study import Study, make_study

POLICIES = ["nodes", "keep", "ablate", "resid_only"]


@pytest.fixture(scope="module")
def a_study(checkpoint: Path, task_files: tuple[Path, Path], sae_folder: Path) -> Callable[..., Study]:
    settings = {
        "model": str(checkpoint), "task": str(task_files[0]), "examples": 4, "eval_examples": 4, "folds": 1,
        "basis": ["mlp_neurons", f"sae:{sae_folder}"], "sizes": [1, 5], "resamples": 100,
    }  # fmt: skip
    return lambda **changed: make_study({**settings, **changed})


def curves_of(study: Study, model: Any, place: Path) -> list[pd.DataFrame]:
    """The rows of every basis's curves, in the order of the study."""
    (cell,) = CIRCUITS.cells(study)
    files = CellFiles(place)
    for step in CIRCUITS.steps(load_study(CIRCUITS, study, nvs.Machine(), model=model), cell):
        runner.compute_step(step, files)
    return [files.table(f"curves{i}", "curves") for i in range(len(study.basis))]


def test_policies_that_choose_and_keep_the_same_nodes_are_run_once_and_every_row_bears_its_own(
    a_study: Callable[..., Study], tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate, ran = judging.evaluate_policies, []

    def counting(model: Any, basis: nvs.Basis, *rest: Any, **options: Any) -> list[tuple[nvs.Curve, ...]]:
        curves = evaluate(model, basis, *rest, **options)
        ran.extend([basis.name] * len(curves))
        return curves

    monkeypatch.setattr(judging, "evaluate_policies", counting)
    neurons, saes = curves_of(a_study(errors=POLICIES), tiny, tmp_path / "all")
    assert [sum(name.startswith(kind) for name in ran) for kind in ("mlp_neurons", "sae")] == [1, 3]
    for together in (neurons, saes):
        assert together["errors"].drop_duplicates().tolist() == POLICIES
    for errors in POLICIES:  # and each has the numbers that it has alone
        for together, alone in zip(
            (neurons, saes), curves_of(a_study(errors=errors), tiny, tmp_path / errors), strict=True
        ):
            rows = together[together["errors"] == errors].reset_index(drop=True)
            pd.testing.assert_frame_equal(rows.drop(columns="key"), alone.drop(columns="key"), check_exact=True)


def test_policies_are_alike_where_no_dictionary_loses_anything(a_study: Callable[..., Study]) -> None:
    study, pairs, model = a_study(errors=POLICIES), toys.pairs(), toys.model("llama")
    neurons, lossy = nvs.bases.mlp_neurons(model), nvs.bases.sae(model, source=toys.saes())
    exact = nvs.bases.sae(model, source=[identity_sae(f"blocks.{i}.hook_mlp_out") for i in (0, 1)])
    for lossless in (neurons, exact):
        assert alike(study, lossless, lossless.index(pairs.positions)) == [POLICIES]
    groups = [["nodes"], ["keep"], ["ablate", "resid_only"]]
    assert alike(study, lossy, lossy.index(pairs.positions)) == groups


def test_a_bias_that_an_ablation_removes_is_no_matter_of_the_error_policy() -> None:
    """`zero_site` removes the output matrix's bias with the neurons: it comes back with the first node, whatever the policy."""
    model, pairs = toys.model("gpt2"), toys.pairs()
    neurons = nvs.bases.mlp_neurons(model)
    assert all(bool(block.mlp.b_out.any()) for block in model.blocks)
    scores = nvs.attribution.relp(model, neurons, pairs)
    first, *others = (
        nvs.evaluate(model, neurons, scores, pairs, sizes=[0, 3], ablation="zero_site", errors=errors)
        for errors in POLICIES
    )
    for curve in others:
        for name in ("empty", "circuit", "complement"):
            assert torch.equal(getattr(curve, name), getattr(first, name))


def test_each_metric_has_the_curves_that_it_has_alone(a_study: Callable[..., Study], tiny: Any, tmp_path: Path) -> None:
    study = a_study(metric=["logit_difference", "probability"])
    (both, _), first, second = (
        curves_of(a_study(metric=metric, attribution_metric="logit_difference"), tiny, tmp_path / str(i))
        for i, metric in enumerate((list(study.metric), *study.metric))
    )
    assert study.explained_metric == "logit_difference"
    assert both["metric"].drop_duplicates().tolist() == list(study.metric)
    for metric, (alone, _) in zip(study.metric, (first, second), strict=True):
        rows = both[both["metric"] == metric].reset_index(drop=True)
        pd.testing.assert_frame_equal(rows.drop(columns="key"), alone.drop(columns="key"), check_exact=True)


def test_a_baselines_own_sizes_are_for_it_alone_and_end_where_the_basis_does(a_study: Callable[..., Study]) -> None:
    study = a_study(sizes=(0, 3), baseline_sizes=(1, 5, 10**6))
    index = nvs.bases.mlp_neurons(toys.model("llama")).index(toys.pairs().positions)
    assert sizes_of(study, "relp", index) == (0, 3)
    assert sizes_of(study, "random,seed=2", index) == (1, 5)
    assert sizes_of(a_study(sizes=(0, 3)), "random", index) == (0, 3)
