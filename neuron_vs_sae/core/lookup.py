"""A name to the function of that name: the file is the registration.

The folders of the catalog are `bases`, `attribution`, `ablation`, `metrics` and `tasks`. The `__init__` of each says what its
files are (`NOUN`), which arguments a run passes to all of them alike (`COMMON`), and which hold several functions
(`SEVERAL`); everything else is read from the files and from their signatures.
"""

import inspect
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

from pydantic import TypeAdapter, ValidationError

from neuron_vs_sae.core.errors import InputError

_CATALOG = "neuron_vs_sae.catalog"
_LARGEST = 2**53  # a seed times a thousand still has 64 bits


class Folder(ModuleType):
    """A folder of the catalog as a module: its functions are attributes, imported when they are first used."""

    NOUN: str
    """What one of its functions makes or is, for messages: `basis`."""
    COMMON: frozenset[str]
    """Arguments that a run passes to all of them alike, and that are therefore never options of a text."""
    SEVERAL: Mapping[str, tuple[str, ...]]
    """The names in each file that holds more than the one of its own name."""

    def __getattr__(self, name: str) -> Any:
        folder = self.__name__.rpartition(".")[2]
        if name.replace("_", "-") not in {known_name.replace("_", "-") for known_name in known(folder)}:
            raise AttributeError(
                f"module {self.__name__!r} has no attribute {name!r}; there are: {', '.join(known(folder))}"
            )
        return find(folder, name)

    def __setattr__(self, name: str, value: Any) -> None:
        # Python leaves a submodule that has been imported under its name, which here is its function's.
        function = getattr(value, name, None) if isinstance(value, ModuleType) else None
        super().__setattr__(name, value if function is None else function)

    def __dir__(self) -> list[str]:
        return [name.replace("-", "_") for name in known(self.__name__.rpartition(".")[2])]


def open_folder(module: str) -> None:
    """Turn the module of that name, while it is being imported, into a `Folder`."""
    sys.modules[module].__class__ = Folder


def _opened(folder: str) -> Folder:
    module = import_module(f"{_CATALOG}.{folder}")
    assert isinstance(module, Folder)
    return module


@cache
def _homes(folder: str) -> dict[str, str]:
    """The file that holds each function of a folder, by the function's name; none of the files is imported."""
    several = _opened(folder).SEVERAL
    files = (Path(__file__).parents[1] / "catalog" / folder).glob("*.py")
    stems = sorted(file.stem for file in files if not file.stem.startswith("_"))
    return {name: stem for stem in stems for name in several.get(stem, (stem,))}


@cache
def known(folder: str) -> tuple[str, ...]:
    """Names in a folder of the catalog (`bases`, `attribution`, ...), sorted, in their one spelling."""
    return tuple(sorted(_homes(folder), key=lambda name: name.replace("-", "_")))


def check(folder: str, name: str) -> str:
    """The name in its one spelling (`-` and `_` are alike). Raises `InputError`, listing what there is, for no such name."""
    spelling = {spelled.replace("-", "_"): spelled for spelled in known(folder)}.get(name.replace("-", "_"))
    if spelling is None:
        raise InputError(f"no {_opened(folder).NOUN} {name!r}; there are: {', '.join(known(folder))}")
    return spelling


def find(folder: str, name: str) -> Callable[..., Any]:
    """The function of that name, with `_` for `-`. Raises `InputError` for no such name."""
    spelling = check(folder, name)
    module = import_module(f"{_CATALOG}.{folder}.{_homes(folder)[spelling]}")
    return getattr(module, spelling.replace("-", "_"))


def summary(folder: str, name: str) -> str:
    """The first line of its docstring."""
    return (inspect.getdoc(find(folder, name)) or "").split("\n")[0]


@dataclass(frozen=True)
class Spec:
    """A name and its options, as a text gives them: `NAME[:SOURCE][@SITE][,option=value...]`."""

    name: str
    options: dict[str, str]

    def __str__(self) -> str:
        """The text in its canonical spelling."""
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
        raise InputError(
            f"cannot read {_opened(folder).NOUN} {text!r}; it is written NAME[:SOURCE][@SITE][,option=value]"
        )
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


