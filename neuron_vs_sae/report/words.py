"""The verdict in words: what tests between bases say, counted over tasks, or why there are none."""

from collections import Counter
from typing import Any

import pandas as pd

from neuron_vs_sae.report.labels import labels
from neuron_vs_sae.report.tables import reading
from neuron_vs_sae.studies import result
from neuron_vs_sae.studies.rows import rows_with

_MEASURES = {
    "units": "units", "nodes": "nodes, error nodes counted", "fraction": "share of the dictionary", "bits": "bits",
    "change": "norm of what was changed",
}  # fmt: skip


def question(found: "result.Result") -> str:
    """What the study asks, of which model and in which bases."""
    names = labels(found.study.basis)
    listed = ", ".join(names[basis] for basis in found.study.basis)
    return (
        f"Are raw MLP neurons as sparse, faithful and complete a basis for circuits of {found.summary['model'].iloc[0]} as SAE features are? "
        f"One pipeline found and judged a circuit in each of these bases, on the same prompts: {listed}. The basis is the only thing that "
        "changes."
    )


def verdict(found: "result.Result", verdicts: pd.DataFrame | None, curves: pd.DataFrame) -> list[str]:
    """Sentences on each pair of bases, under the study's first method, ablation and error policy.

    Where nothing was tested: why, and how sizes compare, which is no test.
    """
    if verdicts is None:
        return [_why_none(found), *([told] if (told := reading(found, curves)) else [])]
    rows = usual_case(found, verdicts)
    if rows.empty:
        return [
            "No verdict is of the study's first method, ablation and error policy; the table below has those there are."
        ]
    names = labels(found.study.basis)
    first = rows.iloc[0]
    shown = "nodes" if "nodes" in set(rows["size_measure"]) else str(first["size_measure"])
    told = [
        f"Under {first['method']}, ablation {first['ablation']} and errors {first['errors']}, with size by {_MEASURES.get(shown, shown)}:"
    ]
    pairs: Any = rows.groupby(["basis_a", "basis_b", "score"], sort=False)
    for (a, b, score), part in pairs:
        counts = {measure: _counts(theirs) for measure, theirs in part.groupby("size_measure", sort=False)}
        here = counts.get(shown, Counter())
        other = [_MEASURES.get(str(m), str(m)) for m, c in counts.items() if c != here]
        depends = (
            f" The count differs by {' and by '.join(other)}."
            if other
            else " It is the same by every size measure."
            if len(counts) > 1
            else ""
        )
        told.append(
            f"{score}, {names.get(a, a)} against {names.get(b, b)}: {_said(here, str(names.get(a, a)), str(names.get(b, b)))}.{depends}"
        )
    return told


def usual_case(found: "result.Result", verdicts: pd.DataFrame) -> pd.DataFrame:
    """The verdicts of the study's first method, ablation and error policy."""
    study = found.study
    return rows_with(verdicts, method=study.method[0], ablation=study.ablation[0], errors=study.errors[0])


def _counts(rows: pd.DataFrame) -> Counter[str]:
    return Counter(rows["verdict"])


def _said(counts: Counter[str], a: str, b: str) -> str:
    """`mlp_neurons better on 3, equivalent on 1 and undecided on 2 of 6 tasks`."""
    words = {
        "a better": f"{a} better",
        "b better": f"{b} better",
        "equivalent": "equivalent within the margin",
        "undecided": "undecided",
    }
    parts = [
        f"{words.get(kind, kind)} on {n}"
        for kind, n in sorted(counts.items(), key=lambda item: list(words).index(item[0]))
    ]
    total = counts.total()
    listed = parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
    return f"{listed} of {total} task{'s' if total != 1 else ''}"


def _why_none(found: "result.Result") -> str:
    prompts = min(int(n) for n in found.summary["n_eval"])
    if len(found.study.basis) == 1:
        return "There is no verdict between bases: the study has one basis."
    if prompts == 1:
        return "There is no verdict between bases: the study has one evaluation prompt, and one prompt bears no test."
    return (
        "There is no verdict between bases: none was computed for this result, so no difference below has been tested."
    )
