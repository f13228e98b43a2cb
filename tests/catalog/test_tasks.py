"""Built-in tasks: laws that hold for every task and tokenizer."""

import inspect
import re
from typing import Any

import pytest
from task_cases import CASES, FEW, PAIRS, Words, both, of, published

from neuron_vs_sae.core.building import layouts
from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.core.lookup import find, known


def check_law(model: Any, task: str) -> None:
    """What every task promises of both its parts."""
    tokenizer = model.tokenizer
    parts = both(model, task)
    for pairs in parts:
        assert len(pairs.deduplicated()) == len(pairs) == FEW.get(task, (300, 40))[pairs is parts[1]]
        for ids, texts in ((pairs.clean, pairs.clean_text), (pairs.corrupt, pairs.corrupt_text)):
            for row, length, text in zip(ids.tolist(), pairs.length.tolist(), texts, strict=True):
                assert row[0] == tokenizer.bos_token_id
                assert row[:length].count(tokenizer.bos_token_id) == 1
                assert row[1:length] == list(tokenizer(text, add_special_tokens=False).input_ids)
        for texts, following, wanted in (
            (pairs.clean_text, pairs.answer_text, pairs.answer), (pairs.corrupt_text, pairs.foil_text, pairs.foil)
        ):  # fmt: skip
            for text, answer, id_ in zip(texts, following, wanted.tolist(), strict=True):
                alone, whole = (tokenizer(t, add_special_tokens=False).input_ids for t in (text, text + answer))
                assert list(whole) == [*alone, id_]
        assert all("part" not in tags for tags in pairs.tags)
    assert parts[0].overlap(parts[1]) == parts[1].overlap(parts[0]) == 0
    for tag in CASES[task]:
        assert not {t[tag] for t in parts[0].tags} & {t[tag] for t in parts[1].tags}
    if task not in FEW:
        where = {place for pairs in parts for place in layouts(tokenizer, [*pairs.clean_text, *pairs.corrupt_text])}
        assert len(where) == 1
        assert parts[0].same_length
        assert parts[0].positions == parts[1].positions


def test_every_task_with_parts_is_held_to_the_law() -> None:
    own = [name for name in known("tasks") if "part" in inspect.signature(find("tasks", name)).parameters]
    assert {task.split(",")[0] for task in CASES} | {"world"} >= set(own)


@pytest.mark.parametrize("task", list(CASES))
def test_a_task_keeps_its_promises(task: str) -> None:
    check_law(of(Words(PAIRS)), task)


@pytest.mark.assets
@pytest.mark.parametrize("vocabulary", ["gpt2", "pythia"])
@pytest.mark.parametrize("task", list(CASES))
def test_a_task_keeps_its_promises_with_a_published_tokenizer(task: str, vocabulary: str, assets: Any) -> None:
    check_law(of(published(assets / "tokenizers" / vocabulary)), task)


@pytest.mark.assets
@pytest.mark.parametrize("task", list(CASES))
def test_a_vocabulary_of_512_has_no_pairs_and_says_why(task: str, assets: Any) -> None:
    model = of(published(assets / "models" / "stories260K"))
    with pytest.raises(InputError) as caught:
        both(model, task)
    assert re.search(r"has \d+ pairs for discovery with this tokenizer, and \d+ were requested", str(caught.value))
    assert re.search(r"Dropped of \d+ candidates: \d+ \(", str(caught.value))


@pytest.mark.assets
def test_sums_of_one_digit_are_left_to_a_tokenizer_of_digits(assets: Any) -> None:
    discovery, evaluation = both(of(published(assets / "models" / "stories260K")), "addition,largest=9")
    assert discovery.clean_text[0].endswith("Answer: ")
    assert {len(text) for text in (*discovery.answer_text, *evaluation.answer_text)} == {1}
