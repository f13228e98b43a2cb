"""What differs between two results: settings, provenance, and numbers."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from neuron_vs_sae.core.files import read_tensors
from neuron_vs_sae.statistics.estimates import crossings
from neuron_vs_sae.studies.evidence import evidence
from neuron_vs_sae.studies.result import Result
from neuron_vs_sae.studies.rows import CURVE, curve_columns

_NUMBERS = ("f_model", "f_empty", "f_circuit", "f_complement", "faithfulness", "completeness")
_LEVEL = 0.8
TOP = 100
# Of one run, not of the numbers.
_INCIDENTAL = ("started", "threads", "batch_size", "platform")


@dataclass(frozen=True)
class Difference:
    """Something that differs: `what` it is, and its value in `a` and in `b` ("absent" where only the other has it)."""

    what: str
    a: str
    b: str


@dataclass(frozen=True, eq=False)
class Differences:
    """Between two results. `numbers` has a row per curve in both: the largest absolute difference of each column, over sizes in both.

    `rankings` has a row per discovery in both whose scores differ: how many of the `TOP` nodes of largest |score| both have (`of`: out
    of how many). It shows, for one, what half precision does to a ranking.
    """

    settings: tuple[Difference, ...]
    provenance: tuple[Difference, ...]
    curves: tuple[Difference, ...]
    numbers: pd.DataFrame
    rankings: pd.DataFrame
    sizes: tuple[Difference, ...]
    verdicts: tuple[Difference, ...]

    @property
    def alike(self) -> bool:
        """Whether nothing differs but when, where and with what batch size they ran."""
        same = not (
            self.settings or self.provenance or self.curves or self.sizes or self.verdicts or len(self.rankings)
        )
        return same and not bool((self.numbers[list(_NUMBERS)].to_numpy() > 0).any())


def differences(a: Result, b: Result) -> Differences:
    """What differs between two results, by curve where both have it (`rows.CURVE`)."""
    settings = _of_mappings(a.study.model_dump(mode="json"), b.study.model_dump(mode="json"))
    provenances = [_flat({**result.record["provenance"], "inputs": result.record["inputs"]}) for result in (a, b)]
    provenances = [{k: v for k, v in result.items() if k not in _INCIDENTAL} for result in provenances]
    key = list(CURVE)
    tables = [result.summary.set_index(key) for result in (a, b)]
    mine, theirs = (list(dict.fromkeys(table.index)) for table in tables)
    both = [curve for curve in mine if curve in set(theirs)]
    only = [
        Difference(
            f"curve {_named(c)}", "there" if c in set(mine) else "absent", "there" if c in set(theirs) else "absent"
        )
        for c in dict.fromkeys([*mine, *theirs])
        if c not in set(both)
    ]
    return Differences(
        settings=settings,
        provenance=_of_mappings(*provenances),
        curves=tuple(only),
        numbers=_numbers(a.summary, b.summary, key),
        rankings=_rankings(a.folder, b.folder),
        sizes=_of_mappings(
            *({_named(c): v for c, v in _sizes(result.summary, key).items() if c in set(both)} for result in (a, b))
        ),
        verdicts=_verdicts(evidence(a.folder).verdicts, evidence(b.folder).verdicts),
    )


def told(differences: Differences) -> str:
    """The differences as text, a paragraph per kind, including the kinds without any."""
    parts = []
    for title, rows in (
        ("Settings", differences.settings),
        ("What made them", differences.provenance),
        ("Curves that only one has", differences.curves),
        (f"Nodes for a faithfulness of {_LEVEL:g}", differences.sizes),
        ("Verdicts", differences.verdicts),
    ):
        lines = [f"  {row.what}: {row.a} | {row.b}" for row in rows]
        parts.append("\n".join([f"{title}:{'' if lines else ' the same'}", *lines]))
    if len(differences.rankings):
        lines = [
            f"  {row['discovery']}: {row['shared']} of {row['of']}" for row in differences.rankings.to_dict("records")
        ]
        parts.append("\n".join(["Nodes of largest |score| that both have, where scores differ:", *lines]))
    changed: Any = differences.numbers.loc[(differences.numbers[list(_NUMBERS)].to_numpy() > 0).any(axis=1)]
    if changed.empty:
        parts.append(f"Numbers: the same in all {len(differences.numbers)} curves that both have")
    else:
        shown = [
            f"  {row['curve']}: {', '.join(f'{c} {row[c]:.3g}' for c in _NUMBERS)}"
            for row in changed.to_dict("records")
        ]
        head = f"Numbers, largest absolute differences ({len(changed)} of {len(differences.numbers)} curves differ):"
        parts.append("\n".join([head, *shown]))
    return "\n".join(parts)


def _of_mappings(a: dict[str, Any], b: dict[str, Any]) -> tuple[Difference, ...]:
    keys = [key for key in dict.fromkeys([*a, *b]) if a.get(key) != b.get(key) or (key in a) != (key in b)]
    return tuple(
        Difference(key, *(str(mapping[key]) if key in mapping else "absent" for mapping in (a, b))) for key in keys
    )


def _flat(nested: dict[str, Any], before: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        flat |= _flat(value, f"{before}{key} ") if isinstance(value, dict) else {f"{before}{key}": value}
    return flat


def _numbers(a: pd.DataFrame, b: pd.DataFrame, key: list[str]) -> pd.DataFrame:
    columns = [*key, "size"]
    joined = a[[*columns, *_NUMBERS]].merge(b[[*columns, *_NUMBERS]], on=columns, suffixes=("_a", "_b"))
    for name in _NUMBERS:
        joined[name] = (joined[f"{name}_a"] - joined[f"{name}_b"]).abs()
    by_curve: Any = joined.groupby(key, sort=False)
    rows = [
        {"curve": _named(curve), **{name: float(part[name].max()) for name in _NUMBERS}} for curve, part in by_curve
    ]
    return pd.DataFrame(rows, columns=["curve", *_NUMBERS])


def _rankings(a: Path, b: Path) -> pd.DataFrame:
    files = [folder / "scores.safetensors" for folder in (a, b)]
    rows = []
    if all(file.exists() for file in files):
        mine, theirs = map(read_tensors, files)
        for label in mine.keys() & theirs.keys():
            scores, other = mine[label], theirs[label]
            if scores.shape == other.shape and not torch.equal(scores, other):
                k = min(TOP, len(scores))
                tops = [set(x.abs().argsort(descending=True, stable=True)[:k].tolist()) for x in (scores, other)]
                rows.append({"discovery": label, "shared": len(tops[0] & tops[1]), "of": k})
    return pd.DataFrame(rows, columns=["discovery", "shared", "of"]).sort_values("discovery", ignore_index=True)


def _sizes(summary: pd.DataFrame, key: list[str]) -> dict[Any, str]:
    """The size at which each curve first reaches the level."""
    by_curve: Any = summary.groupby(key, sort=False)
    sizes = {}
    for curve, rows in by_curve:
        size = crossings(rows["size"].to_numpy(float), rows["faithfulness"].to_numpy(float)[None], _LEVEL)[0]
        sizes[curve] = "not reached" if np.isinf(size) else f"{size:.4g}"
    return sizes


def _verdicts(a: pd.DataFrame | None, b: pd.DataFrame | None) -> tuple[Difference, ...]:
    if a is None and b is None:
        return ()
    key = [*curve_columns(without=["basis", "seed"]), "basis_a", "basis_b", "size_measure", "score"]
    key = [name for name in key if all(table is None or name in table for table in (a, b))]
    said = [
        {}
        if table is None
        else {_named(row[:-1]): row[-1] for row in table[[*key, "verdict"]].itertuples(index=False, name=None)}
        for table in (a, b)
    ]
    return _of_mappings(*said)


def _named(curve: tuple[Any, ...]) -> str:
    return " / ".join(map(str, curve))
