"""Results on disk: one folder per study, written whole or not at all, that says what made every number."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from safetensors import safe_open

from neuron_vs_sae.core.curve import Curve
from neuron_vs_sae.core.errors import FolderError
from neuron_vs_sae.core.nodes import NodeIndex, NodeScores
from neuron_vs_sae.studies.rows import CURVE, each_curve, rows_with, to_curve
from neuron_vs_sae.studies.study import Study, make_study
from neuron_vs_sae.studies.summary import summarise

# What a finished folder holds, beside `study.json`.
FILES = (
    "curves.parquet", "scores.safetensors", "prompts.parquet", "stability.parquet", "summary.csv", "per_curve.csv",
    "verdicts.csv", "verdicts_across_tasks.csv", "stability.csv", "circuits.csv", "table.md", "table.tex",
    "curves.pdf", "report.html",
)  # fmt: skip


UNFINISHED = ".unfinished"


@dataclass(frozen=True, eq=False)
class Result:
    """A finished study: its record (`study.json`), per-prompt values (`curves.parquet`) and one row per size.

    `curves` has one row per task x basis x method x seed x ablation x errors x run x size x prompt, `run` being whole, empty
    (no size), circuit, complement or change (`Curve.change`, not a value of the metric).
    """

    folder: Path
    record: dict[str, Any]
    curves: pd.DataFrame
    summary: pd.DataFrame

    @property
    def study(self) -> Study:
        return Study(**self.record["study"])

    @property
    def stability(self) -> pd.DataFrame:
        """How much circuits agree: a row per comparison and size (`stability.py` says which). Raises `FolderError`."""
        return _table(self.folder / "stability.parquet")

    def scores(self, **values: str | int) -> NodeScores:
        """The scores of the one discovery with these values: `result.scores(task="...", basis="...", method="relp")`.

        Of several seeds the study's first, where none is named. Raises `KeyError` where it is not one.
        """
        values = {"seed": self.study.seed[0], **values}
        with safe_open(self.folder / "scores.safetensors", "pt") as file:
            described: dict[str, Any] = json.loads(file.metadata()["index"])
            found = [label for label, one in described.items() if values.items() <= one.items()]
            if len(found) != 1:
                raise KeyError(
                    f"{len(found)} discoveries match {values}; one is expected. There are: {list(described)}"
                )
            values_of_nodes = file.get_tensor(found[0])
        order = described[found[0]]["nodes"]
        index = NodeIndex(tuple(order["sites"]), tuple(order["widths"]), order["positions"], order["basis"])
        return NodeScores(index, values_of_nodes)

    def curve(self, **values: str | int) -> Curve:
        """The one curve with these values: `result.curve(task="...", basis="...", method="relp")`.

        Of several seeds the study's first, where none is named. Raises `KeyError` where it is not one.
        """
        values = {"seed": self.study.seed[0], **values}
        rows = rows_with(self.curves, **{column: value for column, value in values.items() if column in CURVE})
        found = [rows for _, rows in each_curve(rows)] if values.keys() <= set(CURVE) else []
        if len(found) != 1:
            options = {column: self.curves[column].unique().tolist() for column in CURVE}
            raise KeyError(f"{len(found)} curves match {values}; one is expected. There are: {options}")
        return to_curve(found[0])


def load(folder: Path | str) -> Result:
    """The result in a folder. Raises `FolderError` where there is none, or it is unfinished or damaged."""
    folder = Path(folder)
    record = read_record(folder)
    if record is None or not record["finished"]:
        state = "holds no study" if record is None else "holds a study that is not finished"
        raise FolderError(f"{folder} {state}: run the study's `nvs compare` (again) to the end first")
    curves = _table(folder / "curves.parquet")
    return Result(folder, record, curves, summarise(curves, Study(**record["study"])))


def _table(file: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(file)
    except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors
        raise FolderError(f"{file} is missing or damaged ({error}): run the study again with --overwrite") from error


def read_record(folder: Path) -> dict[str, Any] | None:
    """`study.json`, or None. Raises `FolderError` where it is no record of a study of this version."""
    file = folder / "study.json"
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        if make_study(record["study"], "it").key != record["key"] or not {"inputs", "finished"} <= record.keys():
            raise ValueError("its settings are not those of its key, or it is incomplete")
        return record
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise FolderError(
            f"{file} is damaged or of another version ({type(error).__name__}: {error}): choose another folder (--out), or "
            "pass --overwrite to replace what is there"
        ) from error


def clear(folder: Path) -> None:
    """Remove what a study has left in the folder, finished or not, and nothing else."""
    for name in ("study.json", *FILES):
        (folder / name).unlink(missing_ok=True)
    if (folder / UNFINISHED).exists():
        shutil.rmtree(folder / UNFINISHED)
