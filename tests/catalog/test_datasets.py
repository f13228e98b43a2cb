"""Pairs from datasets, and the published splits."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from row_files import ROWS, lines, mib_rows, texts

import neuron_vs_sae as nvs
from neuron_vs_sae.catalog.tasks import from_dataset, from_file
from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.core.lookup import bound

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
