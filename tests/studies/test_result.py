"""Results: one folder per study, whole or resumable, that says what made every number and belongs to one run at a time."""

import copy
import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

import neuron_vs_sae as nvs
from neuron_vs_sae.core import files
from neuron_vs_sae.core.errors import FolderError, InputError, NothingToExplainError
from neuron_vs_sae.models.loading import load_model
from neuron_vs_sae.report.circuits import write_report
from neuron_vs_sae.running import planning, provenance, runner
from neuron_vs_sae.running.comparison import compare
from neuron_vs_sae.statistics.resampling import Groups
from neuron_vs_sae.studies import result
from neuron_vs_sae.studies.cells import CellFiles, Step
from neuron_vs_sae.studies.circuits.analysis import CIRCUITS
from neuron_vs_sae.studies.record import UNFINISHED
from neuron_vs_sae.studies.rows import each_curve, to_curve, to_groups, to_rows
from neuron_vs_sae.studies.study import Study, make_study

SIZES = (0, 1, 5)
N_EVAL = 6
EVERY_FILE = ("study.json", "cell.json", "cell.safetensors", "cell.parquet", *result.FILES)


@pytest.fixture(scope="module")
def tiny(checkpoint: Path) -> Any:
    return load_model(checkpoint)


@pytest.fixture(scope="module")
def a_study(checkpoint: Path, task_files: tuple[Path, Path], sae_folder: Path) -> Callable[..., Study]:
    """A small study, with any of its settings changed."""
    settings = {
        "model": str(checkpoint), "task": str(task_files[0]), "eval_task": str(task_files[1]), "examples": 8,
        "eval_examples": N_EVAL, "basis": ["mlp_neurons", f"sae:{sae_folder}"], "errors": ["nodes", "ablate"],
        "sizes": [*SIZES, "all"], "resamples": 100,
    }  # fmt: skip
    return lambda **changed: make_study({**settings, **changed})


