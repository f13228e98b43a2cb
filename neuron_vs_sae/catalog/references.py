"""Values of the corrupt prompts, for the ablations that write them."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from neuron_vs_sae.core.basis import Basis, Features
from neuron_vs_sae.core.pairs import PromptPairs
from neuron_vs_sae.execution.splice import ReferenceValues, read


def features(model: Any, basis: Basis, pairs: PromptPairs) -> Features:
    """Units and errors of the corrupt prompts."""
    return basis.features(read(model, pairs.corrupt, pairs.length, basis.hooks))


def reference(basis: Basis, values: Features) -> ReferenceValues:
    """These values, with no constants removed from the model."""
    nothing = (None,) * len(basis.sites)
    return ReferenceValues(values, nothing, nothing)


def sums(model: Any, basis: Basis, source: PromptPairs, batch_size: int) -> tuple[Features, Float[Tensor, "pos 1"]]:
    """(sums over the corrupt prompts of every value `[1, pos, ...]`, prompts that reach each position), in float64."""
    total: Features | None = None
    for batch in source.batches(batch_size):
        real = batch.real[..., None]

        def add(x: Tensor, real: Tensor = real) -> Tensor:
            return (x.double() * real).sum(0, keepdim=True)

        part = features(model, basis, batch).map(add)
        total = part if total is None else total - part.map(torch.neg)
    assert total is not None  # PromptPairs are never empty
    reached = source.real.sum(0)[:, None]
    return total, reached.double()
