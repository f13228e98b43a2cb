"""Other projects' files: every format reads from a small example made by hand, and what is wrong is named."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from row_files import ROWS, columns, lines, mib_rows, refused, table, texts

import neuron_vs_sae as nvs
from neuron_vs_sae.catalog.tasks import from_file
from neuron_vs_sae.core.errors import InputError


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
    assert hard.corrupt_text == ("ann met a cat",)  # the other row's clean and corrupt prompts are the same then
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
        _, [only] = to_rows("gt.csv", [("row 2", record)], nvs.Columns(), None)
        return only

    assert (row("45")["answer"], row("45")["foil"]) == ("55", "35")
    assert (row(95)["answer"], row(5)["foil"]) == ("99", "02")
    assert row(45)["corrupt"] == "from 1701 to 17"
    with pytest.raises(InputError, match=r"gt.csv, row 2: 'label' must be a year from 2 to 98, .* this is 99"):
        row(99)


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
