"""Files of pairs: every format reads from a small example made by hand, and what is wrong is named by file and row."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import neuron_vs_sae as nvs
from neuron_vs_sae.catalog.tasks import from_dataset, from_file
from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.core.lookup import bound
from neuron_vs_sae.core.pairs import PromptPairs
from neuron_vs_sae.studies.spec import looks_like_file

ROWS = [
    {"clean": "ann saw a cat", "corrupt": "bob saw a cat", "answer": " she", "foil": " he"},
    {"clean": "max met a hen", "corrupt": "mia met a hen", "answer": " he", "foil": " she"},
]
FOUR = ("clean", "corrupt", "answer", "foil")


@pytest.fixture(scope="session")
def reader(tokenizer: Any) -> Any:
    return SimpleNamespace(tokenizer=tokenizer, parameters=lambda: iter([torch.zeros(1)]))


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


# This project's columns.


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


# Other projects' formats.


def test_feature_circuits_lines(reader: Any, tmp_path: Path) -> None:
    names = {"clean": "clean_prefix", "corrupt": "patch_prefix", "answer": "clean_answer", "foil": "patch_answer"}
    rows = [{names[key]: text for key, text in row.items()} | {"case": "singular"} for row in ROWS]
    for format_ in ("auto", "feature-circuits"):
        pairs = from_file(reader, path=lines(tmp_path / "simple_train.json", rows), columns=nvs.Columns(format=format_))
        assert texts(pairs) == ROWS
        assert pairs.tags == ({"case": "singular"},) * 2
    del rows[1]["patch_answer"]
    message = refused(reader, lines(tmp_path / "simple_train.json", rows))
    assert "row 2: the column 'patch_answer' is missing; it has clean_prefix, patch_prefix" in message


def auto_circuit() -> dict[str, Any]:
    first, second = ROWS
    return {
        "seq_labels": ["who", "saw"],
        "prompts": [
            {
                "clean": first["clean"],
                "corrupt": first["corrupt"],
                "answers": [" she"],
                "wrong_answers": [" he", " bob"],
            },
            {"clean": second["clean"], "corrupt": second["corrupt"], "answers": [" he"], "wrong_answers": [" she"]},
        ],
    }


def test_auto_circuits_document(reader: Any, tmp_path: Path) -> None:
    file = tmp_path / "prompts.json"
    for indent in (None, 2):
        file.write_text(json.dumps(auto_circuit(), indent=indent))
        pairs = from_file(reader, path=file)
        assert texts(pairs) == ROWS
        assert pairs.tags == ({"other_wrong_answers": '[" bob"]'}, {})
    other = tmp_path / "prompts.txt"
    other.write_text(file.read_text())
    assert texts(from_file(reader, path=other, columns=nvs.Columns(format="auto-circuit"))) == ROWS


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (
            lambda found: found["prompts"][1].update(wrong_answers=[]),
            "row 2: 'wrong_answers' must be a list of at least",
        ),
        (lambda found: found["prompts"][1].update(wrong_answers=" she"), "row 2: 'wrong_answers' must be a list"),
        (lambda found: found["prompts"][1].update(wrong_answers=[5]), "row 2: 'foil' must be text, this is 5"),
        (lambda found: found["prompts"][0].pop("corrupt"), "row 1: the column 'corrupt' is missing"),
        (lambda found: found["prompts"].insert(0, "text"), "row 1: a JSON object is expected, this is str"),
        (lambda found: found.update(prompts={}), "has no list of 'prompts'"),
        (lambda found: found.update(prompts=[]), "has no rows"),
    ],
)
def test_an_auto_circuit_document_that_is_wrong_is_refused(
    change: Callable[[Any], Any], part: str, reader: Any, tmp_path: Path
) -> None:
    found = auto_circuit()
    change(found)
    file = tmp_path / "prompts.json"
    file.write_text(json.dumps(found))
    assert part in refused(reader, file)


def test_an_auto_circuit_document_that_is_not_json_says_where(reader: Any, tmp_path: Path) -> None:
    file = tmp_path / "prompts.json"
    file.write_text('{"prompts": [}')
    assert "is not JSON (Expecting value: line 1 column 14" in refused(
        reader, file, columns=nvs.Columns(format="auto-circuit")
    )


def eap_rows(tokenizer: Any) -> list[dict[str, Any]]:
    ids = tokenizer.convert_tokens_to_ids
    return [
        {"clean": row["clean"], "corrupted": row["corrupt"], "corrupted_hard": row["clean"].replace("saw", "met"),
         "correct_idx": ids(row["answer"][1:]), "incorrect_idx": ids(row["foil"][1:])}
        for row in ROWS
    ]  # fmt: skip


def spaced(tokenizer: Any) -> Any:
    """The word tokenizer with a space in front of what it decodes, as GPT-2's tokens have their own."""

    class Spaced:
        def __getattr__(self, name: str) -> Any:
            return getattr(tokenizer, name)

        def __len__(self) -> int:
            return len(tokenizer)

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return tokenizer(*args, **kwargs)

        def decode(self, ids: list[int], **_: Any) -> str:
            return "".join(f" {word}" for word in tokenizer.convert_ids_to_tokens(ids))

    return Spaced()


