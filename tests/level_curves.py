"""Curves of a given level, and results of them, for tests of verdicts."""

from pathlib import Path
from typing import Any

import pandas as pd
import torch

from neuron_vs_sae.core.curve import Curve
from neuron_vs_sae.statistics.resampling import Clusters
from neuron_vs_sae.studies import result
from neuron_vs_sae.studies.rows import to_rows
from neuron_vs_sae.studies.study import make_study
from neuron_vs_sae.studies.summary import summarise

SIZES = (0, 1, 2, 5, 10, 20)
N = 24


def curve(level: float, *, noise: float = 0.05, seed: int = 0, prompts: int = N, total: int = 20) -> Curve:
    """Faithfulness is `level` at every size between none and all, completeness `1 - level`; prompts differ by `noise`."""
    generator = torch.Generator().manual_seed(seed)

    def drawn(size: int) -> torch.Tensor:
        return noise * torch.randn(size, prompts, generator=generator, dtype=torch.float64)

    whole, empty = 4 + drawn(1)[0], drawn(1)[0]
    inner = len(SIZES) - 2
    levels = torch.full((inner, 1), level).double()
    return Curve(
        sizes=(*SIZES[:-1], total), n_error_nodes=(0,) * len(SIZES), n_total=total, whole=whole, empty=empty,
        circuit=torch.cat([empty[None], levels * whole + (1 - levels) * empty + drawn(inner), whole[None]]),
        complement=torch.cat([whole[None], (1 - levels) * whole + levels * empty + drawn(inner), empty[None]]),
        change=torch.linspace(0, 1, len(SIZES)).double()[:, None].expand(-1, prompts),
        values=tuple(map(float, (*SIZES[:-1], total))),
    )  # fmt: skip


Named = dict[tuple[str, str], Curve]


def finished(
    curves: Named, folder: Path = Path(), clusters: Clusters | None = None, seed: int = 0, **settings: Any
) -> result.Result:
    """A result of these curves, by task and basis."""
    tasks, bases = (list(dict.fromkeys(key[i] for key in curves)) for i in (0, 1))
    given = {
        "model": "gpt2",
        "task": [f"{t}.jsonl" for t in tasks],
        "basis": bases,
        "resamples": 500,
        "sign_flips": 2000,
    }
    study = make_study({**given, **settings})
    rows = [
        to_rows(
            each,
            {
                "model": "gpt2", "task": task, "basis": basis, "site": "s", "method": study.method[0], "ablation": "mean",
                "errors": "nodes", "metric": "logit_difference", "seed": seed,
            },
            clusters,
        )
        for (task, basis), each in curves.items()
    ]  # fmt: skip
    table = pd.concat(rows, ignore_index=True)
    return result.Result(folder, {"study": study.model_dump(mode="json")}, table, summarise(table, study))


def told(table: pd.DataFrame, score: str = "faithfulness", measure: str = "nodes") -> dict[str, Any]:
    (row,) = table[(table["score"] == score) & (table["size_measure"] == measure)].to_dict("records")
    return row