@pytest.fixture(scope="module")
def fresh(a_study: Callable[..., Study], tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> nvs.Result:
    """That study, run without interruption. Not to be written to."""
    return compare(a_study(), tmp_path_factory.mktemp("fresh") / "results", model=tiny)


@pytest.fixture(scope="module")
def a_small_study(a_study: Callable[..., Study]) -> Callable[..., Study]:
    """One curve of two points, for what has to be run often."""
    return lambda **changed: a_study(**{"basis": "mlp_neurons", "errors": "nodes", "sizes": [1, 5], **changed})


@pytest.fixture(scope="module")
def small(a_small_study: Callable[..., Study], tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> nvs.Result:
    """That one, run without interruption. Not to be written to."""
    return compare(a_small_study(), tmp_path_factory.mktemp("small") / "results", model=tiny)


def curves_of(folder: Path) -> bytes:
    return (folder / "curves.parquet").read_bytes()


def left_over(folder: Path) -> list[str]:
    return [str(f.relative_to(folder)) for f in folder.rglob("*.partial")]


# What a folder holds.


def test_a_finished_folder_holds_these_files_and_no_others(fresh: nvs.Result) -> None:
    assert {f.name for f in fresh.folder.iterdir()} == {".lock", "study.json", *result.FILES}


def test_curves_have_a_row_per_run_size_and_prompt(fresh: nvs.Result) -> None:
    assert len(list(each_curve(fresh.curves))) == 4  # 2 bases x 2 error policies
    for names, rows in each_curve(fresh.curves):
        n_sizes = len(to_curve(rows).sizes)
        counts = rows["run"].value_counts().to_dict()
        assert counts == {
            "whole": N_EVAL,
            "empty": N_EVAL,
            "all": N_EVAL,
            "circuit": N_EVAL * n_sizes,
            "complement": N_EVAL * n_sizes,
            "change": N_EVAL * n_sizes,
        }, names
        assert not rows.duplicated(["run", "size", "prompt"]).any()
    assert fresh.curves["value"].notna().all()
    with_size = fresh.curves["run"].isin(["circuit", "complement", "change"])
    assert (fresh.curves["size"].notna() == with_size).all()  # what has no size has none, not 0 or -1


def test_the_summary_begins_with_the_columns_that_are_promised(fresh: nvs.Result) -> None:
    promised = (
        "model,task,basis,site,method,ablation,errors,positions,rank_by,metric,n_discovery,n_eval,size,n_units,"
        "n_error_nodes,n_total,fraction,bits,f_model,f_empty,f_circuit,f_complement,faithfulness,completeness,"
        "faithfulness_low,faithfulness_high,completeness_low,completeness_high,seed,"
    )
    assert (fresh.folder / "summary.csv").read_text().startswith(promised)
    table = pd.read_csv(fresh.folder / "summary.csv")
    assert len(table) == sum(len(to_curve(rows).sizes) for _, rows in each_curve(fresh.curves))
    assert set(table["size"]) >= set(SIZES)
    ends = table.groupby(["basis", "errors"])
    assert (ends["size"].max() == ends["n_scored"].max()).all()
    assert (table["n_units"] + table["n_error_nodes"] == table["size"]).all()


def test_every_row_says_the_conventions_that_made_it(fresh: nvs.Result) -> None:
    study = fresh.study
    said = {
        "model": "tiny", "task": "saw", "method": "relp", "ablation": "mean", "positions": study.positions,
        "rank_by": study.rank_by, "metric": study.metric[0], "n_discovery": 8, "seed": 0, "pairing": study.pairing,
        "attribution_metric": study.metric[0], "mean_source": study.mean_source, "dtype": study.dtype, "prepend_bos": True,
        "process_weights": False, "backend": "hooked", "split_by": "file", "n_overlap": 0, "key": study.key,
        "n_clusters": N_EVAL,
    }  # fmt: skip
    for table in (fresh.curves, fresh.summary, pd.read_csv(fresh.folder / "summary.csv")):
        for column, value in said.items():
            assert set(table[column]) == {value}, column
        assert set(table["site"]) == {"mlp.hook_post", "hook_mlp_out"}
    assert set(fresh.summary["n_eval"]) == {N_EVAL}
    assert set(fresh.summary["confidence"]) == {study.confidence}


def test_the_attribution_metric_is_the_one_that_was_differentiated(
    a_small_study: Any, tiny: Any, tmp_path: Path
) -> None:
    """Without a foil to speak of, unpaired attribution explains the answer's logit."""
    found = compare(a_small_study(pairing="unpaired"), tmp_path / "out", model=tiny)
    assert set(found.summary["attribution_metric"]) == {"answer_logit"}


def test_the_summary_is_derived_from_the_values_per_prompt(fresh: nvs.Result, sae_folder: Path) -> None:
    curve = fresh.curve(basis=f"sae:{sae_folder}", errors="nodes")
    rows = fresh.summary[(fresh.summary["basis"] == f"sae:{sae_folder}") & (fresh.summary["errors"] == "nodes")]
    assert curve.sizes == tuple(rows["size"])
    assert curve.faithfulness.tolist() == rows["faithfulness"].tolist()
    assert curve.completeness.tolist() == rows["completeness"].tolist()
    assert curve.bits == rows["bits"].tolist()
    assert curve.values == tuple(rows["values"])
    assert set(rows["n_scored"]) == {curve.n_scored}
    assert float(curve.faithfulness[0]) == pytest.approx(0, abs=1e-5)  # float32
    assert curve.all_nodes is not None
    assert curve.all_nodes.tolist() == pytest.approx(curve.whole.tolist(), abs=1e-4)
    assert curve.n_total == 2 * 5 * (20 + 1)  # layers, positions, units and the error node


def test_a_curve_is_asked_for_by_name_and_must_be_one(fresh: nvs.Result) -> None:
    with pytest.raises(
        KeyError, match=r"2 curves match .*mlp_neurons.*; one is expected. There are: .*'errors': \['nodes', 'ablate'\]"
    ):
        fresh.curve(basis="mlp_neurons")
    with pytest.raises(KeyError, match="0 curves match"):
        fresh.curve(basis="residual", errors="nodes")
    with pytest.raises(KeyError, match="0 curves match"):
        fresh.curve(colour="blue")


def test_what_is_loaded_is_what_was_returned(fresh: nvs.Result) -> None:
    again = nvs.load(fresh.folder)
    pd.testing.assert_frame_equal(again.curves, fresh.curves)
    pd.testing.assert_frame_equal(again.summary, fresh.summary)
    assert again.study == fresh.study
    assert again.study.key == fresh.record["key"]


def test_what_is_stored_is_the_curve_that_was_measured(fresh: nvs.Result, tiny: Any) -> None:
    """Values per prompt, `change` among them, and the prompts' clusters, there and back."""
    curve = fresh.curve(basis="mlp_neurons", errors="nodes")
    groups = Groups(np.array([0, 1, 0, 1, 2, 2]), np.array([0, 1, 0, 1, 0, 0]))
    rows = to_rows(curve, {"basis": "mlp_neurons"}, groups)
    again = to_curve(rows)
    for name in ("whole", "empty", "circuit", "complement", "change"):
        assert torch.equal(getattr(again, name), getattr(curve, name))
    assert to_groups(rows).cluster.tolist() == groups.cluster.tolist()
    assert to_groups(rows).stratum.tolist() == groups.stratum.tolist()
    assert set(rows["n_clusters"]) == {3}


def test_prompts_that_share_a_tag_are_drawn_together_when_asked(a_small_study: Any, tiny: Any, tmp_path: Path) -> None:
    found = compare(a_small_study(cluster_by="animal"), tmp_path / "out", model=tiny)
    tags = [
        json.loads(tag)["animal"]
        for tag in pd.read_parquet(found.folder / "prompts.parquet").query("split == 'evaluation'")["tags"]
    ]
    rows = found.curves[found.curves["run"] == "whole"]
    assert [tags.index(tag) for tag in tags] == [
        tags.index(tags[list(rows["cluster"]).index(c)]) for c in rows["cluster"]
    ]
    assert set(found.summary["n_clusters"]) == {len(set(tags))}
    assert set(found.summary["cluster_by"]) == {"animal"}
    with pytest.raises(InputError, match="has no tag 'lemma' \\(--cluster-by\\); its tags are: animal"):
        compare(a_small_study(cluster_by="lemma"), tmp_path / "other", model=tiny)
    assert not (tmp_path / "other" / "study.json").exists()


def test_the_summary_has_the_mean_change_and_bands_around_intervals(fresh: nvs.Result) -> None:
    table = fresh.summary
    curve = fresh.curve(basis="mlp_neurons", errors="nodes")
    rows = table[(table["basis"] == "mlp_neurons") & (table["errors"] == "nodes")]
    assert curve.change is not None
    assert rows["change"].tolist() == curve.change.mean(1).tolist()
    for score in ("faithfulness", "completeness"):
        assert (table[f"{score}_band_low"] <= table[f"{score}_low"]).all()
        assert (table[f"{score}_band_high"] >= table[f"{score}_high"]).all()


def test_scores_are_stored_with_the_order_of_their_nodes(fresh: nvs.Result, sae_folder: Path) -> None:
    tensors = load_file(fresh.folder / "scores.safetensors")
    with safe_open(fresh.folder / "scores.safetensors", "pt") as file:
        index = json.loads(file.metadata()["index"])
    assert set(tensors) == set(index) == {"saw/mlp_neurons/relp/0", f"saw/sae:{sae_folder}/relp/0"}
    nodes = index["saw/mlp_neurons/relp/0"].pop("nodes")
    assert index["saw/mlp_neurons/relp/0"] == {"task": "saw", "basis": "mlp_neurons", "method": "relp", "seed": 0}
    assert nodes.pop("basis").startswith("mlp_neurons ")
    assert nodes == {
        "sites": [f"blocks.{i}.mlp.hook_post" for i in (0, 1)],
        "widths": [24, 24],
        "positions": 5,
        "lossless": [True, True],
    }
    scores = fresh.scores(basis="mlp_neurons")
    assert torch.equal(scores.stored, tensors["saw/mlp_neurons/relp/0"])
    assert len(scores.stored) == 2 * 5 * 24  # neurons have no error nodes, and their slots are not stored
    assert len(scores.values) == 2 * 5 * 25
    assert not scores.values[~scores.index.exists].any()
    assert scores.index.positions == 5
    with pytest.raises(KeyError, match=r"2 discoveries match .*; one is expected. There are: .*mlp_neurons/relp/0"):
        fresh.scores(task="saw")


def test_prompts_are_stored_as_they_were_used(fresh: nvs.Result) -> None:
    prompts = pd.read_parquet(fresh.folder / "prompts.parquet")
    assert prompts.groupby("split").size().to_dict() == {"discovery": 8, "evaluation": N_EVAL}
    assert set(prompts["tokens"]) == {5}
    first = prompts[prompts["split"] == "evaluation"].iloc[0]
    assert " met a " in first["clean"]
    assert json.loads(first["tags"])["animal"] in first["clean"]


def test_the_record_says_what_made_it(fresh: nvs.Result, checkpoint: Path, task_files: Any, sae_folder: Path) -> None:
    record = json.loads((fresh.folder / "study.json").read_text())
    assert record["finished"] is True
    assert record["seconds"] > 0
    made_by = record["provenance"]
    assert set(made_by) == {
        "started",
        "versions",
        "code",
        "python",
        "platform",
        "device",
        "dtype",
        "threads",
        "batch_size",
        "model_commit",
    }
    assert made_by["versions"]["torch"] == torch.__version__
    assert (made_by["device"], made_by["dtype"]) == ("cpu", "float32")
    read = {str(checkpoint), *map(str, task_files), str(sae_folder)}
    assert set(record["inputs"]) == {"neuron_vs_sae", "torch", "transformer-lens", "sae-lens", *read}
    assert all(len(record["inputs"][name]) == 64 for name in read)  # SHA-256
    assert list(record["bases"]) == ["saw"]
    assert list(record["bases"]["saw"]) == ["mlp_neurons", f"sae:{sae_folder}"]
    basis = record["bases"]["saw"][f"sae:{sae_folder}"]
    assert (basis["sites"], basis["widths"]) == (["blocks.0.hook_mlp_out", "blocks.1.hook_mlp_out"], [20, 20])
    assert len(basis["saes"][0]["sha256"]) == 64


# Once, the same, and all of it.


def test_a_seed_gives_the_same_bytes(fresh: nvs.Result, a_study: Any, checkpoint: Path, tmp_path: Path) -> None:
    again = compare(a_study(), tmp_path / "again")  # and loads the model itself
    for name in result.FILES:
        mine, theirs = ((one.folder / name).read_bytes() for one in (again, fresh))
        if name == "report.html":  # it says when each was run, and how long that took
            mine, theirs = (_without_time(page, one) for page, one in ((mine, again), (theirs, fresh)))
        assert mine == theirs, name


def _without_time(page: bytes, found: nvs.Result) -> bytes:
    started, seconds = found.record["provenance"]["started"], found.record["seconds"]
    return page.replace(f"<td>{started}</td>".encode(), b"").replace(f"<td>{seconds}</td>".encode(), b"")


def test_a_finished_study_is_loaded_not_run_again(
    fresh: nvs.Result, a_study: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(planning, "load_model", never)
    before = (fresh.folder / "study.json").read_bytes()
    again = compare(a_study(), fresh.folder)
    pd.testing.assert_frame_equal(again.summary, fresh.summary)
    assert (fresh.folder / "study.json").read_bytes() == before


def interrupt(monkeypatch: pytest.MonkeyPatch, error: BaseException, after: int = 1) -> list[str]:
    """Raise in the step after `after` of them; returns the names of those begun."""
    begun: list[str] = []
    compute = runner.compute_step

    def breaking(step: Step, place: CellFiles) -> None:
        if len(begun) == after:
            raise error
        begun.append(step.name)
        compute(step, place)

    monkeypatch.setattr(runner, "compute_step", breaking)
    return begun


def test_an_interrupted_study_goes_on_and_ends_the_same(
    fresh: nvs.Result, a_study: Any, tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        begun = interrupt(patch, KeyboardInterrupt(), after=2)
        with pytest.raises(KeyboardInterrupt):
            compare(a_study(), out, model=tiny)
    assert begun == ["scores", "curves0"]
    with pytest.raises(FolderError, match=r"holds a study that is not finished: run the study's `nvs compare`"):
        nvs.load(out)
    begun = interrupt(monkeypatch, AssertionError("a finished step was run again"))
    compare(a_study(), out, model=tiny)
    assert begun == ["curves1"]
    assert curves_of(out) == curves_of(fresh.folder)
    assert {f.name for f in out.iterdir()} == {f.name for f in fresh.folder.iterdir()}


def test_a_killed_process_leaves_what_the_next_one_goes_on_from(
    fresh: nvs.Result, a_study: Any, tiny: Any, tmp_path: Path
) -> None:
    """SIGKILL in the middle of writing the second basis's curves."""
    study, out = a_study(), tmp_path / "out"
    script = textwrap.dedent("""
        import json, os, signal, sys
        from pathlib import Path
        from neuron_vs_sae.core import files
        from neuron_vs_sae.running.comparison import compare
        from neuron_vs_sae.studies.study import make_study

        whole = files.write_table

        def write_table(file, table):
            def half(temporary):
                temporary.write_bytes(b"half a table")
                os.kill(os.getpid(), signal.SIGKILL)
            if file.name == "curves1.curves.parquet":
                files.write(file, half)
            whole(file, table)

        files.write_table = write_table
        compare(make_study(json.loads(sys.argv[1])), Path(sys.argv[2]))
    """)
    settings = json.dumps(study.model_dump(mode="json"))
    died = subprocess.run([sys.executable, "-c", script, settings, str(out)], env={**os.environ, "OMP_NUM_THREADS": "1"},
                          capture_output=True, text=True, timeout=120, check=False)  # fmt: skip
    assert died.returncode == -signal.SIGKILL, died.stderr
    assert len(left_over(out)) == 1
    assert json.loads((out / "study.json").read_text())["finished"] is False
    compare(study, out, model=tiny)
    assert curves_of(out) == curves_of(fresh.folder)
    assert not left_over(out)


def test_what_a_killed_run_left_half_written_is_removed(fresh: nvs.Result, a_study: Any) -> None:
    (fresh.folder / ".report.html.x.partial").write_text("half")
    compare(a_study(), fresh.folder)
    assert not left_over(fresh.folder)


def test_cells_of_a_study_whose_record_is_gone_are_not_taken_for_this_ones(
    small: nvs.Result, a_small_study: Any, tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        interrupt(patch, RuntimeError("stop"))
        with pytest.raises(RuntimeError):
            compare(a_small_study(seed=5, ablation="zero_site", method=["relp", "random"]), out, model=tiny)
    assert list((out / ".unfinished").iterdir())
    (out / "study.json").unlink()
    compare(a_small_study(), out, model=tiny)
    assert curves_of(out) == curves_of(small.folder)


# One folder, one study, one run.


def test_another_study_in_the_folder_is_refused_and_its_difference_named(fresh: nvs.Result, a_study: Any) -> None:
    before = curves_of(fresh.folder)
    with pytest.raises(
        FolderError, match=r"holds another study \(it differs in: seed, metric\): .*--overwrite to replace"
    ):
        compare(a_study(seed=1, metric="probability"), fresh.folder)
    assert curves_of(fresh.folder) == before


def test_overwrite_replaces_what_is_there(
    small: nvs.Result, a_small_study: Any, tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    compare(a_small_study(seed=1), out, model=tiny)
    (out / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="a circuit of 9999 nodes is asked for"):
        compare(a_small_study(sizes=[9999]), out, model=tiny, overwrite=True)
    assert curves_of(out)  # input that is wrong has replaced nothing
    with monkeypatch.context() as patch:
        interrupt(patch, RuntimeError("stop"), after=0)
        with pytest.raises(RuntimeError):
            compare(a_small_study(), out, model=tiny, overwrite=True)
    assert not any((out / name).exists() for name in result.FILES)  # nothing of the old beside the new study.json
    compare(a_small_study(), out, model=tiny)
    assert curves_of(out) == curves_of(small.folder)
    assert (out / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("which", ["task", "model", "sae"])
def test_changed_contents_of_a_file_make_another_study(
    which: str, a_small_study: Any, tiny: Any, task_files: Any, checkpoint: Path, sae_folder: Path, tmp_path: Path
) -> None:
    given = {"task": task_files[0], "model": checkpoint, "sae": sae_folder}[which]
    mine = tmp_path / given.name
    mine.symlink_to(given)
    study = a_small_study(**({"basis": f"sae:{mine}"} if which == "sae" else {which: str(mine)}))
    compare(study, tmp_path / "out", model=tiny)
    compare(study, tmp_path / "out")
    mine.unlink()
    if given.is_file():
        mine.write_text(given.read_text() + "\n")
    else:
        mine.mkdir()
        for file in given.rglob("*"):
            if file.is_file():
                (mine / file.relative_to(given)).parent.mkdir(parents=True, exist_ok=True)
                (mine / file.relative_to(given)).write_bytes(file.read_bytes() + b" ")
    with pytest.raises(FolderError, match=f"differs in: the contents of {mine}"):
        compare(study, tmp_path / "out")


def test_another_version_of_the_package_is_another_study(
    fresh: nvs.Result, a_study: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provenance, "version", lambda package: "99.0")
    with pytest.raises(FolderError, match="differs in: the version of neuron_vs_sae"):
        compare(a_study(), fresh.folder)


def test_two_runs_at_once_are_one_too_many(fresh: nvs.Result, a_study: Any) -> None:
    with (
        files.locked(fresh.folder),
        pytest.raises(FolderError, match=r"another run is writing to .*: wait for it, or choose another folder"),
    ):
        compare(a_study(), fresh.folder)
    compare(a_study(), fresh.folder)  # the lock is gone with its holder
    with files.locked(fresh.folder), pytest.raises(FolderError, match="another run is writing"):
        runner.report(fresh.folder)


def test_files_of_unknown_origin_are_not_written_over(a_study: Any, tiny: Any, tmp_path: Path) -> None:
    (tmp_path / "summary.csv").write_text("mine")
    with pytest.raises(FolderError, match=r"holds summary.csv without the study that made them .*--overwrite"):
        compare(a_study(), tmp_path, model=tiny)
    assert (tmp_path / "summary.csv").read_text() == "mine"


# Disks and folders that fail.


@pytest.mark.parametrize("name", EVERY_FILE)
def test_a_full_disk_leaves_nothing_half_written_and_says_what_to_do(
    name: str, small: nvs.Result, a_small_study: Any, tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, write = tmp_path / "out", files.write

    def full(file: Path, put: Callable[[Path], Any]) -> None:
        def half(temporary: Path) -> None:
            temporary.write_bytes(b"half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        is_cell = UNFINISHED in file.parts
        failing = file.suffix == Path(name).suffix if name.startswith("cell.") else file.name == name
        write(file, half if failing and is_cell == name.startswith("cell.") else put)

    with monkeypatch.context() as patch:
        patch.setattr(files, "write", full)
        with pytest.raises(FolderError) as caught:
            compare(a_small_study(), out, model=tiny)
    message = str(caught.value)
    assert message.startswith(f"cannot write {out}{os.sep}")
    assert ": No space left on device. What was finished before is kept: make room" in message
    assert "run the same command again" in message
    assert not left_over(out)
    assert not (out / name).exists()
    again = compare(a_small_study(), out, model=tiny)
    assert curves_of(out) == curves_of(small.folder)
    assert {f.name for f in again.folder.iterdir()} == {f.name for f in small.folder.iterdir()}


@pytest.mark.parametrize(
    "put",
    [
        lambda file: files.write_tensors(file, {"a": torch.zeros(5000)}, {}),
        lambda file: files.write_table(file, pd.DataFrame({"a": torch.rand(5000).numpy()})),
        lambda file: files.write_text(file, "a" * 5000),
    ],
)
def test_a_file_that_the_system_refuses_is_not_written(put: Callable[[Path], None], tmp_path: Path) -> None:
    """A real refusal by the kernel, which every library that writes reports in its own way."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
        with pytest.raises(FolderError, match=r"cannot write .*file: .*File too large"):
            put(tmp_path / "file")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    files.write_text(tmp_path / "file", "old")

    def fails(temporary: Path) -> None:
        temporary.write_text("half")
        raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        files.write(tmp_path / "file", fails)
    assert [f.name for f in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "old"


def test_a_folder_that_cannot_be_made_is_said_before_a_model_is_loaded(a_study: Any, tmp_path: Path) -> None:
    """We may be root, whom no permission stops: a path below a file stops everyone."""
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file" / "out", tmp_path / "file"):
        with pytest.raises(FolderError, match=rf"cannot write to {out}: .*Choose another folder \(--out\)"):
            compare(a_study(model="gpt2"), out)


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "[]",
        lambda text: "{}",
        lambda text: text.replace('"folds": 20', '"folds": 21'),
        lambda text: text.replace('"seed"', '"sede"'),
        lambda text: text.replace('"finished"', '"done"'),
    ],
)
def test_a_damaged_record_is_refused_and_can_be_replaced(
    damage: Callable[[str], str], small: nvs.Result, a_small_study: Any, tiny: Any, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "study.json").write_text(damage((small.folder / "study.json").read_text()))
    for use in (lambda: nvs.load(out), lambda: compare(a_small_study(), out, model=tiny)):
        with pytest.raises(FolderError, match=r"study.json is damaged or of another version .*--overwrite to replace"):
            use()
    compare(a_small_study(), out, model=tiny, overwrite=True)
    assert curves_of(out) == curves_of(small.folder)


def test_lost_and_damaged_curves_are_named(a_small_study: Any, tiny: Any, tmp_path: Path) -> None:
    study = a_small_study()
    compare(study, tmp_path / "out", model=tiny)
    (tmp_path / "out" / "curves.parquet").write_bytes(b"not a table")
    with pytest.raises(FolderError, match=r"curves.parquet is missing or damaged .*--overwrite"):
        nvs.load(tmp_path / "out")
    (tmp_path / "out" / "curves.parquet").unlink()
    with pytest.raises(FolderError, match=r"curves.parquet is missing or damaged"):
        compare(study, tmp_path / "out", model=tiny)


def test_a_folder_without_a_study_says_how_to_make_one(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(FolderError, match=rf"{folder} holds no study: run the study's `nvs compare`"):
            runner.report(folder)
    assert not list(tmp_path.iterdir())


# Input that is wrong is found before anything long starts.


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
        compare(a_study(), tmp_path / "relp", model=mute)
    with pytest.raises(
        NothingToExplainError,
        match=r"saw/mlp_neurons/random/0, ablation mean, errors nodes, metric logit_difference: ablating",
    ):
        compare(a_study(method="random"), tmp_path / "random", model=mute)


def test_seeds_of_random_scores_make_curves_of_their_own(a_small_study: Any, tiny: Any, tmp_path: Path) -> None:
    study = a_small_study(method=["random", "random,seed=0", "random,seed=1"], sizes=[5])
    found = compare(study, tmp_path / "out", model=tiny)
    values = [found.curve(method=method).circuit for method in study.method]
    assert torch.equal(values[0], values[1])
    assert not torch.equal(values[0], values[2])


# Tables and figures.


def test_a_report_writes_the_same_bytes_again(fresh: nvs.Result) -> None:
    derived = ("summary.csv", "per_curve.csv", "table.md", "table.tex", "curves.pdf", "report.html")
    before = {name: (fresh.folder / name).read_bytes() for name in derived}
    for name in derived:
        (fresh.folder / name).unlink()
    runner.report(fresh.folder)
    assert {name: (fresh.folder / name).read_bytes() for name in derived} == before


def test_the_table_has_a_row_per_curve_under_the_conventions(fresh: nvs.Result) -> None:
    text = (fresh.folder / "table.md").read_text()
    assert text.startswith("# Circuits of tiny\n")
    for said in ("8 pairs for discovery, 6 for evaluation", "metric logit_difference", "seed 0", fresh.study.key):
        assert said in text
    body = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith("| basis")]
    assert len(body) == 4
    assert {line.count("|") for line in body} == {14}
    assert [line.split(" | ")[0] for line in body] == ["| MLP neurons", "| SAE features"] * 2


def test_areas_of_a_curve_end_at_its_last_node_with_a_score(fresh: nvs.Result, sae_folder: Path) -> None:
    table = nvs.tables.per_curve(fresh).set_index(["basis", "errors"])
    for basis in ("mlp_neurons", f"sae:{sae_folder}"):
        curve, row = fresh.curve(basis=basis, errors="ablate"), table.loc[(basis, "ablate")]
        assert row["n_scored"] == curve.sizes[-1] <= row["n_total"] == curve.n_total
        assert row["area_faithfulness"] == curve.area(up_to=curve.n_scored)
        size = curve.size_at(0.8)
        assert pd.isna(row["size_at_level"]) if size is None else row["size_at_level"] == size
        assert row["size_at_level_low"] <= row["size_at_level_high"] or row["size_at_level_not_reached"] > 0
    assert table.loc[("mlp_neurons", "ablate"), "faithfulness_all_nodes"] == pytest.approx(1, abs=1e-4)
    assert table["cpr"].isna().all()  # MIB's sizes were not run


def test_mibs_scores_are_there_when_their_sizes_were_run(a_small_study: Any, tiny: Any, tmp_path: Path) -> None:
    found = compare(a_small_study(sizes="mib"), tmp_path / "out", model=tiny)
    table = nvs.tables.per_curve(found)
    assert table["cpr"][0] == found.curve().cpr()
    assert table["cmd"][0] == found.curve().cmd()


def _relabel(file: Path, task: str, basis: str) -> None:
    """The scores of the one dictionary basis, under these names."""
    with safe_open(file, "pt") as stored:
        index = json.loads(stored.metadata()["index"])
    (label,) = (one for one in index if "/sae:" in one)
    named = {**index[label], "task": task, "basis": basis}
    files.write_tensors(file, {label: load_file(file)[label]}, {"index": json.dumps({label: named})})


HOSTILE = "<script>alert('nvs')</script>|\"x\" & `[y](javascript:0)`\n# z"


def test_names_are_text_in_tables_and_figures_whatever_they_hold(fresh: nvs.Result, tmp_path: Path) -> None:
    basis = "sae:folder/<img src=x onerror=alert(1)>"
    tables = [table.assign(task=HOSTILE, model=HOSTILE, basis=basis) for table in (fresh.curves, fresh.summary)]
    tables = [table[table["site"] == "hook_mlp_out"] for table in tables]
    record = {**fresh.record, "study": {**fresh.record["study"], "basis": [basis]}}
    found = replace(fresh, folder=tmp_path, record=record, curves=tables[0], summary=tables[1])
    shutil.copy(fresh.folder / "scores.safetensors", tmp_path)
    _relabel(tmp_path / "scores.safetensors", HOSTILE, basis)
    CIRCUITS.summarise(found)
    write_report(found)
    text, page = (tmp_path / "table.md").read_text(), (tmp_path / "report.html").read_text()
    inert = "&lt;script&gt;alert(&#x27;nvs&#x27;)&lt;/script&gt;"
    assert f"# Circuits of {inert}\\|&quot;x&quot; &amp; \\`\\[y\\](javascript:0)\\` # z\n" in text
    assert "<script>" not in text
    assert not [line for line in text.splitlines() if line.startswith("# z")]
    assert "<script>alert" not in page
    title = page[page.index("<title>") : page.index("</title>")]
    assert title.startswith("<title>Circuits of &lt;script&gt;alert(&#39;nvs&#39;)&lt;/script&gt;")
    assert "| SAE features |" in text
    # plotly would render what it decodes.
    assert "\\u003cscript\\u003ealert" not in page
    assert "\\u003cimg" not in page
    assert "sae:folder/&lt;img src=x onerror=alert(1)&gt;" in page  # in its settings
    assert page.count("<script") == page.count("</script>")


def test_bases_have_short_names_that_tell_them_apart() -> None:
    from neuron_vs_sae.report.labels import labels
    from neuron_vs_sae.report.plots import colours_of

    assert labels(["mlp_neurons", "sae:/a/b/c@hook_mlp_out,layers=1"]) == {
        "mlp_neurons": "mlp_neurons", "sae:/a/b/c@hook_mlp_out,layers=1": "sae:c@hook_mlp_out,layers=1"
    }  # fmt: skip
    assert list(labels(["sae:/a/x/c", "sae:/a/y/c", "sae:d"]).values()) == ["sae:x/c", "sae:y/c", "sae:d"]
    assert list(labels(["sae:/a/c", "sae:a/c"]).values()) == ["sae:/a/c", "sae:a/c"]
    colours = colours_of(["sae:a", "mlp_neurons", "sae:b", "pca"])
    assert len(set(colours.values())) == 4
    assert colours["mlp_neurons"] == colours_of(["mlp_neurons"])["mlp_neurons"]


def test_a_figure_draws_every_curve_its_band_and_the_models_level(fresh: nvs.Result) -> None:
    figure = nvs.plots.curves(fresh, task="saw", errors="ablate")
    lines = [trace for trace in figure.data if trace.mode == "lines+markers"]
    assert [line.name for line in lines[::2]] == ["MLP neurons · relp", "SAE features · relp"]
    assert len(figure.data) == 2 * len(lines) == 8
    rows = fresh.summary[(fresh.summary["basis"] == "mlp_neurons") & (fresh.summary["errors"] == "ablate")]
    assert list(lines[0].y) == rows["faithfulness"].tolist()[1:]  # a log axis has no size 0
    assert [shape.y0 for shape in figure.layout.shapes] == [1.0, 0.0]
    assert "6 prompts, 95% bootstrap intervals" in figure.layout.title.text
    with pytest.raises(
        KeyError, match=r"no curve of task 'saw' with ablation 'mean' and errors 'keep', seed 0; it has: .*'ablate'"
    ):
        nvs.plots.curves(fresh, task="saw", errors="keep")


@pytest.mark.assets
def test_on_a_trained_model_attribution_beats_chance_and_both_bases_start_from_one_empty_circuit(
    stories: Any, assets: Path, tmp_path: Path
) -> None:
    tasks = assets / "tasks" / "stories260K"
    saes = f"sae:{assets}/saes/stories260K/jumprelu@hook_mlp_out"
    study = make_study({
        "model": str(assets / "models" / "stories260K"), "task": str(tasks / "gender_pronoun_train.jsonl"),
        "eval_task": str(tasks / "gender_pronoun_test.jsonl"), "examples": 40, "eval_examples": 20,
        "basis": ["mlp_neurons", saes], "method": ["relp", "random"], "sizes": [0, 200, "all"], "resamples": 200,
    })  # fmt: skip
    found = compare(study, tmp_path / "out", model=stories)
    assert found.summary["f_empty"].max() == pytest.approx(found.summary["f_empty"].min(), abs=1e-3)  # float32
    for basis in study.basis:
        relp, random = (found.curve(basis=basis, method=method) for method in study.method)
        for curve in (relp, random):
            assert curve.faithfulness[0] == pytest.approx(0, abs=1e-4)
            assert curve.all_nodes is not None
            assert curve.all_nodes.tolist() == pytest.approx(curve.whole.tolist(), abs=1e-3)
            assert (curve.sizes[1], curve.sizes[-1]) == (200, curve.n_scored)
        assert random.n_scored == random.n_total  # whose curve therefore ends at all nodes
        assert random.faithfulness[-1] == pytest.approx(1, abs=1e-4)
        assert relp.faithfulness[1] > random.faithfulness[1] + 0.3