@pytest.fixture
def spaced_reader(tokenizer: Any) -> Any:
    return SimpleNamespace(tokenizer=spaced(tokenizer), parameters=lambda: iter([torch.zeros(1)]))


def test_eap_ig_tables_name_the_tokenizer_of_their_ids(
    spaced_reader: Any, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = table(tmp_path / "ioi.csv", eap_rows(tokenizer))
    assert "row 2: this format's answers are token ids" in refused(spaced_reader, file)
    pairs = from_file(spaced_reader, path=file, columns=nvs.Columns(ids_from="model"))
    assert texts(pairs) == ROWS
    assert pairs.answer.tolist() == [row["correct_idx"] for row in eap_rows(tokenizer)]
    hard = from_file(
        spaced_reader, path=file, columns=nvs.Columns(ids_from="model", corrupt="corrupted_hard"), drop=True
    )
    assert hard.corrupt_text == ("ann met a cat", "max met a hen")
    # Another tokenizer's ids are that tokenizer's words.
    monkeypatch.setattr("neuron_vs_sae.catalog.rows.formats._tokenizer", lambda name: _Two())
    rows = [{**row, "correct_idx": 1 - i, "incorrect_idx": f"[{i}]"} for i, row in enumerate(eap_rows(tokenizer))]
    found = from_file(spaced_reader, path=table(tmp_path / "their.csv", rows), columns=nvs.Columns(ids_from="theirs"))
    assert texts(found) == ROWS


@pytest.mark.assets
def test_an_id_of_a_sentencepiece_tokenizer_keeps_the_space_that_it_begins_with(stories: Any, tmp_path: Path) -> None:
    """Decoded alone it would lose it."""
    ids = {word: stories.tokenizer.convert_tokens_to_ids(word) for word in ("▁he", "▁she")}
    rows = [
        {
            "clean": "Lily said that",
            "corrupted": "They said that",
            "correct_idx": ids["▁he"],
            "incorrect_idx": ids["▁she"],
        }
    ]
    file = table(tmp_path / "pronouns.csv", rows)
    found = from_file(stories, path=file, columns=nvs.Columns(ids_from="model"))
    assert (found.answer.tolist(), found.foil.tolist()) == ([ids["▁he"]], [ids["▁she"]])
    renamed = [
        {"clean": row["clean"], "corrupted": row["corrupted"], "a": ids["▁he"], "b": ids["▁she"]} for row in rows
    ]
    again = from_file(
        stories,
        path=table(tmp_path / "other.csv", renamed),
        columns=nvs.Columns(ids_from="model", answer="a", foil="b"),
    )
    assert again.answer.tolist() == found.answer.tolist()


def test_a_column_that_is_there_twice_is_refused(spaced_reader: Any, tmp_path: Path) -> None:
    file = tmp_path / "twice.csv"
    file.write_text("clean,corrupt,answer,foil,foil\nann saw a,bob saw a, she, he, cat\n")
    assert "row 1: the column 'foil' is there twice" in refused(spaced_reader, file)


def test_files_of_other_kinds_are_refused_by_their_ending(spaced_reader: Any, tmp_path: Path) -> None:
    for name in ("pairs.tsv", "pairs.jsonl.gz", "pairs.XLSX"):
        (tmp_path / name).write_text("x")
        assert "files of pairs are .jsonl, .json, .csv or .parquet" in refused(spaced_reader, tmp_path / name)


class _Two:
    """A tokenizer of two tokens: 0 is ` he`, 1 is ` she`."""

    def __len__(self) -> int:
        return 2

    def decode(self, ids: list[int], **_: Any) -> str:
        return "".join([" he", " she"][i] for i in ids)


@pytest.mark.parametrize(
    ("value", "part"),
    [
        ("", "'correct_idx' must be a whole number, this is ''"),
        ("she", "'correct_idx' must be a whole number, this is 'she'"),
        ("999", "'correct_idx' is 999, and the tokenizer has 19 tokens: it is not the one that made it"),
        ("-1", "'correct_idx' is -1"),
        ("[3, 4]", "'correct_idx' must be one token id, this is a list of several ([3, 4])"),
    ],
)
def test_a_token_id_that_cannot_be_is_refused(
    value: str, part: str, spaced_reader: Any, tokenizer: Any, tmp_path: Path
) -> None:
    rows = eap_rows(tokenizer)
    rows[1]["correct_idx"] = value
    message = refused(spaced_reader, table(tmp_path / "ioi.csv", rows), columns=nvs.Columns(ids_from="model"))
    assert f"row 3: {part}" in message  # the header is row 1


def test_the_tokenizer_of_ids_that_is_not_there_is_named(reader: Any, tokenizer: Any, tmp_path: Path) -> None:
    file = table(tmp_path / "ioi.csv", eap_rows(tokenizer))
    assert "the tokenizer '" in refused(reader, file, columns=nvs.Columns(ids_from=str(tmp_path / "none")))


def test_eap_igs_greater_than_takes_years_on_either_side() -> None:
    from neuron_vs_sae.catalog.rows.formats import to_rows

    def row(label: Any) -> Any:
        record = {"clean": "from 1745 to 17", "corrupted": "from 1701 to 17", "label": label}
        return to_rows("gt.csv", [("row 2", record)], nvs.Columns(), None)[0]

    assert (row("45")["answer"], row("45")["foil"]) == ("55", "35")
    assert (row(95)["answer"], row(5)["foil"]) == ("99", "02")
    assert row(45)["corrupt"] == "from 1701 to 17"
    with pytest.raises(InputError, match=r"gt.csv, row 2: 'label' must be a year from 2 to 98, .* this is 99"):
        row(99)


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


@pytest.mark.parametrize(("ending", "write"), [("jsonl", lines), ("parquet", columns)])
def test_mibs_columns(ending: str, write: Callable[..., Path], reader: Any, tmp_path: Path) -> None:
    file = write(tmp_path / f"ioi.{ending}", mib_rows())
    pairs = from_file(reader, path=file)
    assert texts(pairs) == ROWS
    assert pairs.tags[0] == {"template": "{name} saw", "answerKey": "1", "counterfactual": "s2_io_flip"}
    other = from_file(reader, path=file, columns=nvs.Columns(counterfactual="abc"))
    assert other.foil_text == (" cat", " cat")
    message = refused(reader, file, columns=nvs.Columns(counterfactual="none"))
    assert "row 1: there is no counterfactual none: pass counterfactual=, one of s2_io_flip, abc" in message


def test_mibs_rows_have_one_counterfactual_for_all(reader: Any, tmp_path: Path) -> None:
    """Chosen at the first: another one in a later row would be another experiment."""
    one, other = mib_rows()[0], dict(mib_rows()[1])
    other.pop("s2_io_flip_counterfactual")
    other["random_counterfactual"] = one["s2_io_flip_counterfactual"]
    file = lines(tmp_path / "ioi.jsonl", [one, other])
    assert "row 2: there is no counterfactual s2_io_flip" in refused(reader, file)


def test_mibs_letters_and_numbers(reader: Any, tmp_path: Path) -> None:
    """Multiple choice answers with the choice's label, arithmetic with `label`; after a space no other one is put."""
    letters = {
        "prompt": "ann saw a cat", "choices": {"label": ["he", "she"], "text": ["red", "blue"]}, "answerKey": 1,
        "symbol_counterfactual": {
            "prompt": "bob saw a cat", "choices": {"label": ["he", "she"], "text": ["red", "blue"]}, "answerKey": 0
        },
        "other_counterfactual": {"prompt": "x"},
    }  # fmt: skip
    assert texts(from_file(reader, path=lines(tmp_path / "mcqa.jsonl", [letters]))) == ROWS[:1]
    numbers = {
        "prompt": "ann saw a cat ", "label": "she", "operand1": 1,
        "random_counterfactual": {"prompt": "bob saw a cat ", "label": "he", "operand1": 2},
    }  # fmt: skip
    pairs = from_file(reader, path=lines(tmp_path / "arithmetic.jsonl", [numbers]))
    assert (pairs.answer_text, pairs.foil_text) == (("she",), ("he",))


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"answerKey": 7}, "'answerKey' is 7, and 'choices' are ['he', 'she']"),
        ({"answerKey": None}, "'answerKey' must be a whole number, this is None"),
        ({"choices": None}, "'answerKey' is 1, and 'choices' are None"),
        ({"s2_io_flip_counterfactual": None}, "'s2_io_flip_counterfactual' must be an object with a prompt"),
        ({"s2_io_flip_counterfactual": {}}, "the column 'prompt' is missing; it has none"),
        ({"prompt": 5}, "'clean' must be text, this is 5"),
    ],
)
def test_mib_rows_that_are_wrong_are_refused(change: dict[str, Any], part: str, reader: Any, tmp_path: Path) -> None:
    file = lines(tmp_path / "ioi.jsonl", [mib_rows()[0], {**mib_rows()[0], **change}])
    assert f"row 2: {part}" in refused(reader, file)


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
    with pytest.raises(InputError, match=r"none.parquet cannot be read as Parquet"):
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


