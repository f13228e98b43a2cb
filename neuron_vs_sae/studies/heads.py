"""Successor heads of a model, and whether the first layer's units of a basis hold the last digit that they would need."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from neuron_vs_sae.analyses.interventions.heads import HeadScores, heads, orders
from neuron_vs_sae.analyses.interventions.mod10 import check_installed, first_site, mod10
from neuron_vs_sae.core import files
from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.studies.analysis import Analysis
from neuron_vs_sae.studies.cells import Cell, CellFiles, Outcome, Step
from neuron_vs_sae.studies.corpora import basis_of
from neuron_vs_sae.studies.intervening import HeadsStudy
from neuron_vs_sae.studies.loaded import Loaded
from neuron_vs_sae.studies.per_prompt import joined
from neuron_vs_sae.studies.record import finished_record, read_table

_DIGITS = (
    "basis",
    "site",
    "k",
    "accuracy",
    "explained",
    "explained_permuted",
    "score",
    "ablated",
    "random",
    "steered",
    "low",
    "high",
    "steered_random",
)
_SCORES = "scores"


@dataclass(frozen=True, eq=False)
class HeadsResult:
    """A finished study of heads: a row per head and list, and a row per basis and number of units."""

    folder: Path
    record: dict[str, Any]
    study: HeadsStudy
    heads: pd.DataFrame
    digits: pd.DataFrame


def cells(study: HeadsStudy) -> tuple[Cell, ...]:
    """The heads, which need no basis but the first's being there; and one per basis."""
    return (Cell.of(part=_SCORES, basis=study.basis[0]), *(Cell.of(part="digits", basis=text) for text in study.basis))


def steps(loaded: Loaded[HeadsStudy], cell: Cell) -> tuple[Step, ...]:
    """One table."""
    spec, text = loaded.spec, str(cell["basis"])

    def scored(_: CellFiles) -> Outcome:
        return Outcome({"heads": heads(loaded.model, spec.order).table(spec.confidence)})

    def digits(_: CellFiles) -> Outcome:
        basis, numbers = basis_of(loaded, text), _numbers(loaded)
        if numbers is None or first_site(basis) is None:
            return Outcome({"digits": pd.DataFrame(columns=list(_DIGITS))})
        head = _scores(loaded).best("numbers")
        result = mod10(loaded.model, basis, numbers, head, k=spec.k, trials=spec.trials, seed=spec.seed[0])
        return Outcome({"digits": result.assign(basis=text, layer=head[0], head=head[1])})

    return (Step("heads", scored),) if cell["part"] == _SCORES else (Step("digits", digits),)


def _scores(loaded: Loaded[HeadsStudy]) -> HeadScores:
    return heads(loaded.model, ("numbers",))


def _numbers(loaded: Loaded[HeadsStudy]) -> Any:
    """The numbers, where three tens or more are single tokens and the study asks for them."""
    kinds = loaded.spec.order
    if kinds and "numbers" not in kinds:
        return None
    result = [order for order in orders(loaded.model, kinds) if order.name == "numbers"]
    return result[0] if result and len(result[0].items) >= 30 else None


def check(loaded: Loaded[HeadsStudy]) -> None:
    """Raises `InputError` for lists that are not there, sizes that are none, and without scikit-learn where digits are looked for."""
    if min(loaded.spec.k) < 1:
        raise InputError(f"k of {list(loaded.spec.k)}: give numbers of units, 1 or more (--k)")
    if _numbers(loaded) is not None:
        check_installed()


def assemble(loaded: Loaded[HeadsStudy], finished: Mapping[Cell, CellFiles], folder: Path) -> None:
    """Write `heads.parquet` and `digits.parquet`."""
    first, *others = cells(loaded.spec)
    files.write_table(folder / "heads.parquet", finished[first].table("heads", "heads"))
    files.write_table(folder / "digits.parquet", joined(finished, others, "digits", "digits"))


def load(folder: Path) -> HeadsResult:
    """Raises `FolderError` where the folder holds no finished study of heads."""
    record, study = finished_record(folder, HeadsStudy)
    return HeadsResult(
        folder, record, study, read_table(folder / "heads.parquet"), read_table(folder / "digits.parquet")
    )


def summarise(result: HeadsResult) -> None:
    """Write `heads.csv`, the pooled score of every head first, and `digits.csv`."""
    pooled = (
        result.heads.assign(rest=result.heads["order"] != "all").sort_values("rest", kind="stable").drop(columns="rest")
    )
    for name, table in (("heads", pooled), ("digits", result.digits)):
        files.write(result.folder / f"{name}.csv", lambda file, table=table: table.to_csv(file, index=False))


def seconds(loaded: Loaded[HeadsStudy], some: Any) -> float:
    """A second or two per basis."""
    del loaded
    return 2.0 * len(some)


HEADS = Analysis(
    spec=HeadsStudy, files=("heads.parquet", "digits.parquet", "heads.csv", "digits.csv", "report.html"), cells=cells, steps=steps,
    assemble=assemble, load=load, summarise=summarise, seconds=seconds, check=check,
)  # fmt: skip
