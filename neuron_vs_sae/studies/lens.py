"""The logit lens on prompts: what the model would predict if it ended at each layer."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from neuron_vs_sae.analyses.units.logit_lens import lens
from neuron_vs_sae.core import files
from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.studies.analysis import Analysis
from neuron_vs_sae.studies.cells import Cell, CellFiles, Outcome, Step
from neuron_vs_sae.studies.loaded import Loaded
from neuron_vs_sae.studies.record import finished_record, read_table
from neuron_vs_sae.studies.text import LensStudy


@dataclass(frozen=True, eq=False)
class LensResult:
    """A finished study of lenses, as its table."""

    folder: Path
    record: dict[str, Any]
    study: LensStudy
    table: pd.DataFrame

    @property
    def last_position(self) -> pd.DataFrame:
        """The predictions after the whole prompt."""
        return self.table.loc[self.table["position"] == self.table.groupby("prompt")["position"].transform("max")]


def cells(study: LensStudy) -> tuple[Cell, ...]:
    """One per prompt."""
    return tuple(Cell.of(prompt=text) for text in study.prompt)


def steps(loaded: Loaded[LensStudy], cell: Cell) -> tuple[Step, ...]:
    """One pass over the prompt."""
    text = str(cell["prompt"])

    def compute(_: CellFiles) -> Outcome:
        read = lens(loaded.model, text, site=loaded.spec.site)
        tokens, probabilities = read.top(loaded.spec.top)
        rows = [
            {
                "prompt": text, "layer": layer, "site": read.sites[s], "position": p, "after": read.text[p], "rank": rank,
                "token": loaded.model.tokenizer.decode([int(tokens[s, p, rank])]), "probability": float(probabilities[s, p, rank]),
            }
            for s, layer in enumerate(read.layers)
            for p in range(len(read.tokens))
            for rank in range(tokens.shape[-1])
        ]  # fmt: skip
        return Outcome({"lens": pd.DataFrame(rows)})

    return (Step("lens", compute),)


def check(loaded: Loaded[LensStudy]) -> None:
    """Raises `InputError` where there is no prompt, or one that the lens cannot read."""
    if not loaded.spec.prompt:
        raise InputError("there is nothing to read: give a text (--prompt)")
    for text in loaded.spec.prompt:
        lens(loaded.model, text, site=loaded.spec.site)


def assemble(loaded: Loaded[LensStudy], finished: Mapping[Cell, CellFiles], folder: Path) -> None:
    """Write `lens.parquet`, prompt by prompt."""
    tables = [finished[cell].table("lens", "lens") for cell in cells(loaded.spec)]
    files.write_table(folder / "lens.parquet", pd.concat(tables, ignore_index=True))


def load(folder: Path) -> LensResult:
    """Raises `FolderError` where the folder holds no finished study of lenses."""
    record, study = finished_record(folder, LensStudy)
    return LensResult(folder, record, study, read_table(folder / "lens.parquet"))


def summarise(result: LensResult) -> None:
    """Write `lens.csv`."""
    files.write(result.folder / "lens.csv", lambda file: result.table.to_csv(file, index=False))


def seconds(loaded: Loaded[LensStudy], some: Any) -> float:
    """A forward pass per prompt."""
    del loaded
    return 0.1 * len(some)


LENS = Analysis(
    spec=LensStudy, files=("lens.parquet", "lens.csv"), cells=cells, steps=steps, assemble=assemble, load=load, summarise=summarise,
    seconds=seconds, check=check,
)  # fmt: skip
