"""Concepts probed for in every basis: tables of scores, and comparisons of bases at equal numbers of units."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from neuron_vs_sae.analyses.fidelity.written import at_mlp_out
from neuron_vs_sae.analyses.probing import probe as probe_of
from neuron_vs_sae.analyses.probing.concepts import concept
from neuron_vs_sae.analyses.probing.examples import places
from neuron_vs_sae.analyses.probing.probe import Probing, check_installed, chosen, probe, table
from neuron_vs_sae.analyses.probing.ranking import RANKERS
from neuron_vs_sae.core import files
from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.statistics.bootstrap import Estimate
from neuron_vs_sae.studies.analysis import Analysis
from neuron_vs_sae.studies.cells import Cell, CellFiles, Outcome, Step
from neuron_vs_sae.studies.corpora import basis_of, corpus_of
from neuron_vs_sae.studies.loaded import Loaded
from neuron_vs_sae.studies.paired import judged, pair_rows
from neuron_vs_sae.studies.record import finished_record, read_table
from neuron_vs_sae.studies.text import ProbeStudy


@dataclass(frozen=True, eq=False)
class ProbeResult:
    """A finished study of probes: its scores, and the comparisons of bases before p-values are adjusted."""

    folder: Path
    record: dict[str, Any]
    study: ProbeStudy
    scores: pd.DataFrame
    comparisons: pd.DataFrame


def cells(study: ProbeStudy) -> tuple[Cell, ...]:
    """One per concept: its bases are compared on the same draws."""
    return tuple(Cell.of(concept=name) for name in study.concept)


def steps(loaded: Loaded[ProbeStudy], cell: Cell) -> tuple[Step, ...]:
    """All bases on one concept."""

    def compute(_: CellFiles) -> Outcome:
        spec, corpus = loaded.spec, corpus_of(loaded)
        bases = [at_mlp_out(loaded.model, basis_of(loaded, text)) for text in spec.basis]
        narrowest = min(dictionary.width for basis in bases for dictionary in basis.dictionaries)
        settings = Probing(
            ks=spec.k, rankers=spec.ranker, of=spec.of, candidates=narrowest, subsets=spec.subsets, examples=spec.examples,
            resamples=spec.resamples, seed=spec.seed[0],
        )  # fmt: skip
        outcomes = probe(loaded.model, bases, corpus, concept(loaded.model, corpus, str(cell["concept"])), settings)
        comparisons = _comparisons(chosen(outcomes), narrowest, spec)
        return Outcome({"scores": table(outcomes, confidence=spec.confidence), "comparisons": comparisons})

    return (Step("probe", compute),)


def _comparisons(best: Sequence[probe_of.Outcome], narrowest: int, spec: ProbeStudy) -> pd.DataFrame:
    """Bases compared at full width, and with as many candidates as the narrowest basis has; ceilings use all units."""
    widths = {basis: max(o.candidates for o in best if o.basis == basis) for basis in {o.basis for o in best}}
    comparable: dict[tuple[str, str, str, str], dict[str, Estimate]] = {}
    for o in best:
        is_ceiling = o.ranker in (probe_of.DENSE, probe_of.DIRECTION)
        size = "all" if is_ceiling else str(o.k)
        scopes = {"full width": widths[o.basis], "equal candidates": narrowest}
        for scope, candidates in scopes.items():
            if o.candidates == candidates:
                comparable.setdefault((o.concept, o.ranker, size, scope), {})[o.basis] = o.mcc
    tables = [
        pair_rows(
            scores,
            {
                "question": "probing", "task": name, "method": ranker, "score": "mcc", "size_measure": "units",
                "size": size, "specification": scope,
            },
            spec.examples, spec.confidence, spec.margin,
        )
        for (name, ranker, size, scope), scores in comparable.items()
        if len(scores) > 1
    ]  # fmt: skip
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=["p"], dtype=float)


def check(loaded: Loaded[ProbeStudy]) -> None:
    """Raises `InputError` for a ranker or concept that there is not, labels that cannot be split, and without scikit-learn."""
    check_installed()
    wrong = [ranker for ranker in loaded.spec.ranker if ranker not in RANKERS]
    if wrong:
        raise InputError(f"no ranker {wrong[0]!r}; there are: {', '.join(RANKERS)} (--ranker)")
    corpus = corpus_of(loaded)
    for name in loaded.spec.concept:
        places(corpus, concept(loaded.model, corpus, name), n=loaded.spec.examples, seed=loaded.spec.seed[0])


def assemble(loaded: Loaded[ProbeStudy], finished: Mapping[Cell, CellFiles], folder: Path) -> None:
    """Write `probing.parquet` and `comparisons.parquet`, concept by concept."""
    for step_table, name in (("scores", "probing"), ("comparisons", "comparisons")):
        tables = [finished[cell].table("probe", step_table) for cell in cells(loaded.spec)]
        files.write_table(folder / f"{name}.parquet", pd.concat(tables, ignore_index=True))


def load(folder: Path) -> ProbeResult:
    """Raises `FolderError` where the folder holds no finished study of probes."""
    record, study = finished_record(folder, ProbeStudy)
    scores, comparisons = (read_table(folder / f"{name}.parquet") for name in ("probing", "comparisons"))
    return ProbeResult(folder, record, study, scores, comparisons)


def summarise(result: ProbeResult) -> None:
    """Write `probing.csv` and `verdicts.csv`."""
    files.write(result.folder / "probing.csv", lambda file: result.scores.to_csv(file, index=False))
    verdicts = judged(result.comparisons, result.study.confidence)
    files.write(result.folder / "verdicts.csv", lambda file: verdicts.to_csv(file, index=False))


def seconds(loaded: Loaded[ProbeStudy], some: Any) -> float:
    """About a second per probe of a thousand examples."""
    spec = loaded.spec
    probes = len(spec.basis) * loaded.model.cfg.n_layers * (2 + len(spec.ranker) * len(spec.k) * (1 + spec.subsets))
    return len(some) * probes * spec.examples / 1e4


PROBING = Analysis(
    spec=ProbeStudy, files=("probing.parquet", "comparisons.parquet", "probing.csv", "verdicts.csv"), cells=cells, steps=steps,
    assemble=assemble, load=load, summarise=summarise, seconds=seconds, check=check,
)  # fmt: skip
