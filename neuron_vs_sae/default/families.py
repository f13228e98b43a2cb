"""The families of minimal pairs: what happens in the small world, and what a model must know to predict it.

A family writes pairs of sentences of equal length that differ in what one behaviour depends on. Training text is the
clean half of such pairs, so the text and the tasks cannot drift apart. Three parts are kept separate:

- `train`: everything the models read;
- `discovery`: pairs to find circuits on; their words come from the even places of each list;
- `evaluation`: pairs to judge circuits on; their words come from the odd places, so no noun, verb, name or place that a
  prompt names is shared with discovery; numbers, series, and states and capitals as answers are. Where the answer follows
  from a rule (agreement, indirect objects, greater-than, pronouns, copying, puzzles) the training text holds no sentence
  whose content words all come from the evaluation half; for successors a third (as sentences: a longer run of the series
  may hold them), for sums and two-hop questions a fifth of the questions is kept out of it. What can only be remembered
  (one-hop facts, antonyms) is all in the training text.

Latent variables say, for every token from the one that fixes them to the end of their reach (properties of the whole
sentence, such as `hops` and `language`: for all of it), what a model that predicts well must represent: the number of
the noun that controls the verb, the state, the hops, the gender, and so on.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import product
from random import Random

from neuron_vs_sae.default import words as w
from neuron_vs_sae.default.writing import Pair, Part, Sentence, T, halves, pick, some, write

DURATIONS = range(2, 26)  # years; short enough that a start tells two ends apart
_STARTS = w.YEARS[2:74]
_RULE_LISTS: tuple[Sequence[Hashable], ...] = (
    w.NOUNS, w.VERBS, w.TRANSITIVE, w.NAMES, w.ROLES, w.PLACES, w.OBJECTS, w.EVENTS, w.INVENTED, w.CENTURIES, _STARTS,
)  # fmt: skip
_EVALUATION_WORDS = {word for items in _RULE_LISTS for word in halves(items)[1]}


def only_for_evaluation(pair: Pair) -> bool:
    return bool(pair.content) and all(word in _EVALUATION_WORDS for word in pair.content)


# ------------------------------------------------------------------------------------------------- agreement

_AGREEMENT = {
    "simple": "The {noun} {answer} {rest} .",
    "nounpp": "The {noun} {preposition} the {other} {answer} {rest} .",
    "rc": "The {noun} that the {other} {relative} {answer} {rest} .",
    "within_rc": "The {other} that the {noun} {answer} {main} {rest} .",
}


def _agreement(draw: Random, part: Part, structure: str) -> Pair:
    """The verb agrees with `noun`; `other` has the other number half the time (Marks et al. 2024, four structures)."""
    noun, other = some(draw, w.NOUNS, 2, part)
    verb, relative = pick(draw, w.VERBS, part), pick(draw, w.TRANSITIVE, part)
    number, other_number = draw.randrange(2), draw.randrange(2)
    rest, preposition = draw.choice(verb.rest), draw.choice(w.PREPOSITIONS)
    agreeing = relative if structure == "within_rc" else verb

    def sentence(number: int) -> Sentence:
        fill = {
            "noun": noun[number],
            "other": other[other_number],
            "preposition": preposition,
            "relative": relative[other_number],
            "main": verb[other_number],
            "answer": agreeing[number],
            "rest": rest,
        }
        latents = {"number": ("noun", _NUMBER[number])}
        if structure != "simple":
            latents["distractor_number"] = ("other", _NUMBER[other_number])
        return write(_AGREEMENT[structure], fill, latents)

    # One noun and nothing else would leave half the nouns out of the training text: there the verb counts too.
    content = (noun, verb) if structure == "simple" else (noun, other)
    tags = {
        "structure": structure,
        "lemma": noun.singular,
        "case": "_".join(_NUMBER[n] for n in ([number] if structure == "simple" else [number, other_number])),
        "template": _AGREEMENT[structure],
    }
    return Pair(sentence(number), sentence(1 - number), tags, content)


_NUMBER = ("singular", "plural")


# ----------------------------------------------------------------------------------------------------- facts

STATE_OF = {city: state for state in w.STATES for city in (state.capital, *state.cities)}


def _held_out_cities() -> tuple[str, ...]:
    """A fifth of the cities, one or two per state: no text says where the capital of their state is."""
    draw = Random(0)
    more = set(draw.sample(range(len(w.STATES)), len(w.STATES) // 5))
    return tuple(city for i, state in enumerate(w.STATES) for city in draw.sample(state.cities, 1 + (i in more)))


HELD_OUT_CITIES = _held_out_cities()
_CITIES = tuple(city for state in w.STATES for city in state.cities)
TRAINED_CITIES = tuple(city for city in _CITIES if city not in set(HELD_OUT_CITIES))

_CITY_STATE = (
    "{city} is in {answer} .",
    "The state containing {city} is {answer} .",
    "{city} is a city in {answer} .",
    "The city of {city} lies in {answer} .",
    "People in {city} live in the state of {answer} .",
)
_STATE_CAPITAL = (
    "The capital of {state} is {answer} .",
    "{state} has its capital at {answer} .",
    "The capital of the state of {state} is {answer} .",
)
TWO_HOP = (
    "The capital of the state containing {city} is {answer} .",
    "The state containing {city} has its capital at {answer} .",
    "{city} is in a state whose capital is {answer} .",
)
_COUNTRY_CAPITAL = ("The capital of {country} is {answer} .", "{country} has its capital at {answer} .")
_COUNTRY_CONTINENT = ("{country} is in {answer} .", "The continent containing {country} is {answer} .")


def _two(draw: Random, items: Sequence[T], part: Part, differ: Callable[[T], Hashable]) -> tuple[T, T]:
    while True:
        a, b = some(draw, items, 2, part)
        if differ(a) != differ(b):
            return a, b


def _city_state(draw: Random, part: Part) -> Pair:
    cities = tuple(STATE_OF) if part == "train" else _CITIES
    template = draw.choice(_CITY_STATE)
    a, b = _two(draw, cities, part, STATE_OF.__getitem__)

    def sentence(city: str) -> Sentence:
        state = STATE_OF[city].name
        return write(template, {"city": city, "answer": state}, {"state": ("city", state), "hops": (None, "1")})

    return Pair(sentence(a), sentence(b), {"template": template, "city": a, "state": STATE_OF[a].name})


def _state_capital(draw: Random, part: Part) -> Pair:
    template = draw.choice(_STATE_CAPITAL)

    def sentence(state: w.State) -> Sentence:
        latents = {"state": ("state", state.name), "capital": ("state", state.capital), "hops": (None, "1")}
        return write(template, {"state": state.name, "answer": state.capital}, latents)

    a, b = some(draw, w.STATES, 2, part)
    return Pair(sentence(a), sentence(b), {"template": template, "state": a.name})


def _two_hop(draw: Random, part: Part) -> Pair:
    template = draw.choice(TWO_HOP)
    cities = HELD_OUT_CITIES if part == "evaluation" else TRAINED_CITIES
    a, b = _two(draw, cities, "train", STATE_OF.__getitem__)

    def sentence(city: str) -> Sentence:
        state = STATE_OF[city]
        latents = {"state": ("city", state.name), "capital": ("city", state.capital), "hops": (None, "2")}
        return write(template, {"city": city, "answer": state.capital}, latents)

    return Pair(sentence(a), sentence(b), {"template": template, "city": a, "state": STATE_OF[a].name})


def _country(draw: Random, part: Part, asked: str) -> Pair:
    templates = _COUNTRY_CAPITAL if asked == "capital" else _COUNTRY_CONTINENT
    template = draw.choice(templates)
    a, b = _two(draw, w.COUNTRIES, part, lambda country: getattr(country, asked))

    def sentence(country: w.Country) -> Sentence:
        latents = {name: ("country", getattr(country, name)) for name in ("capital", "continent")}
        return write(template, {"country": country.name, "answer": getattr(country, asked)}, latents)

    return Pair(sentence(a), sentence(b), {"template": template, "country": a.name})


# ------------------------------------------------------------------------------- recall and reasoning puzzles

# The premise is about an invented state; the question is about that one (reasoning) or about a real one (recall). The
# factors are {1, 2 hops} x {from the premise, from memory}, in templates of one length and one last word per hop.
_PREMISES = {
    "1": (
        ("Suppose", "the capital of {a} is {b}"),
        ("In one story", "{a} chose {b} as its capital"),
        ("They say that", "{a} has {b} for its capital"),
    ),
    "2": (
        ("Suppose", "{t} is in {a} with capital {b}"),
        ("In one story", "{t} lies in {a} with capital {b}"),
        ("They say that", "{t} belongs to {a} with capital {b}"),
    ),
}
_QUESTIONS = {
    "1": "The capital of {q} is {answer} .",
    "2": "The capital of the state containing {q} is {answer} .",
}
_PUZZLES = {
    hops: tuple(f"{opening} {clause} . {_QUESTIONS[hops]}" for opening, clause in premises)
    for hops, premises in _PREMISES.items()
}


def _puzzle(draw: Random, part: Part, kind: str) -> Pair:
    """Pairs differ in the capital that the premise gives (reasoning), or in the state that is asked for (recall)."""
    hops = draw.choice("12")
    template = draw.choice(_PUZZLES[hops])
    a, b, other, t = some(draw, w.INVENTED, 4, part)
    if kind == "reasoning":
        first, second = ((b, a if hops == "1" else t, b), (other, a if hops == "1" else t, other))
    elif hops == "1":
        first, second = ((b, state.name, state.capital) for state in some(draw, w.STATES, 2, part))
    else:
        cities = _two(draw, TRAINED_CITIES, part, STATE_OF.__getitem__)
        first, second = ((b, city, STATE_OF[city].capital) for city in cities)

    def sentence(capital: str, question: str, answer: str) -> Sentence:
        latents = {"source": ("q", "premise" if kind == "reasoning" else "memory"), "hops": (None, hops)}
        latents["capital"] = ("q", answer)
        fill = {"a": a, "b": capital, "t": t, "q": question, "answer": answer}
        return write(template, fill, latents)

    tags = {"kind": kind, "hops": hops, "template": template}
    return Pair(sentence(*first), sentence(*second), tags, (a, b))


# ------------------------------------------------------------------------------------------------ successors

_SERIES = {
    "days": (w.DAYS, True),
    "months": (w.MONTHS, True),
    "letters": (w.LETTERS, False),
    "number words": (w.NUMBER_WORDS, False),
    "ordinals": (w.ORDINALS, False),
    "numerals": (w.NUMERALS, False),
}  # items, and whether the first follows the last
_SUCCESSOR = (
    "{before} , {one} , {answer} .",
    "After {one} comes {answer} .",
    "{earlier} , {before} , {one} , {answer} .",
)


@cache
def _successors(kind: str, template: int, part: Part) -> tuple[int, ...]:
    """Places of `{one}` whose questions belong to `part`; every third question is evaluation's."""
    items, cyclic = _SERIES[kind]
    places = range(len(items)) if cyclic else range(2, len(items) - 1)
    return tuple(i for i in places if ((i + template) % 3 == 2) == (part == "evaluation"))


