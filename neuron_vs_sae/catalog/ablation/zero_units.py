"""Zero, whatever zero means in the basis."""

from typing import Any

import torch

from neuron_vs_sae.catalog.references import reference
from neuron_vs_sae.core.basis import Basis, Features
from neuron_vs_sae.core.pairs import PromptPairs
from neuron_vs_sae.execution.splice import Ablation, precision


def zero_units(
    model: Any, basis: Basis, pairs: PromptPairs, source: PromptPairs, seed: int, batch_size: int
) -> Ablation:
    """Units and errors at 0, so that everything ablated writes `decode(0)`.

    This is not the same intervention in different bases: an SAE leaves its decoder's bias, neurons leave `b_out`, outputs leave
    nothing. Show F(empty) beside it; `zero_site` is the variant that is comparable between bases.
    """
    del source, seed, batch_size
    return lambda rows: reference(basis, zeros(model, basis, pairs))


def zeros(model: Any, basis: Basis, pairs: PromptPairs) -> Features:
    """Zero units and errors `[1, 1, ...]`."""
    like = torch.zeros(1, 1, 1, dtype=precision(model), device=pairs.clean.device)
    return Features(
        tuple(like.expand(1, 1, d.width) for d in basis.dictionaries),
        tuple(like.expand(1, 1, d.d) for d in basis.dictionaries),
    )
