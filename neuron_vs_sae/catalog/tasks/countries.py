"""Country, capital, continent: one hop recalled, or two hops reasoned, in templates of equal length."""

from typing import Any, Literal

from neuron_vs_sae.catalog.tasks._generate import PARTS, Part, Row, Wanted, combinations, parted, pick
from neuron_vs_sae.core.pairs import PromptPairs

# Country and capital, by continent; no country of two continents.
TRIPLES: dict[str, tuple[tuple[str, str], ...]] = {
    "Europe": (
        ("France", "Paris"), ("Germany", "Berlin"), ("Italy", "Rome"), ("Spain", "Madrid"), ("Greece", "Athens"),
        ("Poland", "Warsaw"), ("Austria", "Vienna"), ("Norway", "Oslo"), ("Ireland", "Dublin"), ("Belgium", "Brussels"),
        ("Sweden", "Stockholm"), ("Hungary", "Budapest"), ("Portugal", "Lisbon"), ("Denmark", "Copenhagen"),
        ("Finland", "Helsinki"), ("Romania", "Bucharest"), ("Bulgaria", "Sofia"), ("Serbia", "Belgrade"), ("Croatia", "Zagreb"),
        ("Switzerland", "Bern"), ("Iceland", "Reykjavik"), ("Latvia", "Riga"), ("Estonia", "Tallinn"), ("Lithuania", "Vilnius"),
        ("Slovenia", "Ljubljana"), ("Albania", "Tirana"), ("Belarus", "Minsk"),
    ),
    "Asia": (
        ("Japan", "Tokyo"), ("China", "Beijing"), ("Thailand", "Bangkok"), ("Iran", "Tehran"), ("Iraq", "Baghdad"),
        ("Afghanistan", "Kabul"), ("Syria", "Damascus"), ("Lebanon", "Beirut"), ("Pakistan", "Islamabad"), ("Vietnam", "Hanoi"),
        ("Nepal", "Kathmandu"), ("Bangladesh", "Dhaka"), ("Jordan", "Amman"), ("Mongolia", "Ulaanbaatar"), ("Qatar", "Doha"),
        ("Oman", "Muscat"), ("Bahrain", "Manama"), ("Laos", "Vientiane"), ("Uzbekistan", "Tashkent"), ("Yemen", "Sanaa"),
        ("Kyrgyzstan", "Bishkek"), ("Tajikistan", "Dushanbe"), ("Bhutan", "Thimphu"), ("Turkmenistan", "Ashgabat"),
    ),
    "Africa": (
        ("Kenya", "Nairobi"), ("Libya", "Tripoli"), ("Somalia", "Mogadishu"), ("Ghana", "Accra"), ("Senegal", "Dakar"),
        ("Nigeria", "Abuja"), ("Uganda", "Kampala"), ("Tunisia", "Tunis"), ("Sudan", "Khartoum"), ("Rwanda", "Kigali"),
        ("Morocco", "Rabat"), ("Zimbabwe", "Harare"), ("Zambia", "Lusaka"), ("Angola", "Luanda"), ("Algeria", "Algiers"),
        ("Mali", "Bamako"), ("Niger", "Niamey"), ("Namibia", "Windhoek"), ("Botswana", "Gaborone"), ("Malawi", "Lilongwe"),
        ("Mozambique", "Maputo"), ("Madagascar", "Antananarivo"), ("Liberia", "Monrovia"), ("Gambia", "Banjul"),
        ("Guinea", "Conakry"), ("Gabon", "Libreville"), ("Eritrea", "Asmara"),
    ),
}  # fmt: skip
# The same number of words before and after the name, so that both kinds have their words at the same positions.
_TEMPLATES = {
    "recall": (
        "The country known as {country} is on the continent of",
        "The nation we call {country} lies on the continent of",
        "The people living in {country} are on the continent of",
        "The land we name {country} lies within the continent of",
        "The state called simply {country} belongs to the continent of",
    ),
    "reasoning": (
        "The country governed from {capital} is on the continent of",
        "The nation ruled from {capital} lies on the continent of",
        "The people ruled from {capital} are on the continent of",
        "The land run from {capital} lies within the continent of",
        "The state governed from {capital} belongs to the continent of",
    ),
}


def countries(
    model: Any,
    *,
    hops: Literal["recall", "reasoning"] = "recall",
    prepend_bos: bool = True,
    seed: int = 0,
    part: Part = "discovery",
    n: int = 300,
) -> PromptPairs:
    """The continent of a country by its name (`recall`), or by its capital's (`reasoning`: which country, then where).

    `The country known as France is on the continent of` and `The country governed from Paris is on the continent of`
    -> ` Europe`; the corrupt prompt is of another continent. Both kinds have five templates of the same length, with the
    name at the same position and the same last word, so that circuits of the two differ by more than their wording. No
    country is in both parts. Tags: `hops`, `template`, `country`, `continent`. Raises `InputError` where the tokenizer
    leaves fewer than `n` pairs.
    """
    rows = [row for part in PARTS for kind in _TEMPLATES for row in _rows(kind, part, seed)]
    return pick(f"countries_{hops}", model, rows, Wanted(part, n, seed, prepend_bos), beside="hops", value=hops,
                balance="continent")  # fmt: skip


def _rows(hops: str, part: Part, seed: int) -> list[Row]:
    known = [(*places, continent) for continent, triples in TRIPLES.items() for places in parted(triples)[part]]
    rows = []
    for (country, capital, continent), (other, its, foil), i in combinations(
        known, known, range(5), seed=seed, n=10000
    ):
        if continent != foil:
            template = _TEMPLATES[hops][i]
            rows.append({
                "clean": template.format(country=country, capital=capital),
                "corrupt": template.format(country=other, capital=its), "answer": f" {continent}", "foil": f" {foil}",
                "part": part, "hops": hops, "template": str(i), "country": country, "continent": continent,
            })  # fmt: skip
    return rows
