"""Cells: the smallest pieces of a study that one process computes alone; and their files."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from neuron_vs_sae.core.errors import InputError

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor


@dataclass(frozen=True)
class Cell:
    """What distinguishes a cell from the study's others, by name: `task` (as the study writes it), `seed`, `basis`, `method`, ...

    A cell without a `task` needs none of them, or all; likewise `seed` and `basis`. Cells follow from the settings alone.
    """

    names: tuple[tuple[str, str | int], ...]

    @classmethod
    def of(cls, **names: str | int) -> "Cell":
        return cls(tuple(names.items()))

    def __getitem__(self, name: str) -> str | int:
        return dict(self.names)[name]

    def get(self, name: str) -> str | int | None:
        return dict(self.names).get(name)

    @property
    def label(self) -> str:
        """For messages: its values, joined by `/`."""
        return "/".join(str(value) for _, value in self.names)

    @property
    def id(self) -> str:
        """16 hexadecimal digits: the name of its folder."""
        return hashlib.sha256(json.dumps(self.names).encode()).hexdigest()[:16]


def cell_named(cells: tuple[Cell, ...], name: str) -> Cell:
    """The cell of that id or label. Raises `InputError`, listing what there is, for any other name."""
    for cell in cells:
        if name in (cell.id, cell.label):
            return cell
    raise InputError(f"the study has no cell {name!r}; it has: {', '.join(f'{c.id} ({c.label})' for c in cells)}")


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a step computed: tables by name (a row per prompt or per unit), and tensors by name."""

    tables: Mapping[str, "pd.DataFrame"] = field(default_factory=dict)
    tensors: Mapping[str, "Tensor"] = field(default_factory=dict)


@dataclass(frozen=True)
class CellFiles:
    """The files of one cell, in a folder of its own. A step counts as done once its list of files, which is written last, exists,
    and each of them has the contents that the list says."""

    folder: Path

    def has(self, step: str) -> bool:
        """Whether the step has been computed and written in full, and nothing of it was damaged since."""
        from neuron_vs_sae.core.files import digest

        try:
            digests = json.loads(self._listed(step).read_text(encoding="utf-8"))["files"]
            return all(digest(self.folder / name) == expected for name, expected in digests.items())
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return False

    def write(self, step: str, outcome: Outcome) -> None:
        """Write what the step computed. Raises `FolderError` where the disk is full or the folder not writable."""
        from neuron_vs_sae.core import files

        for name, table in outcome.tables.items():
            files.write_table(self._table(step, name), table)
        if outcome.tensors:
            files.write_tensors(self._tensors(step), dict(outcome.tensors), {})
        written = [self._table(step, name) for name in outcome.tables]
        written += [self._tensors(step)] if outcome.tensors else []
        digests = {file.name: files.digest(file) for file in written}
        listed = {"tables": list(outcome.tables), "tensors": list(outcome.tensors), "files": digests}
        files.write_json(self._listed(step), listed)

    def table(self, step: str, name: str) -> "pd.DataFrame":
        """A table of a step that has been written."""
        import pandas as pd

        return pd.read_parquet(self._table(step, name))

    def tensors(self, step: str) -> "dict[str, Tensor]":
        """The tensors of a step that has been written and has some."""
        from neuron_vs_sae.core import files

        return files.read_tensors(self._tensors(step))

    def _listed(self, step: str) -> Path:
        return self.folder / f"{step}.json"

    def _table(self, step: str, name: str) -> Path:
        return self.folder / f"{step}.{name}.parquet"

    def _tensors(self, step: str) -> Path:
        return self.folder / f"{step}.safetensors"


@dataclass(frozen=True, eq=False)
class Step:
    """A part of a cell's computation that is stored as soon as it is done, so that a killed run resumes after it.

    `compute` takes the cell's files, which hold the outcomes of earlier steps, and depends on nothing else that may change:
    its bytes are the same whichever process computes it, and whenever.
    """

    name: str
    compute: Callable[[CellFiles], Outcome]
