"""How close the next-token distribution is to the full model's."""

from jaxtyping import Float
from torch import Tensor

from neuron_vs_sae.core.metric import Target


def kl(logits: Float[Tensor, "batch vocab"], target: Target) -> Float[Tensor, " batch"]:
    """Minus KL(full model, run) in nats, summed over the vocabulary: 0 for the model itself, lower the further away.

    The minus keeps the sign of every metric: larger is nearer to the model's behaviour. Its gradient at the clean prompt
    is zero, so methods that differentiate there need another `attribution_metric`.
    """
    model = target.model_logits().log_softmax(-1)
    return (model.exp() * (logits.log_softmax(-1) - model)).sum(-1)
