"""Tables, frontiers and verdicts of doses, from their values per prompt and per context."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from neuron_vs_sae.analyses.interventions.frontier import EPSILONS, Guard, chosen_efficacy, log_weights
from neuron_vs_sae.analyses.interventions.steering import Doses
from neuron_vs_sae.statistics.proportions import wilson
from neuron_vs_sae.studies.intervening import SteerStudy
from neuron_vs_sae.studies.per_prompt import cases, compared, draws_of, ends_of, mean_of

_CASE = ["task", "seed", "basis"]


def prompt_table(steered: Doses) -> pd.DataFrame:
    """A row per dose and prompt."""
    n_doses, n = steered.after.shape
    flat = {
        name: getattr(steered, name).numpy().ravel()
        for name in ("after", "kl", "norm", "foil_wins", "probability", "rank")
    }
    return pd.DataFrame({
        "units": " ".join(steered.units), "kind": steered.kind, "at": steered.at, "dose_in": steered.dose_in,
        "dose": np.repeat(steered.doses, n), "level": np.repeat(steered.level, n), "prompt": np.tile(np.arange(n), n_doses),
        "before": np.tile(steered.before.numpy(), n_doses), **flat,
    })  # fmt: skip


def guard_table(steered: Doses) -> pd.DataFrame:
    """A row per dose, guard and context of the neutral text, or prompt of another task: `kl`, `cross_entropy`, `agreement`, `task:NAME`."""
    parts = []
    for d, dose in enumerate(steered.doses):
        values = {} if not steered.side else {
            name: getattr(steered.side[d], name).numpy() for name in ("kl", "cross_entropy", "agreement")
        }  # fmt: skip
        values |= {f"task:{name}": change[d].numpy() for name, change in steered.others.items()}
        parts += [
            pd.DataFrame({"dose": dose, "guard": name, "case": range(len(v)), "value": v}) for name, v in values.items()
        ]
    columns = ["dose", "guard", "case", "value"]
    return (
        pd.concat(parts, ignore_index=True)
        if parts
        else pd.DataFrame(columns=columns).astype({"dose": float, "value": float})
    )


def steering_rows(doses: pd.DataFrame, guards: pd.DataFrame, study: SteerStudy) -> pd.DataFrame:
    """A row per task, seed, basis and dose: `effect`, the rise of the metric, with its interval (`low`, `high`); `norm` and `kl` at the answer; `flip_rate` (the
    foil is above the answer) with Wilson's interval; and on neutral text `corpus_kl`, `cross_entropy` (its rise), `agreement`; `task:NAME`, the rise of another
    task's metric. Missing: a dose in KL that is not reached."""
    beside: Any = guards.groupby([*_CASE, "dose", "guard"], sort=False)["value"].mean() if len(guards) else None
    rows = []
    for names, cell in cases(doses, _CASE):
        draws = draws_of(cell, study)
        for (dose,), part in cases(cell, ["dose"]):
            each = part.sort_values("prompt")
            effect = mean_of((each["after"] - each["before"]).to_numpy(), draws)
            reached = bool(each["after"].notna().all())
            low, high = ends_of(effect, study.confidence) if reached else (np.nan, np.nan)
            flip_low, flip_high = (
                wilson(int(each["foil_wins"].sum()), len(each), study.confidence) if reached else (np.nan, np.nan)
            )
            first = each.iloc[0]
            row = {
                **dict(zip(_CASE, names, strict=True)), **{name: first[name] for name in ("units", "kind", "at", "dose_in")}, "dose": dose,
                "level": first["level"], "norm": float(each["norm"].mean()), "effect": float(effect.value[0]), "low": low, "high": high,
                "kl": float(each["kl"].mean()), "flip_rate": float(each["foil_wins"].mean()), "flip_low": flip_low, "flip_high": flip_high,
                "cross_entropy": np.nan, "n": len(each),
            }  # fmt: skip
            if beside is not None and (*names, dose) in beside.index.droplevel("guard"):
                guarded = beside[(*names, dose)].to_dict()
                row |= {("corpus_kl" if name == "kl" else name): value for name, value in guarded.items()}
            rows.append(row)
    return pd.DataFrame(rows)


