"""What this package raises when a caller's input is wrong: one tree, so that one `except` catches all of it."""

from typing import get_args


class InputError(ValueError):
    """The input is wrong; the message says what was given, what was expected and what to do."""


class NothingToExplainError(InputError):
    """Ablating everything leaves the metric where it was, so faithfulness has no denominator."""


class FolderError(InputError):
    """The output folder cannot be used: another study's, another run's, or not writable."""


def check_choice(name: str, value: object, choices: object) -> None:
    """Raises `InputError`, listing them, where `value` is none of the choices of a `Literal` type."""
    if value not in get_args(choices):
        raise InputError(f"no {name} {value!r}; there are: {', '.join(map(str, get_args(choices)))}")
