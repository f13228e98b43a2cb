"""Files that are written whole or not at all, and folders locked by one run at a time."""

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pandas as pd
from filelock import FileLock, Timeout
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from neuron_vs_sae.core.errors import FolderError

_PARTIAL = ".partial"
_LOCK = ".lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock the folder for this run; one that was not there, and in which nothing was written, is removed again.

    Raises `FolderError` when another run holds it, or when it cannot be written.
    """
    lock = FileLock(folder / _LOCK)
    absent = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise FolderError(
            f"another run is writing to {folder}: wait for it, or choose another folder (--out)"
        ) from None
    except OSError as error:
        raise FolderError(
            f"cannot write to {folder}: {error.strerror or error}. Choose another folder (--out)"
        ) from error
    try:
        for leftover in folder.glob(f".*{_PARTIAL}"):  # of a run that was killed while it wrote
            leftover.unlink()
        yield
    finally:
        if absent and [file.name for file in folder.iterdir()] == [_LOCK]:
            (folder / _LOCK).unlink()  # while it is held: whoever comes next makes another
            for parent in absent:
                with suppress(OSError):  # another run has begun to use it
                    parent.rmdir()
        lock.release()


def write(file: Path, put: Callable[[Path], Any]) -> None:
    """Have `put` write a temporary file beside `file`, flush it to the disk, then rename it, so that `file` is written whole or
    not at all, whatever becomes of the machine.

    Raises `FolderError` when the disk is full or the folder is not writable; nothing is left half-written.
    """
    temporary: Path | None = None
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.", suffix=_PARTIAL)
        os.close(handle)
        temporary = Path(name)
        put(temporary)
        os.chmod(temporary, 0o644)
        _flush(temporary)
        os.replace(temporary, file)
        _flush(file.parent)  # the name, too
    except (OSError, SafetensorError) as error:
        raise FolderError(
            f"cannot write {file}: {getattr(error, 'strerror', None) or error}. What was finished before is kept: make room (or choose "
            "another folder with --out) and run the same command again"
        ) from error
    finally:
        if temporary is not None and temporary.exists():
            temporary.unlink()


def _flush(path: Path) -> None:
    """Have the system write what it holds of a file, or of a folder's list of names, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def digest(file: Path) -> str:
    """The SHA-256 of what a file holds, in hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def remove(file: Path) -> None:
    """Remove the file, where it is there. Raises `FolderError` where it is a folder, or cannot be removed."""
    try:
        file.unlink(missing_ok=True)
    except OSError as error:
        raise FolderError(
            f"{file} cannot be replaced: {error.strerror or error}. Remove it, or choose another folder (--out)"
        ) from error


def write_text(file: Path, text: str) -> None:
    write(file, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_json(file: Path, value: Any) -> None:
    write_text(file, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def write_table(file: Path, table: pd.DataFrame) -> None:
    write(file, lambda temporary: table.to_parquet(temporary, index=False))


def write_tensors(file: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    write(file, lambda temporary: save_file(tensors, temporary, metadata))


def read_tensors(file: Path) -> dict[str, Float[Tensor, " nodes"]]:
    return load_file(file)
