"""One metric per file, found by its name."""

from typing import TYPE_CHECKING

from neuron_vs_sae.core.lookup import open_folder

if TYPE_CHECKING:
    from neuron_vs_sae.catalog.metrics.answer_logit import answer_logit as answer_logit
    from neuron_vs_sae.catalog.metrics.kl import kl as kl
    from neuron_vs_sae.catalog.metrics.log_probability import log_probability as log_probability
    from neuron_vs_sae.catalog.metrics.logit_difference import logit_difference as logit_difference
    from neuron_vs_sae.catalog.metrics.probability import probability as probability

NOUN = "metric"
COMMON = frozenset({"logits", "target"})
SEVERAL: dict[str, tuple[str, ...]] = {}

open_folder(__name__)
