"""The answers of the built-in tasks, checked by hand, and their chat form."""

import inspect
import re
from collections import Counter
from typing import Any

import pytest
from task_cases import PAIRS, Words, both, of, prompts, published

from neuron_vs_sae.catalog.tasks import _generate, capitals, countries
from neuron_vs_sae.catalog.tasks._chat import rendered
from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.core.lookup import bound, find

PLURAL = {" are": " is", " were": " was", " have": " has", " do": " does", " go": " goes"}


def is_plural(noun: str) -> bool:
    return noun in {"men", "women", "children"} or noun.endswith("s")


@pytest.mark.parametrize("structure", ["simple", "nounpp", "rc", "within_rc"])
def test_verbs_agree_with_the_right_noun_and_the_other_noun_disagrees_half_the_time(structure: str) -> None:
    """`The N`, `The N near the D`, `The N that the D sees`, `The D that the N`: the N's number is the answer's."""
    pairs, _ = both(of(Words(PAIRS)), f"agreement,structure={structure}")
    mismatched = 0
    for clean, corrupt, answer, foil, tags in zip(
        pairs.clean_text, pairs.corrupt_text, pairs.answer_text, pairs.foil_text, pairs.tags, strict=True
    ):
        before, after = clean.split(), corrupt.split()
        at = 4 if structure == "within_rc" else 1
        assert [i for i, (a, b) in enumerate(zip(before, after, strict=True)) if a != b] == [at]
        assert is_plural(before[at]) != is_plural(after[at])
        plural, singular = (answer, foil) if is_plural(before[at]) else (foil, answer)
        assert PLURAL[plural] == singular
        number = "plural" if is_plural(before[at]) else "singular"
        if structure == "simple":
            assert tags["case"] == number
            continue
        other = 1 if structure == "within_rc" else 4
        theirs = "plural" if is_plural(before[other]) else "singular"
        assert tags["case"] == (f"{theirs}_{number}" if structure == "within_rc" else f"{number}_{theirs}")
        mismatched += number != theirs
        if structure == "rc":
            assert before[5].endswith("s") != is_plural(before[other])
    cases = Counter(tags["case"] for tags in pairs.tags)
    assert set(cases.values()) == ({150} if structure == "simple" else {75})
    assert mismatched == (0 if structure == "simple" else 150)


@pytest.mark.parametrize("counterfactual", ["swap", "names"])
def test_the_indirect_object_is_the_name_said_once(counterfactual: str) -> None:
    pairs, _ = both(of(Words(PAIRS)), f"ioi,counterfactual={counterfactual}")
    form = re.compile(r"\w+ (\w+) and (\w+) \w+ to the \w+, (\w+) \w+ a \w+ to")
    for clean, corrupt, answer, foil, tags in zip(
        pairs.clean_text, pairs.corrupt_text, pairs.answer_text, pairs.foil_text, pairs.tags, strict=True
    ):
        first, second, giver = form.fullmatch(clean).groups()  # pyright: ignore[reportOptionalMemberAccess]
        (receiver,) = {first, second} - {giver}
        assert (answer, foil) == (f" {receiver}", f" {giver}")
        assert tags["order"] == ("ABBA" if giver == second else "BABA")
        others = form.fullmatch(corrupt).groups()  # pyright: ignore[reportOptionalMemberAccess]
        if counterfactual == "swap":
            assert others == (first, second, receiver)
        else:
            assert len({first, second, *others}) == 5
        between = [(a, b) for a, b in zip(clean.split(), corrupt.split(), strict=True) if a != b]
        assert len(between) == (1 if counterfactual == "swap" else 3)
    assert Counter(tags["order"] for tags in pairs.tags) == {"ABBA": 150, "BABA": 150}


def test_years_come_after_the_first_and_only_then() -> None:
    pairs, _ = both(of(Words(PAIRS)), "greater_than")
    form = re.compile(r"The \w+ lasted from the year (\d\d)(\d\d) to the year (\d\d)")
    for clean, corrupt, answer, foil in zip(
        pairs.clean_text, pairs.corrupt_text, pairs.answer_text, pairs.foil_text, strict=True
    ):
        century, year, again = form.fullmatch(clean).groups()  # pyright: ignore[reportOptionalMemberAccess]
        assert again == century
        assert corrupt == clean.replace(century + year, f"{century}01")
        assert 1 < int(foil) < int(year) < int(answer) <= 99
        assert int(answer) - int(year) == int(year) - int(foil)
        assert len(answer) == len(foil) == 2