def _successor(draw: Random, part: Part) -> Pair:
    kind = draw.choice(list(_SERIES))
    number = draw.randrange(len(_SUCCESSOR))
    items, _ = _SERIES[kind]

    def sentence(i: int) -> Sentence:
        names = ("earlier", "before", "one", "answer")
        fill = {name: items[(i + j) % len(items)] for name, j in zip(names, (-2, -1, 0, 1), strict=True)}
        return write(_SUCCESSOR[number], fill, {"series": ("one", kind), "place": ("one", str(i))})

    if part == "train" and draw.random() < 0.1 and kind not in {"days", "months"}:
        number = 1  # the start of a series has nothing before it
        return Pair(sentence(0), sentence(1), {})
    a, b = draw.sample(_successors(kind, number, part), 2)
    return Pair(sentence(a), sentence(b), {"series": kind, "template": _SUCCESSOR[number]})


# -------------------------------------------------------------------------------------------------- antonyms

_OPPOSITE = {
    "English": ("The opposite of {word} is {answer} .", "What is not {word} is {answer} ."),
    "French": ("Le contraire de {word} est {answer} .", "Ce qui n'est pas {word} est {answer} ."),
    "German": ("Das Gegenteil von {word} ist {answer} .", "Was nicht {word} ist , ist {answer} ."),
    "Spanish": ("El contrario de {word} es {answer} .", "Lo que no es {word} es {answer} ."),
}


