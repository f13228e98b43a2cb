"""The tokenizer's own chat template around a question."""

from typing import Any

from neuron_vs_sae.errors import InputError

# Some templates write today's date: a prompt must not change from day to day.
_DATE = "26 Jul 2024"


def rendered(tokenizer: Any, user: str, prefix: str) -> str:
    """The prompt of a chat model: the user's turn in the tokenizer's template, then the assistant's, begun with `prefix`.

    A BOS that the template writes is left out: whether there is one is decided in one place, `prepend_bos`.
    Raises `InputError` for a tokenizer without template, or a template that writes BOS twice.
    """
    if tokenizer is None or not getattr(tokenizer, "chat_template", None):
        raise InputError("the model's tokenizer has no chat template: use form=base, or the model's chat version")
    turns = [{"role": "user", "content": user}]
    try:
        text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True, date_string=_DATE)
    except Exception as error:  # a template is code of the tokenizer's author, and may raise anything
        raise InputError(f"the tokenizer's chat template fails: {error}") from error
    bos = tokenizer.bos_token
    text = text.removeprefix(bos) if bos else text
    if bos and text.startswith(bos):
        raise InputError(f"the tokenizer's chat template writes BOS ({bos!r}) twice")
    return text + prefix
