"""Every task, and tokenizers of words to draw its pairs for."""

import re
from functools import cache
from types import SimpleNamespace
from typing import Any

import torch

from neuron_vs_sae.core.lookup import bound
from neuron_vs_sae.core.pairs import PromptPairs


class Words:
    """A tokenizer of words, each with the space before it, and of numbers as `digits` says; it knows every word."""

    is_fast = True
    bos_token, bos_token_id = "<s>", 0

    def __init__(self, digits: str) -> None:
        self.pattern = re.compile(rf"<s>|{digits}|\s?[^\s\d.,?!;:\"“”«»„？：؟+]+|\s?[^\s\d]|\s")
        self.known = {"<s>": 0}

    def __call__(self, text: Any, return_offsets_mapping: bool = False, **_: Any) -> Any:
        if isinstance(text, str):
            return SimpleNamespace(input_ids=self.ids(text))
        spans = [[match.span() for match in self.pattern.finditer(line)] for line in text]
        return SimpleNamespace(input_ids=[self.ids(line) for line in text], offset_mapping=spans)

    def ids(self, text: str) -> list[int]:
        return [self.known.setdefault(token, len(self.known)) for token in self.pattern.findall(text)]

    def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
        names = list(self.known)
        return [names[i] for i in ids]


# Numbers in pairs of digits with the space before (as GPT-2 has years), and single digits apart from it (as Gemma).
PAIRS, SINGLE = r"\s?\d{1,2}", r"\d"


def of(tokenizer: Any) -> Any:
    return SimpleNamespace(tokenizer=tokenizer, parameters=lambda: iter([torch.zeros(1)]))


# Every task as a study would name it, and the tags of which discovery and evaluation must share no value.
CASES = {
    "agreement,structure=simple": ["lemma"],
    "agreement": ["lemma", "distractor"],
    "agreement,structure=rc": ["lemma", "distractor"],
    "agreement,structure=within_rc": ["lemma", "distractor"],
    "ioi": ["io", "subject"],
    "ioi,counterfactual=names": ["io", "subject"],
    "greater_than": ["event"],
    "addition": [],
    "capitals": ["city", "state"],
    "antonyms": ["word"],
    "successor": [],
    "countries": ["country"],
    "countries,hops=reasoning": ["country"],
}
FEW = {"antonyms": (28, 4)}


def both(model: Any, task: str, **options: Any) -> tuple[PromptPairs, PromptPairs]:
    n, n_eval = FEW.get(task.split(",")[0], (300, 40))
    discovery = bound("tasks", task, part="discovery", n=n, **options)(model)
    return discovery, bound("tasks", task, part="evaluation", n=n_eval, **options)(model)


def prompts(pairs: PromptPairs) -> set[str]:
    return {*pairs.clean_text, *pairs.corrupt_text}


@cache
def published(folder: Any) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)
