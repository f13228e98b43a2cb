"""The mean of the corrupt prompts over prompts and positions."""

from typing import Any

from neuron_vs_sae.catalog.references import reference, sums
from neuron_vs_sae.core.basis import Basis
from neuron_vs_sae.core.pairs import PromptPairs
from neuron_vs_sae.execution.splice import Ablation, precision


def mean_global(
    model: Any, basis: Basis, pairs: PromptPairs, source: PromptPairs, seed: int, batch_size: int
) -> Ablation:
    """A unit's (an error vector's) mean over all tokens, BOS included, of the corrupt prompts of `source`."""
    del pairs, seed
    total, reached = sums(model, basis, source, batch_size)
    means = total.map(lambda x: (x.sum(1, keepdim=True) / reached.sum()).to(precision(model)))
    return lambda rows: reference(basis, means)
