"""A result folder knows its contents: what is damaged is named and computed again, what is derived is made again, nothing passes unseen."""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from conftest import Run
from small_study import curves_of, interrupt

import neuron_vs_sae as nvs
from neuron_vs_sae.core.errors import FolderError
from neuron_vs_sae.running.comparison import compare
from neuron_vs_sae.studies import result
from neuron_vs_sae.studies.record import RECORD, UNFINISHED

PRIMARY = ("curves.parquet", "scores.safetensors", "prompts.parquet", "stability.parquet", "circuits.csv")
DERIVED = tuple(name for name in result.FILES if name not in PRIMARY)


@pytest.fixture
def copied(small: nvs.Result, tmp_path: Path) -> Path:
    shutil.copytree(small.folder, tmp_path / "out")
    return tmp_path / "out"


def record_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / RECORD).read_text())


def rewrite(folder: Path, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    """`curves.parquet` changed, and listed as if it had been written so."""
    file = folder / "curves.parquet"
    change(pd.read_parquet(file)).to_parquet(file, index=False)
    record = record_of(folder)
    record["primary"]["curves.parquet"] = hashlib.sha256(file.read_bytes()).hexdigest()
    (folder / RECORD).write_text(json.dumps(record))


def test_the_record_lists_every_file_with_its_sha256(small: nvs.Result) -> None:
    record = record_of(small.folder)
    assert record["finished"] is True
    assert tuple(sorted(record["primary"])) == tuple(sorted(PRIMARY))
    listed = {**record["primary"], **record["derived"]}
    assert set(listed) == set(result.FILES)
    for name, digest in listed.items():
        assert hashlib.sha256((small.folder / name).read_bytes()).hexdigest() == digest, name


@pytest.mark.parametrize("name", PRIMARY)
def test_a_damaged_value_is_named_and_the_same_command_computes_it_again(
    name: str, small: nvs.Result, copied: Path, a_small_study: Any, tiny: Any, caplog: pytest.LogCaptureFixture
) -> None:
    data = bytearray((copied / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copied / name).write_bytes(data)
    with pytest.raises(
        FolderError, match=rf"{name} is missing or damaged: .*`nvs compare` into this folder computes it"
    ):
        nvs.load(copied)
    with caplog.at_level(logging.WARNING):
        assert compare(a_small_study(), copied, model=tiny).record["finished"]
    assert f"{copied / name} is missing or damaged: it is computed again" in caplog.text
    assert (copied / name).read_bytes() == (small.folder / name).read_bytes()
    assert nvs.load(copied)


@pytest.mark.parametrize("name", ["verdicts.csv", "report.html", "robustness.csv"])
@pytest.mark.parametrize("lost", [True, False])
def test_what_is_derived_is_made_again_before_it_is_read(
    name: str, lost: bool, small: nvs.Result, copied: Path, run: Run
) -> None:
    if lost:
        (copied / name).unlink()
    else:
        (copied / name).write_bytes(b"\x00half")
    ended = run("table", copied, "--format", "csv")
    assert (ended.status, ended.err) == (0, "")
    assert (copied / name).read_bytes() == (small.folder / name).read_bytes()
    before = {file.name: file.stat().st_mtime_ns for file in copied.iterdir()}
    run("table", copied, "--format", "csv")
    assert {file.name: file.stat().st_mtime_ns for file in copied.iterdir()} == before


def test_a_study_whose_page_was_not_written_is_not_finished_and_is_not_computed_again(
    copied: Path, a_small_study: Any, tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: Any) -> None:
        raise KeyboardInterrupt

    out = tmp_path / "fresh"
    with monkeypatch.context() as patch:
        patch.setattr("neuron_vs_sae.running.finishing.report_of", lambda name: fails)
        with pytest.raises(KeyboardInterrupt):
            compare(a_small_study(), out, model=tiny)
    assert record_of(out)["finished"] is False
    assert set(record_of(out)["primary"]) == set(PRIMARY)
    interrupt(monkeypatch, AssertionError("a step was computed again"), after=0)
    compare(a_small_study(), out, model=tiny)
    assert record_of(out)["finished"] is True
    assert curves_of(out) == curves_of(copied)


@pytest.mark.parametrize("damage", ["emptied", "cut", "listed wrongly", "removed"])
def test_a_damaged_unfinished_cell_is_computed_again(
    damage: str, small: nvs.Result, a_small_study: Any, tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        interrupt(patch, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            compare(a_small_study(), out, model=tiny)
    (cell,) = (out / UNFINISHED).glob("*/*")
    if damage == "listed wrongly":
        (cell / "scores.json").write_text('{"files": ["scores.safetensors"]}')
    for file in cell.glob("scores.*"):
        if damage == "emptied":
            file.write_bytes(b"")
        elif damage == "cut":
            file.write_bytes(file.read_bytes()[:-7])
        elif damage == "removed" and file.suffix == ".safetensors":
            file.unlink()
    compare(a_small_study(), out, model=tiny)
    assert curves_of(out) == curves_of(small.folder)


def test_a_link_in_the_folder_of_unfinished_cells_is_refused_and_not_followed(
    a_small_study: Any, tiny: Any, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / UNFINISHED).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FolderError, match=rf"{UNFINISHED} is a link, which no run makes"):
        compare(a_small_study(), tmp_path / "out", model=tiny)
    assert not list((tmp_path / "elsewhere").iterdir())
    assert [file.name for file in (tmp_path / "out").iterdir() if file.name != ".lock"] == [UNFINISHED]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.drop(columns="value"), "it has no column 'value'"),
        (lambda t: t.assign(value=t["value"].astype(str)), "its column 'value' holds values of another type"),
        (lambda t: t.assign(task=1), "its column 'task' holds values of another type"),
        (lambda t: t.assign(value=t["value"].where(t.index != 3)), "a value is not finite"),
        (lambda t: pd.concat([t, t.iloc[:1]]), "a row is there twice"),
        (lambda t: t.iloc[:-1], "a run lacks a prompt"),
        (lambda t: t[t["run"] != "complement"], "a curve lacks a run"),
        (lambda t: t[~((t["run"] == "circuit") & (t["size"] == 5))], "a curve lacks a run, or a size"),
        (lambda t: t.assign(basis="rotation"), "its basis is not the study's"),
        (lambda t: t.iloc[:0], "it has no rows"),
    ],
)  # fmt: skip
def test_curves_that_are_not_whole_are_refused_even_where_they_are_listed_so(
    change: Callable[[pd.DataFrame], pd.DataFrame], said: str, copied: Path
) -> None:
    rewrite(copied, change)
    with pytest.raises(FolderError, match=rf"curves.parquet is damaged: {said}"):
        nvs.load(copied)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("inputs",), []), (("inputs", "torch"), 2), (("bases",), None), (("bases", "saw"), []), (("provenance",), {}),
        (("bases", "saw", "mlp_neurons", "sites"), 3), (("provenance", "versions"), "none"), (("primary", "../curves.parquet"), "00"),
        (("seconds",), float("nan")), (("finished",), "yes"), (("analysis",), "nonesuch"), (("layout",), [3]), (("study",), 5),
    ],
)  # fmt: skip
def test_a_record_that_holds_what_it_should_not_ends_with_two(
    path: tuple[str, ...], value: Any, copied: Path, run: Run
) -> None:
    record = record_of(copied)
    inner = record
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    (copied / RECORD).write_text(json.dumps(record))
    for command in ("table", "report", "cite", "figures"):
        ended = run(command, copied)
        assert (ended.status, ended.err.count("nvs:")) == (2, 1), ended.err


def test_a_folder_in_place_of_a_file_is_refused(copied: Path, a_small_study: Any, tiny: Any) -> None:
    (copied / "curves.parquet").unlink()
    (copied / "curves.parquet").mkdir()
    with pytest.raises(FolderError, match=r"curves.parquet cannot be replaced: Is a directory. Remove it"):
        compare(a_small_study(), copied, model=tiny)


def test_a_pipe_in_place_of_a_record_is_not_waited_for(copied: Path, run: Run) -> None:
    (copied / RECORD).unlink()
    os.mkfifo(copied / RECORD)
    assert run("table", copied).status == 2


def test_what_is_written_is_flushed_to_the_disk_before_its_name_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from neuron_vs_sae.core import files

    order: list[str] = []
    flush, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (order.append("flush"), flush(fd)))
    monkeypatch.setattr(os, "replace", lambda a, b: (order.append("rename"), replace(a, b)))
    files.write_text(tmp_path / "file", "text")
    assert order == ["flush", "rename", "flush"]
