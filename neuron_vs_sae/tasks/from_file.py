"""Prompt pairs from a JSON-lines file: this project's columns or feature-circuits'."""

import json
from pathlib import Path
from typing import Any

from neuron_vs_sae.errors import InputError
from neuron_vs_sae.pairs import PromptPairs, build

# feature-circuits' names (Marks et al. 2024) to ours.
_COLUMNS = {"clean_prefix": "clean", "patch_prefix": "corrupt", "clean_answer": "answer", "patch_answer": "foil"}
_NEEDED = ("clean", "corrupt", "answer", "foil")


def from_file(model: Any, *, path: str | Path, prepend_bos: bool = True) -> PromptPairs:
    """The pairs of a file of one JSON object per line: `{clean, corrupt, answer, foil}`, any other key being a tag.

    feature-circuits' keys (`clean_prefix, patch_prefix, clean_answer, patch_answer`) mean the same. Answers are written
    as they follow the prompt, usually with a leading space. Raises `InputError` naming file and row.
    """
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8-sig")  # some editors begin a file with a byte-order mark
    except UnicodeDecodeError as error:
        raise InputError(f"{file} is not UTF-8 text: {error}") from error
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}") from error
    # Not `splitlines`, which also breaks at characters that JSON strings may hold.
    lines = {number: line for number, line in enumerate(text.split("\n"), 1) if line.strip()}
    rows = [_row(file, number, line) for number, line in lines.items()]
    if not rows:
        raise InputError(f"{file} has no rows: one JSON object per line is expected, with {', '.join(_NEEDED)}")
    try:
        pairs = build(file.stem, model.tokenizer, rows, prepend_bos=prepend_bos, labels=[f"row {n}" for n in lines])
    except InputError as error:
        raise InputError(f"{file}: {error}") from None
    return pairs.to(next(model.parameters()).device)


def _row(file: Path, number: int, line: str) -> dict[str, str]:
    try:
        found = json.loads(line)
    except json.JSONDecodeError as error:
        raise InputError(f"{file}, row {number}: not JSON ({error}); one object per line is expected") from error
    if not isinstance(found, dict):
        raise InputError(f"{file}, row {number}: a JSON object is expected, this is {type(found).__name__}")
    row = {_COLUMNS.get(str(key), str(key)): value for key, value in found.items()}
    for key in _NEEDED:
        if key not in row:
            raise InputError(f"{file}, row {number}: the column '{key}' is missing; it has {', '.join(found)}")
        if not isinstance(row[key], str):
            raise InputError(f"{file}, row {number}: '{key}' must be text, this is {row[key]!r}")
        try:
            row[key].encode()
        except UnicodeEncodeError as error:
            raise InputError(f"{file}, row {number}: '{key}' holds half a character ({error.reason})") from error
    return row
