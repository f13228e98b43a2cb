"""Prompt pairs from a dataset of the `datasets` library, by name or from a local folder."""

from pathlib import Path
from typing import Any

from neuron_vs_sae.catalog.rows.columns import Columns
from neuron_vs_sae.catalog.rows.pairs import to_pairs
from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.core.pairs import PromptPairs


def from_dataset(
    model: Any,
    source: str | Path,
    *,
    split: str = "train",
    config: str | None = None,
    revision: str | None = None,
    columns: Columns = Columns(),
    drop: bool = False,
    one_length: bool = False,
    prepend_bos: bool = True,
) -> PromptPairs:
    """The pairs of a dataset: `from_dataset:mib-bench/ioi,split=validation`, `from_dataset:FOLDER,clean=text,...`.

    `source` is a name on the Hugging Face hub or a local folder (of data files, or as `save_to_disk` writes it);
    `split`, `config` and `revision` choose among what it has. `columns`, `drop` and `one_length` are as for `from_file`.
    Raises `InputError` for a dataset or split that is not available, and as `from_file` does, naming the row, counted from 1.
    """
    source = str(source)
    labelled = [(f"row {i}", record) for i, record in enumerate(_load(source, split, config, revision).to_list(), 1)]
    if not labelled:
        raise InputError(f"split '{split}' of dataset {source} has no rows")
    name = Path(source).name
    return to_pairs(model, name, source, labelled, columns, drop=drop, one_length=one_length, prepend_bos=prepend_bos)


def _load(source: str, split: str, config: str | None, revision: str | None) -> Any:
    import datasets  # slow to import

    folder = Path(source)
    if folder.is_file():
        raise InputError(f"{source} is a file: read it with from_file:{source}")
    quiet = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        if any((folder / name).is_file() for name in ("dataset_dict.json", "state.json")):
            dataset = datasets.load_from_disk(source)
        else:
            dataset = datasets.load_dataset(source, config, revision=revision)
    except Exception as error:  # the library and the hub's client raise errors of many types
        raise InputError(
            f"dataset {source!r} cannot be loaded: {(str(error).strip() or type(error).__name__).splitlines()[0]}. "
            "It must be a local folder, or a dataset of the Hugging Face hub that is in the cache or can be fetched (not with "
            "HF_HUB_OFFLINE=1); config= and revision= choose among what it has"
        ) from error
    finally:
        if not quiet:
            datasets.enable_progress_bars()
    if not isinstance(dataset, dict):
        return dataset  # saved as a single split
    if split not in dataset:
        raise InputError(f"dataset {source} has no split '{split}'; pass split=, one of {', '.join(map(str, dataset))}")
    return dataset[split]
