"""Files that a user names: read where they are regular files, so that nothing waits for a pipe or reads a device without end."""

import os
import stat
from pathlib import Path

from neuron_vs_sae.core.errors import InputError


def check_regular(file: Path, what: str = "") -> None:
    """Raises `InputError`, calling the file `what` and its path, where it is not there, cannot be read, or is no regular file."""
    name = f"{what} {file}".strip()
    try:
        mode = file.stat().st_mode
    except (OSError, ValueError) as error:  # ValueError: a NUL in its name
        raise InputError(f"{name} cannot be read: {_reason(error)}") from error
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a pipe, a socket or a device"
        raise InputError(f"{name} cannot be read: it is {kind}, and a file is expected")
    if not os.access(file, os.R_OK):
        raise InputError(f"{name} cannot be read: Permission denied")


def read_bytes(file: Path, what: str = "") -> bytes:
    """What the file holds. Raises `InputError` as `check_regular` does."""
    check_regular(file, what)
    try:
        return file.read_bytes()
    except OSError as error:
        raise InputError(f"{what} {file} cannot be read: {_reason(error)}".strip()) from error


def exists(path: Path) -> bool:
    """Whether there is such a file or folder; of a name that no file can have (too long), there is none."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)
