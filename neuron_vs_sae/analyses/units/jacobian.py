"""The Jacobian lens: the effect of a change at a layer on the last residual stream, on average over a corpus.

`J[i, j]` is the derivative of the sum of `h_final[p', j]` over the positions p' from p on with respect to `h[p, i]`, averaged over
source positions p. Source: "Jacobian lens", arXiv 2607.15495.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from neuron_vs_sae.catalog.corpora import Corpus
from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.execution.splice import gradients, home, precision


def jacobians(
    model: Any, corpus: Corpus, hooks: Sequence[str], *, prompts: int = 100, skip: int = 16, batch_size: int = 16
) -> dict[str, Float[Tensor, "d d"]]:
    """`J` at each of these hooks of the residual stream; a vector w written there changes `h_final` by `w @ J`.

    Over the first `prompts` contexts of the corpus, the first `skip` tokens of each left out as sources (they are unlike
    the others). Cost: as many forward and backward passes over them as the residual stream is wide, for all hooks
    together. Raises `InputError` where no context is longer than `skip`.
    """
    width, wide = model.cfg.d_model, precision(model)
    sums = {hook: torch.zeros(width, width, dtype=torch.float64) for hook in hooks}
    sources = 0
    for batch in corpus.batches(batch_size, 0, prompts):
        is_source = batch.real.clone()
        is_source[:, :skip] = False
        sources += int(is_source.sum())
        tokens, length = batch.tokens.to(home(model)), batch.length.to(home(model))
        for j in range(width):
            by_hook = _gradient(model, tokens, length, hooks, batch.real, j)
            for hook, gradient in by_hook.items():
                sums[hook][:, j] += gradient.cpu()[is_source].double().sum(0)
    if not sources:
        raise InputError(
            f"no context of corpus '{corpus.name}' is longer than the {skip} tokens that are skipped: take longer contexts, or skip fewer tokens"
        )
    return {hook: (total / sources).to(wide).to(home(model)) for hook, total in sums.items()}


def _gradient(
    model: Any, tokens: Tensor, length: Tensor, hooks: Sequence[str], real: Bool[Tensor, "batch pos"], j: int
) -> dict[str, Tensor]:
    """The gradient at `hooks` of coordinate `j` of the last residual stream, summed over each context's tokens."""
    last: list[Tensor] = []
    final = f"blocks.{model.cfg.n_layers - 1}.hook_resid_post"

    def total(logits: Tensor) -> Tensor:
        del logits
        return torch.where(real.to(last[0].device), last[0][..., j], 0.0).sum(1)

    return gradients(model, tokens, length, hooks, total, observers=[(final, last.append)])[1]