def test_sums_are_sums_and_no_operands_are_in_both_parts() -> None:
    seen = []
    for pairs in both(of(Words(PAIRS)), "addition,largest=40"):
        problems = set()
        for texts, sums in ((pairs.clean_text, pairs.answer_text), (pairs.corrupt_text, pairs.foil_text)):
            for text, total in zip(texts, sums, strict=True):
                x, y = map(int, re.fullmatch(r"Question: What is (\d+) \+ (\d+)\?\nAnswer:", text).groups())  # pyright: ignore[reportOptionalMemberAccess]
                assert total == f" {x + y}"
                problems.add(frozenset((x, y)))
        seen.append(problems)
    assert not seen[0] & seen[1]


CAPITALS = """Montgomery Alabama/Juneau Alaska/Phoenix Arizona/Little Rock Arkansas/Sacramento California/Denver Colorado
Hartford Connecticut/Dover Delaware/Tallahassee Florida/Atlanta Georgia/Honolulu Hawaii/Boise Idaho/Springfield Illinois
Indianapolis Indiana/Des Moines Iowa/Topeka Kansas/Frankfort Kentucky/Baton Rouge Louisiana/Augusta Maine
Annapolis Maryland/Boston Massachusetts/Lansing Michigan/Saint Paul Minnesota/Jackson Mississippi/Jefferson City Missouri
Helena Montana/Lincoln Nebraska/Carson City Nevada/Concord New Hampshire/Trenton New Jersey/Santa Fe New Mexico
Albany New York/Raleigh North Carolina/Bismarck North Dakota/Columbus Ohio/Oklahoma City Oklahoma/Salem Oregon
Harrisburg Pennsylvania/Providence Rhode Island/Columbia South Carolina/Pierre South Dakota/Nashville Tennessee
Austin Texas/Salt Lake City Utah/Montpelier Vermont/Richmond Virginia/Olympia Washington/Charleston West Virginia
Madison Wisconsin/Cheyenne Wyoming""".replace("\n", "/").split("/")


def test_fifty_states_have_their_capitals() -> None:
    """The list on this page is of its own: `CAPITAL STATE`."""
    module = inspect.getmodule(capitals)
    triples = module.TRIPLES  # pyright: ignore[reportOptionalMemberAccess, reportAttributeAccessIssue]
    assert sorted(f"{capital} {state}" for _, state, capital in triples) == sorted(CAPITALS)
    assert len(triples) == len({city for city, _, _ in triples}) == len({state for _, state, _ in triples}) == 50
    assert not {city for city, _, _ in triples} & {capital for _, _, capital in triples}


def test_a_city_asks_for_its_states_capital() -> None:
    pairs, _ = both(of(Words(PAIRS)), "capitals")
    found = dict(zip((t["city"] for t in pairs.tags), pairs.answer_text, strict=True))
    assert (found["Dallas"], found["Chicago"], found["Seattle"]) == (" Austin", " Springfield", " Olympia")
    for clean, corrupt, tags in zip(pairs.clean_text, pairs.corrupt_text, pairs.tags, strict=True):
        assert clean == f"The capital of the state {tags['template']} {tags['city']} is"
        differing = [a for a, b in zip(clean.split(), corrupt.split(), strict=True) if a != b]
        assert differing == [tags["city"]]


def test_countries_are_where_they_are() -> None:
    module = inspect.getmodule(countries)
    triples = module.TRIPLES  # pyright: ignore[reportOptionalMemberAccess, reportAttributeAccessIssue]
    where = {country: (capital, continent) for continent, some in triples.items() for country, capital in some}
    for country, capital, continent in (
        ("France", "Paris", "Europe"), ("Japan", "Tokyo", "Asia"), ("Kenya", "Nairobi", "Africa"), ("Oman", "Muscat", "Asia"),
        ("Latvia", "Riga", "Europe"), ("Morocco", "Rabat", "Africa"), ("Nepal", "Kathmandu", "Asia"),
    ):  # fmt: skip
        assert where[country] == (capital, continent)
    assert len(where) == len({capital for capital, _ in where.values()}) == sum(map(len, triples.values()))


