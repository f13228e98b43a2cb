"""How tasks draw their pairs: by seed, with one layout, in shares, and with what was dropped counted."""

from typing import Any

import pytest
from task_cases import PAIRS, SINGLE, Words, both, of

from neuron_vs_sae.catalog.tasks import _generate
from neuron_vs_sae.catalog.tasks._generate import combinations, parted
from neuron_vs_sae.core.building import build, layouts
from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.core.lookup import bound, known


def test_one_seed_draws_the_same_pairs_and_another_seed_others() -> None:
    model = of(Words(PAIRS))
    one, same, other = (both(model, "ioi", seed=seed)[0] for seed in (0, 0, 1))
    assert one.clean_text == same.clean_text
    assert one.clean_text != other.clean_text


def test_asking_for_fewer_gives_the_first_of_them() -> None:
    model = of(Words(PAIRS))
    few = bound("tasks", "ioi", n=10)(model)
    assert set(few.clean_text) <= set(bound("tasks", "ioi", n=100)(model).clean_text)


def test_too_many_are_refused_with_how_many_there_are() -> None:
    model = of(Words(PAIRS))
    with pytest.raises(InputError) as caught:
        bound("tasks", "successor,kind=months", part="evaluation", n=40)(model)
    # Twelve runs, every third for evaluation: four, in ordered pairs.
    assert "task 'successor_months' has 12 pairs for evaluation" in str(caught.value)
    assert "pass --eval-examples 12 or less. Dropped of 12 candidates: none" in str(caught.value)
    with pytest.raises(
        InputError,
        match=r"has 0 pairs for discovery .* were requested\. Dropped of \d+ candidates: \d+ \(the answer is not one token\)\. Years must be two tokens",
    ):
        bound("tasks", "greater_than")(of(Words(SINGLE)))
    with pytest.raises(InputError, match="With a tokenizer of single digits pass largest=9"):
        bound("tasks", "addition", n=300)(of(Words(SINGLE)))


def test_what_was_dropped_stays_with_the_pairs() -> None:
    pairs = bound("tasks", "capitals", n=100)(of(Words(PAIRS)))
    reasons = dict(pairs.dropped)
    # Little Rock, Baton Rouge, ... are two words; Sioux Falls makes prompts of another length, or elsewhere.
    assert reasons["the answer is not one token"] > 0
    assert pairs.take([0, 1]).dropped == pairs.split(10, 10)[1].dropped == pairs.dropped


def test_words_are_parted_and_combinations_drawn() -> None:
    assert parted("abcdefg") == {"discovery": ("a", "b", "d", "e", "g"), "evaluation": ("c", "f")}
    assert sorted(combinations("ab", (1, 2, 3), seed=0)) == [(x, i) for x in "ab" for i in (1, 2, 3)]
    drawn = combinations(range(100), range(100), range(100), seed=0, n=50)
    assert len(set(drawn)) == 50
    assert drawn == combinations(range(100), range(100), range(100), seed=0, n=50)
    assert all(max(one) > 20 for one in drawn[:5])
    assert len(combinations("ab", "cd", seed=0, n=3)) == 3


def rows_of(*places: tuple[str, str]) -> list[dict[str, str]]:
    """Rows of a part, each with a middle word of one letter or, for other layouts, more words."""
    return [
        {
            "clean": f"{i} {text}",
            "corrupt": f"{i + 50} {text}",
            "answer": " x",
            "foil": " y",
            "part": part,
            "kind": str(i % 2),
        }
        for i, (part, text) in enumerate(places)
    ]


def test_the_layout_kept_is_the_one_that_both_parts_have() -> None:
    """Three of the discovery rows have two words and evaluation has them in one row; the other layout has no evaluation."""
    rows = rows_of(*[("discovery", "a")] * 3, *[("discovery", "a b")] * 5, ("evaluation", "a"))
    wanted = _generate.Wanted("discovery", 3, 0, True)
    pairs = _generate.pick("rows", of(Words(PAIRS)), rows, wanted)
    assert pairs.clean_text == ("0 a", "1 a", "2 a")
    assert pairs.dropped == ((_generate._ELSEWHERE, 5),)


def test_shares_take_turns() -> None:
    rows = [{"kind": kind, "n": str(i)} for i, kind in enumerate("aaaabbc")]
    assert [row["n"] for row in _generate._shares(rows, 5, "kind")] == ["0", "4", "6", "1", "5"]
    assert [row["n"] for row in _generate._shares(rows, 7, "kind")][-2:] == ["2", "3"]
    assert [row["n"] for row in _generate._shares(rows, 3, None)] == ["0", "1", "2"]


def test_layouts_say_in_which_word_each_token_lies() -> None:
    tokenizer = Words(SINGLE)
    assert layouts(tokenizer, ["The 12 cats."]) == [(0, 1, 1, 1, 2, 2)]
    tokenizer.is_fast = False
    assert layouts(tokenizer, ["The 12 cats."]) == [(0,) * 6]


def test_a_model_without_tokenizer_is_told_so() -> None:
    for name in known("tasks"):
        if name not in {"from_file", "from_dataset", "world"}:
            with pytest.raises(InputError, match="the model has no tokenizer"):
                bound("tasks", name)(of(None))


def test_dropped_counts_add_up_and_survive_selection(tokenizer: Any) -> None:
    row = {"clean": "ann saw a cat", "corrupt": "bob saw a cat", "answer": " she", "foil": " he"}
    rows = [row, row, {**row, "answer": " she saw"}, {**row, "clean": "<s> ann saw a"}, {**row, "corrupt": "bob saw"}]
    pairs = build("task", tokenizer, rows, drop=True)
    assert len(pairs) == 2
    expected = {
        "the answer is not one token": 1,
        "the prompt begins with BOS": 1,
        "clean and corrupt prompt differ in length": 1,
    }
    assert dict(pairs.dropped) == expected
    once = pairs.deduplicated()
    assert dict(once.dropped) == {**expected, "the pair is there already": 1}
    assert once.take([0]).batch([0]).to("cpu").dropped == once.dropped
    assert once.deduplicated().dropped == once.dropped


def test_of_equally_common_lengths_the_shortest_stays(tokenizer: Any) -> None:
    row = {"clean": "ann saw a cat", "corrupt": "bob saw a cat", "answer": " she", "foil": " he"}
    short = {**row, "clean": "ann saw", "corrupt": "bob saw"}
    pairs = build("task", tokenizer, [row, short], one_length=True)
    assert (pairs.clean_text, pairs.dropped) == (("ann saw",), (("another length than the commonest", 1),))
