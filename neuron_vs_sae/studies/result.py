"""The result of a study of circuits: a finished folder, read."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from safetensors import safe_open

from neuron_vs_sae.core.curve import Curve
from neuron_vs_sae.core.nodes import NodeIndex, NodeScores
from neuron_vs_sae.studies.record import finished_record, read_table
from neuron_vs_sae.studies.rows import CURVE, each_curve, rows_with, to_curve
from neuron_vs_sae.studies.schema import check_curves
from neuron_vs_sae.studies.study import Study
from neuron_vs_sae.studies.summary import summarise

# What a finished folder holds, beside `study.json`.
FILES = (
    "curves.parquet", "scores.safetensors", "prompts.parquet", "stability.parquet", "summary.csv", "per_curve.csv",
    "verdicts.csv", "verdicts_across_tasks.csv", "specifications.parquet", "robustness.csv", "stability.csv", "circuits.csv", "table.md", "table.tex",
    "curves.pdf", "report.html",
)  # fmt: skip


@dataclass(frozen=True, eq=False, repr=False)
class Result:
    """A finished study: its record (`study.json`), per-prompt values (`curves.parquet`) and one row per size.

    `curves` has one row per task x basis x method x seed x ablation x errors x run x size x prompt, `run` being whole, empty
    (no size), circuit, complement or change (`Curve.change`, not a value of the metric).
    """

    folder: Path
    record: dict[str, Any]
    curves: pd.DataFrame
    summary: pd.DataFrame

    def __repr__(self) -> str:
        study = self.study
        return "\n".join(
            [
                f"Result of study {study.key} in {self.folder}",
                f"  model: {study.model}",
                f"  tasks: {', '.join(study.task)}",
                f"  bases: {', '.join(study.basis)}",
                f"  methods: {', '.join(study.method)}",
            ]
        )

    @property
    def study(self) -> Study:
        return Study(**self.record["study"])

    @property
    def bases(self) -> dict[str, dict[str, Any]]:
        """The record of each basis, by its text, on the first task; what a basis is made of is the same on all."""
        facts: dict[str, dict[str, Any]] = {}
        for of_task in self.record["bases"].values():
            facts = {**of_task, **facts}
        return {text: facts[text] for text in self.study.basis if text in facts}

    @property
    def stability(self) -> pd.DataFrame:
        """How much circuits agree: a row per comparison and size (`stability.py` says which). Raises `FolderError`."""
        return read_table(self.folder / "stability.parquet")

    def scores(self, **values: str | int) -> NodeScores:
        """The scores of the one discovery with these values: `result.scores(task="...", basis="...", method="relp")`.

        Of several seeds the study's first, where none is named. Raises `KeyError` where it is not one.
        """
        values = {"seed": self.study.seed[0], **values}
        with safe_open(self.folder / "scores.safetensors", "pt") as file:
            described: dict[str, Any] = json.loads(file.metadata()["index"])
            matching = [label for label, facts in described.items() if values.items() <= facts.items()]
            if len(matching) != 1:
                raise KeyError(
                    f"{len(matching)} discoveries match {values}; one is expected. There are: {list(described)}"
                )
            stored = file.get_tensor(matching[0])
        order: dict[str, Any] = described[matching[0]]["nodes"]
        index = NodeIndex(
            sites=tuple(order["sites"]),
            widths=tuple(order["widths"]),
            positions=order["positions"],
            basis=order["basis"],
            lossless=tuple(order["lossless"]),
        )
        return NodeScores.from_stored(index, stored)

    def curve(self, **values: str | int) -> Curve:
        """The one curve with these values: `result.curve(task="...", basis="...", method="relp")`.

        Of several seeds the study's first, where none is named. Raises `KeyError` where it is not one.
        """
        values = {"seed": self.study.seed[0], **values}
        rows = rows_with(self.curves, **{column: value for column, value in values.items() if column in CURVE})
        matching = [rows for _, rows in each_curve(rows)] if values.keys() <= set(CURVE) else []
        if len(matching) != 1:
            options = {column: self.curves[column].unique().tolist() for column in CURVE}
            raise KeyError(f"{len(matching)} curves match {values}; one is expected. There are: {options}")
        return to_curve(matching[0])


def load(folder: Path | str) -> Result:
    """The result of a study of circuits. Raises `FolderError` where there is none, or it is unfinished or damaged."""
    folder = Path(folder)
    record, study = finished_record(folder, Study)
    curves = read_table(folder / "curves.parquet")
    check_curves(folder / "curves.parquet", curves, study)
    return Result(folder, record, curves, summarise(curves, study))
