"""`study.json`: what a folder holds, what made it, and whether it is finished."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from neuron_vs_sae.core.errors import FolderError
from neuron_vs_sae.studies.spec import CommonSpec, S, make_spec

LAYOUT = 2
"""Counts the changes of what a folder holds and how: folders of another layout are refused."""

RECORD = "study.json"
UNFINISHED = ".unfinished"
_LACKING = ("inputs", "finished", "provenance", "bases")


def read_record(folder: Path, kind: type[CommonSpec]) -> dict[str, Any] | None:
    """The record of a folder, None where there is none.

    Raises `FolderError` where it is of another layout or analysis than `kind`'s, or damaged.
    """
    record = _read(folder)
    if record is None:
        return None
    if record["analysis"] != kind.analysis:
        raise FolderError(
            f"{folder} holds a study of {record['analysis']}, not of {kind.analysis}: choose another folder (--out), or pass "
            "--overwrite to replace what is there"
        )
    try:
        if make_spec(kind, record["study"], "it").key != record["key"] or not set(_LACKING) <= record.keys():
            raise ValueError("its settings are not those of its key, or it is incomplete")
    except (ValueError, TypeError, KeyError) as error:
        raise _damaged(folder, error) from error
    return record


def finished_record(folder: Path, kind: type[S]) -> tuple[dict[str, Any], S]:
    """The record and the settings of a finished study. Raises `FolderError` where the folder holds none."""
    record = read_record(folder, kind)
    if record is None or not record["finished"]:
        raise FolderError(_not_finished(folder, record is None, kind.command))
    return record, make_spec(kind, record["study"])


def analysis_in(folder: Path) -> str:
    """The name of the analysis whose study the folder holds. Raises `FolderError` where it holds none."""
    record = _read(folder)
    if record is None:
        raise FolderError(_not_finished(folder, True, "compare"))
    return record["analysis"]


def read_table(file: Path) -> pd.DataFrame:
    """A table of a finished folder. Raises `FolderError` where it is missing or damaged."""
    try:
        return pd.read_parquet(file)
    except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors
        raise FolderError(f"{file} is missing or damaged ({error}): run the study again with --overwrite") from error


def clear(folder: Path, files: Sequence[str]) -> None:
    """Remove what a study with these files has left in the folder, finished or not, and nothing else."""
    for name in (RECORD, *files):
        (folder / name).unlink(missing_ok=True)
    if (folder / UNFINISHED).exists():
        shutil.rmtree(folder / UNFINISHED)


def _read(folder: Path) -> dict[str, Any] | None:
    file = folder / RECORD
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        if "layout" not in record and {"study", "key"} <= record.keys():
            record["layout"] = 1
        layout = int(record["layout"])
        if layout == LAYOUT and not isinstance(record["analysis"], str):
            raise TypeError("its analysis has no name")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise _damaged(folder, error) from error
    if layout != LAYOUT:
        raise FolderError(
            f"{file} was written by {'an earlier' if layout < LAYOUT else 'a later'} version of neuron_vs_sae (layout {layout} of the "
            f"folder; this version reads and writes layout {LAYOUT}): read it with that version, choose another folder (--out), or "
            "pass --overwrite to replace what is there"
        )
    return record


def _damaged(folder: Path, error: Exception) -> FolderError:
    return FolderError(
        f"{folder / RECORD} is damaged or of another version ({type(error).__name__}: {error}): choose another folder (--out), or "
        "pass --overwrite to replace what is there"
    )


def _not_finished(folder: Path, empty: bool, command: str) -> str:
    state = "holds no study" if empty else "holds a study that is not finished"
    return f"{folder} {state}: run the study's `nvs {command}` (again) to the end first"
