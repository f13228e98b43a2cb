"""A type checker that remembers what it checked: `pytest --jaxtyping-packages=neuron_vs_sae,checking.recorded`.

With CHECKED_CALLS set to a file, what was called is written there when the tests end (`conftest.py`).
"""

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from beartype import beartype

called: dict[str, bool] = {}
"""The package's public functions with a tensor's or array's shape in their signature, and whether they were called."""


def recorded(function: Callable[..., Any]) -> Callable[..., Any]:
    """`beartype` of the function, with each call noted."""
    checked = beartype(function)
    name = f"{function.__module__}.{function.__qualname__}"
    shaped = any("jaxtyping" in repr(annotation) for annotation in function.__annotations__.values())
    if not shaped or "<locals>" in name or any(part.startswith("_") for part in function.__qualname__.split(".")):
        return checked
    called.setdefault(name, False)

    @functools.wraps(checked)
    def call(*args: Any, **kwargs: Any) -> Any:
        called[name] = True
        return checked(*args, **kwargs)

    return call


def write(file: Path) -> None:
    file.write_text(json.dumps(called, indent=1))
