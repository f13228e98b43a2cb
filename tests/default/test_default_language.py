"""The small world keeps what it promises: what is held out is, every answer is one token, latents are where they say."""

from collections import Counter, defaultdict
from functools import cache
from itertools import islice
from random import Random

import pytest

from neuron_vs_sae.default import language, tokenizer, words as w
from neuron_vs_sae.default.families import _AGREEMENT, DURATIONS, FAMILIES, HELD_OUT_CITIES, STATE_OF, operands
from neuron_vs_sae.default.writing import Sentence, write


@cache
def rows(family: str, part: str) -> list[dict[str, str]]:
    return language.rows(family, part, 120)


@pytest.fixture(scope="module")
def text() -> list[tuple[str, Sentence]]:
    return list(islice(language.sentences(1), 15_000))


def test_the_same_seed_writes_the_same_text():
    first, second, other = (list(islice(language.sentences(seed), 300)) for seed in (5, 5, 6))
    assert first == second != other


def test_every_word_of_the_text_is_a_token_and_text_survives_the_tokenizer(text):
    reader = tokenizer.tokenizer()
    for _, sentence in text[:2000]:
        ids = reader(sentence.text).input_ids
        assert reader.convert_ids_to_tokens(ids) == [tokenizer.BOS, *sentence.words]
        assert reader.decode(ids, skip_special_tokens=True) == sentence.text


@pytest.mark.parametrize("part", ["discovery", "evaluation"])
@pytest.mark.parametrize("family", FAMILIES)
def test_an_answer_is_one_more_token_and_a_pair_has_one_length(family, part):
    reader = tokenizer.tokenizer()
    for row in rows(family, part)[:60]:
        clean, corrupt = reader(row["clean"]).input_ids, reader(row["corrupt"]).input_ids
        assert len(clean) == len(corrupt)
        assert row["answer"] != row["foil"]
        for prompt, ids in ((row["clean"], clean), (row["corrupt"], corrupt)):
            for word in (row["answer"], row["foil"]):
                longer = reader(prompt + word).input_ids
                assert longer[:-1] == ids
                assert longer[-1] != reader.unk_token_id


@pytest.mark.parametrize("family", FAMILIES)
def test_discovery_and_evaluation_share_no_prompt(family):
    prompts = [
        {row[side] for row in rows(family, part) for side in ("clean", "corrupt")}
        for part in ("discovery", "evaluation")
    ]
    assert prompts[0].isdisjoint(prompts[1])


@pytest.mark.parametrize("tag", ["lemma", "city", "country", "names", "name", "concept", "event"])
def test_discovery_and_evaluation_share_no_word(tag):
    for family in FAMILIES:
        values = [
            {word for r in rows(family, part) for word in (r[tag].split() if tag == "names" else [r[tag]])}
            if tag in rows(family, part)[0]
            else {None}
            for part in ("discovery", "evaluation")
        ]
        if values[0] != {None}:
            assert values[0].isdisjoint(values[1]), family


# Facts and antonyms can only be remembered, so all of them are in the training text.
REMEMBERED = {"city_state", "state_capital", "country_capital", "country_continent", "antonym"}


@pytest.mark.parametrize("family", sorted(set(FAMILIES) - REMEMBERED))
def test_no_evaluation_question_is_answered_in_the_training_text(text, family):
    asked = {(row["clean"], row["answer"].strip()) for row in rows(family, "evaluation")}
    told = {(s.prompt, s.words[s.answer]) for _, s in text}
    assert asked.isdisjoint(told)


def test_no_sentence_names_a_held_out_city_with_its_states_capital(text):
    capital = {city: STATE_OF[city].capital for city in HELD_OUT_CITIES}
    for _, sentence in text:
        for city in capital.keys() & set(sentence.words):
            assert capital[city] not in sentence.words


def test_a_fifth_of_the_cities_is_held_out_and_every_state_has_some_of_both():
    cities = [city for state in w.STATES for city in state.cities]
    assert len(HELD_OUT_CITIES) == len(cities) / 5
    for state in w.STATES:
        held_out = set(state.cities) & set(HELD_OUT_CITIES)
        assert 1 <= len(held_out) <= 2
    assert all(len(state.cities) >= 3 for state in w.STATES)


def test_names_mean_one_thing():
    names = Counter(x for state in w.STATES for x in (state.name, state.capital, *state.cities))
    names.update(x for country in w.COUNTRIES for x in (country.name, country.capital))
    names.update((*w.NAMES, *w.INVENTED))
    assert max(names.values()) == 1


@pytest.mark.parametrize("structure", ["nounpp", "rc", "within_rc"])
@pytest.mark.parametrize("part", ["train", "discovery", "evaluation"])
def test_the_distractors_number_is_mismatched_half_the_time(structure, part):
    draw = Random(0)
    n = 2000
    mismatched = 0
    for _ in range(n):
        known = language.pair(f"agreement_{structure}", draw, part).clean.known()[-1]
        mismatched += known["number"] != known["distractor_number"]
    assert abs(mismatched / n - 0.5) < 0.056  # five standard deviations


def test_latents_are_known_from_the_word_that_fixes_them():
    sentence = write(
        _AGREEMENT["nounpp"],
        {"noun": "dogs", "preposition": "near", "other": "car", "answer": "are", "rest": "here"},
        {"number": ("noun", "plural"), "distractor_number": ("other", "singular")},
    )
    assert sentence.text == "The dogs near the car are here."
    assert sentence.prompt == "The dogs near the car"
    assert [known.get("number") for known in sentence.known()] == [None] + ["plural"] * 7
    assert [known.get("distractor_number") for known in sentence.known()] == [None] * 4 + ["singular"] * 4


def test_every_pair_changes_what_the_answer_depends_on():
    for family in FAMILIES:
        draw = Random(3)
        for _ in range(50):
            pair = language.pair(family, draw, "discovery")
            assert pair.clean.prompt != pair.corrupt.prompt
            assert pair.clean.words[pair.clean.answer] != pair.corrupt.words[pair.corrupt.answer]


def test_an_end_year_is_possible_after_its_own_start_only():
    for row in rows("greater_than", "evaluation"):
        starts = [int([x for x in row[side].split() if x.isdigit()][1]) for side in ("clean", "corrupt")]
        ends = int(row["answer"]), int(row["foil"])
        assert [end - start in DURATIONS for end in ends for start in starts] == [True, False, False, True]


def test_sums_are_sums():
    by_part = defaultdict(set)
    for part in ("train", "evaluation"):
        for a, b in operands(part):
            by_part[part].add((a, b))
    assert by_part["train"].isdisjoint(by_part["evaluation"])
    assert all((b, a) in by_part["train"] for a, b in by_part["evaluation"])
    for row in rows("addition", "evaluation"):
        a, b = (int(x) for x in row["clean"].replace("plus", "+").split() if x.isdigit())
        assert int(row["answer"]) == a + b


@pytest.mark.parametrize("family", FAMILIES)
def test_a_template_gives_every_pair_one_length(family):
    """So that a node at a position means one thing."""
    for template in range(len(FAMILIES[family].templates)):
        found = language.rows(family, "discovery", 12, template=template)
        assert len(found) >= 10
        assert {row["template"] for row in found} <= {FAMILIES[family].templates[template]}
        assert len({len(row[side].split()) for row in found for side in ("clean", "corrupt")}) <= 1


def test_the_shares_are_those_of_the_text(text):
    total = sum(family.share for family in FAMILIES.values())
    counted = Counter(family for family, _ in text)
    for name, family in FAMILIES.items():
        assert abs(counted[name] / len(text) - family.share / total) < 0.01