def _antonym(draw: Random, part: Part) -> Pair:
    language = draw.choice(list(_OPPOSITE))
    template = draw.choice(_OPPOSITE[language])

    def sentence(concept: str, side: int) -> Sentence:
        pair = w.ANTONYMS[language][w.CONCEPTS.index(concept)]
        latents = {"language": (None, language), "concept": ("word", concept), "side": ("word", str(side))}
        return write(template, {"word": pair[side], "answer": pair[1 - side]}, latents)

    a, b = some(draw, w.CONCEPTS, 2, part)
    sides = draw.randrange(2), draw.randrange(2)
    tags = {"language": language, "concept": a, "template": template}
    return Pair(sentence(a, sides[0]), sentence(b, sides[1]), tags)


# -------------------------------------------------------------------------------------------------- addition

_SUM = ("{a} + {b} = {answer} .", "{a} plus {b} is {answer} .")
OPERANDS = range(13)


def _sum_is_held_out(a: int, b: int) -> bool:
    """A fifth of the sums; the same two numbers in the other order never are."""
    return (a + 2 * b) % 5 == 0 and (b + 2 * a) % 5 != 0


@cache
def operands(part: Part) -> tuple[tuple[int, int], ...]:
    return tuple(ab for ab in product(OPERANDS, OPERANDS) if _sum_is_held_out(*ab) == (part == "evaluation"))


