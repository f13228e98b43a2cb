"""What is probed for: a label for every token of a corpus at which the concept is defined.

Two kinds: hidden variables of the small world, exact for every token, and features of the token's text (Gurnee et al. 2023,
arXiv 2305.01610, appendix), which are functions of the token alone.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from neuron_vs_sae.catalog.corpora import Context, Corpus
from neuron_vs_sae.core.errors import InputError

Label = Callable[[Context, int], bool | None]
"""Of a context and a position: whether the concept holds there, None where it is not defined."""

TEXT_FEATURES: dict[str, Callable[[str], bool]] = {
    "contains_digit": lambda text: any(c.isdigit() for c in text),
    "all_digits": lambda text: text.strip().isdigit(),
    "contains_capital": lambda text: any(c.isupper() for c in text),
    "leading_capital": lambda text: text.strip()[:1].isupper(),
    "all_capitals": lambda text: text.strip().isalpha() and text.isupper(),
    "contains_whitespace": lambda text: any(c.isspace() for c in text),
    "has_leading_space": lambda text: text.startswith(" "),
    "no_leading_space_and_loweralpha": lambda text: text.isalpha() and text.islower(),
    "contains_all_whitespace": lambda text: text.isspace(),
    "is_not_alphanumeric": lambda text: not text.strip().isalnum(),
    "is_not_ascii": lambda text: not text.isascii(),
}


@dataclass(frozen=True)
class Concept:
    name: str
    label: Label


def concept(model: Any, corpus: Corpus, name: str) -> Concept:
    """The concept that `name` names: a text feature, `prefix:un`, `suffix:ing`, or a hidden variable of the corpus.

    A variable with two values is written `number` (the second value in alphabetical order is the positive one), any other `state=Nevada`.
    It is defined where the text determines it, and holds where it has that value. Raises `InputError`, listing what there is.
    """
    if name in TEXT_FEATURES:
        return Concept(name, _of_token(model, TEXT_FEATURES[name]))
    affix = re.fullmatch(r"(prefix|suffix):(\S+)", name)
    if affix:
        kind, part = affix.groups()
        holds = str.startswith if kind == "prefix" else str.endswith
        return Concept(name, _of_token(model, lambda text: holds(text.strip(), part)))
    variable, _, value = name.partition("=")
    values = _values(corpus, variable)
    if not values:
        known = ", ".join(sorted({latent for context in _first(corpus) for here in context.latents for latent in here}))
        raise InputError(
            f"no concept {name!r}: there are {', '.join(TEXT_FEATURES)}, prefix:TEXT, suffix:TEXT and, in this corpus, "
            f"{known or 'no hidden variables (the small world has them: --corpus world)'}"
        )
    if not value and len(values) != 2:
        raise InputError(
            f"{variable!r} has {len(values)} values: write one of them, as {variable}={values[0]} ({', '.join(values[:9])}, ...)"
        )
    if value and value not in values:
        raise InputError(f"{variable!r} is never {value!r} in this corpus; its values are {', '.join(values)}")
    positive = value or values[1]

    def holds_there(context: Context, position: int) -> bool | None:
        there = context.latents[position].get(variable)
        return None if there is None else there == positive

    return Concept(f"{variable}={positive}", holds_there)


def _of_token(model: Any, holds: Callable[[str], bool]) -> Label:
    known: dict[int, bool] = {}

    def label(context: Context, position: int) -> bool:
        token = context.tokens[position]
        if token not in known:
            known[token] = holds(model.tokenizer.decode([token]))
        return known[token]

    return label


def _values(corpus: Corpus, variable: str) -> Sequence[str]:
    return sorted({here[variable] for context in _first(corpus) for here in context.latents if variable in here})


def _first(corpus: Corpus, n: int = 500) -> Iterable[Context]:
    return corpus.first(n).read()
