"""A collection as two tables: a row per unit and sign, and a row per window."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import torch

from neuron_vs_sae.analyses.units.collecting import BINS, QUANTILES, SIGNS, Collection
from neuron_vs_sae.analyses.units.queues import Queues
from neuron_vs_sae.analyses.units.scores import effective_tokens, input_score, kurtosis
from neuron_vs_sae.analyses.units.vocabulary import Ends

MARKS = {1: "+", -1: "-"}


def units_table(collection: Collection, said: Ends, show: Callable[[int], str]) -> pd.DataFrame:
    """A row per unit and sign: how often, how much, and the tokens that it says. A unit without negative values has one row.

    `density` is the share of tokens with a value of that sign, `density_10` and `density_50` of those above a tenth and half of the
    range; `maximum` is the largest size of a value. Of sign `-`, `top_tokens` are those that a *negative* value promotes. Lists are
    JSON. `show` gives a token's text.
    """
    maximum, densities = collection.maximum, {f: collection.density(f) for f in (0.0, 0.1, 0.5)}
    spread, moments, tails = effective_tokens(collection), collection.moments, kurtosis(collection)
    scores = input_score(collection, torch.stack([said.top, said.bottom]))
    either = ((said.top, said.top_values), (said.bottom, said.bottom_values))
    rows = []
    for u, name in enumerate(collection.names):
        for s, sign in enumerate(SIGNS):
            if sign < 0 and maximum[s, u] == 0:
                continue
            promoted, suppressed = either[s], either[1 - s]
            rows.append(
                {
                    "basis": collection.basis,
                    "unit": name,
                    "sign": MARKS[sign],
                    "density": float(densities[0.0][s, u]),
                    "density_10": float(densities[0.1][s, u]),
                    "density_50": float(densities[0.5][s, u]),
                    "maximum": float(maximum[s, u]),
                    "mean": float(moments[0, u]),
                    "kurtosis": float(tails[u]),
                    "effective_tokens": float(spread[s, u]),
                    "input_score": float(scores[s, u]),
                    "top_tokens": json.dumps([show(t) for t in promoted[0][u].tolist()], ensure_ascii=False),
                    "top_values": json.dumps((sign * promoted[1][u]).tolist()),
                    "bottom_tokens": json.dumps([show(t) for t in suppressed[0][u].tolist()], ensure_ascii=False),
                    "bottom_values": json.dumps((sign * suppressed[1][u]).tolist()),
                    "tokens_read": int(collection.counted[u]),
                    "corpus": collection.corpus,
                }
            )
    return pd.DataFrame(rows)


def windows_table(collection: Collection, show: Callable[[int], str]) -> pd.DataFrame:
    """A row per window: `kind` is `top`, `quantile` (with its number, 0 the weakest) or `negative`; `rank` counts from 0.

    `tokens` and `values` are the window's, the unit's value there with its sign; `center` is the place in the window of the token that
    it was taken for, `position` that token's place in context `context`. `quantile_low`, `quantile_high` and
    `quantile_fraction` are the quantile's limits (sizes of values) and its share of the tokens read.
    """
    n = len(collection.names)
    rows: list[dict[str, Any]] = []
    for kind, queues in (("top", collection.top), ("negative", collection.negatives)):
        for queue in range(2 * n):
            rows += [{**_unit(collection, queue), "kind": kind, **w} for w in _windows(queues, queue, show)]
    edges = np.linspace(0, 1, QUANTILES + 1)
    parts = collection.histogram.reshape(2 * n, QUANTILES, BINS // QUANTILES).sum(-1)
    for queue in range(2 * n):
        sign, u = divmod(queue, n)
        limit = float(collection.ranges[sign, u])
        for q in range(QUANTILES):
            of_quantile = {
                "quantile": q,
                "quantile_low": float(edges[q]) * limit,
                "quantile_high": float(edges[q + 1]) * limit,
                "quantile_fraction": float(parts[queue, q] / max(int(collection.counted[u]), 1)),
            }
            for w in _windows(collection.quantiles, queue * QUANTILES + q, show):
                rows.append({**_unit(collection, queue), "kind": "quantile", **of_quantile, **w})
    table = pd.DataFrame(rows, columns=_COLUMNS)
    return table.astype({"quantile": "Int64"})


_COLUMNS = [
    "basis", "unit", "sign", "kind", "quantile", "quantile_low", "quantile_high", "quantile_fraction", "rank", "context", "position",
    "center", "tokens", "values",
]  # fmt: skip


def _unit(collection: Collection, queue: int) -> dict[str, str]:
    sign, u = divmod(queue, len(collection.names))
    return {"basis": collection.basis, "unit": collection.names[u], "sign": MARKS[SIGNS[sign]]}


def _windows(queues: Queues, queue: int, show: Callable[[int], str]) -> Iterator[dict[str, Any]]:
    middle = queues.tokens.shape[-1] // 2
    for rank in range(int(queues.filled[queue].sum())):
        inside = queues.inside[queue, rank]
        yield {
            "rank": rank,
            "context": int(queues.context[queue, rank]),
            "position": int(queues.position[queue, rank]),
            "center": int(inside[:middle].sum()),
            "tokens": [show(token) for token in queues.tokens[queue, rank][inside].tolist()],
            "values": queues.values[queue, rank][inside].tolist(),
        }
