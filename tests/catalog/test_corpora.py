"""A corpus is the same text however it is cut, and what is no text is refused before anything runs."""

import json
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import neuron_vs_sae as nvs
from neuron_vs_sae import default
from neuron_vs_sae.catalog import corpora
from neuron_vs_sae.catalog.corpora import corpus, from_tokens
from neuron_vs_sae.default import language
from neuron_vs_sae.default.tokenizer import tokenizer as world_tokenizer


@pytest.fixture(scope="module")
def reader(tokenizer: Any) -> Any:
    """All that a corpus asks of a model."""
    return SimpleNamespace(tokenizer=tokenizer, cfg=SimpleNamespace(n_ctx=64, d_vocab=10_000, model_name="tiny"))


@pytest.fixture(scope="module")
def resident() -> Any:
    return SimpleNamespace(
        tokenizer=world_tokenizer(), cfg=SimpleNamespace(n_ctx=64, d_vocab=10_000, model_name=default.NAMES[0])
    )


TEXT = "ann saw a cat he met max\nand eve saw leo a dog she met bob " * 40


@pytest.mark.parametrize("chunk", [1, 7, 100, 1 << 16])
def test_a_text_file_is_read_in_pieces_as_it_would_be_at_once(
    chunk: int, reader: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corpora, "_CHUNK", chunk)
    file = tmp_path / "text.txt"
    file.write_text(TEXT)
    rows = [context.tokens for context in corpus(reader, str(file), length=9).read()]
    assert {row[0] for row in rows} == {reader.tokenizer.bos_token_id}
    assert [token for row in rows for token in row[1:]] == reader.tokenizer(TEXT)["input_ids"]
    assert {len(row) for row in rows[:-1]} == {9}


def test_a_context_ends_with_its_document(reader: Any, tmp_path: Path) -> None:
    file = tmp_path / "text.jsonl"
    file.write_text(
        "".join(json.dumps({"text": text, "n": 1}) + "\n" for text in ("ann saw a cat", "he", "she met bob")) + "\n"
    )
    rows = [context.tokens[1:] for context in corpus(reader, str(file), length=4).read()]
    said = [reader.tokenizer.decode(row) for row in rows]
    assert said == ["ann saw a", "cat", "he", "she met bob"]
    assert [len(row) for row in (c.tokens for c in corpus(reader, str(file), length=4, contexts=2).read())] == [4, 2]


def test_the_worlds_text_carries_the_hidden_variables_of_every_token(resident: Any) -> None:
    contexts = list(corpus(resident, "world", length=40, contexts=30, seed=3).read())
    assert contexts == list(corpus(resident, "world", length=40, contexts=30, seed=3).read())
    assert contexts != list(corpus(resident, "world", length=40, contexts=30, seed=4).read())
    number = resident.tokenizer.get_vocab()
    sentences = (sentence for _, sentence in language.sentences("corpus 3"))
    last = -1
    for context in contexts:
        assert len(context.tokens) == len(context.latents) == len(context.sequences) <= 40
        assert (context.tokens[0], context.tokens[-1]) == (number["<bos>"], number["<eos>"])
        for sequence in dict.fromkeys(context.sequences[1:-1]):
            assert sequence == last + 1
            last, sentence = sequence, next(sentences)
            here = [i for i, s in enumerate(context.sequences) if s == sequence]
            assert [context.tokens[i] for i in here] == [number[word] for word in sentence.words]
            assert [context.latents[i] for i in here] == sentence.known()


def test_a_batch_holds_contexts_at_rows_that_do_not_depend_on_the_shard() -> None:
    whole = from_tokens("ten", [[0, i] for i in range(1, 11)], special=[0])
    rows = {}
    for batch in whole.batches(4):
        for r, context in enumerate(batch.contexts):
            if context is not None:
                rows[context.tokens[1] - 1] = (batch.first, r)
    for start, stop in [(0, 3), (3, 4), (4, 8), (6, 10), (9, None)]:
        for batch in whole.batches(4, start, stop):
            for r, context in enumerate(batch.contexts):
                number = batch.first + r
                if context is None:
                    assert not batch.real[r].any()
                    assert not start <= number < (stop or 10)
                else:
                    assert context.tokens[1] - 1 == number
                    assert rows[number] == (batch.first, r)
                    assert batch.real[r].tolist() == [False, True]


def test_a_dataset_is_read_by_its_name(reader: Any, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "train.jsonl").write_text(
        "".join(json.dumps({"text": f"ann saw {x}"}) + "\n" for x in ("a", "he", "cat"))
    )
    rows = [context.tokens for context in islice(corpus(reader, str(folder), length=8).read(), 5)]
    assert [reader.tokenizer.decode(row[1:]) for row in rows] == ["ann saw a", "ann saw he", "ann saw cat"]


def test_what_is_no_corpus_is_refused(reader: Any, resident: Any, tmp_path: Path) -> None:
    binary, empty, latin, odd = (tmp_path / name for name in ("binary.txt", "empty.txt", "latin.txt", "odd.jsonl"))
    binary.write_bytes(b"a\0b" * 50)
    empty.write_text("  \n")
    latin.write_bytes("é".encode("latin-1") * 9)
    odd.write_text('{"body": "ann"}\n')
    for source, message in [
        (binary, "not text"),
        (latin, "not text"),
        (empty, "has no text"),
        (odd, "line 1 has no string under 'text' .it has: body"),
        (tmp_path / "missing.txt", "no file"),
        ("nobody/nothing", "cannot be loaded"),
    ]:
        with pytest.raises(nvs.InputError, match=message):
            list(corpus(reader, str(source), length=8).batches(2))
    odd.write_text("ann saw\n")
    with pytest.raises(nvs.InputError, match="line 1 is not JSON"):
        list(corpus(reader, str(odd), length=8).batches(2))
    with pytest.raises(nvs.InputError, match="small world's words"):
        corpus(reader, "world", contexts=3, length=8)
    with pytest.raises(nvs.InputError, match="has no end"):
        corpus(resident, "world", length=8)
    with pytest.raises(nvs.InputError, match="do not hold a sentence"):
        list(corpus(resident, "world", contexts=300, length=8).batches(2))
    for length in (1, 65):
        with pytest.raises(nvs.InputError, match="reads 2 to 64"):
            corpus(reader, str(binary), length=length)
