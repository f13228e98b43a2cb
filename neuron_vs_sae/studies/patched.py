"""Tables and verdicts of patches and swaps, from their values per prompt."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from neuron_vs_sae.analyses.interventions.frontier import log_weights
from neuron_vs_sae.statistics.proportions import wilson
from neuron_vs_sae.studies.intervening import PatchStudy
from neuron_vs_sae.studies.per_prompt import cases, compared, draws_of, ends_of, mean_of

NORMS = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
"""Relative norms at which flips are counted."""
_CASE = ["task", "seed", "basis"]


def patching_rows(patches: pd.DataFrame, study: PatchStudy) -> pd.DataFrame:
    """A row per task, seed, basis, k, alpha and control: means over prompts (of a control's trials first).

    `actual`: the metric's fall, with `actual_low` and `actual_high`; `flip_rate` with Wilson's `low` and `high` (of a control of several trials, their
    mean rounded to prompts); `difference`: the patch's fall less the control's, paired, with its interval and `z`, the difference over its standard error.
    """
    rows = []
    for _, cell in cases(patches, _CASE):
        draws = draws_of(cell, study)
        main = {}
        for (k, alpha, control), part in cases(cell, ["k", "alpha", "control"]):
            each = _per_prompt(part)
            fall = mean_of(each["fall"].to_numpy(), draws)
            if control == "":
                main.setdefault(k, fall)
            low, high = wilson(round(each["flipped"].sum()), len(each), study.confidence)
            ends = ends_of(fall, study.confidence)
            first = part.iloc[0]
            rows.append({
                **{name: first[name] for name in _CASE}, "method": method_of(study.select), "select": study.select, "k": k,
                "units": float(each["units"].mean()), "alpha": alpha, "control": control, "predicted": float(each["predicted"].mean()),
                "actual": float(fall.value[0]), "actual_low": ends[0], "actual_high": ends[1], "flip_rate": float(each["flipped"].mean()),
                "low": low, "high": high, "first_rate": float(each["first"].mean()), "rank": float(each["rank"].mean()),
                "probability": float(each["probability"].mean()), "kl": float(each["kl"].mean()), "norm": float(each["norm"].mean()),
                "n": len(each), **_against(main.get(k), fall, control, study),
            })  # fmt: skip
    return pd.DataFrame(rows)


def method_of(select: str) -> str:
    """What units were scored by."""
    return "integrated_gradients" if select == "ig" else "delta_gradient"


def _per_prompt(part: Any) -> Any:
    columns = ["units", "predicted", "flipped", "first", "rank", "probability", "kl", "norm", "fall"]
    return part.assign(fall=part["before"] - part["after"]).groupby("prompt")[columns].mean().sort_index()


def _against(main: Any, fall: Any, control: str, study: PatchStudy) -> dict[str, float]:
    names = ("difference", "difference_low", "difference_high", "z")
    if main is None or control in ("", "all_units"):
        return dict.fromkeys(names, float("nan"))
    difference = main - fall
    error = float(difference.standard_error[0])
    z = float(difference.value[0]) / error if error else float("nan")
    return dict(zip(names, (float(difference.value[0]), *ends_of(difference, study.confidence), z), strict=True))


def flips(patches: pd.DataFrame, study: PatchStudy) -> pd.DataFrame:
    """A row per task, seed and basis: the fewest units of the grid that flip a prompt's answer, its quartiles over prompts (missing where a quarter, a
    half or three do not flip at all), and the share of prompts that `flips` and that flip with `all_units`."""
    rows = []
    for names, cell in cases(patches, _CASE):
        main = cell.loc[(cell["control"] == "") & (cell["alpha"] == study.alpha[0])]
        fewest = main.loc[main["flipped"]].groupby("prompt")["units"].min().reindex(sorted(main["prompt"].unique()))
        quartiles = np.quantile(fewest.fillna(np.inf), [0.25, 0.5, 0.75], method="inverted_cdf")
        ceiling = cell.loc[cell["control"] == "all_units", "flipped"]
        low, high = wilson(int(fewest.notna().sum()), len(fewest), study.confidence)
        rows.append({
            **dict(zip(_CASE, names, strict=True)), "select": study.select,
            **dict(zip(("q25", "median", "q75"), (q if np.isfinite(q) else None for q in quartiles), strict=True)),
            "flips": float(fewest.notna().mean()), "low": low, "high": high, "all_units": float(ceiling.mean()), "n": len(fewest),
        })  # fmt: skip
    return pd.DataFrame(rows)


def swap_rows(swaps: pd.DataFrame, study: PatchStudy) -> pd.DataFrame:
    """A row per task, seed, basis, way, k and what was done: the rate at which the donor's answer came first, with Wilson's interval, and the
    rates of the other outcomes. `cause` is that rate; `isolate` the rate at which another question stays; `interchange` the mean of both."""
    rows = []
    for names, part in cases(swaps, [*_CASE, "way", "k", "swap"]):
        low, high = wilson(int(part["hit"].sum()), len(part), study.confidence)
        rates = {name: float(part[name].mean()) for name in ("hit", "kept", "relation", "unchanged", "units", "norm")}
        rows.append(
            {
                **dict(zip([*_CASE, "way", "k", "swap"], names, strict=True)),
                **rates,
                "low": low,
                "high": high,
                "n": len(part),
            }
        )
    table: Any = pd.DataFrame(
        rows,
        columns=[
            *_CASE,
            "way",
            "k",
            "swap",
            "hit",
            "kept",
            "relation",
            "unchanged",
            "units",
            "norm",
            "low",
            "high",
            "n",
        ],
    )
    isolated = table.loc[table["swap"] == "isolate"].set_index([*_CASE, "way", "k"])["unchanged"]
    is_swap = table["swap"] == "swap"
    keys = pd.MultiIndex.from_frame(table.loc[is_swap, [*_CASE, "way", "k"]])
    isolate = pd.Series(isolated.reindex(keys).to_numpy(dtype=float), index=table.index[is_swap])
    return table.assign(isolate=isolate, interchange=(table.loc[is_swap, "hit"] + isolate) / 2)


def patch_verdicts(patches: pd.DataFrame, swaps: pd.DataFrame, study: PatchStudy) -> pd.DataFrame:
    """Bases compared, prompt by prompt: by the share of sizes (linear in their log) at which the answer is flipped, by the same over the relative norm
    written, and by the rate of swaps at every k."""
    tables = [pd.DataFrame(columns=["p"])]
    for (task, seed), cell in cases(patches, ["task", "seed"]):
        draws = draws_of(cell, study)
        facts = {"question": "patching", "task": task, "seed": seed, "method": method_of(study.select)}
        for score, size_measure, areas in _areas(cell, study):
            more = {
                "score": score,
                "size_measure": size_measure,
                "specification": f"select {study.select}, alpha {study.alpha[0]:g}",
            }
            tables.append(compared(areas, draws, facts | more, study))
    for (task, seed, way, k), cell in cases(swaps.loc[swaps["swap"] == "swap"], ["task", "seed", "way", "k"]):
        draws = draws_of(cell, study)
        rates = {
            basis: part.sort_values("prompt")["hit"].to_numpy(dtype=float) for (basis,), part in cases(cell, ["basis"])
        }
        facts = {
            "question": "swap", "task": task, "seed": seed, "method": way, "score": "swap_rate", "size_measure": "units",
            "specification": f"{study.swap}, {k} units of a value",
        }  # fmt: skip
        tables.append(compared(rates, draws, facts, study))
    return pd.concat([t for t in tables if len(t)] or tables, ignore_index=True)


def _areas(cell: Any, study: PatchStudy) -> Iterator[tuple[str, str, dict[str, Float[np.ndarray, " batch"]]]]:
    """(score, what size is counted in, per basis an area per prompt)."""
    main = cell.loc[(cell["control"] == "") & (cell["alpha"] == study.alpha[0])]
    sizes = sorted(main["k"].unique())
    by_size, by_norm = {}, {}
    for (basis,), part in cases(main, ["basis"]):
        flipped = part.pivot(index="prompt", columns="k", values="flipped").sort_index()[sizes].to_numpy(dtype=float)
        norm = part.pivot(index="prompt", columns="k", values="norm").sort_index()[sizes].to_numpy()
        by_size[str(basis)] = flipped @ log_weights(sizes)
        within = np.stack([_at_norm(flipped, norm, most) for most in NORMS], 1)
        by_norm[str(basis)] = within @ log_weights(NORMS)
    yield "flip_area", "share of score" if study.select == "mass" else "units", by_size
    yield "flip_area", "relative norm", by_norm


def _at_norm(
    flipped: Float[np.ndarray, "batch k"], norm: Float[np.ndarray, "batch k"], most: float
) -> Float[np.ndarray, " batch"]:
    """Whether each prompt is flipped by the set of largest norm within `most`; not by none."""
    within = np.where(norm <= most, norm, -1.0)
    best = within.argmax(1)
    rows = np.arange(len(flipped))
    return np.where(within[rows, best] >= 0, flipped[rows, best], 0.0)
