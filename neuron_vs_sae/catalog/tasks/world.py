"""Pairs of the embedded small world (`default/`): `world:FAMILY`, for the models that were trained on it."""

from typing import Any, Literal

from neuron_vs_sae.core.building import build
from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.core.pairs import PromptPairs
from neuron_vs_sae.default.families import FAMILIES
from neuron_vs_sae.default.language import rows
from neuron_vs_sae.default.tokenizer import vocabulary


def world(
    model: Any,
    *,
    source: str,
    template: int | None = None,
    prepend_bos: bool = True,
    seed: int = 0,
    part: Literal["discovery", "evaluation"] = "discovery",
    n: int = 300,
) -> PromptPairs:
    """`n` pairs of one family of the small world (`world:two_hop`), or all of them where there are fewer.

    Discovery and evaluation share no prompt, and no noun, verb, name or place that a prompt names. `default/families.py` says
    what else they share, and which evaluation questions were never seen in training. `template` keeps one of the
    family's templates, so that a position means the same in every pair. Raises `InputError` for a family or template
    that is not there, and for a model with another vocabulary.
    """
    if source not in FAMILIES:
        raise InputError(f"the small world has no task {source!r}; there are: {', '.join(FAMILIES)}")
    templates = FAMILIES[source].templates
    if template is not None and not 0 <= template < len(templates):
        raise InputError(f"task 'world:{source}' has no template {template}; it has 0 to {len(templates) - 1}")
    unknown = set(vocabulary()) - model.tokenizer.get_vocab().keys()
    if unknown:
        raise InputError(
            f"task 'world:{source}' is written in the vocabulary of the models 'default' and 'default-gpt2'; model "
            f"'{model.cfg.model_name}' lacks {len(unknown)} of its words as single tokens. Choose another task, or --model default"
        )
    name = source if template is None else f"{source}.{template}"
    texts = rows(source, part, n, seed, template)
    return build(name, model.tokenizer, texts, prepend_bos=prepend_bos).to(next(model.parameters()).device)