def _addition(draw: Random, part: Part) -> Pair:
    template = draw.choice(_SUM)
    first, second = _two(draw, operands(part), "train", sum)

    def sentence(a: int, b: int) -> Sentence:
        latents = {"first": ("a", str(a)), "second": ("b", str(b)), "sum": ("b", str(a + b))}
        return write(template, {"a": str(a), "b": str(b), "answer": str(a + b)}, latents)

    return Pair(sentence(*first), sentence(*second), {"template": template, "sum": str(sum(first))})


# -------------------------------------------------------------------------------------------------- pronouns

_PRONOUN = dict(
    zip(
        w.PRONOUNS,
        (
            (
                "{who} went home because {answer} was tired .",
                "{who} said that {answer} lost the {object} .",
                "{who} left the {place} when {answer} was late .",
            ),
            ("{who} found the {object} in {answer} house .", "{who} went to the {place} with {answer} dog ."),
            ("{who} hurt {answer} at the {place} .", "{who} bought a {object} for {answer} ."),
        ),
        strict=True,
    )
)


def _pronoun(draw: Random, part: Part) -> Pair:
    forms = draw.choice(list(_PRONOUN))
    template = draw.choice(_PRONOUN[forms])
    place, thing = pick(draw, w.PLACES, part), pick(draw, w.OBJECTS, part)
    gender = draw.randrange(2)
    if named := draw.random() < 0.6:
        people = [pick(draw, names, part) for names in (w.MALE, w.FEMALE)]
    else:
        people, template = list(pick(draw, w.ROLES, part)), "The " + template

    def sentence(gender: int) -> Sentence:
        fill = {"who": people[gender], "answer": forms[gender], "place": place, "object": thing}
        return write(template, fill, {"gender": ("who", ("male", "female")[gender])})

    who = (people[gender],) if named else tuple(r for r in w.ROLES if r.male == people[0])
    prompt = template.partition("{answer}")[0]
    content = (*who, *([place] if "{place}" in prompt else []), *([thing] if "{object}" in prompt else []))
    tags = {"template": template, "lemma": people[gender], "pronoun": forms[0]}
    return Pair(sentence(gender), sentence(1 - gender), tags, content)


# ---------------------------------------------------------------------------------- names, objects and years

_IOI = (
    "When {a} and {b} went to the {place} , {subject} gave a {object} to {answer} .",
    "After {a} and {b} came back from the {place} , {subject} sent a {object} to {answer} .",
    "While {a} and {b} were at the {place} , {subject} showed the {object} to {answer} .",
)


def _ioi(draw: Random, part: Part) -> Pair:
    """The indirect object is whoever is not the subject; the corrupt sentence has the other subject (Wang et al. 2022)."""
    template = draw.choice(_IOI)
    a, b = some(draw, w.NAMES, 2, part)
    place, thing = pick(draw, w.PLACES, part), pick(draw, w.OBJECTS, part)
    order = draw.randrange(2)

    def sentence(order: int) -> Sentence:
        subject, other = ((a, b), (b, a))[order]
        fill = {"a": a, "b": b, "subject": subject, "place": place, "object": thing, "answer": other}
        return write(template, fill, {"subject": ("subject", subject), "indirect_object": ("subject", other)})

    tags = {"template": template, "order": ("ABA", "ABB")[order], "names": f"{a} {b}"}
    return Pair(sentence(order), sentence(1 - order), tags, (a, b, place, thing))


_COPY = (
    "The {role} is called {name} . Everyone at the {place} knows {answer} .",
    "My name is {name} . At the {place} please call me {answer} .",
    "{name} has a {object} . At the {place} we asked {answer} .",
)


