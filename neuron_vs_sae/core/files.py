"""Files that are written whole or not at all, and folders locked by one run at a time."""

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock the folder for this run. Raises `FolderError` when another run holds it, or when it cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock")
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
        lock.release()


def write(file: Path, put: Callable[[Path], Any]) -> None:
    """Have `put` write a temporary file beside `file`, then rename it, so that `file` is written whole or not at all.

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
        os.replace(temporary, file)
    except (OSError, SafetensorError) as error:
        raise FolderError(
            f"cannot write {file}: {getattr(error, 'strerror', None) or error}. What was finished before is kept: make room (or choose "
            "another folder with --out) and run the same command again"
        ) from error
    finally:
        if temporary is not None and temporary.exists():
            temporary.unlink()


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
