"""Seeds are a dimension of the study: each discovers anew, all are judged on the same prompts."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import toys

import neuron_vs_sae as nvs
from neuron_vs_sae.cli import console
from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.models.loading import load_model
from neuron_vs_sae.running import planning
from neuron_vs_sae.running.checks import check
from neuron_vs_sae.running.comparison import compare
from neuron_vs_sae.running.tasks import load_tasks
from neuron_vs_sae.studies.circuits import cost
from neuron_vs_sae.studies.circuits.analysis import CIRCUITS
from neuron_vs_sae.studies.circuits.checking import check_layouts
from neuron_vs_sae.studies.seeds import over_seeds, sizes_told
from neuron_vs_sae.studies.study import Study, make_study


@pytest.fixture(scope="module")
def a_study(checkpoint: Path, task_files: tuple[Path, Path]) -> Callable[..., Study]:
    """One file of twelve pairs, split: four are held out, and each seed draws five of the eight that are left."""
    settings = {
        "model": str(checkpoint), "task": str(task_files[0]), "examples": 5, "eval_examples": 4, "basis": "mlp_neurons",
        "method": ["relp", "random"], "sizes": [1, 10, "all"], "resamples": 100, "seed": [3, 4, 5],
    }  # fmt: skip
    return lambda **changed: make_study({**settings, **changed})


@pytest.fixture(scope="module")
def several(a_study: Callable[..., Study], tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> nvs.Result:
    return compare(a_study(), tmp_path_factory.mktemp("seeds") / "out", model=tiny)


# Who draws what.


def test_each_seed_draws_its_own_discovery_pairs_from_what_the_first_does_not_hold_out(
    a_study: Callable[..., Study], tiny: Any
) -> None:
    tasks = load_tasks(a_study(), tiny)
    assert [task.seed for task in tasks] == [3, 4, 5]
    assert len({task.evaluation.clean_text for task in tasks}) == 1
    assert len({task.discovery.clean_text for task in tasks}) == 3
    assert [task.evaluation.overlap(task.discovery) for task in tasks] == [0, 0, 0]
    for seed in (3, 4):  # the first seed draws what it draws alone
        alone = load_tasks(a_study(seed=seed), tiny)[0]
        assert (alone.discovery.clean_text == tasks[0].discovery.clean_text) == (seed == 3)
        assert (alone.evaluation.clean_text == tasks[0].evaluation.clean_text) == (seed == 3)


def test_given_evaluation_files_and_generated_tasks_are_drawn_so_too(
    a_study: Callable[..., Study], tiny: Any, task_files: tuple[Path, Path]
) -> None:
    given = load_tasks(a_study(eval_task=str(task_files[1])), tiny)
    settings = {"model": "default", "basis": "mlp_neurons", "examples": 20, "eval_examples": 10, "seed": [0, 1]}
    world = load_tasks(make_study({**settings, "task": "world:ioi,template=0"}), load_model("default"))
    for tasks in (given, world):
        assert len({task.evaluation.clean_text for task in tasks}) == 1
        assert len({task.discovery.clean_text for task in tasks}) == len(tasks)
        assert {task.evaluation.overlap(task.discovery) for task in tasks} == {0}


def test_a_seed_whose_words_lie_at_other_tokens_is_refused(a_study: Callable[..., Study], tiny: Any) -> None:
    first, second, _ = load_tasks(a_study(), tiny)
    texts = tuple(f"{text} a" for text in second.discovery.clean_text)
    longer = replace(second, discovery=replace(second.discovery, clean_text=texts))
    check_layouts(a_study(seed=[3, 4]), tiny, [first, second])
    check_layouts(a_study(seed=[3, 4], positions="pooled"), tiny, [first, longer])
    with pytest.raises(InputError, match=r"under seed 4 the words of task 'saw' lie at other tokens than under seed 3"):
        check_layouts(a_study(seed=[3, 4]), tiny, [first, longer])


# What comes of it.


def test_the_first_seeds_numbers_are_those_of_a_study_of_that_seed_alone(
    several: nvs.Result, a_study: Callable[..., Study], tiny: Any, tmp_path: Path
) -> None:
    alone = compare(a_study(seed=3), tmp_path / "out", model=tiny)
    for method in ("relp", "random"):
        theirs = several.scores(method=method, seed=3)
        assert torch.equal(theirs.values, alone.scores(method=method).values)
    first = several.curves[several.curves["seed"] == 3].drop(columns="key").reset_index(drop=True)
    pd.testing.assert_frame_equal(first, alone.curves.drop(columns="key"), check_exact=True)
    first = several.summary[several.summary["seed"] == 3].drop(columns="key").reset_index(drop=True)
    pd.testing.assert_frame_equal(first, alone.summary.drop(columns="key"), check_exact=True)


def test_a_seed_is_part_of_what_a_curve_is(several: nvs.Result) -> None:
    assert several.summary.groupby(["method", "seed"]).size().to_dict() == {
        (method, seed): 3 for method in ("relp", "random") for seed in (3, 4, 5)
    }
    curves = [several.curve(method="relp", seed=seed) for seed in (3, 4, 5)]
    for curve in curves[1:]:  # one model, one ablation, the same prompts
        assert torch.equal(curve.whole, curves[0].whole)
        assert torch.equal(curve.empty, curves[0].empty)
        assert not torch.equal(curve.circuit, curves[0].circuit)
    assert torch.equal(several.curve(method="relp").circuit, curves[0].circuit)  # the first, where none is named
    assert torch.equal(several.scores(method="relp").values, several.scores(method="relp", seed=3).values)
    with pytest.raises(KeyError, match=r"0 curves match .* There are: .*'seed': \[3, 4, 5\]"):
        several.curve(method="relp", seed=9)
    assert not torch.equal(
        several.scores(method="random", seed=4).values, several.scores(method="random", seed=5).values
    )


def test_prompts_are_stored_by_the_seed_that_drew_them(several: nvs.Result) -> None:
    prompts = pd.read_parquet(several.folder / "prompts.parquet")
    counts = prompts.groupby(["split", "seed"]).size().to_dict()
    assert counts == {("discovery", 3): 5, ("discovery", 4): 5, ("discovery", 5): 5, ("evaluation", 3): 4}


def test_circuits_of_two_seeds_are_compared(several: nvs.Result) -> None:
    rows = several.stability.query("against == 'seed' and method == 'relp' and size == 10")
    assert rows[["seed", "other"]].to_numpy().tolist() == [[3, "4"], [3, "5"], [4, "5"]]
    tops = {seed: set(several.scores(method="relp", seed=seed).top(10).names) for seed in (3, 4, 5)}
    prompts = pd.read_parquet(several.folder / "prompts.parquet").query("split == 'discovery'")
    for row in rows.to_dict("records"):
        one, other = int(row["seed"]), int(row["other"])
        assert row["mean"] == len(tops[one] & tops[other]) / 10
        drawn = [set(prompts.loc[prompts["seed"] == seed, "clean"]) for seed in (one, other)]
        assert row["n_shared"] == len(drawn[0] & drawn[1]) >= 2  # five and five of eight
    assert set(several.stability["against"]) == {"resamples", "seed", "method"}


def test_fitted_bases_are_fitted_to_each_seeds_prompts(a_study: Callable[..., Study], tiny: Any) -> None:
    study = a_study(basis=["pca,components=8", "mlp_neurons"], method="relp", seed=[3, 4])
    loaded = planning.load_study(CIRCUITS, study, nvs.Machine(), model=tiny)
    decoders: list[Any] = [loaded.basis(task, study.basis[0]).dictionaries[0] for task in loaded.tasks]
    for task, fitted in zip(loaded.tasks, decoders, strict=True):
        anew: Any = nvs.bases.pca(tiny, prompts=task.discovery, components=8).dictionaries[0]
        assert torch.equal(fitted.decoder, anew.decoder)
    assert not torch.equal(decoders[0].decoder, decoders[1].decoder)
    neurons = [loaded.basis(task, "mlp_neurons") for task in loaded.tasks]
    assert neurons[0] is neurons[1]  # what is not fitted is made once


# Over seeds.


def test_scores_over_seeds_by_hand() -> None:
    names = {"task": "t", "basis": "b", "method": "m", "ablation": "a", "errors": "e", "metric": "l"}
    table = pd.DataFrame(
        {
            **names,
            "seed": [0, 1, 2],
            "size_at_level": pd.array([10, None, 50], dtype="Int64"),
            "area_faithfulness": [0.2, 0.4, 0.6],
            "area_unfaithfulness": [0.1, 0.1, 0.1],
            "area_completeness": [None, None, None],
        }
    )
    (row,) = over_seeds(table).to_dict("records")
    assert (row["n_seeds"], row["reached"], row["size_min"], row["size_median"], row["size_max"]) == (3, 2, 10, 30, 50)
    assert (row["area_faithfulness_mean"], row["area_faithfulness_sd"]) == pytest.approx((0.4, 0.2))
    assert row["area_unfaithfulness_sd"] == pytest.approx(0)
    assert np.isnan(row["area_completeness_mean"])
    assert sizes_told(row) == "30 (10 to 50), reached by 2 of 3"
    (alone,) = over_seeds(table.iloc[:1]).to_dict("records")
    assert np.isnan(alone["area_faithfulness_sd"])
    assert sizes_told(alone) == "10 (10 to 10)"
    assert sizes_told(over_seeds(table.iloc[1:2]).to_dict("records")[0]) == "not reached"


def test_the_table_shows_the_first_seed_and_the_spread_over_all(several: nvs.Result) -> None:
    text = (several.folder / "table.md").read_text()
    assert "seed 3 where no other is named, of 3, 4, 5" in text
    body = [line for line in text.splitlines() if line.startswith("| MLP neurons")]
    assert len(body) == 4  # of two methods: the first seed, and all
    table = nvs.tables.per_curve(several)
    assert len(table) == 6
    areas = table.loc[table["method"] == "random", "area_faithfulness"]
    assert f"{areas.mean():.3f} ± {areas.std():.3f}" in body[3]
    assert "Over 3 seeds" in text


def test_a_figure_draws_one_seed_and_says_which(several: nvs.Result) -> None:
    for seed, shown in ((None, 3), (4, 4)):
        figure = nvs.plots.curves(several, task="saw", seed=seed)
        line = next(trace for trace in figure.data if trace.mode == "lines+markers")
        rows = several.summary.query("seed == @shown and method == 'relp' and size >= 1")
        assert list(line.y) == rows["faithfulness"].tolist()
        assert f"seed {shown} of 3, 4, 5" in figure.layout.title.text
    with pytest.raises(KeyError, match=r"errors 'nodes', seed 9; it has: .*seeds \[3, 4, 5\]"):
        nvs.plots.curves(several, task="saw", seed=9)


def test_the_command_line_counts_seeds_and_shows_the_first(
    several: nvs.Result, a_study: Callable[..., Study], capsys: pytest.CaptureFixture[str]
) -> None:
    assert console.size_of(a_study()) == (
        "6 discoveries (1 task x 1 basis x 2 methods x 3 seeds), 6 curves (x 1 ablation x 1 error policy)"
    )
    console.show_circuits(several)
    shown = " ".join(capsys.readouterr().out.split())
    first = nvs.tables.per_curve(several).query("method == 'relp' and seed == 3")["size_at_level"].iloc[0]
    assert f"task MLP neurons saw {first:,.0f} In brackets" in shown
    assert "ranked as nodes, seed 3 of 3, 4, 5)" in shown


def test_the_estimated_cost_counts_every_seed(
    a_study: Callable[..., Study], tiny: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two methods and one basis under three seeds, with what each discovery and curve takes set to a second."""
    monkeypatch.setattr(planning, "load_model_for", lambda *_: tiny)
    monkeypatch.setattr(cost._Timed, "discovery", lambda *_: 1.0)
    monkeypatch.setattr(cost._Timed, "curves", lambda *_: 1.0)
    report = check(a_study())
    assert report.seconds == 2 * 3 * (1 + 1)
    assert len(report.tasks) == len(report.bases) == 1


def test_pairs_in_common_are_counted_as_pairs() -> None:
    pairs = toys.pairs(n=6)
    assert pairs.take([0, 1, 2]).shared(pairs.take([2, 3, 1])) == 2
    swapped = replace(pairs, clean_text=pairs.corrupt_text, corrupt_text=pairs.clean_text)
    assert pairs.shared(swapped) == 0
