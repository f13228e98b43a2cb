"""Units: where they are active in a corpus, and what they write."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from neuron_vs_sae.analyses.units.collecting import Keeping, collect
from neuron_vs_sae.analyses.units.selection import Units, drawn, named
from neuron_vs_sae.analyses.units.summary import units_table, windows_table
from neuron_vs_sae.analyses.units.vocabulary import direct_lens
from neuron_vs_sae.core import files
from neuron_vs_sae.core.basis import Basis
from neuron_vs_sae.core.errors import FolderError, InputError
from neuron_vs_sae.studies.analysis import Analysis
from neuron_vs_sae.studies.cells import Cell, CellFiles, Outcome, Step
from neuron_vs_sae.studies.corpora import basis_of, check_corpus, corpus_of
from neuron_vs_sae.studies.loaded import Loaded
from neuron_vs_sae.studies.record import finished_record, read_table
from neuron_vs_sae.studies.text import UnitsStudy


@dataclass(frozen=True, eq=False)
class UnitsResult:
    """A finished study of units, as its two tables."""

    folder: Path
    record: dict[str, Any]
    study: UnitsStudy
    units: pd.DataFrame
    windows: pd.DataFrame


def cells(study: UnitsStudy) -> tuple[Cell, ...]:
    """One per basis."""
    return tuple(Cell.of(basis=text) for text in study.basis)


def steps(loaded: Loaded[UnitsStudy], cell: Cell) -> tuple[Step, ...]:
    """One pass over the corpus."""
    text = str(cell["basis"])

    def compute(_: CellFiles) -> Outcome:
        spec, basis = loaded.spec, basis_of(loaded, text)
        units = _chosen(spec, basis, text)
        if units is None:
            return Outcome()
        keeping = Keeping(top=spec.examples, window=spec.window, seed=spec.seed[0])
        collection = collect(loaded.model, basis, units, corpus_of(loaded), keeping=keeping)
        show = _token_text(loaded.model)
        said = direct_lens(loaded.model, basis, units, spec.lens)
        tables = {"units": units_table(collection, said, show), "windows": windows_table(collection, show)}
        return Outcome({name: table.assign(basis=text) for name, table in tables.items()})

    return (Step("collect", compute),)


def check(loaded: Loaded[UnitsStudy]) -> None:
    """Raises `InputError` for units that no basis has, and a corpus without text."""
    if all(_chosen(loaded.spec, basis_of(loaded, text), text) is None for text in loaded.spec.basis):
        raise InputError(
            f"no basis of {', '.join(loaded.spec.basis)} has any of the units asked for: {', '.join(loaded.spec.unit) or loaded.spec.circuit}"
        )
    check_corpus(loaded)


def assemble(loaded: Loaded[UnitsStudy], finished: Mapping[Cell, CellFiles], folder: Path) -> None:
    """Write `units.parquet` and `windows.parquet`, basis by basis."""
    places = [finished[cell] for cell in cells(loaded.spec)]
    for name in ("units", "windows"):
        tables = [place.table("collect", name) for place in places if _has_tables(place)]
        files.write_table(folder / f"{name}.parquet", pd.concat(tables, ignore_index=True))


def load(folder: Path) -> UnitsResult:
    """Raises `FolderError` where the folder holds no finished study of units."""
    record, study = finished_record(folder, UnitsStudy)
    return UnitsResult(
        folder, record, study, read_table(folder / "units.parquet"), read_table(folder / "windows.parquet")
    )


def summarise(result: UnitsResult) -> None:
    """Write `units.csv`."""
    files.write(result.folder / "units.csv", lambda file: result.units.to_csv(file, index=False))


def seconds(loaded: Loaded[UnitsStudy], some: Any) -> float:
    """About a fifth of a millisecond per token and basis: a forward pass of a small model."""
    spec = loaded.spec
    return 2e-4 * len(some) * spec.contexts * spec.context_length


def _chosen(spec: UnitsStudy, basis: Basis, text: str) -> Units | None:
    """The units of this basis that are asked for; None where it has none of them."""
    names = [*spec.unit, *(units_of_circuits(Path(spec.circuit), text, spec.top) if spec.circuit else ())]
    if not names:
        return None if spec.unit or spec.circuit else drawn(basis, spec.top, spec.seed[0])
    sites = tuple(f"{site.name}/" for site in basis.sites)
    mine = [name for name in names if name.startswith(sites) and "/error" not in name]
    if not mine and "/" not in names[0]:
        named(basis, names)  # raises, saying how a unit is written
    return named(basis, mine) if mine else None


def units_of_circuits(folder: Path, text: str, top: int) -> list[str]:
    """The first nodes of each circuit of this basis in a finished study, the first seed's. Raises `FolderError` where there are none."""
    from neuron_vs_sae.studies.result import load as load_circuits

    result = load_circuits(folder)
    if text not in result.study.basis:
        raise FolderError(f"{folder} has no basis {text!r}; it has: {', '.join(result.study.basis)}")
    nodes = pd.read_csv(folder / "circuits.csv")
    mine = nodes.loc[(nodes["basis"] == text) & (nodes["seed"] == result.study.seed[0])]
    first = mine.sort_values("rank", kind="stable").groupby(["task", "method", "errors"], sort=False).head(top)
    return list(dict.fromkeys(first["node"]))


def _token_text(model: Any) -> Callable[[int], str]:
    return lambda token: model.tokenizer.decode([token])


def _has_tables(place: CellFiles) -> bool:
    return (place.folder / "collect.units.parquet").exists()


UNITS = Analysis(
    spec=UnitsStudy, files=("units.parquet", "windows.parquet", "units.csv", "units.html"), cells=cells, steps=steps, assemble=assemble,
    load=load, summarise=summarise, seconds=seconds, check=check,
)  # fmt: skip
