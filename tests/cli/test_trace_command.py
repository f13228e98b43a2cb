"""`nvs trace`: its files and columns, what it refuses in one message, and that its numbers do not depend on how it was run."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from conftest import Run

from neuron_vs_sae.analyses.graphs.storing import load_graph
from neuron_vs_sae.models.loading import load_model
from neuron_vs_sae.running import runner
from neuron_vs_sae.studies.spec import make_spec
from neuron_vs_sae.studies.tracing import TraceStudy

COLUMNS = {
    "basis",
    "prompt",
    "k",
    "replacement",
    "completeness",
    "faithfulness",
    "spearman",
    "spearman_live",
    "pruned",
    "errors",
    "ablation",
}
VERDICT = {"question", "task", "method", "basis_a", "basis_b", "score", "size_measure", "a", "b", "difference", "low", "high", "p", "p_holm", "p_equivalence", "margin", "n", "n_clusters", "verdict", "specification"}  # fmt: skip


@pytest.fixture
def given(checkpoint: Path, task_files: tuple[Path, Path], sae_folder: Path) -> list[Any]:
    return [
        "--model", checkpoint, "--task", task_files[0], "--examples", 4, "--eval-examples", 5, "--basis", "mlp_neurons", "--basis",
        f"sae:{sae_folder}", "--nodes", 20, "--sizes", "2,5,20", "--sampled-edges", 10, "--resamples", 100, "--quiet",
    ]  # fmt: skip


def test_pairs_are_traced_and_bases_compared(run: Run, given: list[Any]) -> None:
    ended = run("trace", *given, "--index", "0,2-4", "--out", "out")
    assert ended.status == 0, ended.err
    table = pd.read_csv("out/graphs.csv")
    assert set(table) >= COLUMNS
    assert set(table.loc[~table["pruned"], "k"]) == {2, 5, 20}
    assert set(table["index"]) == {0, 2, 3, 4}
    assert table[["replacement", "completeness"]].stack().between(0, 1).all()
    whole = table["f_model"] - table["f_empty"]
    assert ((table["f_circuit"] - table["f_empty"]) / whole).to_numpy() == pytest.approx(
        table["faithfulness"].to_numpy()
    )
    verdicts = pd.read_csv("out/verdicts.csv")
    assert set(verdicts) >= VERDICT
    assert set(verdicts["score"]) == {"area_replacement", "area_completeness", "area_faithfulness"}
    assert set(verdicts["size_measure"]) == {"nodes", "fraction", "bits"}
    assert (verdicts["n"] == 4).all()
    folders = sorted(Path("out/graphs").iterdir())
    assert len(folders) == 8
    for folder in folders:
        graph, mine = load_graph(folder), table.loc[table["slug"] == folder.name]
        assert [target.name for target in graph.targets] == ["logit_difference"]
        for row in mine.loc[~mine["pruned"]].to_dict("records"):
            assert graph.at(row["units"]).scores().replacement == pytest.approx(row["replacement"])
        document = json.loads(Path(f"out/viewer/{folder.name}.json").read_text())
        (target,) = [node for node in document["nodes"] if node["feature_type"] == "logit"]
        assert target["token_prob"] == 1
    assert Path("out/graph.html").exists()
    assert json.loads(Path("out/study.json").read_text())["finished"] is True


def test_a_text_is_traced_without_a_task(run: Run, given: list[Any]) -> None:
    task = given.index("--task")
    without = [*given[:task], *given[task + 2 :]]
    ended = run(
        "trace",
        *without,
        "--prompt",
        "ann saw a cat",
        "--prompt",
        "bob",
        "--slope",
        "gradient",
        "--json",
        "--out",
        "out",
    )
    assert ended.status == 0, ended.err
    rows = json.loads(ended.out)
    assert {row["prompt"] for row in rows} == {"ann saw a cat", "bob"}
    assert all(row["faithfulness"] is None for row in rows)
    assert len(list(Path("out/viewer").glob("*.json"))) == 4
    assert pd.read_csv("out/verdicts.csv").empty


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--nodes", 241], "a graph of 241 units is asked for, and basis 'mlp_neurons' has 240 on 5 tokens"),
        (["--index", 5], "has evaluation pairs 0 to 4, and pair 5 is to be traced"),
        (["--index", "3-1"], "'3-1' is not the place of a pair: give numbers from 0 and ranges"),
        (["--targets", "nonesuch"], "no target 'nonesuch'; there are: metric, logits, or a unit"),
        (["--targets", "blocks.0.mlp.hook_post/99"], "has units 0 to 23, and the prompt positions 0 to 4"),
        (["--dtype", "bfloat16"], "edges need a model in float32 or float64, and this one is in bfloat16"),
        (["--node-threshold", 1.5], "'node_threshold'"),
        (["--prompt", " "], "the prompt is empty"),
        (["--prompt", "ann", "--targets", "metric"], "a text has no answer, so there is no metric of it"),
    ],
)
def test_what_is_wrong_is_said_before_anything_runs(
    run: Run, given: list[Any], options: list[Any], message: str
) -> None:
    ended = run("trace", *given, *options, "--out", "out")
    assert ended.status == 2, ended.err
    assert message in " ".join(ended.err.split())
    assert not Path("out/graph.html").exists()


def test_nothing_to_trace_and_no_graphs_to_serve_are_said(run: Run, checkpoint: Path) -> None:
    ended = run("trace", "--model", checkpoint, "--basis", "mlp_neurons", "--out", "out")
    assert (ended.status, "there is nothing to trace" in ended.err) == (2, True)
    ended = run("graph", "serve", "out")
    assert (ended.status, "holds no graphs" in ended.err) == (2, True)


def test_a_cell_alone_gives_the_bytes_of_the_whole(
    checkpoint: Path, task_files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = make_spec(TraceStudy, {
        "model": str(checkpoint), "task": str(task_files[0]), "examples": 4, "eval_examples": 5, "basis": ["mlp_neurons", "mlp_outputs"],
        "index": [0, 1], "nodes": 10, "sizes": [2, 10], "sampled_edges": 5, "resamples": 100,
    })  # fmt: skip
    model = load_model(checkpoint)
    whole = runner.run(study, tmp_path / "whole", model=model)
    for cell in reversed(runner.cells(study)):
        runner.compute(study, cell, tmp_path / "parts", model=model)
    monkeypatch.setattr(runner, "compute_step", None)
    parts = runner.run(study, tmp_path / "parts", model=model)
    for file in (
        "graphs.csv",
        "verdicts.csv",
        *(f"graphs/{name}/{part}" for name in whole.slugs for part in ("graph.json", "graph.safetensors")),
    ):
        assert (whole.folder / file).read_bytes() == (parts.folder / file).read_bytes(), file
