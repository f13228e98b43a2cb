"""The frontier of sparsity and fidelity: what the largest units of each token keep, in every basis."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from neuron_vs_sae.analyses.fidelity.frontier import Frontier, frontier
from neuron_vs_sae.analyses.fidelity.measures import LEVELS, area_weights, estimates, rows, size_at
from neuron_vs_sae.analyses.fidelity.written import at_mlp_out
from neuron_vs_sae.core import files
from neuron_vs_sae.statistics.resampling import draw, independent
from neuron_vs_sae.studies.analysis import Analysis
from neuron_vs_sae.studies.cells import Cell, CellFiles, Outcome, Step
from neuron_vs_sae.studies.corpora import basis_of, check_corpus, corpus_of
from neuron_vs_sae.studies.loaded import Loaded
from neuron_vs_sae.studies.paired import judged, pair_rows
from neuron_vs_sae.studies.record import finished_record, read_table
from neuron_vs_sae.studies.text import FidelityStudy

_SUMS = ("tokens", "carriers", "spread", "predicted", "ce_model", "ce_zero")


@dataclass(frozen=True, eq=False)
class FidelityResult:
    """A finished study of fidelity: a row per basis, site, size and context, with the sums that everything else is computed from."""

    folder: Path
    record: dict[str, Any]
    study: FidelityStudy
    sums: pd.DataFrame

    @property
    def frontiers(self) -> list[Frontier]:
        """The frontier of every basis and site."""
        return [_frontier(table) for _, table in self.sums.groupby(["basis", "site"], sort=False)]

    @property
    def table(self) -> pd.DataFrame:
        """`fidelity.csv`."""
        study = self.study
        tables = []
        for at_site in self.frontiers:
            table = rows(at_site, confidence=study.confidence, resamples=study.resamples, seed=study.seed[0])
            values = at_site.explained_variance.numpy()
            reached = {f"size_at_{level:g}": size_at(at_site.sizes, values, level) for level in LEVELS}
            tables.append(table.assign(**reached))
        return pd.concat(tables, ignore_index=True)


def cells(study: FidelityStudy) -> tuple[Cell, ...]:
    """One per basis."""
    return tuple(Cell.of(basis=text) for text in study.basis)


def steps(loaded: Loaded[FidelityStudy], cell: Cell) -> tuple[Step, ...]:
    """All sites of a basis, one after the other."""
    text = str(cell["basis"])

    def compute(_: CellFiles) -> Outcome:
        basis = at_mlp_out(loaded.model, basis_of(loaded, text))
        frontiers = frontier(loaded.model, basis, corpus_of(loaded), sizes=loaded.spec.sizes or None)
        return Outcome({"sums": pd.concat([_sums(f).assign(basis=text) for f in frontiers], ignore_index=True)})

    return (Step("frontier", compute),)


def assemble(loaded: Loaded[FidelityStudy], finished: Mapping[Cell, CellFiles], folder: Path) -> None:
    """Write `contexts.parquet`, basis by basis."""
    tables = [finished[cell].table("frontier", "sums") for cell in cells(loaded.spec)]
    files.write_table(folder / "contexts.parquet", pd.concat(tables, ignore_index=True))


def load(folder: Path) -> FidelityResult:
    """Raises `FolderError` where the folder holds no finished study of fidelity."""
    record, study = finished_record(folder, FidelityStudy)
    return FidelityResult(folder, record, study, read_table(folder / "contexts.parquet"))


def summarise(result: FidelityResult) -> None:
    """Write `fidelity.csv` and `verdicts.csv`."""
    verdicts = judged(_verdicts(result), result.study.confidence)
    files.write(result.folder / "fidelity.csv", lambda file: result.table.to_csv(file, index=False))
    files.write(result.folder / "verdicts.csv", lambda file: verdicts.to_csv(file, index=False))


def seconds(loaded: Loaded[FidelityStudy], some: Any) -> float:
    """Some fifteen forward passes of a small model per site."""
    spec = loaded.spec
    return 2e-4 * 15 * loaded.model.cfg.n_layers * len(some) * spec.contexts * spec.context_length


def _verdicts(result: FidelityResult) -> pd.DataFrame:
    """Bases of one site compared by the areas of both scores over log size, on the range that all of them were run at."""
    study, by_site = result.study, {}
    for at_site in result.frontiers:
        by_site.setdefault(at_site.site, []).append(at_site)
    tables = [pd.DataFrame(columns=["p"])]
    for site, frontiers in by_site.items():
        high = min(f.sizes[-1] for f in frontiers)
        low = max(1, max(next((m for m in f.sizes if m > 0), high) for f in frontiers))
        if len(frontiers) < 2 or low >= high:
            continue
        draws = draw(independent(len(frontiers[0].tokens)), study.resamples, study.seed[0])
        for score in ("explained_variance", "ce_score"):
            areas = {
                f.basis: estimates(f, draws)[score].weighted(area_weights(f.sizes, low, high)[:, None])
                for f in frontiers
            }
            facts = {
                "question": "fidelity", "task": study.corpus, "method": "largest contributions", "score": f"area_{score}",
                "size_measure": "units per token", "specification": f"{site}, {low} to {high} units",
            }  # fmt: skip
            tables.append(pair_rows(areas, facts, int(frontiers[0].tokens.sum()), study.confidence, study.margin))
    return pd.concat([t for t in tables if len(t)] or tables, ignore_index=True)


def _sums(frontier: Frontier) -> pd.DataFrame:
    """A row per size and context."""
    contexts = len(frontier.tokens)
    columns = {name: np.tile(getattr(frontier, name).numpy(), len(frontier.sizes)) for name in _SUMS}
    return pd.DataFrame({
        "site": frontier.site, "width": frontier.width, "m": np.repeat(frontier.sizes, contexts), "context": np.tile(np.arange(contexts), len(frontier.sizes)),
        **columns, "lost": frontier.lost.T.flatten().numpy(), "ce_kept": frontier.ce_kept.T.flatten().numpy(),
    })  # fmt: skip


def _frontier(table: pd.DataFrame) -> Frontier:
    sizes = tuple(dict.fromkeys(table["m"].tolist()))
    first = table.loc[table["m"] == sizes[0]]

    def per_size(name: str) -> torch.Tensor:
        return torch.from_numpy(table[name].to_numpy().reshape(len(sizes), -1).T.copy())

    return Frontier(
        basis=table["basis"].iloc[0],
        site=table["site"].iloc[0],
        width=int(table["width"].iloc[0]),
        sizes=sizes,
        lost=per_size("lost"),
        ce_kept=per_size("ce_kept"),
        **{name: torch.from_numpy(first[name].to_numpy().copy()) for name in _SUMS},
    )


FIDELITY = Analysis(
    spec=FidelityStudy, files=("contexts.parquet", "fidelity.csv", "verdicts.csv"), cells=cells, steps=steps, assemble=assemble, load=load,
    summarise=summarise, seconds=seconds, check=check_corpus,
)  # fmt: skip
