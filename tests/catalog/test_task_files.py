"""Files of pairs in this project's own columns, and what is wrong with a file, named by file and row."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from row_files import ROWS, columns, lines, refused, table, texts

import neuron_vs_sae as nvs
from neuron_vs_sae.catalog.tasks import from_file
from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.core.lookup import bound
from neuron_vs_sae.studies.spec import looks_like_file


@pytest.mark.parametrize(("ending", "write"), [("jsonl", lines), ("json", lines), ("csv", table), ("parquet", columns)])
def test_our_columns_come_back_from_every_kind_of_file(
    ending: str, write: Callable[..., Path], reader: Any, tmp_path: Path
) -> None:
    file = write(tmp_path / f"pairs.{ending}", [{**row, "case": "x"} for row in ROWS])
    pairs = from_file(reader, path=file)
    assert texts(pairs) == ROWS
    assert pairs.tags == ({"case": "x"}, {"case": "x"})
    assert pairs.name == "pairs"


def test_windows_line_ends_are_line_ends(reader: Any, tmp_path: Path) -> None:
    assert texts(from_file(reader, path=lines(tmp_path / "dos.jsonl", ROWS, "\r\n"))) == ROWS
    file = table(tmp_path / "dos.csv", ROWS)
    assert b"\r\n" in file.read_bytes()
    assert texts(from_file(reader, path=file)) == ROWS
    file.write_bytes(file.read_bytes().replace(b"\r\n", b"\n"))
    assert texts(from_file(reader, path=file)) == ROWS


def test_columns_of_any_name_are_mapped_and_values_inside_others_reached(reader: Any, tmp_path: Path) -> None:
    rows = [
        {"q": row["clean"], "other": {"q": row["corrupt"], "a": row["foil"][1:]}, "a": row["answer"][1:], "n": 1}
        for row in ROWS
    ]
    file = lines(tmp_path / "mine.jsonl", rows)
    chosen = {"clean": "q", "corrupt": "other.q", "answer": "a", "foil": "other.a"}
    pairs = from_file(reader, path=file, columns=nvs.Columns(**chosen, space=True))
    assert texts(pairs) == ROWS
    assert pairs.tags == ({"n": "1"}, {"n": "1"})
    options = "".join(f",{key}={value}" for key, value in chosen.items())
    assert texts(bound("tasks", f"from_file:{file},space=true{options}", prepend_bos=True)(reader)) == ROWS
    assert "row 1: the column 'other.b' is missing; it has other.q, other.a" in refused(
        reader, file, columns=nvs.Columns(**{**chosen, "foil": "other.b"})
    )


def test_a_file_with_options_is_a_task_by_name() -> None:
    assert looks_like_file("data/pairs.csv")
    assert looks_like_file("pairs.parquet")
    assert not looks_like_file("from_file:data/pairs.csv,drop=true")
    assert not looks_like_file("from_dataset:mib-bench/ioi,split=validation")
    with pytest.raises(InputError, match=r"task 'from_file' needs path \(write from_file:FILE; `nvs list tasks`\)"):
        bound("tasks", "from_file")
    with pytest.raises(
        InputError, match=r"task 'from_dataset' needs source \(write from_dataset:NAME; `nvs list tasks`\)"
    ):
        bound("tasks", "from_dataset")
    with pytest.raises(InputError, match="no option 'seed' of its own"):
        bound("tasks", "ioi,seed=3")


# What is wrong with a file.


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (b"", "has no rows"),
        (b"clean,corrupt,answer,foil\n", "has no rows"),
        (b"clean,corrupt,answer\na,b,c\n", "row 2: the column 'foil' is missing; it has clean, corrupt, answer"),
        (b"clean,corrupt,answer,foil\na,b,c,d\na,b,c\n", "row 3: it has 3 cells, and the header 4; quote text"),
        (b"clean,corrupt,answer,foil\na,b,c,d,e\n", "row 2: it has 5 cells, and the header 4"),
        (b'clean,corrupt,answer,foil\n"a"b,b,c,d\n', "row 2: not CSV ("),
        (b"clean,corrupt,answer,foil\na,b,c,d\n\xff,b,c,d\n", "row 3: this is not UTF-8 text: invalid start byte"),
    ],
)
def test_a_table_that_is_wrong_is_refused_with_its_row(text: bytes, part: str, reader: Any, tmp_path: Path) -> None:
    file = tmp_path / "pairs.csv"
    file.write_bytes(text)
    assert part in refused(reader, file)


def test_bytes_that_are_not_utf8_are_named_by_their_row(reader: Any, tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    file.write_bytes(json.dumps(ROWS[0]).encode() + b"\n" + '{"clean": "café"'.encode("latin-1"))
    assert "row 2: this is not UTF-8 text" in refused(reader, file)


def test_half_a_character_is_refused(reader: Any, tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    file.write_text('{"clean": "\\ud83d", "corrupt": "b", "answer": " c", "foil": " d"}\n')
    assert "row 1: 'clean' holds half a character" in refused(reader, file)


def test_a_file_that_is_not_parquet_is_refused(reader: Any, tmp_path: Path) -> None:
    file = tmp_path / "pairs.parquet"
    file.write_bytes(b"not parquet at all")
    assert "cannot be read as Parquet" in refused(reader, file)
    with pytest.raises(InputError, match=r"none.parquet cannot be read: No such file"):
        from_file(reader, path=tmp_path / "none.parquet")
    assert "row 2: 'answer' must be text, this is None" in refused(
        reader, columns(file, [ROWS[0], {**ROWS[1], "answer": None}])
    )


class Counting:
    """A tokenizer that counts how often it is called."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer, self.calls = tokenizer, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.tokenizer, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        return self.tokenizer(*args, **kwargs)


def test_a_hundred_thousand_rows_are_a_hundred_calls_of_the_tokenizer(tokenizer: Any, tmp_path: Path) -> None:
    counting = Counting(tokenizer)
    model = SimpleNamespace(tokenizer=counting, parameters=lambda: iter([torch.zeros(1)]))
    file = lines(tmp_path / "many.jsonl", [*ROWS * 50_000, {**ROWS[0], "foil": " he saw"}])
    assert "row 100001 of task 'many': the answer ' he saw' is not one token" in refused(model, file)
    assert counting.calls == 98  # a thousand rows each: all at once would take gigabytes


# Dropping, which a file's author asks for.


def test_what_does_not_fit_is_an_error_or_counted(reader: Any, tmp_path: Path) -> None:
    bad = [{**ROWS[0], "answer": " she saw"}, {**ROWS[0], "clean": "ann saw"}, {**ROWS[0], "answer": " he"}]
    short = {**ROWS[0], "clean": "ann saw", "corrupt": "bob saw"}
    file = lines(tmp_path / "pairs.jsonl", [*ROWS, *bad, short])
    assert "row 3" in refused(reader, file)
    pairs = from_file(reader, path=file, drop=True)
    assert texts(pairs) == [*ROWS, short]
    faults = {
        "the answer is not one token": 1, "clean and corrupt prompt differ in length": 1,
        "answer and foil are the same token": 1,
    }  # fmt: skip
    assert dict(pairs.dropped) == faults
    same = from_file(reader, path=file, drop=True, one_length=True)
    assert texts(same) == ROWS
    assert dict(same.dropped) == {**faults, "another length than the commonest": 1}
    message = refused(reader, lines(tmp_path / "pairs.jsonl", bad), drop=True)
    assert "has no pairs: dropped were 1 (the answer is not one token), 1 (clean and corrupt" in message
