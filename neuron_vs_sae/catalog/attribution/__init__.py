"""One attribution method per file, found by its name: `(model, basis, pairs, metric, **options) -> NodeScores`.

Every method takes `metric`, `pairing` ("paired": against the corrupt prompt; "unpaired": against zero units and zero
error), `positions` ("separate" or "pooled") and `batch_size` (pairs per pass; it changes no number).
"""

from collections.abc import Callable
from typing import Any

from neuron_vs_sae.core.lookup import find, known

# Set here, all at once: importing `attribution.x` by itself would leave the module, not its function, under that name.
globals().update({name.replace("-", "_"): find("attribution", name) for name in known("attribution")})


def __getattr__(name: str) -> Callable[..., Any]:
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; there are: {', '.join(known('attribution'))}")
