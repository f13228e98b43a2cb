"""The answer's log probability."""

from jaxtyping import Float
from torch import Tensor

from neuron_vs_sae.core.metric import Target


def log_probability(logits: Float[Tensor, "batch vocab"], target: Target) -> Float[Tensor, " batch"]:
    """`log p(answer)`, in nats."""
    return logits.log_softmax(-1).gather(1, target.answer[:, None])[:, 0]
