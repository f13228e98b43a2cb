"""From records of a file or a dataset to pairs."""

from collections.abc import Iterable
from typing import Any

from neuron_vs_sae.catalog.rows.columns import Columns
from neuron_vs_sae.catalog.rows.formats import to_rows
from neuron_vs_sae.core.building import build
from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.core.pairs import PromptPairs


def to_pairs(
    model: Any,
    name: str,
    source: str,
    records: Iterable[tuple[str, Any]],
    columns: Columns,
    *,
    drop: bool,
    one_length: bool,
    prepend_bos: bool,
) -> PromptPairs:
    """The pairs of labelled records, on the model's device.

    Raises `InputError` naming the source and the row, and where there is none.
    """
    labels, rows = to_rows(source, records, columns, model.tokenizer)
    if not rows:
        raise InputError(f"{source} has no rows: each is a pair, with clean, corrupt, answer, foil")
    try:
        pairs = build(
            name, model.tokenizer, rows, prepend_bos=prepend_bos, labels=labels, drop=drop,
            one_length=one_length,
        )  # fmt: skip
    except InputError as error:
        raise InputError(f"{source}: {error}") from None
    return pairs.to(next(model.parameters()).device)