def test_a_hundred_thousand_rows_are_one_call_of_the_tokenizer(tokenizer: Any, tmp_path: Path) -> None:
    counting = Counting(tokenizer)
    model = SimpleNamespace(tokenizer=counting, parameters=lambda: iter([torch.zeros(1)]))
    file = lines(tmp_path / "many.jsonl", [*ROWS * 50_000, {**ROWS[0], "foil": " he saw"}])
    assert "row 100001 of task 'many': the answer ' he saw' is not one token" in refused(model, file)
    assert counting.calls == 1


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


# `datasets`.


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two splits, saved by the library itself."""
    import datasets

    folder = tmp_path_factory.mktemp("datasets") / "pairs"
    made = {"train": datasets.Dataset.from_list(ROWS), "validation": datasets.Dataset.from_list(ROWS[1:])}
    datasets.DatasetDict(made).save_to_disk(folder)
    return folder


def test_a_dataset_is_read_from_disk(reader: Any, dataset: Path) -> None:
    pairs = from_dataset(reader, source=str(dataset))
    assert (pairs.name, texts(pairs)) == ("pairs", ROWS)
    task = bound("tasks", f"from_dataset:{dataset},split=validation", prepend_bos=True)
    assert texts(task(reader)) == ROWS[1:]
    assert texts(from_dataset(reader, source=str(dataset / "train"))) == ROWS
    with pytest.raises(InputError, match=r"has no split 'test'; pass split=, one of train, validation"):
        from_dataset(reader, source=str(dataset), split="test")


def test_a_folder_of_data_files_is_a_dataset(reader: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "ioi"
    folder.mkdir()
    lines(folder / "train.jsonl", mib_rows())
    pairs = from_dataset(reader, source=str(folder), columns=nvs.Columns(counterfactual="s2_io_flip"))
    assert texts(pairs) == ROWS
    with pytest.raises(InputError, match=r"ioi, row 1: clean= names no column in the format 'mib'; pass format=pairs"):
        from_dataset(reader, source=str(folder), columns=nvs.Columns(clean="prompt"))
    with pytest.raises(InputError, match=r"ioi, row 1: the column 'prefix' is missing; it has template"):
        from_dataset(reader, source=str(folder), columns=nvs.Columns(clean="prefix", format="pairs"))


def test_a_dataset_that_cannot_be_had_says_so(reader: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def offline(*_: Any, **__: Any) -> None:
        raise ConnectionError("Couldn't reach 'nobody/nothing' on the Hub (OfflineModeIsEnabled)\nand so on")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    with pytest.raises(
        InputError, match=r"dataset 'nobody/nothing' cannot be loaded: Couldn't reach .*Enabled\). It must be"
    ):
        from_dataset(reader, source="nobody/nothing")
    with pytest.raises(InputError, match=r"is a file: read it with from_file:"):
        from_dataset(reader, source=str(lines(tmp_path / "pairs.jsonl", ROWS)))


# The published splits.


@pytest.mark.assets
@pytest.mark.parametrize(
    ("subset", "rows", "unique", "leaked"),
    [
        ("simple", (480, 120), (150, 85), 113),
        ("nounpp", (1920, 480), (1727, 469), 83),
        ("within_rc", (9600, 2400), (3097, 1728), 2302),
    ],
)
def test_the_published_test_splits_leak_and_ours_do_not(
    subset: str, rows: tuple[int, int], unique: tuple[int, int], leaked: int, assets: Path
) -> None:
    """feature-circuits' subject-verb agreement (MIT): most of two of its test files are rows of its train files.

    Read with a tokenizer of whole words, for which every row is a pair. So `split` counts identical pairs once, holds out
    what shares no prompt, and two files that overlap are not compared without asking.
    """
    train, test = (assets / "tasks" / "sva" / f"{subset}_{part}.json" for part in ("train", "test"))
    model = words_of(train, test)
    seen, held_out = (from_file(model, path=file, prepend_bos=False) for file in (train, test))
    assert (len(seen), len(held_out)) == rows
    assert (len(seen.deduplicated()), len(held_out.deduplicated())) == unique
    assert dict(seen.deduplicated().dropped) == {"the pair is there already": rows[0] - unique[0]}
    known = {tuple(row.values()) for row in texts(seen)}
    assert sum(tuple(row.values()) in known for row in texts(held_out)) == leaked
    assert held_out.overlap(seen) >= leaked
    discovery, evaluation = seen.split(30, 10)
    assert evaluation.overlap(discovery) == 0


def words_of(*files: Path) -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {word for file in files for line in file.read_text().splitlines() for text in json.loads(line).values()
             for word in text.split()}  # fmt: skip
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(["<unk>", *sorted(words)])}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>")
    return SimpleNamespace(tokenizer=tokenizer, parameters=lambda: iter([torch.zeros(1)]))
