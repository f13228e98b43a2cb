"""How far the answer's logit is above the foil's."""

from jaxtyping import Float
from torch import Tensor

from neuron_vs_sae.core.metric import Target, of_targets_only


@of_targets_only
def logit_difference(logits: Float[Tensor, "batch vocab"], target: Target) -> Float[Tensor, " batch"]:
    """`logit[answer] - logit[foil]`, in logits."""
    answer = logits.gather(1, target.answer[:, None])
    return (answer - logits.gather(1, target.foil[:, None]))[:, 0]
