"""How fast a grid of doses runs, against a full forward pass for every cell."""

from collections.abc import Callable
from typing import Any

import torch
from shapes import Shape, made_model, made_pairs, medians

import neuron_vs_sae as nvs
from neuron_vs_sae.analyses.interventions.doses import changes_at
from neuron_vs_sae.analyses.interventions.handles import handle_of
from neuron_vs_sae.analyses.interventions.outcomes import outcomes
from neuron_vs_sae.analyses.interventions.subjects import places, subject
from neuron_vs_sae.core.conventions import SteerAt
from neuron_vs_sae.execution.changes import Changes

DOSES = (-0.8, -0.4, -0.2, -0.1, 0.0, 0.1, 0.2, 0.4, 0.8)
SETS, UNITS = 8, 10
TARGET = 3


def grid(shape: Shape) -> str:
    """9 doses of 8 sets of 10 neurons, each set in one layer, the layers evenly spread, on every prompt."""
    model, pairs = made_model(shape), made_pairs(shape)
    basis = nvs.bases.mlp_neurons(model)
    rows, lines = [], []
    for at in ("answer", "all"):
        runs = cells(model, basis, pairs, at)
        names: dict[str, Callable[[], Any]] = {
            "ours": lambda runs=runs: outcomes(model, basis, pairs, runs),
            "cell": lambda: model(pairs.clean),
        }
        with torch.no_grad():
            found = medians(shape.repeats, **names)
        full = len(runs) * found["cell"]
        rows.append(f"| {at} | {found['ours']:.2f} | {full:.1f} | {full / found['ours']:.1f} |")
        fast, exact = (outcomes(model, basis, pairs, runs[:9], engine=engine)["metric"] for engine in ("fast", "exact"))
        lines.append(
            f"largest difference from hooks (`{at}`, the first set's doses): {float((fast - exact).abs().max()):.1e}"
        )
    return "\n".join([
        "## A grid of doses", "",
        f"{len(DOSES)} doses x {SETS} sets of {UNITS} neurons x {len(pairs)} prompts; each set in one layer, spread evenly over the model. `full`: one forward pass "
        "of transformer-lens for every cell (one was timed). A cell begins at its first changed layer and token; dose 0 costs nothing.", "",
        "| steered at | ours, s | full, s | full / ours |", "|---|---:|---:|---:|", *rows, "",
        *(f"- {line}" for line in lines), f"- target: {TARGET} times",
    ])  # fmt: skip


def cells(model: Any, basis: nvs.Basis, pairs: nvs.PromptPairs, at: SteerAt) -> list[Changes]:
    """Every dose of every set."""
    of = subject(model, basis, pairs.clean, pairs.length, places(pairs, at))
    n = len(basis.sites)
    runs = []
    for s in range(SETS):
        site, width = basis.sites[s * n // SETS], basis.dictionaries[0].width
        handle = handle_of(model, basis, [f"{site.name}/{(s * 31 + 7 * u) % width}" for u in range(min(UNITS, width))])
        runs += [changes_at(model, basis, handle, "add", dose, of, measure="norm") for dose in DOSES]
    return runs


GRIDS = {"grids": grid}
