"""A study runs once and to its end: the same bytes again, after an interruption too, and one run to a folder."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from small_study import curves_of, interrupt, left_over

import neuron_vs_sae as nvs
from neuron_vs_sae.core import files
from neuron_vs_sae.core.errors import FolderError, InputError
from neuron_vs_sae.running import finishing, planning, provenance
from neuron_vs_sae.running.comparison import compare
from neuron_vs_sae.studies import result

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
        finishing.report(fresh.folder)


def test_files_of_unknown_origin_are_not_written_over(a_study: Any, tiny: Any, tmp_path: Path) -> None:
    (tmp_path / "summary.csv").write_text("mine")
    with pytest.raises(FolderError, match=r"holds summary.csv without the study that made them .*--overwrite"):
        compare(a_study(), tmp_path, model=tiny)
    assert (tmp_path / "summary.csv").read_text() == "mine"