@dataclass(frozen=True, eq=False)
class _Grid:
    """One basis's doses on one task: `effect` and `kl` by dose and prompt, `corpus_kl` by dose and context."""

    doses: tuple[float, ...]
    effect: Float[np.ndarray, "doses batch"]
    kl: Float[np.ndarray, "doses batch"]
    corpus_kl: Float[np.ndarray, "doses contexts"] | None

    def efficacy(
        self, guard: Guard, seed: int
    ) -> tuple[Float[np.ndarray, "batch prices"], tuple[tuple[float, float], ...]] | None:
        cost = self.kl if guard == "kl" else self.corpus_kl
        return None if cost is None else chosen_efficacy(self.effect, cost, self.doses, EPSILONS, seed)


def _grids(doses: pd.DataFrame, guards: pd.DataFrame) -> Iterator[tuple[Any, Any, _Grid]]:
    for names, cell in cases(doses, _CASE):
        wide = {name: cell.pivot(index="dose", columns="prompt", values=name) for name in ("before", "after", "kl")}
        on_text = guards.loc[(guards[_CASE] == list(names)).all(axis=1) & (guards["guard"] == "kl")]
        costs = on_text.pivot(index="dose", columns="case", values="value").to_numpy() if len(on_text) else None
        yield (
            names,
            cell,
            _Grid(tuple(wide["kl"].index), (wide["after"] - wide["before"]).to_numpy(), wide["kl"].to_numpy(), costs),
        )


def frontiers(doses: pd.DataFrame, guards: pd.DataFrame, study: SteerStudy) -> pd.DataFrame:
    """A row per task, seed, basis, guard and price: the efficacy that the best affordable dose has on prompts that did not choose it, with its interval, and
    both halves' doses; and per guard a row without price: the area over log price."""
    rows = []
    for names, cell, grid in _grids(doses, guards):
        draws = draws_of(cell, study)
        for guard in ("kl", "corpus_kl"):
            priced = grid.efficacy(guard, study.seed[0])
            if priced is None:
                continue
            efficacy, chosen = priced
            columns = [*efficacy.T, efficacy @ log_weights(EPSILONS)]
            for price, values, pair in zip((*EPSILONS, np.nan), columns, (*chosen, (np.nan, np.nan)), strict=True):
                mean = mean_of(values, draws)
                low, high = ends_of(mean, study.confidence)
                rows.append({
                    **dict(zip(_CASE, names, strict=True)), "guard": guard, "price": price, "efficacy": float(mean.value[0]), "low": low, "high": high,
                    "dose_first_half": pair[0], "dose_second_half": pair[1], "n": len(values),
                })  # fmt: skip
    return pd.DataFrame(rows)


def steer_verdicts(doses: pd.DataFrame, guards: pd.DataFrame, study: SteerStudy) -> pd.DataFrame:
    """Bases compared by the areas of their frontiers, prompt by prompt, as shares of the mean plain |metric|."""
    tables = [pd.DataFrame(columns=["p"])]
    grids = list(_grids(doses, guards))
    for task, seed in dict.fromkeys((names[0], names[1]) for names, _, _ in grids):
        mine = [(names[2], cell, grid) for names, cell, grid in grids if names[:2] == (task, seed)]
        first = mine[0][1]
        draws, scale = draws_of(first, study), float(first.drop_duplicates("prompt")["before"].abs().mean())
        for guard in ("kl", "corpus_kl"):
            areas = {}
            for basis, _, grid in mine:
                chosen = grid.efficacy(guard, study.seed[0])
                if chosen is not None:
                    areas[basis] = chosen[0] @ log_weights(EPSILONS) / scale
            if len(areas) > 1:
                facts = {
                    "question": "steering", "task": task, "seed": seed, "method": study.kind, "score": f"frontier_area_{guard}",
                    "size_measure": "nats", "specification": f"{study.kind} at {study.at}, price in {guard}",
                }  # fmt: skip
                tables.append(compared(areas, draws, facts, study))
    return pd.concat([t for t in tables if len(t)] or tables, ignore_index=True)