@dataclass(frozen=True)
class _Option:
    """An option of a text: its type, and, where it is a field of an options object, the parameter that takes the object."""

    type: Any
    inside: str | None = None


def _options(folder: str, function: Callable[..., Any]) -> dict[str, _Option]:
    """What a text may set: the parameters that are not common, an options object counting as its fields."""
    options: dict[str, _Option] = {}
    for name, parameter in inspect.signature(function).parameters.items():
        if name in _opened(folder).COMMON:
            continue
        if is_dataclass(parameter.default):
            options |= {field.name: _Option(field.type, name) for field in fields(parameter.default)}
        else:
            options[name] = _Option(parameter.annotation)
    return options


def bound(folder: str, text: str, **given: Any) -> Callable[..., Any]:
    """The function that `text` names, with its options converted to their types and bound.

    `given` are values that the caller offers (`prompts`, `seed`); the function gets those that it has a parameter for,
    unless the text sets them. Raises `InputError` for an option that it does not have, lacks, or cannot convert.
    """
    spec = parse(folder, text)
    function = find(folder, spec.name)
    noun, parameters = _opened(folder).NOUN, inspect.signature(function).parameters
    known_options = _options(folder, function)
    arguments: dict[str, Any] = {name: value for name, value in given.items() if name in parameters}
    within: dict[str, dict[str, Any]] = {}
    for key, value in spec.options.items():
        name = "path" if key == "source" and "path" in known_options else key
        if name not in known_options:
            raise InputError(
                f"{noun} {spec.name!r} has no option {key!r} of its own (in {text!r}); it takes: "
                f"{', '.join(known_options) or 'none'}"
            )
        option = known_options[name]
        converted = _converted(option.type, name, value, text)
        (arguments if option.inside is None else within.setdefault(option.inside, {}))[name] = converted
    for name, values in within.items():
        arguments[name] = type(parameters[name].default)(**values)
    lacking = [
        name
        for name, parameter in parameters.items()
        if parameter.default is inspect.Parameter.empty and name not in arguments and not _is_leading(folder, parameter)
    ]
    if lacking:
        kinds = {"source": "NAME", "path": "FILE"}
        hint = f" (write {spec.name}:{kinds[lacking[0]]}; `nvs list {folder}`)" if lacking[0] in kinds else ""
        raise InputError(f"{noun} {spec.name!r} needs {', '.join(lacking)}{hint}")
    return lambda *args, **kwargs: function(*args, **{**arguments, **kwargs})


def paths(folder: str, text: str) -> list[str]:
    """The values of the text's options that name files or folders: those whose parameter may be a `Path`.

    A task's or a site's name is none of them, whatever folder happens to bear it.
    """
    spec = parse(folder, text)
    known_options = _options(folder, find(folder, spec.name))
    values = []
    for key, value in spec.options.items():
        option = known_options.get("path" if key == "source" and "path" in known_options else key)
        if option is not None and Path in _leaves(option.type) and value:
            values.append(value)
    return values


def _leaves(kind: Any) -> list[Any]:
    """The types that an annotation is made of."""
    parts = get_args(kind)
    return [kind] if not parts else [leaf for part in parts for leaf in _leaves(part)]


def _is_leading(folder: str, parameter: inspect.Parameter) -> bool:
    """Whether it is an argument that the caller of the bound function passes by position: `model`, `basis`, `pairs`."""
    return parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD and parameter.name in _opened(folder).COMMON


def _converted(kind: Any, name: str, value: str, text: str) -> Any:
    try:
        converted = TypeAdapter(kind, config={"arbitrary_types_allowed": True}).validate_python(value)
    except ValidationError as error:
        raise InputError(f"{text!r}: {name}={value!r} is wrong: {error.errors()[0]['msg']}") from None
    if isinstance(converted, (int, float)) and not abs(converted) <= _LARGEST:
        raise InputError(f"{text!r}: {name}={value!r} is wrong: it should be a number of at most 2 ** 53")
    return converted
