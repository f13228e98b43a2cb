"""What a table or figure must state: model, dictionaries, conventions, prompts, intervals, and the study's key."""

from typing import Any

import pandas as pd

from neuron_vs_sae.report.names import basis_names
from neuron_vs_sae.studies.result import Result


def dictionaries(result: Result) -> dict[str, str]:
    """What a basis that decodes with SAEs or transcoders is made of, by the basis's text:
    `4 gated SAEs, 1024 units each, at hook_mlp_out (default/saes/main)`."""
    captions: dict[str, str] = {}
    for basis, facts in result.bases.items():
        parts = facts.get("saes")
        if not parts:
            continue
        kinds = sorted({str(part["architecture"]) for part in parts})
        widths = sorted({int(part["width"]) for part in parts})
        noun = "dictionary" if len(parts) == 1 else "dictionaries"
        sites = sorted({str(part["hook_out"] or part["hook"]).split(".", 2)[-1] for part in parts})
        captions[basis] = (
            f"{len(parts)} {'/'.join(kinds)} {noun}, {' or '.join(map(str, widths))} units each, at {', '.join(sites)} "
            f"({_origin(parts[0])})"
        )
    return captions


def _origin(part: dict[str, Any]) -> str:
    """The release, or the folder that holds the dictionaries of all layers."""
    if part.get("release"):
        return str(part["release"])
    path = str(part.get("path") or part.get("name"))
    return path.removeprefix("this package's ").rpartition("/")[0] or path


def conventions(result: Result, rows: pd.DataFrame, verdicts: pd.DataFrame | None) -> list[str]:
    """Sentences on the conventions behind these rows: those that all rows share; the others are left to the columns."""
    study = result.study
    first: dict[Any, Any] = rows.iloc[0].to_dict()
    names = basis_names(study.basis)

    def shared(column: str, words: str) -> list[str]:
        return [words.format(rows[column].iloc[0])] if column in rows and len(set(rows[column])) == 1 else []

    how = [
        *shared("method", "method {}"),
        *shared("ablation", "ablation {}"),
        *shared("errors", "error policy {}"),
        f"{study.positions} positions",
        f"ranked by {study.rank_by} score",
    ]
    made_of = dictionaries(result)
    shown = [text for text in study.basis if text in made_of and ("basis" not in rows or text in set(rows["basis"]))]
    clusters = _clusters(rows, verdicts)
    seeds = ", ".join(map(str, seed)) if isinstance(seed := study.seed, (list, tuple)) else str(seed)
    return [
        f"Model {result.summary['model'].iloc[0]} ({study.dtype}); {_metrics(study.metric)}; {', '.join(how)}.",
        *(f"{names[text]}: {made_of[text]}." for text in shown),
        f"{result.summary['n_discovery'].iloc[0]} prompt pairs for discovery and {first.get('n_eval', result.summary['n_eval'].iloc[0])} "
        f"others for these numbers per task{clusters}.",
        f"Intervals: {study.confidence:.0%} paired BCa bootstrap over prompts, {study.resamples} resamples.",
        f"Seed {seeds}; study {study.key}.",
        *accepted(result),
    ]


def accepted(result: Result) -> list[str]:
    """What must be said where the study was told to run SAEs whatever they explain of their sites; nothing where it was not."""
    if not result.study.accept_poor_sae:
        return []
    names = basis_names(result.study.basis)
    least = {
        names[text]: min(value for value in facts["explained_variance"] if value is not None)
        for text, facts in result.bases.items()
        if facts.get("saes") and any(value is not None for value in facts.get("explained_variance", ()))
    }
    worst = "; ".join(
        f"{name} explain {value:.2f} of the variance at their worst site" for name, value in least.items()
    )
    return [f"SAEs were accepted whatever they explain (accept_poor_sae){f': {worst}' if worst else ''}."]


def _metrics(names: tuple[str, ...]) -> str:
    return f"{'metric' if len(names) == 1 else 'metrics'} {', '.join(names)}"


def _clusters(rows: pd.DataFrame, verdicts: pd.DataFrame | None) -> str:
    """How many clusters the prompts form, where rows or verdicts know."""
    for table in (rows, verdicts):
        if table is not None and "n_clusters" in table and bool(table["n_clusters"].notna().any()):
            counts = sorted({int(n) for n in table["n_clusters"].dropna()})
            return f" ({counts[0]}{f' to {counts[-1]}' if len(counts) > 1 else ''} clusters)"
    return ""
