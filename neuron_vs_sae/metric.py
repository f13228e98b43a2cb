"""What a metric is: one number per prompt from the logits at its answer position; larger supports the answer."""

from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from neuron_vs_sae.lookup import find


@dataclass(frozen=True, eq=False)
class Target:
    """What a batch of prompts is scored against: answer and foil tokens, and the full model's logits (if asked for)."""

    answer: Int[Tensor, " batch"]
    foil: Int[Tensor, " batch"]
    model_logits: Callable[[], Float[Tensor, "batch vocab"]]


Metric = Callable[[Float[Tensor, "batch vocab"], Target], Float[Tensor, " batch"]]


def resolve(metric: str | Metric) -> Metric:
    """The metric of that name (`metrics/`), or the function itself."""
    return find("metrics", metric) if isinstance(metric, str) else metric


def for_attribution(metric: str | Metric, pairing: str) -> str | Metric:
    """The metric whose gradient is taken: the answer's logit alone where an unpaired method has no foil to speak of.

    Source: methods of Arora et al. 2026 (arXiv 2601.22594), whose unpaired scores differentiate the answer's logit.
    """
    return "answer_logit" if pairing == "unpaired" and metric == "logit_difference" else metric
