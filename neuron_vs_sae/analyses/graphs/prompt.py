"""The one prompt that a graph is of: a text, or the clean prompt of a pair."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.core.pairs import PromptPairs
from neuron_vs_sae.execution.splice import home


@dataclass(frozen=True, eq=False)
class Prompt:
    """Tokens (BOS included) of one prompt, each one's text, and the pair that it is the clean half of, where it is of one."""

    tokens: Int[Tensor, "1 pos"]
    text: str
    shown: tuple[str, ...]
    pair: PromptPairs | None = None


def prompt_of(model: Any, given: str | PromptPairs) -> Prompt:
    """The prompt of a text, before which BOS is put, or of a single pair.

    Raises `InputError` for an empty text, one that is longer than the model reads, and more than one pair: prompts of one graph
    must not be batched, for their positions and lengths differ.
    """
    if isinstance(given, PromptPairs):
        if len(given) != 1:
            raise InputError(
                f"a graph is of one prompt, and task '{given.name}' has {len(given)} pairs here: take one of them, "
                "pairs.take([0]) (--index 0)"
            )
        pair = given.take([0])
        tokens, text = pair.clean[:, : int(pair.length[0])], pair.clean_text[0]
    else:
        if not given.strip():
            raise InputError("the prompt is empty: give a text (--prompt)")
        pair, text = None, given
        bos = [] if model.tokenizer.bos_token_id is None else [model.tokenizer.bos_token_id]
        ids = [*bos, *model.tokenizer(given, add_special_tokens=False)["input_ids"]]
        tokens = torch.tensor([ids], device=home(model))
    if tokens.shape[1] > model.cfg.n_ctx:
        raise InputError(f"a prompt of {tokens.shape[1]} tokens: this model reads 1 to {model.cfg.n_ctx}")
    return Prompt(tokens, text, tuple(token_text(model, token) for token in tokens[0].tolist()), pair)


def token_text(model: Any, token: int) -> str:
    """What a token says; its number for a model without a tokenizer."""
    return str(token) if model.tokenizer is None else model.tokenizer.decode([token])
