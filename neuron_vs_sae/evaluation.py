"""How faithful and complete circuits are: F(M), F(empty), F(C) and F(complement) on held-out pairs."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from tqdm.auto import tqdm

from neuron_vs_sae.basis import Basis
from neuron_vs_sae.curve import Curve
from neuron_vs_sae.errors import InputError, check_choice
from neuron_vs_sae.lookup import find
from neuron_vs_sae.metric import Metric, Target, resolve
from neuron_vs_sae.nodes import NodeIndex, NodeScores, RankBy, log_sizes
from neuron_vs_sae.pairs import PromptPairs
from neuron_vs_sae.splice import Kept, Reference, edit, run

Errors = Literal["nodes", "keep", "ablate", "resid_only"]
"""What happens to the error nodes of bases that have them, in the circuit, complement and empty runs alike.

nodes: they are ranked, counted, kept and ablated like units. keep: always kept, not counted. ablate: always ablated, not
counted, so the whole dictionary's faithfulness is its reconstruction's, not 1. resid_only: always ablated at sites
outside the residual stream, like `nodes` in it.
"""

_RESIDUAL = ("hook_resid_pre", "hook_resid_mid", "hook_resid_post")


def evaluate(
    model: Any,
    basis: Basis,
    scores: NodeScores,
    pairs: PromptPairs,
    *,
    sizes: Sequence[int] | Callable[[int], Sequence[int]] = log_sizes,
    metric: str | Metric = "logit_difference",
    ablation: str = "mean",
    errors: Errors = "nodes",
    rank_by: RankBy = "absolute",
    source: PromptPairs | None = None,
    seed: int = 0,
    batch_size: int = 64,
) -> Curve:
    """The curve of the circuits that `scores` rank first, judged on `pairs`.

    `sizes` counts nodes, or makes them from how many there are (default: `log_sizes`); `source` are the pairs whose corrupt prompts give the mean ablations'
    values (default: `pairs`); `seed` draws the resample ablation's. Always the model itself runs, never RelP's.
    Cost: two forward passes per size and prompt. `batch_size` is pairs per pass; it changes no number.
    Raises `InputError` for sizes beyond the number of nodes and for a metric that is not finite.
    """
    pooled = scores.index.positions is None
    expected = basis.index(None if pooled else pairs.positions)
    if scores.index != expected:
        raise InputError(
            f"the scores are those of {_shape(scores.index)}, and basis '{basis.name}' on these prompts is "
            f"{_shape(expected)}: discover and evaluate with one basis and one prompt length"
        )
    make = find("ablation", ablation)(model, basis, pairs, source or pairs, seed, batch_size)
    constants = make(torch.arange(1)).constants
    candidates, fixed = roles(basis, scores.index, errors, constants)
    total = int(candidates.sum())
    grid = tuple(sorted(set(sizes(total) if callable(sizes) else sizes)))
    if not grid or grid[0] < 0 or grid[-1] > total:
        raise InputError(
            f"the sizes {list(grid)} go beyond the {total} nodes of basis '{basis.name}' with errors='{errors}': "
            f"sizes lie between 0 and {total}"
        )
    order = scores.order(rank_by=rank_by, among=candidates)
    masks = [_mask(scores.index, order[:k]) for k in grid]
    runs: list[Bool[Tensor, " nodes"]] = [fixed]
    runs += [mask | fixed for mask in masks]
    runs += [(candidates & ~mask) | fixed for mask in masks]
    values = _run_all(model, basis, scores.index, pairs, runs, make, resolve(metric), batch_size)
    is_error = scores.index.is_error
    n = len(grid)
    return Curve(
        sizes=grid,
        n_error_nodes=tuple(int(is_error[order[:k]].sum()) for k in grid),
        n_total=total,
        whole=values[0],
        empty=values[1],
        circuit=values[2 : 2 + n],
        complement=values[2 + n :],
    )


def roles(
    basis: Basis,
    index: NodeIndex,
    errors: Errors,
    constants: tuple[tuple[str, Tensor] | None, ...],
) -> tuple[Bool[Tensor, " nodes"], Bool[Tensor, " nodes"]]:
    """(nodes that a circuit may choose from, nodes that are kept in every run) under an error policy."""
    check_choice("errors", errors, Errors)
    chosen, kept = [], []
    for site, dictionary, constant in zip(basis.sites, basis.dictionaries, constants, strict=True):
        exists = not dictionary.lossless or constant is not None
        policy = errors
        if errors == "resid_only":
            policy = "nodes" if site.kind in _RESIDUAL else "ablate"
        chosen.append(exists and policy == "nodes")
        # What a lossless dictionary leaves over is rounding: it stays where it is.
        kept.append(not exists or policy == "keep")

    def spread(units: bool, flags: list[bool]) -> Tensor:
        return index.flatten(
            [torch.full((index.blocks, width), units) for width in index.widths],
            [torch.full((index.blocks,), flag) for flag in flags],
        )

    return spread(True, chosen), spread(False, kept)


def _run_all(
    model: Any,
    basis: Basis,
    index: NodeIndex,
    pairs: PromptPairs,
    runs: list[Bool[Tensor, " nodes"]],
    reference: Any,
    metric: Metric,
    batch_size: int,
) -> Float[Tensor, "runs batch"]:
    """The metric per run and prompt: first the model itself, then with all nodes ablated but those of each mask."""
    kept = [_kept(index, mask) for mask in runs]
    columns = []
    for rows in tqdm(torch.arange(len(pairs)).split(batch_size), desc="evaluate", leave=False, delay=2):
        batch = pairs.batch(rows)
        model_logits = run(model, batch.clean, batch.length)
        target = Target(batch.answer, batch.foil, lambda logits=model_logits: logits)
        values: Reference = reference(rows)
        found = [metric(model_logits, target)]
        found += [metric(edit(model, basis, batch.clean, batch.length, k, values), target) for k in kept]
        columns.append(torch.stack(found).double().cpu())
    table = torch.cat(columns, 1)
    if not bool(table.isfinite().all()):
        raise InputError(
            f"the metric is NaN or infinite on {int((~table.isfinite()).any(0).sum())} of {len(pairs)} prompts: look for "
            "NaN in the model's or the SAE's weights (`nvs check`), or use a wider dtype"
        )
    return table


def _kept(index: NodeIndex, mask: Bool[Tensor, " nodes"]) -> Kept:
    parts = index.unflatten(mask)
    return Kept(tuple(units for units, _ in parts), tuple(error for _, error in parts))


def _mask(index: NodeIndex, nodes: Tensor) -> Bool[Tensor, " nodes"]:
    mask = torch.zeros(len(index), dtype=torch.bool)
    mask[nodes] = True
    return mask


def _shape(index: NodeIndex) -> str:
    where = "pooled positions" if index.positions is None else f"{index.positions} positions"
    return f"{index.basis}: {len(index.sites)} sites, {where}"
