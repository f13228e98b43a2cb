"""Tables of a result: one row per curve."""

from typing import Any

import pandas as pd

from neuron_vs_sae import result
from neuron_vs_sae.errors import InputError
from neuron_vs_sae.plots import label


def per_curve(found: "result.Result", level: float = 0.8) -> pd.DataFrame:
    """One row per curve: areas over log size, the size that reaches `level`, CPR and CMD where their sizes were run.

    Areas of one task share a range, 1 to its smallest basis's number of nodes. What was not reached or not run is empty.
    """
    smallest = found.curves.groupby("task")["n_total"].min()
    rows = []
    for values, part in found.curves.groupby(result.CURVE, sort=False):
        names = dict(zip(result.CURVE, values, strict=True))
        curve = result.to_curve(part)
        size = curve.size_at(level)
        rows.append(
            {
                **names,
                "site": part["site"].iloc[0],
                "n_total": curve.n_total,
                "size_at_level": size,
                "bits_at_level": None if size is None else dict(zip(curve.sizes, curve.bits, strict=True))[size],
                "size_faithful_and_complete": curve.size_at(level, 1 - level),
                "area_faithfulness": _if_run(
                    lambda c=curve, t=names["task"]: c.area("faithfulness", up_to=int(smallest[t]))
                ),
                "area_unfaithfulness": _if_run(
                    lambda c=curve, t=names["task"]: c.area("unfaithfulness", up_to=int(smallest[t]))
                ),
                "area_completeness": _if_run(
                    lambda c=curve, t=names["task"]: c.area("completeness", up_to=int(smallest[t]))
                ),
                "cpr": _if_run(curve.cpr),
                "cmd": _if_run(curve.cmd),
                "f_model": float(curve.whole.mean()),
                "f_empty": float(curve.empty.mean()),
                "n_eval": len(curve.whole),
            }
        )
    table = pd.DataFrame(rows)
    for column in ("size_at_level", "size_faithful_and_complete"):
        table[column] = table[column].astype("Int64")
    return table


def write_markdown(found: "result.Result") -> None:
    """`table.md` for readers and `per_curve.csv` for programs: one row per curve, and how to read the columns."""
    table = per_curve(found)
    result.write(found.folder / "per_curve.csv", lambda file: table.to_csv(file, index=False))
    result.write_text(found.folder / "table.md", markdown(table, found))


def markdown(table: pd.DataFrame, found: "result.Result") -> str:
    """The table as Markdown, a block per task, ablation and error policy, under the conventions that made it."""
    study = found.study
    first = found.summary.iloc[0]
    lines = [
        f"# Circuits of {first['model']}",
        "",
        f"{first['n_discovery']} pairs for discovery, {first['n_eval']} for evaluation; metric {study.metric}; positions "
        f"{study.positions}; ranked by {study.rank_by} score; {study.pairing} attribution of {study.explained_metric}; mean "
        f"ablation over {study.mean_source} prompts; {study.dtype}; seed {study.seed}; study {study.key}.",
        "",
        "*nodes for 80 %*: the smallest circuit with faithfulness of at least 0.8, and its size in bits (log2 of the number of "
        "circuits of that size). *both*: the same with completeness of at most 0.2. *area F*, *area C*: mean faithfulness "
        "(1 is the model) and completeness (0 is best: what is left when the circuit is removed) over log size, on a range "
        "common to the task's bases. *not reached* means on the sizes that were run.",
    ]
    for (task, ablation, errors), rows in table.groupby(["task", "ablation", "errors"], sort=False):
        lines += [
            "",
            f"## {_cell(task)} (ablation {ablation}, errors {errors})",
            "",
            f"F(model) {rows['f_model'].iloc[0]:.3f}; F(empty) by site: {_empties(rows)}.",
            "",
            "| basis | site | method | nodes | nodes for 80 % | bits | both | area F | area C |",
            "|---|---|---|---:|---:|---:|---:|---:|---:|",
        ]
        lines += [
            f"| {_cell(label(row['basis']))} | {row['site']} | {_cell(row['method'])} | {row['n_total']} | "
            f"{_number(row['size_at_level'])} | {_number(row['bits_at_level'], 0)} | "
            f"{_number(row['size_faithful_and_complete'])} | {_number(row['area_faithfulness'], 3)} | "
            f"{_number(row['area_completeness'], 3)} |"
            for _, row in rows.iterrows()
        ]
    return "\n".join(lines) + "\n"


def _empties(rows: pd.DataFrame) -> str:
    values = rows[["site", "f_empty"]].round(3).drop_duplicates()
    return ", ".join(f"{row['site']} {row['f_empty']:.3f}" for _, row in values.iterrows())


def _number(value: Any, digits: int | None = None) -> str:
    if pd.isna(value):
        return "not reached" if digits in (None, 0) else "not run"
    return f"{value}" if digits is None else f"{value:.{digits}f}"


def _cell(text: Any) -> str:
    """Text that cannot break out of its cell."""
    return str(text).replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def _if_run(score: Any) -> float | None:
    try:
        return score()
    except InputError:
        return None  # its sizes were not run
