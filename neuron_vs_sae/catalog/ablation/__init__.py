"""One ablation per file: what is written for a unit, and for an error node, that is not kept.

`(model, basis, pairs, source, seed, batch_size) -> (rows -> ReferenceValues)`: `pairs` are the evaluated pairs, `source` the pairs
whose corrupt prompts give the values, and `rows` picks the evaluated pairs of a batch. Values are read from the plain
model, so under every ablation but `zero_units` the metric with everything ablated is the same in all bases of a site.
"""

from typing import TYPE_CHECKING

from neuron_vs_sae.core.lookup import open_folder

if TYPE_CHECKING:
    from neuron_vs_sae.catalog.ablation.counterfactual import counterfactual as counterfactual
    from neuron_vs_sae.catalog.ablation.mean import mean as mean
    from neuron_vs_sae.catalog.ablation.mean_global import mean_global as mean_global
    from neuron_vs_sae.catalog.ablation.resample import resample as resample
    from neuron_vs_sae.catalog.ablation.zero_site import zero_site as zero_site
    from neuron_vs_sae.catalog.ablation.zero_units import zero_units as zero_units

NOUN = "ablation"
COMMON = frozenset({"basis", "batch_size", "model", "pairs", "seed", "source"})
SEVERAL: dict[str, tuple[str, ...]] = {}

open_folder(__name__)
