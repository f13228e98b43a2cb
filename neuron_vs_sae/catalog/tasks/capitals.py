"""City -> state -> capital: two hops through one state, in base and chat form (50 triples, one for each state of the US)."""

from functools import cache
from typing import Any, Literal

from neuron_vs_sae.catalog.tasks._chat import rendered
from neuron_vs_sae.catalog.tasks._generate import PARTS, Part, Row, Wanted, combinations, parted, pick
from neuron_vs_sae.core.pairs import PromptPairs

# A city that is not the capital and whose name points to one state; the state; its capital.
TRIPLES = (
    ("Birmingham", "Alabama", "Montgomery"), ("Anchorage", "Alaska", "Juneau"), ("Tucson", "Arizona", "Phoenix"),
    ("Fayetteville", "Arkansas", "Little Rock"), ("Oakland", "California", "Sacramento"), ("Boulder", "Colorado", "Denver"),
    ("Bridgeport", "Connecticut", "Hartford"), ("Wilmington", "Delaware", "Dover"), ("Miami", "Florida", "Tallahassee"),
    ("Savannah", "Georgia", "Atlanta"), ("Hilo", "Hawaii", "Honolulu"), ("Pocatello", "Idaho", "Boise"),
    ("Chicago", "Illinois", "Springfield"), ("Evansville", "Indiana", "Indianapolis"), ("Davenport", "Iowa", "Des Moines"),
    ("Wichita", "Kansas", "Topeka"), ("Louisville", "Kentucky", "Frankfort"), ("Shreveport", "Louisiana", "Baton Rouge"),
    ("Bangor", "Maine", "Augusta"), ("Baltimore", "Maryland", "Annapolis"), ("Worcester", "Massachusetts", "Boston"),
    ("Detroit", "Michigan", "Lansing"), ("Duluth", "Minnesota", "Saint Paul"), ("Biloxi", "Mississippi", "Jackson"),
    ("Joplin", "Missouri", "Jefferson City"), ("Billings", "Montana", "Helena"), ("Omaha", "Nebraska", "Lincoln"),
    ("Reno", "Nevada", "Carson City"), ("Nashua", "New Hampshire", "Concord"), ("Newark", "New Jersey", "Trenton"),
    ("Albuquerque", "New Mexico", "Santa Fe"), ("Buffalo", "New York", "Albany"), ("Charlotte", "North Carolina", "Raleigh"),
    ("Fargo", "North Dakota", "Bismarck"), ("Cleveland", "Ohio", "Columbus"), ("Tulsa", "Oklahoma", "Oklahoma City"),
    ("Eugene", "Oregon", "Salem"), ("Pittsburgh", "Pennsylvania", "Harrisburg"), ("Cranston", "Rhode Island", "Providence"),
    ("Spartanburg", "South Carolina", "Columbia"), ("Sioux Falls", "South Dakota", "Pierre"),
    ("Memphis", "Tennessee", "Nashville"), ("Dallas", "Texas", "Austin"), ("Provo", "Utah", "Salt Lake City"),
    ("Burlington", "Vermont", "Montpelier"), ("Norfolk", "Virginia", "Richmond"), ("Seattle", "Washington", "Olympia"),
    ("Morgantown", "West Virginia", "Charleston"), ("Milwaukee", "Wisconsin", "Madison"), ("Laramie", "Wyoming", "Cheyenne"),
)  # fmt: skip
_CONTAINING = ("containing", "including", "around", "surrounding", "with")


def capitals(
    model: Any,
    *,
    form: Literal["base", "chat"] = "base",
    prepend_bos: bool = True,
    seed: int = 0,
    part: Part = "discovery",
    n: int = 300,
) -> PromptPairs:
    """`The capital of the state containing Dallas is` -> ` Austin`; the corrupt prompt names a city of another state.

    `form=chat` asks `What is the capital of the state containing Dallas?` in the tokenizer's own chat template and begins
    the reply with `Answer:`; the prompts' texts are what the model reads, less BOS. The pairs are of two states, worded
    in five ways; no state is in both parts. Capitals that are not one token, and pairs whose cities are of unequal
    length, are dropped. Tags: `city`, `state`, `template`. Raises `InputError` where fewer than `n` pairs are left.
    """

    @cache
    def text(city: str, word: str) -> str:
        if form == "chat":
            return rendered(model.tokenizer, f"What is the capital of the state {word} {city}?", "Answer:")
        return f"The capital of the state {word} {city} is"

    rows: list[Row] = []
    for candidate_part in PARTS:
        triples = parted(TRIPLES)[candidate_part]
        for (city, state, capital), (other, _, foil), word in combinations(
            triples, triples, _CONTAINING, seed=seed, n=6000
        ):
            if capital != foil:
                rows.append({
                    "clean": text(city, word), "corrupt": text(other, word), "answer": f" {capital}", "foil": f" {foil}",
                    "part": candidate_part, "city": city, "state": state, "template": word,
                })  # fmt: skip
    return pick("capitals" if form == "base" else "capitals_chat", model, rows, Wanted(part, n, seed, prepend_bos))
