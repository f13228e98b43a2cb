"""The commands that intervene: what they write, and what they refuse, from one line to a finished folder."""

import json
from pathlib import Path

import pandas as pd
import pytest
from conftest import Run

from neuron_vs_sae.running import finishing

VERDICTS = {
    "question", "task", "method", "basis_a", "basis_b", "score", "size_measure", "a", "b", "difference", "low", "high", "p", "p_holm",
    "p_equivalence", "margin", "n", "n_clusters", "verdict", "specification",
}  # fmt: skip


@pytest.fixture
def common(checkpoint: Path, task_files: tuple[Path, Path], sae_folder: Path) -> list[str]:
    given = [
        "--model",
        checkpoint,
        "--examples",
        6,
        "--eval-examples",
        5,
        "--resamples",
        100,
        "--out",
        "out",
        "--quiet",
    ]
    return [str(part) for part in (*given, "--basis", "mlp_neurons", "--basis", f"sae:{sae_folder}")]


def tables(*names: str) -> list[pd.DataFrame]:
    return [pd.read_csv(f"out/{name}.csv") for name in names]


def test_patches_are_tables_with_controls_and_verdicts(
    run: Run, common: list[str], task_files: tuple[Path, Path]
) -> None:
    ended = run(
        "patch", *common, "--task", task_files[0], "--k", "1,4", "--alpha", 1, "--alpha", 0.5, "--control", "random", "--control", "negated",
        "--trials", 2, "--directions", 1, "--swap", "animal", "--signatures", 2,
    )  # fmt: skip
    assert ended.status == 2  # the answer does not follow from the animal
    assert "goes with animal" in ended.err.replace("\n", " ")
    ended = run(
        "patch",
        *common,
        "--task",
        task_files[0],
        "--k",
        "1,4",
        "--control",
        "random",
        "--trials",
        2,
        "--directions",
        1,
        "--signatures",
        2,
    )
    assert ended.status == 0, ended.err
    table, flips, swaps, verdicts = tables("patching", "units_to_flip", "swaps", "verdicts")
    assert set(table) >= {
        "task",
        "basis",
        "method",
        "select",
        "k",
        "alpha",
        "control",
        "predicted",
        "actual",
        "flip_rate",
        "low",
        "high",
    }
    assert set(table["control"].fillna("")) == {"", "random", "all_units"}
    assert flips["basis"].is_unique
    assert not len(swaps)
    assert set(verdicts) >= VERDICTS
    assert set(verdicts["size_measure"]) == {"units", "relative norm"}
    page = Path("out/report.html").read_text()
    assert "<svg" in page
    assert "http" not in page.replace("http://www.w3.org", "").replace("http://purl.org", "").replace(
        "http://creativecommons.org", ""
    ).replace("https://matplotlib.org", "")
    values = pd.read_parquet("out/patches.parquet")
    assert len(values.loc[(values["control"] == "random") & (values["basis"] == "mlp_neurons")]) == 5 * 2 * 2
    before = Path("out/patching.csv").read_bytes()
    Path("out/patching.csv").unlink()
    finishing.report("out")
    assert Path("out/patching.csv").read_bytes() == before


def test_steering_is_a_table_of_doses_with_frontiers_and_verdicts(
    run: Run, common: list[str], task_files: tuple[Path, Path], tmp_path: Path
) -> None:
    text = tmp_path / "text.txt"
    text.write_text(" ".join(["ann saw a cat", "bob met a dog", "eve saw a hen"] * 20))
    ended = run(
        "steer", *common, "--task", task_files[0], "--top", 2, "--dose", -0.5, "--dose", 0, "--dose", 0.5, "--guard-corpus", text, "--guard-length", 8,
        "--guard-contexts", 6, "--direction", "mean_difference", "--predict", 6, "--generate", 2,
    )  # fmt: skip
    assert ended.status == 0, ended.err
    table, frontier, prediction, verdicts = tables("steering", "frontier", "prediction", "verdicts")
    assert set(table) >= {"basis", "units", "kind", "dose", "norm", "effect", "kl", "cross_entropy", "low", "high"}
    assert (table.loc[table["dose"] == 0, ["effect", "kl", "cross_entropy", "corpus_kl", "norm"]] == 0).all().all()
    assert table.loc[table["dose"] != 0, "norm"].tolist() == pytest.approx(
        [0.5] * int((table["dose"] != 0).sum()), rel=1e-4
    )
    doses = pd.read_parquet("out/doses.parquet")
    assert set(doses) >= {"basis", "units", "kind", "dose", "prompt", "before", "after", "kl"}
    assert set(frontier["guard"]) == {"kl", "corpus_kl"}
    assert set(prediction["predictor"]) == {"node_score", "output_score", "density"}
    assert set(verdicts) >= VERDICTS
    assert len(pd.read_parquet("out/generated.parquet")) == 2 * 3 * 3
    requests = json.loads(Path("out/neuronpedia_steering.json").read_text())
    assert {"features", "n_tokens", "top_k", "freeze_attention"} <= requests[0].keys()


def test_selectivity_is_a_table_by_size_and_norm(run: Run, common: list[str], task_files: tuple[Path, Path]) -> None:
    ended = run(
        "selectivity", *common, "--task-a", task_files[0], "--task-b", task_files[1], "--k", "1,3", "--budget", 0.1, "--trials", 1,
        "--template-tag", "animal",
    )  # fmt: skip
    assert ended.status == 0, ended.err
    table, templates, verdicts = tables("selectivity", "templates", "verdicts")
    assert set(table) >= {"basis", "method", "k", "matched", "selectivity", "low", "high", "control"}
    assert table["selectivity"].between(-1, 1).all()
    assert set(templates["design"]) == {"held_out", "permuted", "confounded"}
    assert set(verdicts) >= VERDICTS


def test_heads_of_a_model_without_lists_are_refused(run: Run, common: list[str]) -> None:
    ended = run("heads", *common, "--task", "successor")
    assert ended.status == 2
    assert "no three items in a row" in ended.err.replace("\n", " ")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["patch", "--alpha", "nan"], "finite"),
        (["patch", "--k", "0"], "1 or more"),
        (["patch", "--swap", "state"], "has no latent 'state'"),
        (["patch", "--select", "best"], "best"),
        (["patch", "--isolate", "ioi"], "name the step"),
        (["steer", "--dose", "nan"], "finite"),
        (["steer", "--unit", "blocks.9.mlp.hook_post/3"], "any of the units asked for"),
        (["steer", "--unit", "blocks.0.mlp.hook_post/99"], "units 0 to 23"),
        (["steer", "--kind", "clamp"], "need a corpus"),
        (["steer", "--kind", "patch", "--dose-in", "kl"], "cannot be in 'kl'"),
        (["steer", "--only", "case=plural"], "--only"),
        (["steer", "--only", "plural"], "TAG=VALUE"),
        (["selectivity", "--budget", "0"], "above 0"),
        (["heads", "--task", "ioi"], "lists of the task 'successor'"),
    ],
)
def test_wrong_input_is_refused_in_one_message(
    options: list[str], message: str, run: Run, common: list[str], task_files: tuple[Path, Path]
) -> None:
    tasks = {"patch": ["--task", task_files[0]], "steer": ["--task", task_files[0]], "heads": []}
    both = ["--task-a", task_files[0], "--task-b", task_files[1]]
    ended = run(options[0], *common, *tasks.get(options[0], both), *options[1:])
    assert ended.status == 2
    assert message in ended.err.replace("\n", " ")
