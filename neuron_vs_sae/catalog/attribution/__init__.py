"""Attribution methods by name, most in a file of their own: `(model, basis, pairs, metric, **options) -> NodeScores`.

Every method takes `metric`, `pairing` ("paired": against the corrupt prompt; "unpaired": against zero units and zero
error), `positions` ("separate" or "pooled") and `batch_size` (pairs per pass; numbers differ by rounding).
"""

from typing import TYPE_CHECKING

from neuron_vs_sae.core.lookup import open_folder

if TYPE_CHECKING:
    from neuron_vs_sae.catalog.attribution.activation_patching import activation_patching as activation_patching
    from neuron_vs_sae.catalog.attribution.attribution_patching import attribution_patching as attribution_patching
    from neuron_vs_sae.catalog.attribution.conductance import conductance as conductance
    from neuron_vs_sae.catalog.attribution.delta import delta as delta
    from neuron_vs_sae.catalog.attribution.integrated_gradients import integrated_gradients as integrated_gradients
    from neuron_vs_sae.catalog.attribution.integrated_gradients_inputs import (
        integrated_gradients_inputs as integrated_gradients_inputs,
    )
    from neuron_vs_sae.catalog.attribution.random import random as random
    from neuron_vs_sae.catalog.attribution.relp import (
        relp as relp,
        relp_ah as relp_ah,
        relp_no_gate as relp_no_gate,
        relp_no_half as relp_no_half,
    )

NOUN = "attribution method"
COMMON = frozenset({"basis", "batch_size", "metric", "model", "pairing", "pairs", "positions"})
SEVERAL = {"relp": ("relp", "relp-ah", "relp-no-half", "relp-no-gate")}

open_folder(__name__)
