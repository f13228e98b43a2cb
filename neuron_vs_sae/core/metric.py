"""What a metric is: one number per prompt from the logits at its answer position; larger supports the answer."""

from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from neuron_vs_sae.core.conventions import Pairing
from neuron_vs_sae.core.errors import InputError, check_choice
from neuron_vs_sae.core.lookup import find


@dataclass(frozen=True, eq=False)
class Target:
    """What a batch of prompts is scored against: answer and foil tokens, and the full model's logits (if asked for)."""

    answer: Int[Tensor, " batch"]
    foil: Int[Tensor, " batch"]
    model_logits: Callable[[], Float[Tensor, "batch vocab"]]


Metric = Callable[[Float[Tensor, "batch vocab"], Target], Float[Tensor, " batch"]]


def of_targets_only(metric: Metric) -> Metric:
    """Marks a metric that reads only the logits of answer and foil, so that no others need be computed.

    It may then be called with the logits of some tokens, and a `Target` whose ids are places among those.
    """
    metric.__dict__["of_targets_only"] = True
    return metric


def reads_targets_only(metric: Metric) -> bool:
    return getattr(metric, "of_targets_only", False)


def resolve(metric: str | Metric) -> Metric:
    """The metric of that name (`metrics/`), or the function itself."""
    return find("metrics", metric) if isinstance(metric, str) else metric


def for_attribution(metric: str | Metric | None, pairing: str) -> str | Metric:
    """The metric to differentiate; where none is given, the logit difference, or the answer's logit alone when unpaired.

    Source: Arora et al. 2026 (arXiv 2601.22594), whose unpaired scores differentiate the answer's logit.
    """
    check_choice("pairing", pairing, Pairing)
    return metric or ("answer_logit" if pairing == "unpaired" else "logit_difference")


def check_slope_at_clean(metric: str | Metric | None) -> None:
    """Raises `InputError` for a metric whose gradient at the clean prompt is zero up to rounding."""
    if metric is not None and resolve(metric) is find("metrics", "kl"):
        raise InputError(
            "the gradient of kl is zero at the clean prompt, so there is nothing to attribute there: attribute another metric "
            "(--attribution-metric logit_difference), or use integrated_gradients or grad_at=corrupt"
        )
