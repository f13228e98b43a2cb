"""Prompt pairs from a file: this project's columns, feature-circuits', auto-circuit's, EAP-IG's or MIB's."""

from pathlib import Path
from typing import Any

from neuron_vs_sae.catalog.rows.columns import Columns
from neuron_vs_sae.catalog.rows.pairs import to_pairs
from neuron_vs_sae.catalog.rows.records import records
from neuron_vs_sae.core.pairs import PromptPairs


def from_file(
    model: Any,
    path: str | Path,
    *,
    columns: Columns = Columns(),
    drop: bool = False,
    one_length: bool = False,
    prepend_bos: bool = True,
) -> PromptPairs:
    """The pairs of a file: `.csv`, `.parquet`, or one JSON object per line, `{clean, corrupt, answer, foil, **tags}`.

    `columns` says how its rows are to be read (`Columns(clean="text", space=True)`); without it, the formats of other
    projects are recognised by their columns. Any column that is not one of the four is a tag.
    `drop` leaves out, and counts, pairs that do not fit the tokenizer; `one_length` those whose length is not the commonest.
    Raises `InputError` naming file and row: the line, or in Parquet and auto-circuit's form the number of the row.
    """
    file = Path(path)
    labelled = records(file, columns.format)
    return to_pairs(
        model, file.stem, str(file), labelled, columns, drop=drop, one_length=one_length, prepend_bos=prepend_bos
    )
