"""One task per file, found by its name: `(model, *, options) -> PromptPairs`."""

from typing import TYPE_CHECKING

from neuron_vs_sae.core.lookup import open_folder

if TYPE_CHECKING:
    from neuron_vs_sae.catalog.tasks.addition import addition as addition
    from neuron_vs_sae.catalog.tasks.agreement import agreement as agreement
    from neuron_vs_sae.catalog.tasks.antonyms import antonyms as antonyms
    from neuron_vs_sae.catalog.tasks.capitals import capitals as capitals
    from neuron_vs_sae.catalog.tasks.countries import countries as countries
    from neuron_vs_sae.catalog.tasks.from_dataset import from_dataset as from_dataset
    from neuron_vs_sae.catalog.tasks.from_file import from_file as from_file
    from neuron_vs_sae.catalog.tasks.greater_than import greater_than as greater_than
    from neuron_vs_sae.catalog.tasks.ioi import ioi as ioi
    from neuron_vs_sae.catalog.tasks.successor import successor as successor
    from neuron_vs_sae.catalog.tasks.world import world as world

NOUN = "task"
COMMON = frozenset({"model", "n", "part", "prepend_bos", "seed"})
SEVERAL: dict[str, tuple[str, ...]] = {}

open_folder(__name__)
