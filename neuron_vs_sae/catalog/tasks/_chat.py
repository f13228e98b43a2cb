"""The tokenizer's own chat template around a question."""

from datetime import datetime
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from neuron_vs_sae.core.errors import InputError

# Some templates write today's date or ask for it; a prompt must not change from day to day.
_DATE = datetime(2024, 7, 26)


def rendered(tokenizer: Any, user: str, prefix: str) -> str:
    """The prompt of a chat model: the user's turn in the tokenizer's template, then the assistant's, begun with `prefix`.

    A BOS that the template writes is left out: whether there is one is decided in one place, `prepend_bos`.
    Raises `InputError` for a tokenizer without template, or a template that writes BOS twice.
    """
    if tokenizer is None or not getattr(tokenizer, "chat_template", None):
        raise InputError("the model's tokenizer has no chat template: use form=base, or the model's chat version")
    from transformers.utils import chat_template_utils

    turns = [{"role": "user", "content": user}]
    try:
        with patch.object(chat_template_utils, "datetime", SimpleNamespace(now=lambda: _DATE)):
            text = tokenizer.apply_chat_template(
                turns, tokenize=False, add_generation_prompt=True, date_string=_DATE.strftime("%d %b %Y")
            )
    except Exception as error:  # a template is code of the tokenizer's author, and may raise anything
        raise InputError(f"the tokenizer's chat template fails: {error}") from error
    bos = tokenizer.bos_token
    text = text.removeprefix(bos) if bos else text
    if bos and bos in text:
        raise InputError(
            f"the tokenizer's chat template writes BOS ({bos!r}) twice, or elsewhere than at the beginning: it is put before "
            "every prompt, once"
        )
    return text + prefix
