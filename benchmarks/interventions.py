"""What interventions do on both embedded models, in every basis: the numbers of docs/concepts/interventions.md.

    python benchmarks/interventions.py --folder FOLDER --out results/interventions.md

Runs `nvs patch`, `steer`, `heads` and `selectivity` on both models into FOLDER (about forty minutes on one core; a finished one is taken as it
is, whatever its settings, which stand below its table), and writes the tables.
"""

import argparse
from pathlib import Path
from typing import Any

import pandas as pd

from neuron_vs_sae.core.errors import FolderError
from neuron_vs_sae.report.intervention_figures import called
from neuron_vs_sae.running import runner
from neuron_vs_sae.studies import heads, patching, selectivity, steering
from neuron_vs_sae.studies.intervening import HeadsStudy, PatchStudy, SelectivityStudy, SteerStudy
from neuron_vs_sae.studies.spec import make_spec
from neuron_vs_sae.studies.study import with_defaults

MODELS = ("default", "default-gpt2")
STUDIES: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "patch": (PatchStudy, patching, {"swap": "state", "isolate": "world:state_capital", "directions": 10}),
    "steer": (SteerStudy, steering, {"at": "all", "eval_examples": 80, "direction": "mean_difference", "predict": 60}),
    "heads": (HeadsStudy, heads, {}),
    "selectivity": (SelectivityStudy, selectivity, {}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where the studies' folders are")
    parser.add_argument("--out", type=Path, default=Path("results/interventions.md"))
    parser.add_argument("--finished", action="store_true", help="run nothing: the tables of what is finished")
    chosen = parser.parse_args()
    parts = ["# Interventions on the embedded models", "", "Written by `python benchmarks/interventions.py`; what is measured, and what it does not show: "
             "docs/concepts/interventions.md. Intervals are of 95 %."]  # fmt: skip
    for name, (kind, module, settings) in STUDIES.items():
        for model in MODELS:
            folder = chosen.folder / f"{name}-{model}"
            if chosen.finished and not (folder / "verdicts.csv").exists() and not (folder / "heads.csv").exists():
                continue
            result = finished(kind, module, folder, {**settings, "model": model})
            parts += ["", f"## `nvs {name}`, {model}", "", *TABLES[name](result), "", settings_of(result)]
    chosen.out.write_text("\n".join(parts) + "\n", encoding="utf-8")


def finished(kind: Any, module: Any, folder: Path, settings: dict[str, Any]) -> Any:
    """The result in the folder, run if it is not there."""
    try:
        return module.load(folder)
    except FolderError:
        return runner.run(make_spec(kind, with_defaults(settings, kind)), folder)


def settings_of(result: Any) -> str:
    """Every setting that is not the kind's default."""
    study = result.study
    fields = type(study).model_fields
    changed = {name: value for name, value in study.model_dump(mode="json").items() if value != fields[name].default}
    return f"*{', '.join(f'{name} {value}' for name, value in changed.items())}; {result.record.get('seconds')} s.*"


def markdown(table: pd.DataFrame) -> list[str]:
    """Numbers with three digits."""
    rows = [[f"{v:.3g}" if isinstance(v, float) else str(v) for v in row] for row in table.to_numpy().tolist()]
    head = f"| {' | '.join(table.columns)} |"
    return [head, "|" + "---|" * len(table.columns), *(f"| {' | '.join(row)} |" for row in rows)]


def patches(result: Any) -> list[str]:
    names = called(result.flips["basis"])
    flips = result.flips.assign(basis=result.flips["basis"].map(names))
    table = result.table
    main = table.loc[(table["control"] == "") & (table["k"].isin([1, 10, 50]))]
    shown = main.assign(basis=main["basis"].map(names))[
        ["basis", "k", "predicted", "actual", "flip_rate", "low", "high", "norm"]
    ]
    controls = table.loc[
        (table["k"] == 50) & ~table["control"].isin(["", "all_units"]) & table["basis"].isin(["mlp_neurons", "sae"])
    ]
    beside = controls.assign(basis=controls["basis"].map(names))[
        ["basis", "control", "actual", "flip_rate", "difference", "z"]
    ]
    swaps = result.swapped
    swapped = swaps.loc[(swaps["swap"] == "swap") & swaps["k"].isin([5, 20, 50])]
    best = swaps.loc[(swaps["k"] == 50) & (swaps["way"] == "auroc")]
    every = best.assign(basis=best["basis"].map(names))[["basis", "swap", "hit", "low", "high", "kept", "norm"]]
    rates = swapped.assign(basis=swapped["basis"].map(names))[
        ["basis", "way", "k", "hit", "low", "high", "relation", "isolate"]
    ]
    verdicts = result.verdicts
    mine = verdicts.loc[(verdicts["basis_a"] == "mlp_neurons") & (verdicts["question"] == "patching")]
    compared = mine.assign(basis_b=mine["basis_b"].map(names))[
        ["size_measure", "basis_b", "a", "b", "difference", "low", "high", "p_holm", "verdict"]
    ]
    swap_rows = verdicts.loc[
        (verdicts["basis_a"] == "mlp_neurons")
        & (verdicts["question"] == "swap")
        & verdicts["specification"].str.contains(" 50 ")
    ]
    judged = swap_rows.assign(basis_b=swap_rows["basis_b"].map(names))[
        ["method", "basis_b", "a", "b", "low", "high", "p_holm", "verdict"]
    ]
    return [
        "Units that flip the answer:", "", *markdown(flips[["basis", "q25", "median", "q75", "flips", "all_units", "n"]]), "",
        "Predicted and measured:", "", *markdown(shown), "", "Controls at 50 units:", "", *markdown(beside), "",
        "Neurons against each basis (area of flips over log size):", "", *markdown(compared), "",
        f"Swaps of `{result.study.swap}`: how often the donor's answer comes first:", "", *markdown(rates), "",
        "All that was done with 50 units of each value by AUROC:", "", *markdown(every), "", "Neurons against each basis at 50 units:", "", *markdown(judged),
    ]  # fmt: skip


def doses(result: Any) -> list[str]:
    names = called(result.frontier["basis"])
    frontier = result.frontier.assign(basis=result.frontier["basis"].map(names))
    areas = frontier.loc[frontier["price"].isna(), ["basis", "guard", "efficacy", "low", "high", "n"]]
    verdicts = result.verdicts
    mine = verdicts.loc[verdicts["basis_a"] == "mlp_neurons"]
    compared = mine.assign(basis_b=mine["basis_b"].map(names))[
        ["score", "basis_b", "a", "b", "difference", "low", "high", "p_holm", "verdict"]
    ]
    prediction = result.prediction[["basis", "predictor", "spearman", "low", "high", "n"]]
    return ["Mean efficacy over prices (logits):", "", *markdown(areas), "", "Neurons against each basis, as shares of the plain metric:", "", *markdown(compared),
            *(["", "Which number foretells the effect of one unit:", "", *markdown(prediction)] if len(prediction) else [])]  # fmt: skip


def successor_heads(result: Any) -> list[str]:
    table = result.heads
    best = table.loc[table["order"] == "all"].sort_values("score", ascending=False, kind="stable").head(3)
    digits = result.digits.loc[result.digits["k"].isin([1, 10, 50])]
    columns = [
        "basis",
        "k",
        "accuracy",
        "explained",
        "explained_permuted",
        "ablated",
        "random",
        "steered",
        "steered_random",
    ]
    return ["Best heads, over all lists:", "", *markdown(best[["layer", "head", "score", "low", "high", "n"]]), "",
            "The last digit in the first MLP (chance accuracy .1):", "", *markdown(digits[columns])]  # fmt: skip


def selective(result: Any) -> list[str]:
    names, table = called(result.table["basis"]), result.table
    most = table.loc[
        (table["matched"] == "k") & (table["size"] == 50) | (table["matched"] == "norm") & (table["size"] == 0.4)
    ]
    shown = most.assign(basis=most["basis"].map(names))[
        ["basis", "own", "matched", "size", "control", "k", "selectivity", "low", "high", "loss_own", "loss_other"]
    ]
    wordings = result.templates.loc[result.templates["above"] == 0.9, ["basis", "design", "share", "median", "units"]]
    verdicts = result.verdicts
    mine = verdicts.loc[verdicts["basis_a"] == "mlp_neurons"]
    counts = mine.groupby(["basis_b", "verdict"]).size().reset_index(name="comparisons")
    return [*markdown(shown.fillna("")), "", "Share of units whose AUROC is at least .9:", "", *markdown(wordings), "",
            "Verdicts of neurons against each basis, over tasks, sizes and norms:", "", *markdown(counts)]  # fmt: skip


TABLES = {"patch": patches, "steer": doses, "heads": successor_heads, "selectivity": selective}


if __name__ == "__main__":
    main()
