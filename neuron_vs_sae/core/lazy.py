"""Names of a package that are imported when they are first used."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazily(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """A `__getattr__` for `package`: each name from its module in `homes`, which is relative to the package.

    A name that its module ends with and does not define (`"plots": "report.plots"`) is the module itself. Raises `AttributeError` for any other name.
    """

    def attribute(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        home = homes[name]
        module = import_module(f"{package}.{home}")
        if home.rpartition(".")[2] == name:
            return vars(module).get(name, module)  # `vars`, for a package may import what it is asked for
        return getattr(module, name)

    return attribute
