"""Input that is wrong is found before anything long starts, and said."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

import neuron_vs_sae as nvs
from neuron_vs_sae.core.errors import InputError, NothingToExplainError
from neuron_vs_sae.running.comparison import compare
from neuron_vs_sae.studies.study import Study, make_study


def wrong(study: Study, tiny: Any, tmp_path: Path) -> str:
    with pytest.raises(InputError) as caught:
        compare(study, tmp_path / "out", model=tiny)
    assert not (tmp_path / "out" / "study.json").exists()
    return str(caught.value)


def rows(file: Path, *lines: tuple[str, str]) -> str:
    text = (json.dumps({"clean": a, "corrupt": b, "answer": " she", "foil": " he"}) for a, b in lines)
    file.write_text("\n".join(text))
    return str(file)


def test_files_that_are_not_there_are_found_before_the_model_is_loaded(a_study: Any, tmp_path: Path) -> None:
    for field in ("task", "eval_task"):
        with pytest.raises(InputError, match=r"nowhere.jsonl cannot be read: there is no such file"):
            compare(a_study(**{field: "nowhere.jsonl"}, model="gpt2"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_evaluation_prompts_that_discovery_has_seen_are_refused(
    a_small_study: Any, tiny: Any, task_files: Any, tmp_path: Path
) -> None:
    seen = a_small_study(eval_task=str(task_files[0]), examples=12)
    assert "6 of 6 evaluation pairs" in wrong(seen, tiny, tmp_path)
    assert "pass --allow-overlap" in wrong(seen, tiny, tmp_path)
    allowed = make_study({**seen.model_dump(), "allow_overlap": True})
    assert set(compare(allowed, tmp_path / "out", model=tiny).summary["n_overlap"]) == {6}  # and every row says so


def test_a_pair_given_twice_is_judged_on_once(a_study: Any, tiny: Any, tmp_path: Path) -> None:
    one = ("ann saw a cat", "bob saw a cat")
    twice = rows(tmp_path / "twice.jsonl", one, one, ("eve saw a cat", "dan saw a cat"))
    assert "6 pairs were requested from task 'twice', which has 2" in wrong(a_study(eval_task=twice), tiny, tmp_path)


def test_tasks_of_one_name_are_refused(a_study: Any, tiny: Any, task_files: Any, tmp_path: Path) -> None:
    (tmp_path / task_files[0].name).write_bytes(task_files[0].read_bytes())
    study = a_study(task=[str(task_files[0]), str(tmp_path / task_files[0].name)], eval_task=[str(task_files[1])] * 2)
    assert "two tasks are called 'saw'" in wrong(study, tiny, tmp_path)


def test_a_task_called_as_the_mean_over_tasks_is_refused(
    a_small_study: Any, tiny: Any, task_files: Any, tmp_path: Path
) -> None:
    named = tmp_path / "all.jsonl"
    named.write_bytes(task_files[0].read_bytes())
    assert "a task is called 'all', which is what the tables call the mean over tasks" in wrong(
        a_small_study(task=str(named)), tiny, tmp_path
    )


def test_separate_positions_need_one_length(a_small_study: Any, tiny: Any, tmp_path: Path) -> None:
    short = [(f"{a} saw", f"{b} saw") for a, b in zip(("ann", "eve", "sue"), ("bob", "dan", "max"), strict=True)]
    shorter = {"eval_task": rows(tmp_path / "short.jsonl", *short), "eval_examples": 3}
    assert "have 5 tokens and its evaluation prompts 3" in wrong(a_small_study(**shorter), tiny, tmp_path)
    mixed = {
        "eval_task": rows(tmp_path / "mixed.jsonl", *short, ("ann met a dog", "bob met a dog")),
        "eval_examples": 4,
    }
    assert "differ in length: 3 tokens (3), 5 tokens (1)" in wrong(a_small_study(**mixed), tiny, tmp_path)
    pooled = a_small_study(**mixed, positions="pooled")
    assert set(compare(pooled, tmp_path / "pooled", model=tiny).summary["positions"]) == {"pooled"}


def test_a_size_beyond_a_basis_names_the_basis_and_its_size(a_study: Any, tiny: Any, tmp_path: Path) -> None:
    assert "basis 'mlp_neurons' has 240: ask for 0 to 240, or 'all'" in wrong(a_study(sizes=[241]), tiny, tmp_path)


def test_a_device_that_is_not_there_is_said(a_study: Any, tmp_path: Path) -> None:
    for device in ("abacus", "cuda:99"):
        with pytest.raises(InputError, match=rf"device '{device}' \(--device\) cannot be used: "):
            compare(a_study(), tmp_path / device, machine=nvs.Machine(device=device))


def test_nothing_to_explain_is_said_of_the_curve_that_has_nothing(a_study: Any, tiny: Any, tmp_path: Path) -> None:
    mute = copy.deepcopy(tiny)
    for block in mute.blocks:
        block.mlp.W_out.zero_()
    with pytest.raises(InputError, match=r"saw/mlp_neurons/relp/0: every score is 0, so nothing can be ranked"):
        compare(a_study(basis="mlp_neurons"), tmp_path / "relp", model=mute)
    with pytest.raises(
        NothingToExplainError,
        match=r"saw/mlp_neurons/random/0, ablation mean, errors nodes, metric logit_difference: ablating",
    ):
        compare(a_study(basis="mlp_neurons", method="random"), tmp_path / "random", model=mute)
