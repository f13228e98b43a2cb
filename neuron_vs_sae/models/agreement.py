"""Whether a model computes in transformer-lens what it computes in transformers."""

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from neuron_vs_sae.core.errors import InputError


def log_probabilities(model: Any, size: int) -> Float[Tensor, "1 pos vocab"]:
    """Those after each of 16 random tokens of a vocabulary of that size, in float64."""
    tokens = torch.randint(size, (1, 16), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        output = model.eval()(tokens.to(next(model.parameters()).device))
    return getattr(output, "logits", output).cpu().double().log_softmax(-1)


def check_agreement(
    ours: Float[Tensor, "1 pos vocab"],
    expected: Float[Tensor, "1 pos vocab"],
    source: str | Path,
    dtype: torch.dtype,
    hint: str,
) -> None:
    """Raises `InputError` where log probabilities differ by more than .01, or in half precision by more than .2 on average.

    transformer-lens ignores settings that it does not know (kinds of rope scaling, biases), and only the numbers show it. In
    half precision two correct implementations round differently at every layer, so there the mean is compared.
    """
    distance = (ours - expected).abs()
    half = dtype in (torch.bfloat16, torch.float16)
    difference, bound = (float(distance.mean()), 0.2) if half else (float(distance.max()), 1e-2)
    if not difference <= bound:
        raise InputError(
            f"{source} computes other numbers in transformer-lens than in transformers (log probabilities differ by "
            f"{difference:.2g}{' on average' if half else ''}): its config.json has a setting that transformer-lens does not "
            f"know{hint}"
        )
