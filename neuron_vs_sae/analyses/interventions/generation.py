"""Text written under steering, and what can be said of it without a judge."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from neuron_vs_sae.analyses.interventions.doses import Handle, changes_at
from neuron_vs_sae.analyses.interventions.subjects import subject
from neuron_vs_sae.core.basis import Basis
from neuron_vs_sae.core.conventions import DoseMeasure
from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.execution.changes import edits_of
from neuron_vs_sae.execution.splice import home, run


@dataclass(frozen=True)
class Sampling:
    """How text is drawn: `temperature` 0 takes the most probable token. `steered_tokens`: generated tokens are steered as the prompt's last is."""

    tokens: int = 20
    temperature: float = 1.0
    seed: int = 0
    steered_tokens: bool = True


@dataclass(frozen=True)
class Continuation:
    """What was written after a prompt: `perplexity` under the plain model (of the same tokens), and the share of distinct words of length 1 and 2."""

    tokens: tuple[int, ...]
    text: str
    perplexity: float
    distinct_1: float
    distinct_2: float


def generate(
    model: Any,
    basis: Basis,
    handle: Handle | None,
    prompt: Int[Tensor, " pos"],
    *,
    dose: float = 0.0,
    measure: DoseMeasure = "norm",
    sampling: Sampling | None = None,
) -> Continuation:
    """A continuation with `dose` added at the prompt's last token and (`steered_tokens`) at every one that is generated.

    The same seed, prompt and dose give the same text; without a handle, or at dose 0, the plain model's. Ends at the end-of-text token and at the
    model's longest context. Cost: a forward pass per token. Raises `InputError` for settings that are none.
    """
    sampling = sampling or Sampling()
    if sampling.tokens < 1 or sampling.temperature < 0 or not len(prompt):
        raise InputError(
            f"{sampling.tokens} tokens at temperature {sampling.temperature:g} after {len(prompt)}: give 1 or more, 0 or more, and a prompt"
        )
    draw = torch.Generator().manual_seed(sampling.seed)
    tokens = prompt.to(home(model))[None]
    start, end = tokens.shape[1], getattr(model.tokenizer, "eos_token_id", None)
    nats = 0.0
    while tokens.shape[1] < min(start + sampling.tokens, model.cfg.n_ctx):
        length = torch.tensor([tokens.shape[1]], device=tokens.device)
        plain = run(model, tokens, length)
        steered = plain
        if handle is not None and dose != 0:
            where = torch.arange(tokens.shape[1], device=tokens.device)[None] >= start - 1
            if not sampling.steered_tokens:
                where &= torch.arange(tokens.shape[1], device=tokens.device)[None] < start
            of = subject(model, basis, tokens, length, where)
            changes = changes_at(model, basis, handle, "add", dose, of, measure=measure)
            steered = run(model, tokens, length, edits_of(model, basis, changes))
        token = _drawn(steered[0], sampling.temperature, draw)
        nats -= float(plain[0].double().log_softmax(-1)[token])
        tokens = torch.cat([tokens, tokens.new_tensor([[token]])], 1)
        if token == end:
            break
    written = tokens[0, start:].tolist()
    text = model.tokenizer.decode(written) if model.tokenizer is not None else " ".join(map(str, written))
    mean = nats / len(written) if written else math.nan
    return Continuation(tuple(written), text, math.exp(mean), distinct(written, 1), distinct(written, 2))


def distinct(tokens: Sequence[int], n: int) -> float:
    """The share of runs of n tokens that differ from all before them; 1 where there is no run of n."""
    runs = [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
    return len(set(runs)) / len(runs) if runs else 1.0


def _drawn(logits: Tensor, temperature: float, draw: torch.Generator) -> int:
    if temperature == 0:
        return int(logits.argmax())
    probabilities = (logits.double().cpu() / temperature).softmax(-1)
    return int(torch.multinomial(probabilities, 1, generator=draw))
