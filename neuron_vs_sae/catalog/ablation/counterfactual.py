"""The value on the prompt's own corrupt partner."""

from typing import Any

from neuron_vs_sae.catalog.references import features, reference
from neuron_vs_sae.core.basis import Basis
from neuron_vs_sae.core.pairs import PromptPairs
from neuron_vs_sae.execution.splice import Ablation


def counterfactual(
    model: Any, basis: Basis, pairs: PromptPairs, source: PromptPairs, seed: int, batch_size: int
) -> Ablation:
    """A unit's (an error vector's) value at that position of the pair's own corrupt prompt (MIB's "CF")."""
    del source, seed, batch_size
    return lambda rows: reference(basis, features(model, basis, pairs.batch(rows)))
