"""The package's docstrings are plain text with `code` in single backticks: what Sphinx needs to show them as they read."""

import re
from typing import Any

_CODE = re.compile(r"(`[^`]+`)", re.DOTALL)
_MARKUP = re.compile(r"([*|\\]|_(?=\W|$))")


def connect(app: Any) -> None:
    app.connect("autodoc-process-docstring", _docstring)
    app.connect("autodoc-process-signature", _signature)


def _docstring(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    lines[:] = to_rst("\n".join(lines)).split("\n")


def to_rst(text: str) -> str:
    """Code as literals, every other sign that reStructuredText would read as markup as itself."""
    return "".join(
        f"``{_joined(part.strip('`'))}``" if part.startswith("`") else _MARKUP.sub(r"\\\1", part)
        for part in _CODE.split(text)
    )


def _joined(code: str) -> str:
    return re.sub(r"\s*\n\s*", " ", code)


def _signature(
    app: Any, what: str, name: str, obj: Any, options: Any, signature: str | None, returns: str | None
) -> Any:
    return tuple(None if text is None else readable(text) for text in (signature, returns))


def readable(annotation: str) -> str:
    """Annotations without the modules that their names come from: `Float[Tensor, 'batch pos']`."""
    return re.sub(r"~?\b(?:\w+\.)+(?=[A-Z]\w*)", "", annotation)
