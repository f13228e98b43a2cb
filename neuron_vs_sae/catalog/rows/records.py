"""The raw records of a file: JSON lines, a JSON document, CSV or Parquet."""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from neuron_vs_sae.catalog.rows.columns import Format
from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.core.reading import check_regular, read_bytes

LONGEST_ROW = 2**20
"""Bytes that a line of a file may have: a pair of prompts has some hundreds."""


def records(file: Path, format_: Format) -> Iterator[tuple[str, Any]]:
    """The file's records, each with its label (`row 7`). Raises `InputError`, naming the row, for what cannot be read."""
    ending = file.suffix.lower()
    if ending in (".tsv", ".gz", ".zip", ".xlsx"):
        raise InputError(f"{file}: files of pairs are .jsonl, .json, .csv or .parquet; save it as one of these")
    check_regular(file)
    if ending == ".parquet":
        return _parquet(file)
    if ending == ".csv":
        return _csv(file, _decoded(file, read_bytes(file)))
    if format_ == "auto-circuit" or (format_ == "auto" and ending == ".json"):
        prompts = _document(file, _decoded(file, read_bytes(file)), required=format_ == "auto-circuit")
        if prompts is not None:
            return ((f"row {i}", prompt) for i, prompt in enumerate(prompts, 1))
    return _lines(file)


def _decoded(file: Path, data: bytes, first_row: int = 1) -> str:
    try:
        return data.decode(
            "utf-8-sig" if first_row == 1 else "utf-8"
        )  # some editors begin a file with a byte-order mark
    except UnicodeDecodeError as error:
        row = first_row + error.object.count(b"\n", 0, error.start)
        raise InputError(
            f"{file}, row {row}: this is not UTF-8 text: {error.reason}; save the file as UTF-8"
        ) from error


def _lines(file: Path) -> Iterator[tuple[str, Any]]:
    with file.open("rb") as stream:  # whose lines end at line feeds alone: JSON strings may hold what else breaks text
        number = 0
        while line := stream.readline(LONGEST_ROW + 1):
            number += 1
            if len(line) > LONGEST_ROW:
                raise InputError(
                    f"{file}, row {number}: it is longer than {LONGEST_ROW:,} bytes; one object per line is expected, of one pair"
                )
            text = _decoded(file, line, number)
            if text.strip():
                try:
                    yield f"row {number}", json.loads(text)
                except (ValueError, RecursionError) as error:  # ValueError: a number of thousands of digits, too
                    raise InputError(
                        f"{file}, row {number}: not JSON ({error}); one object per line is expected"
                    ) from error


def _document(file: Path, text: str, *, required: bool) -> list[Any] | None:
    """The prompts of auto-circuit's single document; None for another file, unless such a document is `required`."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        if required:
            raise InputError(
                f"{file} is not JSON ({error}); one document with a list of 'prompts' is expected"
            ) from error
        return None
    prompts = document.get("prompts") if isinstance(document, dict) else None
    if not isinstance(prompts, list):
        if required or prompts is not None:
            raise InputError(f"{file} has no list of 'prompts', which auto-circuit's form has")
        return None
    return prompts


def _csv(file: Path, text: str) -> Iterator[tuple[str, Any]]:
    table = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] | None = None
    number = 1  # of the line on which the next row begins
    try:
        for cells in table:
            if header is None:
                header = cells
                twice = sorted({name for name in header if header.count(name) > 1})
                if twice:
                    raise InputError(f"{file}, row 1: the column {twice[0]!r} is there twice")
            elif cells and len(cells) != len(header):
                raise InputError(
                    f"{file}, row {number}: it has {len(cells)} cells, and the header {len(header)}; quote text with commas"
                )
            elif cells:
                yield f"row {number}", dict(zip(header, cells, strict=True))
            number = table.line_num + 1
    except csv.Error as error:
        raise InputError(f"{file}, row {number}: not CSV ({error})") from error


def _parquet(file: Path) -> Iterator[tuple[str, Any]]:
    import pyarrow
    from pyarrow import parquet

    try:
        table = parquet.read_table(file)
    except (OSError, pyarrow.ArrowException) as error:
        raise InputError(f"{file} cannot be read as Parquet: {str(error).splitlines()[0]}") from error
    return ((f"row {i}", record) for i, record in enumerate(table.to_pylist(), 1))