def test_recall_and_reasoning_differ_by_two_words_and_the_name_at_the_same_places() -> None:
    model = of(Words(PAIRS))
    recall, reasoning = (both(model, f"countries,hops={hops}")[0] for hops in ("recall", "reasoning"))
    assert {len(text.split()) for text in (*prompts(recall), *prompts(reasoning))} == {10}
    assert {text.split()[-1] for text in (*prompts(recall), *prompts(reasoning))} == {"of"}
    for pairs in (recall, reasoning):
        assert len({tags["template"] for tags in pairs.tags}) >= 3
        assert {tags["hops"] for tags in pairs.tags} == {pairs.name.removeprefix("countries_")}
        for clean, corrupt in zip(pairs.clean_text, pairs.corrupt_text, strict=True):
            different = [i for i, (a, b) in enumerate(zip(clean.split(), corrupt.split(), strict=True)) if a != b]
            assert different == [4]
        assert max(Counter(tags["continent"] for tags in pairs.tags).values()) == 100
    france = {tags["template"]: text for text, tags in zip(reasoning.clean_text, reasoning.tags, strict=True)
              if tags["country"] == "France"}  # fmt: skip
    assert all("Paris" in text and "France" not in text for text in france.values())


def test_nine_languages_have_six_words_each_that_are_opposites_both_ways() -> None:
    module = inspect.getmodule(find("tasks", "antonyms"))
    languages = module._LANGUAGES  # pyright: ignore[reportOptionalMemberAccess, reportAttributeAccessIssue]
    words = [(key, word) for key, found in languages.items() for two in found[0] for word in two]
    assert len(languages) == 9
    assert len(set(words)) == len(words) == 54
    pairs, _ = both(of(Words(PAIRS)), "antonyms")
    opposite = {
        (t["language"], t["word"]): answer.strip() for t, answer in zip(pairs.tags, pairs.answer_text, strict=True)
    }
    for (language, word), other in opposite.items():
        assert opposite.get((language, other), word) == word
    assert {k: v for k, v in opposite.items() if k[0] in ("en", "de")}.items() <= {
        ("en", "big"): "small", ("en", "small"): "big", ("en", "fast"): "slow", ("en", "slow"): "fast",
        ("de", "groß"): "klein", ("de", "klein"): "groß", ("de", "schnell"): "langsam", ("de", "langsam"): "schnell",
    }.items()  # fmt: skip
    english = bound("tasks", "antonyms,language=en", n=12)(of(Words(PAIRS)))
    assert {tags["language"] for tags in english.tags} == {"en"}
    assert english.same_length


@pytest.mark.parametrize(
    ("kind", "clean", "answer"),
    [
        ("days", "In order: Saturday, Sunday, Monday,", " Tuesday"),
        ("months", "In order: October, November, December,", " January"),
        ("numbers", "In order: 8, 9, 10,", " 11"),
        ("ordinals", "In order: first, second, third,", " fourth"),
        ("letters", "In order: D, E, F,", " G"),
        ("roman", "In order: I, II, III,", " IV"),
    ],
)
def test_what_comes_next_comes_next(kind: str, clean: str, answer: str) -> None:
    module = inspect.getmodule(find("tasks", "successor"))
    rows = [row for part in _generate.PARTS for row in module._rows(kind, 3, part, 0)]  # pyright: ignore[reportOptionalMemberAccess, reportAttributeAccessIssue]
    (found,) = {row["answer"] for row in rows if row["clean"] == clean}
    assert found == answer
    assert {row["foil"] for row in rows if row["corrupt"] == clean} == {answer}


