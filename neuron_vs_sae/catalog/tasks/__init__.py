"""One task per file, found by its name: `(model, *, options) -> PromptPairs`."""

from collections.abc import Callable
from typing import Any

from neuron_vs_sae.core.lookup import find, known

# Set here, all at once: importing `tasks.x` by itself would leave the module, not its function, under that name.
globals().update({name.replace("-", "_"): find("tasks", name) for name in known("tasks")})


def __getattr__(name: str) -> Callable[..., Any]:
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}; there are: {', '.join(known('tasks'))}")
