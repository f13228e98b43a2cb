"""Prompt pairs: what a file may hold, and every way in which it would lie is refused with its row."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings, strategies as st

from neuron_vs_sae.catalog.tasks import from_file
from neuron_vs_sae.core.building import build, lengths
from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.core.pairs import PromptPairs

ROW = {"clean": "ann saw a cat", "corrupt": "bob saw a cat", "answer": " she", "foil": " he"}


@pytest.fixture(scope="session")
def reader(tokenizer: Any) -> Any:
    """As much of a model as reading a file needs: a tokenizer, and parameters on a device."""
    return SimpleNamespace(tokenizer=tokenizer, parameters=lambda: iter([torch.zeros(1)]))


def read(reader: Any, tmp_path: Path, *rows: dict[str, Any], **options: Any) -> PromptPairs:
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return from_file(reader, path=file, **options)


def refused(reader: Any, tmp_path: Path, text: str | bytes) -> str:
    file = tmp_path / "pairs.jsonl"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(InputError) as caught:
        from_file(reader, path=file)
    assert str(file) in str(caught.value)
    return str(caught.value)


def test_a_row_becomes_its_tokens_behind_one_bos(reader: Any, tmp_path: Path) -> None:
    pairs = read(reader, tmp_path, ROW)
    ids = reader.tokenizer.convert_tokens_to_ids
    assert pairs.clean.tolist() == [ids(["<s>", "ann", "saw", "a", "cat"])]
    assert pairs.corrupt.tolist() == [ids(["<s>", "bob", "saw", "a", "cat"])]
    assert (pairs.answer.tolist(), pairs.foil.tolist()) == ([ids("she")], [ids("he")])
    assert (pairs.name, pairs.bos, pairs.positions, pairs.length.tolist()) == ("pairs", True, 5, [5])
    assert pairs.clean_text == (ROW["clean"],)


def test_without_bos_the_text_alone_counts(reader: Any, tmp_path: Path) -> None:
    pairs = read(reader, tmp_path, ROW, prepend_bos=False)
    assert pairs.positions == 4
    assert not pairs.bos
    given = {**ROW, "clean": "<s> " + ROW["clean"], "corrupt": "<s> " + ROW["corrupt"]}
    assert torch.equal(read(reader, tmp_path, given, prepend_bos=False).clean, read(reader, tmp_path, ROW).clean)


def test_feature_circuits_keys_mean_the_same(reader: Any, tmp_path: Path) -> None:
    theirs = {"clean_prefix": ROW["clean"], "patch_prefix": ROW["corrupt"], "clean_answer": " she", "patch_answer": " he",
              "case": "f_m"}  # fmt: skip
    mine, other = read(reader, tmp_path, {**ROW, "case": "f_m"}), read(reader, tmp_path, theirs)
    for field in ("clean", "corrupt", "length", "answer", "foil"):
        assert torch.equal(getattr(mine, field), getattr(other, field))
    assert (mine.clean_text, mine.foil_text, mine.tags) == (other.clean_text, other.foil_text, other.tags)


def test_other_keys_are_tags(reader: Any, tmp_path: Path) -> None:
    assert read(reader, tmp_path, {**ROW, "case": "f_m", "n": 3}).tags == ({"case": "f_m", "n": "3"},)


def test_windows_line_ends_blank_lines_and_a_byte_order_mark_change_nothing(reader: Any, tmp_path: Path) -> None:
    line = json.dumps(ROW)
    file = tmp_path / "dos.jsonl"
    file.write_bytes(b"\xef\xbb\xbf" + f"{line}\r\n\r\n{line}\r\n".encode())
    pairs = from_file(reader, path=file)
    assert len(pairs) == 2
    assert torch.equal(pairs.clean[:1], read(reader, tmp_path, ROW).clean)


def test_a_line_separator_inside_a_text_is_text(reader: Any, tmp_path: Path) -> None:
    file = tmp_path / "separators.jsonl"
    file.write_text(json.dumps({**ROW, "note": "one\u2028two\x85"}, ensure_ascii=False) + "\n", encoding="utf-8")
    assert from_file(reader, path=file).tags == ({"note": "one\u2028two\x85"},)


def test_prompts_of_several_lengths_are_padded_on_the_right(reader: Any, tmp_path: Path) -> None:
    short = {**ROW, "clean": "ann saw", "corrupt": "bob saw"}
    pairs = read(reader, tmp_path, ROW, short, ROW)
    assert pairs.length.tolist() == [5, 3, 5]
    assert not pairs.same_length
    assert lengths(pairs) == "3 tokens (1), 5 tokens (2)"


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (
            {"clean": "ann saw a big cat"},
            ["clean and corrupt prompt have 6 and 5 tokens", "ann saw a big cat", "reword"],
        ),
        ({"answer": " she saw"}, ["the answer ' she saw' is not one token", "gives ['she', 'saw']", "single token"]),
        ({"foil": " he met"}, ["the answer ' he met' is not one token after 'bob saw a cat'"]),
        ({"answer": ""}, ["the answer '' is not one token", "gives []"]),
        (
            {"answer": "s"},
            ["the answer 's' is not one token after", "begin with a space"],
        ),  # makes the last word another
        ({"answer": " he"}, ["answer and foil are the same token (' he'): nothing to tell apart"]),
        ({"clean": "<s> ann saw a cat"}, ["already begins with BOS ('<s>')", "--no-prepend-bos"]),
        ({"corrupt": "<s> bob saw a"}, ["'<s> bob saw a' already begins with BOS"]),
    ],
)
def test_a_pair_that_would_lie_is_refused_with_its_row(
    change: dict[str, str], parts: list[str], reader: Any, tmp_path: Path
) -> None:
    rows = [ROW, ROW, {**ROW, **change}]
    message = refused(reader, tmp_path, "".join(json.dumps(row) + "\n" for row in rows))
    for part in ["row 3 of task 'pairs'", *parts]:
        assert part in message


def test_an_empty_prompt_without_bos_is_refused(reader: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"row 1 .* the prompt is empty"):
        read(reader, tmp_path, {**ROW, "clean": "", "corrupt": ""}, prepend_bos=False)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ["has no rows: each is a pair, with clean, corrupt, answer, foil"]),
        ("\n \n", ["has no rows"]),
        ("clean,corrupt\n", ["row 1: not JSON", "one object per line"]),
        (json.dumps(ROW) + "\n{\n", ["row 2: not JSON"]),
        (json.dumps([ROW]), ["row 1: a JSON object is expected, this is list"]),
        (
            json.dumps({k: v for k, v in ROW.items() if k != "foil"}),
            ["row 1: the column 'foil' is missing; it has clean,"],
        ),
        ("\n" + json.dumps({**ROW, "answer": 5}), ["row 2: 'answer' must be text, this is 5"]),
        (json.dumps({**ROW, "clean": None}), ["'clean' must be text, this is None"]),
        (b'{"clean": "\xff"}', ["is not UTF-8 text"]),
    ],
)
def test_a_file_that_is_not_pairs_is_refused_with_its_row(
    text: str | bytes, parts: list[str], reader: Any, tmp_path: Path
) -> None:
    message = refused(reader, tmp_path, text)
    for part in parts:
        assert part in message


def test_a_file_that_cannot_be_read_is_named(reader: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none.jsonl cannot be read: No such file"):
        from_file(reader, path=tmp_path / "none.jsonl")
    with pytest.raises(InputError, match="cannot be read: it is a folder, and a file is expected"):
        from_file(reader, path=tmp_path)


def test_a_tokenizer_without_bos_says_so(tokenizer: Any) -> None:
    from transformers import PreTrainedTokenizerFast

    bare = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, unk_token="<unk>")
    with pytest.raises(InputError, match=r"the tokenizer has no BOS token; pass .*--no-prepend-bos"):
        build("task", bare, [ROW])
    assert build("task", bare, [ROW], prepend_bos=False).positions == 4


def test_no_rows_are_no_task(tokenizer: Any) -> None:
    with pytest.raises(InputError, match="task 'none' has no pairs"):
        build("none", tokenizer, [])


# Selections and splits.


def many(tokenizer: Any, n: int = 24) -> PromptPairs:
    """Every prompt is in up to three pairs, so that pairs overlap; `animal` is a tag."""
    girls, boys, animals = ("ann", "eve", "sue", "mia"), ("bob", "dan", "max", "leo"), ("cat", "dog", "hen")
    rows = [
        {"clean": f"{girl} {verb} a {animal}", "corrupt": f"{boys[(i + shift) % 4]} {verb} a {animal}", "answer": " she",
         "foil": " he", "animal": animal}
        for verb in ("saw", "met")
        for animal in animals
        for i, girl in enumerate(girls)
        for shift in range(2)
    ]  # fmt: skip
    return build("many", tokenizer, rows[:n])


def prompts(pairs: PromptPairs) -> set[str]:
    return {*pairs.clean_text, *pairs.corrupt_text}


@given(st.integers(0, 10_000), st.integers(1, 5), st.integers(1, 6))
@settings(max_examples=60, deadline=None)
def test_a_split_shares_no_prompt(tokenizer: Any, seed: int, n_evaluation: int, n_discovery: int) -> None:
    discovery, evaluation = many(tokenizer, 48).split(n_discovery, n_evaluation, seed=seed)
    assert (len(discovery), len(evaluation)) == (n_discovery, n_evaluation)
    assert not prompts(discovery) & prompts(evaluation)
    assert evaluation.overlap(discovery) == discovery.overlap(evaluation) == 0


@given(st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_a_split_by_a_tag_shares_no_value_of_it(tokenizer: Any, seed: int) -> None:
    discovery, evaluation = many(tokenizer, 48).split(10, 12, seed=seed, by="animal")
    assert not {t["animal"] for t in discovery.tags} & {t["animal"] for t in evaluation.tags}
    assert not prompts(discovery) & prompts(evaluation)


def test_a_seed_gives_one_split_and_another_seed_another(tokenizer: Any) -> None:
    pairs = many(tokenizer)
    one, same, other = (pairs.split(4, 4, seed=seed) for seed in (0, 0, 1))
    assert [part.clean_text for part in one] == [part.clean_text for part in same]
    assert one[1].clean_text != other[1].clean_text


def test_identical_pairs_are_counted_once(tokenizer: Any) -> None:
    row = {**ROW, "case": "first"}
    pairs = build("twice", tokenizer, [row, {**ROW, "corrupt": "dan saw a cat"}, {**ROW, "case": "second"}])
    kept = pairs.deduplicated()
    assert kept.corrupt_text == ("bob saw a cat", "dan saw a cat")
    assert kept.tags[0] == {"case": "first"}
    with pytest.raises(InputError, match="task 'twice' has 2 distinct pairs"):
        pairs.split(1, 2)


def test_too_few_pairs_are_refused_with_how_many_there_are(tokenizer: Any) -> None:
    pairs = many(tokenizer, 8)
    with pytest.raises(
        InputError, match=r"9 pairs were requested from task 'many', which has 8; request fewer \(--examples"
    ):
        pairs.sample(9, seed=0)
    with pytest.raises(
        InputError, match=r"8 evaluation pairs leave nothing .* has 8 distinct pairs.*--eval-examples.*--eval-task"
    ):
        pairs.split(1, 8)
    with pytest.raises(
        InputError, match=r"beside 2 for evaluation only (\d) share nothing .*Pass --examples \1 or less"
    ):
        pairs.split(7, 2)
    with pytest.raises(InputError, match=r"cannot be split by 'lemma': its pairs' tags are \['animal'\]"):
        pairs.split(1, 1, by="lemma")
    with pytest.raises(InputError, match="fewer than 9 pairs to hold out by 'animal'"):
        pairs.split(1, 9, by="animal")


def test_a_sample_keeps_the_order_and_draws_without_replacement(tokenizer: Any) -> None:
    pairs = many(tokenizer)
    drawn = pairs.sample(10, seed=3)
    rows = [list(zip(pairs.clean_text, pairs.corrupt_text, strict=True)).index(row)
            for row in zip(drawn.clean_text, drawn.corrupt_text, strict=True)]  # fmt: skip
    assert rows == sorted(set(rows))
    assert pairs.sample(len(pairs), seed=3).clean_text == pairs.clean_text


def test_batches_are_the_pairs_in_order(tokenizer: Any) -> None:
    pairs = many(tokenizer, 7)
    parts = pairs.batches(3)
    assert [len(part) for part in parts] == [3, 3, 1]
    assert torch.equal(torch.cat([part.clean for part in parts]), pairs.clean)
    assert sum((part.tags for part in parts), ()) == pairs.tags


def test_overlap_counts_pairs_with_any_prompt_of_the_other(tokenizer: Any) -> None:
    one = build("one", tokenizer, [ROW, {**ROW, "clean": "eve saw a dog", "corrupt": "max saw a dog"}])
    crossed = build(
        "two", tokenizer, [{"clean": ROW["corrupt"], "corrupt": "sue saw a cat", "answer": " he", "foil": " she"}]
    )
    assert one.overlap(crossed) == 1  # its corrupt prompt is the other's clean one
    assert crossed.overlap(one) == 1


def made(**change: Any) -> PromptPairs:
    tokens, one = torch.ones(2, 3, dtype=torch.long), ("a", "b")
    given: dict[str, Any] = {
        "name": "made", "clean": tokens, "corrupt": tokens, "length": torch.tensor([3, 3]),
        "answer": torch.tensor([1, 1]), "foil": torch.tensor([2, 2]), "clean_text": one, "corrupt_text": one,
        "answer_text": one, "foil_text": one, "tags": ({}, {}), "bos": True,
    }  # fmt: skip
    return PromptPairs(**{**given, **change})


def test_pairs_made_by_hand_are_held_to_the_same() -> None:
    assert len(made()) == 2
    with pytest.raises(InputError, match=r"columns of task 'made' differ in length: .*'tags': 1"):
        made(tags=({},))
    with pytest.raises(InputError, match=r"pair 1 of task 'made' has the same token as answer and foil \('b'\)"):
        made(foil=torch.tensor([2, 1]))
    with pytest.raises(InputError, match="lengths of task 'made' must lie between 1 and 3 tokens"):
        made(length=torch.tensor([3, 4]))
    with pytest.raises(InputError, match="lengths of task 'made' must lie"):
        made(length=torch.tensor([0, 3]))