def test_the_lists_of_successors_are_as_long_as_they_should_be() -> None:
    module = inspect.getmodule(find("tasks", "successor"))
    lists = module.LISTS  # pyright: ignore[reportOptionalMemberAccess, reportAttributeAccessIssue]
    sizes = {"numbers": 200, "number_words": 20, "ordinals": 20, "days": 7, "short_days": 7, "months": 12,
             "short_months": 12, "letters": 26, "roman": 20}  # fmt: skip
    assert {kind: len(items) for kind, items in lists.items()} == sizes
    assert all(len(set(items)) == len(items) for items in lists.values())
    values = {"I": 1, "V": 5, "X": 10}
    for number, roman in enumerate(lists["roman"], 1):
        figures = [values[letter] for letter in roman]
        assert sum(-a if a < b else a for a, b in zip(figures, [*figures[1:], 0], strict=True)) == number
    with pytest.raises(InputError, match="length=9: a run has 1 to 6 items"):
        bound("tasks", "successor,length=9")(of(Words(PAIRS)))
    four = bound("tasks", "successor,kind=letters,length=4", n=10)(of(Words(PAIRS)))
    assert {text.count(",") for text in four.clean_text} == {4}


# Chat.

LLAMA = (
    "{{ bos_token }}{% if date_string is not defined %}{% set date_string = strftime_now('%d') %}{% endif %}"
    "[{{ date_string }}]{% for m in messages %}<{{ m['role'] }}>\n{{ m['content'] }}</>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>\n{% endif %}"
)


def chatty(tokenizer: Any, template: str) -> Any:
    from copy import deepcopy

    made = deepcopy(tokenizer)
    made.chat_template = template
    return made


def test_a_chat_prompt_is_the_tokenizers_own_template_without_its_bos(tokenizer: Any) -> None:
    text = "[26 Jul 2024]<user>\nWho?</><assistant>\nAnswer:"
    assert rendered(chatty(tokenizer, LLAMA), "Who?", "Answer:") == text
    assert rendered(chatty(tokenizer, LLAMA.replace("{{ bos_token }}", "")), "Who?", "Answer:") == text


def test_a_chat_template_that_asks_for_the_date_gets_the_same_every_day(tokenizer: Any) -> None:
    template = LLAMA.replace("date_string is not defined", "true").replace("'%d'", "'%d %b %Y'")
    assert rendered(chatty(tokenizer, template), "Who?", "Answer:").startswith("[26 Jul 2024]")


def test_a_chat_template_that_cannot_be_used_is_refused(tokenizer: Any) -> None:
    with pytest.raises(InputError, match=r"has no chat template: use form=base"):
        rendered(tokenizer, "Who?", "Answer:")
    for before in ("{{ bos_token }}", "  ", "x"):
        with pytest.raises(InputError, match=r"writes BOS \('<s>'\) twice, or elsewhere than at the beginning"):
            rendered(chatty(tokenizer, before + LLAMA), "Who?", "Answer:")
    with pytest.raises(InputError, match=r"chat template fails: .*no users here"):
        rendered(chatty(tokenizer, "{{ raise_exception('no users here') }}"), "Who?", "Answer:")


@pytest.mark.assets
@pytest.mark.parametrize(
    ("task", "written"),
    [("capitals", "{{ bos_token }}"), ("capitals", ""), ("addition,largest=12", "{{ bos_token }}"), ("antonyms", "")],
)
def test_the_chat_form_has_bos_once_and_its_prompt_in_sight(task: str, written: str, assets: Any) -> None:
    template = LLAMA.replace("{{ bos_token }}", written)
    tokenizer = chatty(published(assets / "tokenizers" / "pythia"), template)
    pairs = bound("tasks", f"{task},form=chat", n=10)(of(tokenizer))
    assert pairs.name == f"{task.split(',')[0]}_chat"
    for text, ids, length in zip(pairs.clean_text, pairs.clean.tolist(), pairs.length.tolist(), strict=True):
        assert re.fullmatch(r"\[26 Jul 2024\]<user>\n.+</><assistant>\n\S+ ?[:：]", text)
        assert ids[0] == tokenizer.bos_token_id
        assert ids[:length].count(tokenizer.bos_token_id) == 1
    bare = bound("tasks", f"{task},form=chat", n=10, prepend_bos=False)(of(tokenizer))
    assert tokenizer.bos_token_id not in bare.clean[bare.real]
    if task == "capitals":
        tags = pairs.tags[0]
        assert f"What is the capital of the state {tags['template']} {tags['city']}?" in pairs.clean_text[0]
