"""Supernodes of one task in one basis, as tables: groups, their members, and what each group tells."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from neuron_vs_sae.analyses.graphs.graph import Graph
from neuron_vs_sae.analyses.graphs.grouping import (
    activity,
    at_random,
    by_correlation,
    by_directions,
    split_half,
    telling_groups,
)
from neuron_vs_sae.analyses.graphs.profiles import Profiles, profiles
from neuron_vs_sae.analyses.graphs.supernodes import UNASSIGNED, Supernodes, supernodes
from neuron_vs_sae.core.basis import Basis
from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.studies.loaded import Loaded
from neuron_vs_sae.studies.tracing import TraceStudy

_FEWEST = 8


def grouped(
    loaded: Loaded[TraceStudy], basis: Basis, graphs: Sequence[Graph], tags: Sequence[dict[str, str]]
) -> dict[str, pd.DataFrame]:
    """`supernodes`: per way of grouping and group its label, size, and the tag's value that it tells best (chosen on every second prompt,
    `auroc` on the others); `members`: the units of each. Groups are made on every second prompt too, so nothing is judged on what
    it was made of. Raises `InputError` for fewer than eight prompts."""
    spec = loaded.spec
    if len(graphs) < _FEWEST:
        raise InputError(
            f"supernodes need graphs of {_FEWEST} prompts or more, and {len(graphs)} are traced (--index 0-39)"
        )
    prompts = [profiles(g, node_threshold=spec.node_threshold, edge_threshold=spec.edge_threshold) for g in graphs]
    chosen_on = np.arange(len(prompts)) % 2 == 0
    half = [prompt for prompt, mine in zip(prompts, chosen_on, strict=True) if mine]
    seed, support = spec.seed[0], spec.min_support
    groups = supernodes(half, k=spec.supernodes, min_support=support, seed=seed)
    ari = _agreement(half, groups, support, seed)
    ways = {
        "supernodes": groups,
        "random": at_random(groups, seed),
        "directions": by_directions(basis, groups, half, seed),
        "correlation": by_correlation(groups, half, seed),
    }
    tables = [
        _rows(name, way, prompts, chosen_on, tags, ari if name == "supernodes" else float("nan"))
        for name, way in ways.items()
    ]
    members = [
        {"group": int(g), "label": groups.labels[g], "site": site, "unit": unit, "sign": sign}
        for (site, unit, sign), g in zip(groups.keys, groups.group.tolist(), strict=True)
        if g != UNASSIGNED
    ]
    return {"supernodes": pd.concat(tables, ignore_index=True), "members": pd.DataFrame(members)}


def _agreement(prompts: Sequence[Profiles], groups: Supernodes, support: int, seed: int) -> float:
    """The split-half index; NaN where half of the prompts are too few to make as many groups."""
    try:
        return split_half(prompts, groups, min_support=support, seed=seed)
    except InputError:
        return float("nan")


def _rows(
    name: str, way: Supernodes, prompts: list[Profiles], chosen_on: Any, tags: Sequence[dict[str, str]], ari: float
) -> pd.DataFrame:
    table, unknown = activity(way, prompts)
    rows = [
        {"grouping": name, "group": g, "label": label, "units": int((way.group == g).sum()), "tag": "", "value": "", "chosen": np.nan, "auroc": np.nan, "n": 0}
        for g, label in enumerate(way.labels)
    ]  # fmt: skip
    for tag in sorted(tags[0]) if tags else ():
        for best in telling_groups(table, [str(of.get(tag)) for of in tags], chosen_on):
            rows.append({
                "grouping": name, "group": best.group, "label": way.labels[best.group], "units": int((way.group == best.group).sum()),
                "tag": tag, "value": best.value, "chosen": best.chosen, "auroc": best.auroc, "n": best.n,
            })  # fmt: skip
    return pd.DataFrame(rows).assign(
        coverage=way.coverage,
        unsupported=way.unsupported,
        held_out_unknown=float(unknown[~chosen_on].mean()),
        split_half_ari=ari,
    )