def _copy(draw: Random, part: Part) -> Pair:
    template = draw.choice(_COPY)
    a, b = some(draw, w.NAMES, 2, part)
    fill = {"place": pick(draw, w.PLACES, part), "object": pick(draw, w.OBJECTS, part), "role": "teacher"}

    def sentence(name: str) -> Sentence:
        return write(template, {**fill, "name": name, "answer": name}, {"name": ("name", name)})

    return Pair(sentence(a), sentence(b), {"template": template, "name": a}, (a, fill["place"]))


_LASTED = (
    "The {event} lasted from the year {century} {start} to the year {century} {answer} .",
    "The {event} began in {century} {start} and ended in {century} {answer} .",
)


def _greater_than(draw: Random, part: Part) -> Pair:
    """The end lies 2 to 25 years after the start. The starts of a pair are 30 years apart or more, so each end is
    possible after one start only (Hanna et al. 2023, with a foil that the corrupt prompt does allow)."""
    template = draw.choice(_LASTED)
    event, century = pick(draw, w.EVENTS, part), pick(draw, w.CENTURIES, part)
    while True:
        a, b = some(draw, _STARTS, 2, part)
        if abs(int(a) - int(b)) >= 30:
            break
    years = draw.choice(DURATIONS)

    def sentence(start: str) -> Sentence:
        fill = {"event": event, "century": century, "start": start, "answer": w.YEARS[int(start) + years]}
        return write(template, fill, {"century": ("century", century), "start": ("start", start)})

    return Pair(sentence(a), sentence(b), {"template": template, "event": event}, (event, century, a))


# -------------------------------------------------------------------------------------------------- the whole


@dataclass(frozen=True)
class Family:
    """How a family writes a pair, its share of the training sentences, its templates, and what it is about."""

    pair: Callable[[Random, Part], Pair]
    share: float
    templates: tuple[str, ...]
    about: str


_PUZZLE_TEMPLATES = (*_PUZZLES["1"], *_PUZZLES["2"])

FAMILIES: dict[str, Family] = {
    "agreement_simple": Family(
        partial(_agreement, structure="simple"),
        0.05,
        (_AGREEMENT["simple"],),
        "the verb agrees with the noun before it",
    ),
    "agreement_nounpp": Family(
        partial(_agreement, structure="nounpp"),
        0.05,
        (_AGREEMENT["nounpp"],),
        "agreement across a prepositional phrase",
    ),
    "agreement_rc": Family(
        partial(_agreement, structure="rc"), 0.05, (_AGREEMENT["rc"],), "agreement across a relative clause"
    ),
    "agreement_within_rc": Family(
        partial(_agreement, structure="within_rc"),
        0.05,
        (_AGREEMENT["within_rc"],),
        "agreement within a relative clause",
    ),
    "city_state": Family(_city_state, 0.10, _CITY_STATE, "the state a city is in"),
    "state_capital": Family(_state_capital, 0.04, _STATE_CAPITAL, "the capital of a state"),
    "two_hop": Family(
        _two_hop,
        0.12,
        TWO_HOP,
        "the capital of the state that contains a city; evaluation's questions were never trained",
    ),
    "country_capital": Family(partial(_country, asked="capital"), 0.015, _COUNTRY_CAPITAL, "the capital of a country"),
    "country_continent": Family(
        partial(_country, asked="continent"), 0.015, _COUNTRY_CONTINENT, "the continent of a country"
    ),
    "recall": Family(
        partial(_puzzle, kind="recall"),
        0.04,
        _PUZZLE_TEMPLATES,
        "a remembered capital, after a premise about an invented state",
    ),
    "reasoning": Family(
        partial(_puzzle, kind="reasoning"),
        0.08,
        _PUZZLE_TEMPLATES,
        "the capital of an invented state, from the premise",
    ),
    "successor": Family(_successor, 0.06, _SUCCESSOR, "what follows in days, months, letters and numbers"),
    "antonym": Family(
        _antonym, 0.03, tuple(t for both in _OPPOSITE.values() for t in both), "opposites in four languages"
    ),
    "addition": Family(_addition, 0.07, _SUM, "sums of two numbers from 0 to 12"),
    "pronoun": Family(
        _pronoun,
        0.05,
        tuple(who + t for who in ("", "The ") for forms in _PRONOUN.values() for t in forms),
        "the pronoun for a name or a person",
    ),
    "ioi": Family(_ioi, 0.08, _IOI, "the indirect object is whoever is not the subject"),
    "copying": Family(_copy, 0.05, _COPY, "a name that was introduced earlier"),
    "greater_than": Family(_greater_than, 0.05, _LASTED, "an end lies after its beginning"),
}
