"""Rows of other projects' files, as rows of `{clean, corrupt, answer, foil, **tags}`."""

import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from neuron_vs_sae.catalog.rows.columns import Columns
from neuron_vs_sae.core.building import NEEDED
from neuron_vs_sae.core.errors import InputError

Record = dict[str, Any]
Row = dict[str, Any]

# Marks et al. 2024.
_FEATURE_CIRCUITS = {
    "clean": "clean_prefix", "corrupt": "patch_prefix", "answer": "clean_answer", "foil": "patch_answer"
}  # fmt: skip
# MIB's own choice for each of its tasks, in the order in which they are looked for.
_MIB_DEFAULTS = ("s2_io_flip_counterfactual", "symbol_counterfactual", "random_counterfactual")


def to_rows(
    source: str, records: Iterable[tuple[str, Any]], columns: Columns, tokenizer: Any
) -> tuple[list[str], list[Row]]:
    """The labels of the records (`row 7`), which come with them, and a row `{clean, corrupt, answer, foil, **tags}` for each.

    Raises `InputError` naming the source and the record's label.
    """
    labels, rows = [], []
    for label, record in records:
        try:
            if not isinstance(record, dict):
                raise InputError(f"a JSON object is expected, this is {type(record).__name__}")
            format_ = _format_of(record, columns)
            fixed = [key for key in columns.named if key not in _MAPPED[format_]]
            if fixed:
                raise InputError(
                    f"{fixed[0]}= names no column in the format '{format_}'; pass format=pairs, and the other columns' names"
                )
            row = _READERS[format_](record, columns, tokenizer)
            if format_ == "mib":  # one counterfactual for all
                columns = replace(columns, counterfactual=row["counterfactual"])
            rows.append(_checked(row, columns))
            labels.append(label)
        except InputError as error:
            raise InputError(f"{source}, {label}: {error}") from error.__cause__
    return labels, rows


def _format_of(record: Record, columns: Columns) -> str:
    if columns.format != "auto":
        return columns.format
    if len(columns.named) == len(NEEDED):
        return "pairs"
    if "clean_prefix" in record or "patch_prefix" in record:
        return "feature-circuits"
    if "wrong_answers" in record:
        return "auto-circuit"
    if "corrupted" in record:
        return "eap-ig"
    if "prompt" in record and _counterfactuals(record):
        return "mib"
    return "pairs"


def _checked(row: Row, columns: Columns) -> Row:
    for key in NEEDED:
        text = row[key]
        if not isinstance(text, str):
            raise InputError(f"'{columns.named.get(key, key)}' must be text, this is {text!r}")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InputError(f"'{key}' holds half a character ({error.reason})") from error
    if columns.space:
        row = row | {key: f" {row[key]}" for key in ("answer", "foil")}
    return row


def _at(record: Record, column: str) -> Any:
    """The value of a column, or of `inner` in `column.inner`."""
    if column in record:
        return record[column]
    outer, _, inner = column.partition(".")
    inside = record.get(outer)
    if inner and isinstance(inside, dict):
        if inner in inside:
            return inside[inner]
        record = {f"{outer}.{key}": None for key in inside}
    raise InputError(f"the column '{column}' is missing; it has {', '.join(map(str, record)) or 'none'}")


def _named(record: Record, of_format: dict[str, str], columns: Columns) -> Row:
    """The four texts by their columns (the caller's choice before the format's), and every other column as a tag."""
    of = {key: of_format.get(key, key) for key in NEEDED} | columns.named
    row = {key: _at(record, of[key]) for key in NEEDED}
    taken = {*row, *of.values(), *(column.partition(".")[0] for column in of.values())}
    return row | {str(k): v for k, v in record.items() if k not in taken and v is not None}


def _pairs(record: Record, columns: Columns, tokenizer: Any) -> Row:
    return _named(record, {}, columns)


def _feature_circuits(record: Record, columns: Columns, tokenizer: Any) -> Row:
    return _named(record, _FEATURE_CIRCUITS, columns)


def _auto_circuit(record: Record, columns: Columns, tokenizer: Any) -> Row:
    """`{clean, corrupt, answers, wrong_answers}`. The first of each stands for all; the others become a tag."""
    texts: Row = {key: _at(record, columns.named.get(key, key)) for key in ("clean", "corrupt")}
    for key, column in (("answer", "answers"), ("foil", "wrong_answers")):
        several = _at(record, column)
        if not isinstance(several, list) or not several:
            raise InputError(f"'{column}' must be a list of at least one text, this is {several!r}")
        texts[key] = several[0]
        if several[1:]:
            texts[f"other_{column}"] = json.dumps(several[1:], ensure_ascii=False)
    taken = {"clean", "corrupt", "answers", "wrong_answers"}
    return texts | {str(k): v for k, v in record.items() if k not in taken and v is not None}


