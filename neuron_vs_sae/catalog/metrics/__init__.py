"""One metric per file, found by its name."""

from collections.abc import Callable
from typing import Any

from neuron_vs_sae.core.lookup import find, known

# Set here, all at once: importing `metrics.x` by itself would leave the module, not its function, under that name.
globals().update({name.replace("-", "_"): find("metrics", name) for name in known("metrics")})


def __getattr__(name: str) -> Callable[..., Any]:
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; there are: {', '.join(known('metrics'))}")
