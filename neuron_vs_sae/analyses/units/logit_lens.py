"""The logit lens: what the model would predict if it ended at a site.

The final norm, the unembedding and the soft-cap are the model's own (`execution.passes.logits`), so the lens of the last
layer's residual stream is the model's output. Source: nostalgebraist 2020, "interpreting GPT: the logit lens".
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.execution.passes import logits
from neuron_vs_sae.execution.splice import home, read

KINDS = ("hook_resid_pre", "hook_resid_mid", "hook_resid_post")
"""The sites that hold the residual stream."""


@dataclass(frozen=True, eq=False)
class Lens:
    """The log probabilities (nats) of every next token, read off at each site and position of a prompt."""

    text: tuple[str, ...]
    tokens: Int[Tensor, " pos"]
    sites: tuple[str, ...]
    layers: tuple[int, ...]
    log_probabilities: Float[Tensor, "sites pos vocab"]

    def top(self, k: int) -> tuple[Int[Tensor, "sites pos k"], Float[Tensor, "sites pos k"]]:
        """The `k` most probable tokens, best first, and their probabilities; ties go to the smaller token."""
        order = torch.sort(self.log_probabilities, dim=-1, descending=True, stable=True)
        return order.indices[..., :k], order.values[..., :k].exp()

    def ranks(self, tokens: Sequence[int]) -> Int[Tensor, "tokens sites pos"]:
        """How many tokens are more probable than each of these: 0 is the prediction."""
        chosen = self.log_probabilities[..., list(tokens)]
        return torch.stack([(self.log_probabilities > chosen[..., i, None]).sum(-1) for i in range(len(tokens))])

    def probabilities(self, tokens: Sequence[int]) -> Float[Tensor, "tokens sites pos"]:
        return self.log_probabilities[..., list(tokens)].movedim(-1, 0).exp()


def lens(model: Any, prompt: str | Int[Tensor, " pos"], *, site: str = "hook_resid_post") -> Lens:
    """The lens at one kind of residual site in every layer, for a text or for tokens (BOS included).

    Cost: one forward pass, and an unembedding per layer. Raises `InputError` for a site that is not of the residual stream,
    an empty prompt, and one that is longer than the model reads.
    """
    if site not in KINDS:
        raise InputError(f"no lens at {site!r}: it reads the residual stream, at one of {', '.join(KINDS)} (--site)")
    if site == "hook_resid_mid" and (model.cfg.attn_only or model.cfg.parallel_attn_mlp):
        raise InputError(
            f"model '{model.cfg.model_name}' has no hook_resid_mid: take hook_resid_pre or hook_resid_post (--site)"
        )
    tokens = _tokens(model, prompt) if isinstance(prompt, str) else prompt
    if not 1 <= len(tokens) <= model.cfg.n_ctx:
        raise InputError(f"a prompt of {len(tokens)} tokens: this model reads 1 to {model.cfg.n_ctx}")
    hooks = [f"blocks.{layer}.{site}" for layer in range(model.cfg.n_layers)]
    batch = tokens[None].to(home(model))
    seen = read(model, batch, torch.tensor([len(tokens)]), hooks)
    with torch.no_grad():
        log_probabilities = [logits(model, seen[hook][0].to(model.cfg.dtype)).log_softmax(-1).cpu() for hook in hooks]
    return Lens(
        text=tuple(_shown(model, token) for token in tokens.tolist()),
        tokens=tokens.cpu(),
        sites=tuple(hooks),
        layers=tuple(range(model.cfg.n_layers)),
        log_probabilities=torch.stack(log_probabilities),
    )


def _tokens(model: Any, prompt: str) -> Int[Tensor, " pos"]:
    if not prompt.strip():
        raise InputError("the prompt is empty: give a text (--prompt)")
    tokenizer = model.tokenizer
    bos = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    return torch.tensor([*bos, *tokenizer(prompt, add_special_tokens=False)["input_ids"]])


def _shown(model: Any, token: int) -> str:
    return str(token) if model.tokenizer is None else model.tokenizer.decode([token])
