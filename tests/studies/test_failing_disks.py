"""Disks that are full, folders that cannot be written and files that are damaged: nothing half written, and what to do is said."""

import errno
import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from small_study import curves_of, left_over

import neuron_vs_sae as nvs
from neuron_vs_sae.core import files
from neuron_vs_sae.core.errors import FolderError
from neuron_vs_sae.running import finishing
from neuron_vs_sae.running.comparison import compare
from neuron_vs_sae.studies import result
from neuron_vs_sae.studies.record import UNFINISHED

EVERY_FILE = ("study.json", "cell.json", "cell.safetensors", "cell.parquet", *result.FILES)


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


def test_a_folder_without_a_study_says_how_to_make_one(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(FolderError, match=rf"{folder} holds no study: run the study's `nvs compare`"):
            finishing.report(folder)
    assert not list(tmp_path.iterdir())
