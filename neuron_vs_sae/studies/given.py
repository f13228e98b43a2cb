"""What any setting must be, whatever its own rules: text that can be written down, and numbers that every reader can hold."""

from typing import Any, get_args

from neuron_vs_sae.core.errors import InputError

LARGEST = 2**53
"""The largest whole number of a setting: JSON's readers and spreadsheets hold no larger one exactly."""


def check_given(name: str, annotation: Any, value: Any) -> None:
    """Raises `InputError` for a switch where none is asked for, a number beyond `LARGEST`, and text that is no Unicode.

    `true` would pass for the number 1, and a name that is not UTF-8 could be neither hashed nor written into a result.
    """
    for item in value if isinstance(value, (list, tuple)) else (value,):
        if isinstance(item, bool) and bool not in _leaves(annotation):
            raise InputError(
                f"'{name}' takes no switch: {str(item).lower()} was given, where a number or text is expected"
            )
        if isinstance(item, (int, float)) and abs(item) > LARGEST:
            raise InputError(f"'{name}' is beyond 2 ** 53, the largest number that a setting may be")
        if isinstance(item, str):
            check_text(f"'{name}'", item)


def check_text(what: str, text: str) -> None:
    """Raises `InputError` for text with bytes that are not UTF-8, or with a NUL, which no name of a file has."""
    if any("\ud800" <= character <= "\udfff" for character in text):
        shown = text.encode("utf-8", "replace").decode("utf-8")
        raise InputError(f"{what} is not UTF-8 ({shown!r}): rename what it names, or type it in UTF-8")
    if "\0" in text:
        raise InputError(f"{what} holds a NUL character ({text!r}): no name or text has one")


def _leaves(annotation: Any) -> list[Any]:
    parts = get_args(annotation)
    return [annotation] if not parts else [leaf for part in parts for leaf in _leaves(part)]
