"""Options of a command from the fields of any study's settings and of `Machine`. Nothing heavy is imported."""

import dataclasses
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar, get_args, get_origin, get_type_hints

import typer

from neuron_vs_sae.running.machine import Machine
from neuron_vs_sae.studies.spec import CommonSpec, load_config, make_spec, quick
from neuron_vs_sae.studies.study import with_defaults

S = TypeVar("S", bound=CommonSpec)
RESULTS = "nvs-results"
"""Where results lie that no `--out` says otherwise of."""

_Config = Annotated[Path | None, typer.Option(help="TOML file with these options as keys; flags override it")]
_Out = Annotated[
    Path | None,
    typer.Option(help=f"folder for the results [{RESULTS}, with --quick {RESULTS}-quick]", show_default=False),
]
_Overwrite = Annotated[bool, typer.Option("--overwrite", help="replace what is in --out")]
_Quick = Annotated[
    bool, typer.Option("--quick", help="a first look: the first method, ablation, error policy, metric and seed alone")
]
_Quiet = Annotated[bool, typer.Option("--quiet", help="no progress, no summary")]
_Json = Annotated[bool, typer.Option("--json", help="print the outcome as JSON on standard output")]


@dataclass(frozen=True)
class Given(Generic[S]):
    """What a command was given: its study, what runs it, and the options that all commands of studies have."""

    study: S
    machine: Machine
    quiet: bool
    json: bool
    out: Path
    overwrite: bool


def study_command(kind: type[S]) -> Callable[[Callable[[Given[S]], None]], Callable[..., None]]:
    """Makes `command(given)` a command with an option for every field of `kind` and of `Machine`, `--config`, `--out`,
    `--overwrite`, `--quick`, `--quiet` and `--json`.

    Its function raises `InputError` for settings that are wrong.
    """

    def decorate(command: Callable[[Given[S]], None]) -> Callable[..., None]:
        def run(**options: Any) -> None:
            settings = _taken(options, list(kind.model_fields))
            machine = _taken(options, [field.name for field in dataclasses.fields(Machine)])
            study = _study(kind, settings, options.pop("config"))
            first_look, out = options.pop("quick"), options.pop("out")
            study = quick(study) if first_look else study
            options["out"] = out or Path(f"{RESULTS}-quick" if first_look else RESULTS)
            command(Given(study, Machine(**machine), json=options.pop("json_output"), **options))

        function: Any = run
        function.__name__, function.__doc__ = command.__name__, command.__doc__
        function.__signature__ = inspect.Signature([*_of_spec(kind), *_of_machine(), *_common()])
        return function

    return decorate


def _study(kind: type[S], settings: dict[str, Any], config: Path | None) -> S:
    origin = str(config) if config else "the command line"
    if config and settings:
        origin += " with the command line's options"
    chosen = {**load_config(config), **settings} if config else with_defaults(settings, kind)
    return make_spec(kind, chosen, origin)


def _taken(options: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """The options of these names that were given; all of these names are removed from `options`."""
    return {name: value for name in names if (value := options.pop(name)) is not None}


def _of_spec(kind: type[CommonSpec]) -> list[inspect.Parameter]:
    parameters = []
    for name, field in kind.model_fields.items():
        value = _value_type(name, field.annotation)
        declared = f"{_flag(name)}/--no-{_flag(name)[2:]}" if value == bool | None else _flag(name)
        choices = f" ({', '.join(get_args(field.annotation))})" if get_origin(field.annotation) is Literal else ""
        default = _shown(None if field.is_required() else field.get_default())
        option = typer.Option(declared, help=f"{field.description}{choices}{default}", show_default=False)
        parameters.append(_keyword(name, Annotated[value, option], None))
    return parameters


def _of_machine() -> list[inspect.Parameter]:
    parameters, types = [], get_type_hints(Machine)
    for field in dataclasses.fields(Machine):
        value, text = (
            _value_type(field.name, types[field.name]),
            f"{field.metadata['description']}{_shown(field.default)}",
        )
        option = typer.Option(
            _flag(field.name),
            help=text,
            min=field.metadata.get("min"),
            max=field.metadata.get("max"),
            show_default=False,
        )
        parameters.append(_keyword(field.name, Annotated[value, option], None))
    return parameters


def _common() -> list[inspect.Parameter]:
    return [
        _keyword("config", _Config, None),
        _keyword("out", _Out, None),
        _keyword("overwrite", _Overwrite, False),
        _keyword("quick", _Quick, False),
        _keyword("quiet", _Quiet, False),
        _keyword("json_output", _Json, False),
    ]


def _keyword(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _value_type(name: str, annotation: Any) -> Any:
    """The type that the command line reads: a number, a switch or text, or a list of these; sizes and places are comma-separated text."""
    if name in ("sizes", "baseline_sizes", "k", "index"):
        return str | None
    kinds = [kind for kind in _leaves(annotation) if kind in (bool, int, float, Path)]
    kind = kinds[0] if kinds else str
    return (list[kind] if get_origin(annotation) is tuple else kind) | None


def _leaves(annotation: Any) -> list[Any]:
    parts = get_args(annotation)
    return [annotation] if not parts else [leaf for part in parts for leaf in _leaves(part)]


def _shown(default: Any) -> str:
    text = ",".join(map(str, default)) if isinstance(default, tuple) else default
    return f" [{text}]" if text not in (None, "") else ""
