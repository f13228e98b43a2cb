"""The answer's probability."""

from jaxtyping import Float
from torch import Tensor

from neuron_vs_sae.core.metric import Target


def probability(logits: Float[Tensor, "batch vocab"], target: Target) -> Float[Tensor, " batch"]:
    """`p(answer)`, between 0 and 1."""
    return logits.softmax(-1).gather(1, target.answer[:, None])[:, 0]
