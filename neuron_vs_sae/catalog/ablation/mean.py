"""The mean of the corrupt prompts, position by position."""

from typing import Any

from neuron_vs_sae.catalog.references import reference, sums
from neuron_vs_sae.core.basis import Basis
from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.core.pairs import PromptPairs
from neuron_vs_sae.execution.splice import Ablation, precision


def mean(model: Any, basis: Basis, pairs: PromptPairs, source: PromptPairs, seed: int, batch_size: int) -> Ablation:
    """A unit's (an error vector's) mean at that position over the corrupt prompts of `source`.

    Raises `InputError` when `source` and `pairs` differ in the number of positions, or no prompt reaches the last ones.
    """
    del seed
    if source.positions != pairs.positions:
        raise InputError(
            f"the mean per position is taken over prompts of {source.positions} tokens and the evaluated ones have "
            f"{pairs.positions}: use ablation 'mean_global', or mean_source='evaluation' (--mean-source evaluation)"
        )
    if int(source.length.max()) < int(pairs.length.max()):
        raise InputError(
            f"some evaluated prompts have {int(pairs.length.max())} tokens and none of those averaged has more than "
            f"{int(source.length.max())}: use ablation 'mean_global', or mean_source='evaluation' (--mean-source evaluation)"
        )
    total, reached = sums(model, basis, source, batch_size)
    # In columns that are padding in all of them there is nothing to average, and nothing reads what is written.
    means = total.map(lambda x: (x / reached.clamp(min=1)).to(precision(model)))
    return lambda rows: reference(basis, means)
