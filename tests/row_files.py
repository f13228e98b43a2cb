"""Files of pairs by hand, in every format, and what a reader makes of them."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from neuron_vs_sae.catalog.tasks import from_file
from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.core.pairs import PromptPairs

ROWS = [
    {"clean": "ann saw a cat", "corrupt": "bob saw a cat", "answer": " she", "foil": " he"},
    {"clean": "max met a hen", "corrupt": "mia met a hen", "answer": " he", "foil": " she"},
]
FOUR = ("clean", "corrupt", "answer", "foil")


def texts(pairs: PromptPairs) -> list[dict[str, str]]:
    columns = (pairs.clean_text, pairs.corrupt_text, pairs.answer_text, pairs.foil_text)
    return [dict(zip(FOUR, row, strict=True)) for row in zip(*columns, strict=True)]


def lines(file: Path, rows: list[Any], end: str = "\n") -> Path:
    file.write_bytes("".join(json.dumps(row) + end for row in rows).encode())
    return file


def table(file: Path, rows: list[dict[str, Any]]) -> Path:
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return file


def columns(file: Path, rows: list[dict[str, Any]]) -> Path:
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.Table.from_pylist(rows), file)
    return file


def refused(reader: Any, file: Path, **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        from_file(reader, path=file, **options)
    assert str(caught.value).startswith(str(file))
    return str(caught.value)


def mib_rows() -> list[dict[str, Any]]:
    """The columns of mib-bench/ioi: names are the choices, `answerKey` the right one."""
    return [
        {
            "template": "{name} saw", "metadata": {"subject": "bob"}, "prompt": row["clean"],
            "choices": [row["foil"][1:], row["answer"][1:]], "answerKey": 1,
            "s2_io_flip_counterfactual": {
                "prompt": row["corrupt"], "choices": [row["answer"][1:], row["foil"][1:]], "answerKey": 1
            },
            "abc_counterfactual": {"prompt": row["corrupt"].replace("a", "she"), "choices": ["he", "cat"], "answerKey": 1},
        }
        for row in ROWS
    ]  # fmt: skip
