"""A name to the function of that name: the file is the registration."""

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from neuron_vs_sae.core.errors import InputError

_NOUNS = {
    "bases": "basis",
    "attribution": "attribution method",
    "tasks": "task",
    "metrics": "metric",
    "ablation": "ablation",
}

# Keywords that a run gives to all alike: they are fields of the study, or no choice at all.
_COMMON = {"batch_size", "pairing", "positions", "prepend_bos", "prompts", "shelf"}
_OF_TASKS = {"seed", "part", "n"}


@cache
def known(folder: str) -> tuple[str, ...]:
    """Names found in a folder of the package (`bases`, `attribution`, ...), sorted, in their one spelling.

    A name is its file's. RelP's presets alone are written with hyphens (`relp-ah`), as in the literature.
    """
    stems = sorted(
        f.stem for f in (Path(__file__).parents[1] / "catalog" / folder).glob("*.py") if not f.stem.startswith("_")
    )
    return tuple(stem.replace("_", "-") if stem.startswith("relp_") else stem for stem in stems)


def check(folder: str, name: str) -> str:
    """The name in its one spelling (`-` and `_` are alike). Raises `InputError`, listing what there is, for no such name."""
    found = {one.replace("-", "_"): one for one in known(folder)}.get(name.replace("-", "_"))
    if found is None:
        raise InputError(f"no {_NOUNS[folder]} {name!r}; there are: {', '.join(known(folder))}")
    return found


def find(folder: str, name: str) -> Callable[..., Any]:
    """The function of that name: `catalog/FOLDER/NAME.py`, with `_` for `-`."""
    stem = check(folder, name).replace("-", "_")
    return getattr(import_module(f"neuron_vs_sae.catalog.{folder}.{stem}"), stem)


def summary(folder: str, name: str) -> str:
    """The first line of its docstring."""
    return (inspect.getdoc(find(folder, name)) or "").split("\n")[0]


@dataclass(frozen=True)
class Spec:
    """A name with what follows it: `NAME[:SOURCE][@SITE][,option=value...]`."""

    name: str
    options: dict[str, str]

    def __str__(self) -> str:
        """The text again, in the one spelling that all its spellings share."""
        text = self.name
        for key, mark in (("source", ":"), ("site", "@")):
            text += mark + self.options[key] if key in self.options else ""
        return text + "".join(f",{k}={v}" for k, v in self.options.items() if k not in {"source", "site"})


_SPEC = re.compile(
    r"(?P<name>[^:@,]*)(:(?P<source>.+?))?(@(?P<site>[^@/,]+))?(?P<options>(,[A-Za-z_]\w*=[^,]*)*)", re.DOTALL
)


def parse(folder: str, text: str) -> Spec:
    """Take `sae:DIR@hook_mlp_out,any_model=true` apart; the name must be known."""
    match = _SPEC.fullmatch(text)
    if match is None:
        raise InputError(f"cannot read {_NOUNS[folder]} {text!r}; it is written NAME[:SOURCE][@SITE][,option=value]")
    name = check(folder, match["name"])
    given = [(key, match[key]) for key in ("source", "site") if match[key] is not None]
    for part in match["options"].split(",")[1:]:
        key, _, value = part.partition("=")
        given.append((key, value))
    keys = [key for key, _ in given]
    twice = [key for key in keys if keys.count(key) > 1]
    if twice:
        raise InputError(f"option {twice[0]!r} is given twice (in {text!r})")
    return Spec(name, dict(given))


def takes(folder: str, text: str, option: str) -> bool:
    """Whether the function that `text` names has this parameter."""
    return option in inspect.signature(find(folder, parse(folder, text).name)).parameters


def bound(folder: str, text: str, **given: Any) -> Callable[..., Any]:
    """The function that `text` names, with its options converted to their types and bound.

    `given` are values that the caller offers (`prompts`, `seed`); the function gets those that it has a parameter for,
    unless the text sets them. Raises `InputError` for an option that it does not have, lacks, or cannot convert.
    """
    spec = parse(folder, text)
    function = find(folder, spec.name)
    parameters = {
        k: p for k, p in inspect.signature(function).parameters.items() if p.kind is inspect.Parameter.KEYWORD_ONLY
    }
    options: dict[str, Any] = {k: v for k, v in given.items() if k in parameters}
    own = [k for k in parameters if k not in _COMMON and not (folder == "tasks" and k in _OF_TASKS)]
    for key, value in spec.options.items():
        if key == "source" and "path" in own:
            key = "path"
        if key not in own:
            raise InputError(
                f"{_NOUNS[folder]} {spec.name!r} has no option {key!r} of its own (in {text!r}); it takes: {', '.join(own) or 'none'}"
            )
        try:
            options[key] = TypeAdapter(
                parameters[key].annotation, config={"arbitrary_types_allowed": True}
            ).validate_python(value)
        except ValidationError as error:
            raise InputError(f"{text!r}: {key}={value!r} is wrong: {error.errors()[0]['msg']}") from None
    lacking = [k for k, p in parameters.items() if p.default is inspect.Parameter.empty and k not in options]
    if lacking:
        kinds = {"source": "NAME", "path": "FILE"}
        hint = f" (write {spec.name}:{kinds[lacking[0]]}; `nvs list {folder}`)" if lacking[0] in kinds else ""
        raise InputError(f"{_NOUNS[folder]} {spec.name!r} needs {', '.join(lacking)}{hint}")
    return lambda *args, **kwargs: function(*args, **{**options, **kwargs})
