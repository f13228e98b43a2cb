"""One ablation per file: what is written for a unit, and for an error node, that is not kept.

`(model, basis, pairs, source, seed, batch_size) -> (rows -> Reference)`: `pairs` are those evaluated, `source` those
whose corrupt prompts give the values, and `rows` picks the evaluated pairs of a batch. Values are read from the plain
model, so under every ablation but `zero_units` the metric with everything ablated is the same in all bases of a site.
"""

from collections.abc import Callable
from typing import Any

from neuron_vs_sae.core.lookup import find, known

# Set here, all at once: importing `ablation.x` by itself would leave the module, not its function, under that name.
globals().update({name.replace("-", "_"): find("ablation", name) for name in known("ablation")})


def __getattr__(name: str) -> Callable[..., Any]:
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; there are: {', '.join(known('ablation'))}")