def _eap_ig(record: Record, columns: Columns, tokenizer: Any) -> Row:
    """`clean, corrupted` with `correct_idx, incorrect_idx`, ids of tokens, or greater-than's `label`, a year of two digits."""
    texts = {
        "clean": _at(record, columns.named.get("clean", "clean")),
        "corrupt": _at(record, columns.named.get("corrupt", "corrupted")),
    }
    if "label" in record and "correct_idx" not in record:
        year = _integer(record["label"], "label")
        if not 2 <= year <= 98:
            raise InputError(f"'label' must be a year from 2 to 98, with one on either side, this is {year}")
        # The years ten away on either side; the corrupt prompt's year is 01, so after it the foil is right.
        followed = {"answer": f"{min(year + 10, 99):02d}", "foil": f"{max(year - 10, 2):02d}"}
    else:
        of = {"answer": "correct_idx", "foil": "incorrect_idx"} | columns.named
        ids = {key: (_at(record, of[key]), of[key]) for key in ("answer", "foil")}
        theirs = _theirs(columns.ids_from, tokenizer)
        followed = {key: _token(theirs, value, column) for key, (value, column) in ids.items()}
    taken = {"clean", "corrupted", "corrupted_hard", *columns.named.values()}
    return texts | followed | {str(k): v for k, v in record.items() if k not in taken and v is not None}


def _theirs(ids_from: str | Path | None, tokenizer: Any) -> Any:
    if ids_from is None:
        raise InputError(
            "this format's answers are token ids, which mean nothing without their tokenizer: pass "
            "ids_from=NAME or ids_from=FOLDER of the tokenizer that made them (as ids_from=gpt2), or ids_from=model "
            "where it is this model's"
        )
    return tokenizer if ids_from == "model" else _tokenizer(str(ids_from))


@cache
def _tokenizer(name: str) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(name)
    except Exception as error:  # the hub's client and transformers raise errors of many types
        raise InputError(f"the tokenizer {name!r} (ids_from) cannot be loaded: {_first_line(error)}") from error


def _token(tokenizer: Any, value: Any, column: str) -> str:
    """The text of a token id, which may be given as `[id]`."""
    if isinstance(value, str) and value.strip().startswith("["):
        value = value.strip().strip("[]")
        if "," in value:
            raise InputError(f"'{column}' must be one token id, this is a list of several ([{value}])")
    id_ = _integer(value, column)
    if not 0 <= id_ < len(tokenizer):
        raise InputError(
            f"'{column}' is {id_}, and the tokenizer has {len(tokenizer)} tokens: it is not the one that made it"
        )
    # Decoded after itself: alone, a SentencePiece token loses the space that it begins with.
    alone, twice = (tokenizer.decode([id_] * n, clean_up_tokenization_spaces=False) for n in (1, 2))
    text = twice[len(alone) :]
    if "\ufffd" in twice:
        raise InputError(
            f"'{column}' is {id_}, which is part of a character for this tokenizer: it is not the one that made it"
        )
    return text


def _integer(value: Any, column: str) -> int:
    try:
        return int(str(value).strip())
    except ValueError:
        raise InputError(f"'{column}' must be a whole number, this is {value!r}") from None


def _mib(record: Record, columns: Columns, tokenizer: Any) -> Row:
    """`prompt` with `choices` and `answerKey`, or `label`; the same inside the column named for the counterfactual."""
    column = _mib_column(record, columns.counterfactual)
    other = record[column]
    if not isinstance(other, dict):
        raise InputError(f"'{column}' must be an object with a prompt, this is {other!r}")
    texts: Row = {}
    for key, answer, question in (("clean", "answer", record), ("corrupt", "foil", other)):
        texts[key] = prompt = _at(question, "prompt")
        gap = "" if isinstance(prompt, str) and prompt[-1:].isspace() else " "
        texts[answer] = gap + _mib_answer(question)
    tags = {str(k): v for k, v in record.items() if isinstance(v, (str, int)) and k not in {"prompt", *NEEDED}}
    return texts | tags | {"counterfactual": column.removesuffix("_counterfactual")}


def _mib_column(record: Record, chosen: str | None) -> str:
    there = _counterfactuals(record)
    if chosen is not None:
        wanted = chosen if chosen.endswith("_counterfactual") else f"{chosen}_counterfactual"
        if wanted in there:
            return wanted
    else:
        for wanted in (*_MIB_DEFAULTS, *(there if len(there) == 1 else ())):
            if wanted in there:
                return wanted
    raise InputError(
        f"{'there is no' if chosen else 'it is not clear which'} counterfactual {chosen or 'to take'}: pass "
        f"counterfactual=, one of {', '.join(name.removesuffix('_counterfactual') for name in there) or 'none that it has'}"
    )


def _counterfactuals(record: Record) -> list[str]:
    return [key for key in record if key.endswith("_counterfactual")]


def _mib_answer(question: Record) -> str:
    """By `answerKey` among the choices (their labels where they have any), or else `label`."""
    if "choices" not in question:
        return str(_at(question, "label"))
    choices = question["choices"]
    options = choices.get("label") if isinstance(choices, dict) else choices
    key = _integer(_at(question, "answerKey"), "answerKey")
    if not isinstance(options, list) or not 0 <= key < len(options):
        raise InputError(f"'answerKey' is {key}, and 'choices' are {options!r}")
    return str(options[key])


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


# Which of the four texts a caller may name a column for.
_MAPPED: dict[str, tuple[str, ...]] = {
    "pairs": NEEDED,
    "feature-circuits": NEEDED,
    "auto-circuit": ("clean", "corrupt"),
    "eap-ig": NEEDED,  # answer and foil: of columns of token ids
    "mib": (),
}
_READERS: dict[str, Callable[[Record, Columns, Any], Row]] = {
    "pairs": _pairs,
    "feature-circuits": _feature_circuits,
    "auto-circuit": _auto_circuit,
    "eap-ig": _eap_ig,
    "mib": _mib,
}
