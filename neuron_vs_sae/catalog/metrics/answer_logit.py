"""The answer's logit."""

from jaxtyping import Float
from torch import Tensor

from neuron_vs_sae.core.metric import Target, of_targets_only


@of_targets_only
def answer_logit(logits: Float[Tensor, "batch vocab"], target: Target) -> Float[Tensor, " batch"]:
    """`logit[answer]`. A constant added to all logits moves it, so weight processing (`center_unembed`) does too."""
    return logits.gather(1, target.answer[:, None])[:, 0]
