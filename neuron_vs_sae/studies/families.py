"""Which comparisons are confirmatory and which exploratory, and which basis is whose control: from specs and records."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool

from neuron_vs_sae.core.lookup import Spec, parse
from neuron_vs_sae.statistics.multiplicity import benjamini_hochberg, holm
from neuron_vs_sae.studies.study import Study

CONFIRMATORY, EXPLORATORY = "confirmatory", "exploratory"
NEURONS = "mlp_neurons"
TRAINED = ("sae", "transcoder")
BASELINES = ("random", "delta")
"""Methods that rank without a gradient: a comparison under them answers nothing."""
_PLACES = ("source", "site", "layers")
"""Options that say which dictionaries a basis is made of."""


def is_baseline(method: str) -> bool:
    return parse("attribution", method).name in BASELINES


def baselines(methods: Iterable[str]) -> Bool[np.ndarray, " k"]:
    """Which of these methods are baselines."""
    named = list(methods)
    known = {method: is_baseline(method) for method in set(named)}
    return np.array([known[method] for method in named], dtype=bool)


def neurons(study: Study) -> list[str]:
    """The study's neuron bases: the first of every pair."""
    return [basis for basis in study.basis if parse("bases", basis).name == NEURONS]


def family(basis_a: str, basis_b: str, method: str | None = None) -> str:
    """`confirmatory`: neurons against a trained dictionary, by a method that is no baseline. All else is `exploratory`."""
    names = [parse("bases", basis).name for basis in (basis_a, basis_b)]
    declared = NEURONS in names and any(name in TRAINED for name in names)
    return CONFIRMATORY if declared and not (method and is_baseline(method)) else EXPLORATORY


def has_robust_verdict(basis_a: str, basis_b: str) -> bool:
    """Pairs that an answer is sought for: those with neurons, and those of two trained dictionaries."""
    names = [parse("bases", basis).name for basis in (basis_a, basis_b)]
    return NEURONS in names or all(name in TRAINED for name in names)


def adjusted(table: pd.DataFrame, p: str, by: list[str]) -> pd.DataFrame:
    """`p_holm` and `p_bh` of the column `p`, adjusted separately within each combination of `by`; NaN is not counted."""
    columns = pd.DataFrame(np.nan, index=table.index, columns=["p_holm", "p_bh"])
    cases: Any = table[table[p].notna()].groupby(by, sort=False)
    for _, rows in cases:
        values = rows[p].to_numpy(np.float64)
        columns.loc[rows.index, "p_holm"], columns.loc[rows.index, "p_bh"] = holm(values), benjamini_hochberg(values)
    return columns


def controls_of(study: Study, record: Mapping[str, Any], task: str) -> list[tuple[str, str]]:
    """(basis, its control) for every basis of the study that has one in it.

    A `random_sae` is the control of the dictionaries that it imitates: those of the same source, site and layers; where it imitates
    none of the study's, those with the same sites and widths, by the record. A dictionary of which every SAE's record
    says `frozen_decoder` is the control of trained ones with the same sites and widths. `rotation` is the control of neurons,
    which have no other.
    """
    specs = {basis: parse("bases", basis) for basis in study.basis}
    bases: Mapping[str, Mapping[str, Any]] = record.get("bases", {}).get(task, {})
    facts = {basis: bases.get(basis, {}) for basis in specs}
    frozen = [basis for basis in specs if _is_frozen(facts[basis])]
    trained = [basis for basis, spec in specs.items() if spec.name in TRAINED and basis not in frozen]
    pairs = [(basis, control) for control in frozen for basis in trained if _same_shape(facts[basis], facts[control])]
    for control, spec in specs.items():
        if spec.name == "random_sae":
            own = [basis for basis in trained if _same_places(specs[basis], spec)]
            alike = [basis for basis in trained if _same_shape(facts[basis], facts[control])]
            # A control that imitates this very dictionary is closer than one of the same shape.
            own += [basis for basis in alike if basis not in own and not _has_own(basis, specs)]
            pairs += [(basis, control) for basis in own]
        if spec.name == "rotation":
            pairs += [(basis, control) for basis in neurons(study)]
    return pairs


def _is_frozen(facts: Mapping[str, Any]) -> bool:
    saes = facts.get("saes", [])
    return bool(saes) and all(sae.get("frozen_decoder") for sae in saes)


def _has_own(basis: str, specs: Mapping[str, Spec]) -> bool:
    return any(spec.name == "random_sae" and _same_places(specs[basis], spec) for spec in specs.values())


def _same_places(trained: Spec, control: Spec) -> bool:
    mine, theirs = ({key: spec.options.get(key) for key in _PLACES} for spec in (trained, control))
    return trained.name == "sae" and mine == theirs


def _same_shape(facts: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    keys = ("sites", "widths")
    return all(key in facts for key in keys) and all(facts[key] == other.get(key) for key in keys)
