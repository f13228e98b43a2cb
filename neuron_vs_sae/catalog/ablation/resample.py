"""The value on another pair's corrupt prompt."""

from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from neuron_vs_sae.catalog.references import features, reference
from neuron_vs_sae.core.basis import Basis
from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.core.pairs import PromptPairs
from neuron_vs_sae.execution.splice import Ablation


def resample(model: Any, basis: Basis, pairs: PromptPairs, source: PromptPairs, seed: int, batch_size: int) -> Ablation:
    """A unit's (an error vector's) value at that position of the corrupt prompt of another pair, drawn once by `seed`.

    Every pair draws one of the others of its own length, so the draw depends neither on the basis nor on batches.
    Raises `InputError` for a pair that is alone in its length.
    """
    del source, batch_size
    donors = donor_rows(pairs, seed)
    return lambda rows: reference(basis, features(model, basis, pairs.batch(donors[rows])))


def donor_rows(pairs: PromptPairs, seed: int) -> Int[Tensor, " batch"]:
    """For each pair the row of another pair of the same length."""
    generator = torch.Generator().manual_seed(seed)
    length = pairs.length.cpu()
    donors = torch.empty(len(pairs), dtype=torch.long)
    for i in range(len(pairs)):
        others = ((length == length[i]) & (torch.arange(len(pairs)) != i)).nonzero().flatten()
        if not len(others):
            raise InputError(
                f"pair {i} of task '{pairs.name}' is the only one of {int(length[i])} tokens: ablation 'resample' needs "
                "another pair to draw from. Evaluate on more pairs, or use 'counterfactual'"
            )
        donors[i] = others[torch.randint(len(others), (1,), generator=generator)]
    return donors
