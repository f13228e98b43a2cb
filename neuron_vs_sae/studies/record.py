"""`study.json`: what a folder holds, what made it, which files hold its values, and whether all of it stands."""

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from neuron_vs_sae.core.errors import FolderError, InputError
from neuron_vs_sae.core.files import digest, remove
from neuron_vs_sae.core.reading import check_regular, read_bytes
from neuron_vs_sae.studies.schema import check_record
from neuron_vs_sae.studies.spec import CommonSpec, S, make_spec

LAYOUT = 3
"""Counts the changes of what a folder holds and how: folders of another layout are refused."""

RECORD = "study.json"
UNFINISHED = ".unfinished"


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
        check_record(record)
        if make_spec(kind, record["study"], "it").key != record["key"]:
            raise ValueError("its settings are not those of its key")
    except (ValueError, TypeError) as error:
        raise _damaged(folder, error) from error
    return record


def finished_record(folder: Path, kind: type[S]) -> tuple[dict[str, Any], S]:
    """The record and the settings of a study whose values are all there, each file of them as it was written.

    Raises `FolderError` where the folder holds none, and where a file of values is missing or damaged.
    """
    record = read_record(folder, kind)
    if record is None or not record["primary"]:
        raise FolderError(_not_finished(folder, record is None, kind.command))
    lost = unsound(folder, record["primary"])
    if lost:
        raise FolderError(
            f"{folder / lost[0]} is missing or damaged: its contents are not those that {RECORD} lists. The study's own `nvs "
            f"{kind.command}` into this folder computes it again"
        )
    return record, make_spec(kind, record["study"])


def unsound(folder: Path, digests: Mapping[str, str]) -> list[str]:
    """The names of the files that are not there, or whose SHA-256 is another than the one given."""
    return [name for name, expected in digests.items() if not _is_sound(folder / name, expected)]


def digests_of(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """The SHA-256 of those of the files that are there, by name."""
    return {name: digest(folder / name) for name in names if (folder / name).is_file()}


def analysis_in(folder: Path) -> str:
    """The name of the analysis whose study the folder holds. Raises `FolderError` where it holds none."""
    record = _read(folder)
    if record is None:
        raise FolderError(_not_finished(folder, True, "compare"))
    return record["analysis"]


def read_table(file: Path) -> pd.DataFrame:
    """A table of a finished folder. Raises `FolderError` where it is missing or damaged."""
    try:
        check_regular(file)
        return pd.read_parquet(file)
    except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors
        raise FolderError(f"{file} is missing or damaged ({error}): run the study again with --overwrite") from error


def clear(folder: Path, files: Sequence[str]) -> None:
    """Remove what a study with these files has left in the folder, finished or not, and nothing else."""
    for name in (RECORD, *files):
        remove(folder / name)
    discard_unfinished(folder)


def discard_unfinished(folder: Path) -> None:
    """Remove the cells of a study. Raises `FolderError` as `check_no_links` does."""
    check_no_links(folder)
    if (folder / UNFINISHED).exists():
        shutil.rmtree(folder / UNFINISHED)


def check_no_links(folder: Path) -> None:
    """Raises `FolderError` where the folder of unfinished cells is a link or holds one: what is written there would land elsewhere."""
    unfinished = folder / UNFINISHED
    links = [path for path in (unfinished, *unfinished.rglob("*")) if path.is_symlink()]
    if links:
        raise FolderError(
            f"{links[0]} is a link, which no run makes: what is written there would land elsewhere. Remove it, or choose another "
            "folder (--out)"
        )


def _is_sound(file: Path, expected: str) -> bool:
    try:
        return file.is_file() and digest(file) == expected
    except OSError:
        return False


def _read(folder: Path) -> dict[str, Any] | None:
    file = folder / RECORD
    if not file.exists():
        return None
    try:
        record = json.loads(read_bytes(file).decode("utf-8"))
        if "layout" not in record and {"study", "key"} <= record.keys():
            record["layout"] = 1
        layout = int(record["layout"])
        if layout == LAYOUT and not isinstance(record["analysis"], str):
            raise TypeError("its analysis has no name")
    except (InputError, ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
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
