"""What the page says about the study itself: settings, provenance, and the files beside it."""

from typing import Any

from neuron_vs_sae.studies.result import Result

_FILES = {
    "robustness.csv": "what all specifications say together, a row per task, pair of bases and score",
    "specifications.parquet": "every comparison under every convention",
    "verdicts.csv": "every pair of bases in every case",
    "summary.csv": "a row per curve and size",
    "per_curve.csv": "a row per curve: areas and sizes",
    "circuits.csv": "the nodes of the circuits by name, with score and rank",
    "stability.csv": "how much circuits have in common",
    "curves.parquet": "every prompt's value of every run",
    "scores.safetensors": "the score of every node",
    "prompts.parquet": "the prompts",
    "table.md": "tables for readers",
    "table.tex": "tables for a paper",
    "curves.pdf": "figures for a paper",
    "study.json": "every setting and what made the numbers",
}


def settings(result: Result) -> dict[str, str]:
    """Every setting of the study and its key."""
    return {name: _words(value) for name, value in result.study.model_dump(mode="json").items()} | {
        "key": result.study.key
    }


def provenance(result: Result) -> dict[str, str]:
    """Versions, commits, hashes, device and time."""
    record = result.record["provenance"]
    rows = {name: _words(value) for name, value in record.items() if name != "versions"}
    rows |= {f"version of {name}": str(value) for name, value in record["versions"].items()}
    rows |= {f"hash or version of {name}": str(value) for name, value in result.record["inputs"].items()}
    return rows | {"seconds": str(result.record.get("seconds", "unknown"))}


def files_of(result: Result) -> dict[str, str]:
    """The files that lie beside the page, and what they hold."""
    return {name: text for name, text in _FILES.items() if (result.folder / name).exists()}


def _words(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    if value is None:
        return "not given"
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
