"""How faithful and complete circuits are: F(M), F(empty), F(C) and F(complement) on held-out pairs."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from tqdm.auto import tqdm

from neuron_vs_sae.analyses.circuits.change import changes
from neuron_vs_sae.catalog.references import Ablation, constants as constants_of
from neuron_vs_sae.core.basis import Basis
from neuron_vs_sae.core.conventions import Engine, ErrorPolicy, RankBy
from neuron_vs_sae.core.curve import Curve
from neuron_vs_sae.core.errors import InputError, check_choice
from neuron_vs_sae.core.lookup import find
from neuron_vs_sae.core.metric import Metric, Target, resolve
from neuron_vs_sae.core.nodes import NodeIndex, NodeScores, log_sizes
from neuron_vs_sae.core.pairs import PromptPairs
from neuron_vs_sae.execution.engine import evaluate_runs, unsupported
from neuron_vs_sae.execution.slots import ErrorNode, Run
from neuron_vs_sae.execution.splice import Kept, edit, run

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
    errors: ErrorPolicy = "nodes",
    rank_by: RankBy = "absolute",
    source: PromptPairs | None = None,
    seed: int = 0,
    batch_size: int = 64,
    engine: Engine = "fast",
    measure_change: bool = False,
) -> Curve:
    """The curve of the circuits that `scores` rank first, judged on `pairs`.

    `sizes` counts nodes, or makes them from how many there are (default: `log_sizes`); `source` are the pairs whose corrupt prompts give the mean ablations'
    values (default: `pairs`); `seed` draws the resample ablation's. Always the model itself runs, never RelP's.
    `engine` and `batch_size` (pairs per pass) say how it is computed and change numbers by rounding only: "fast" falls
    back to "exact" for what it does not know (`engine_for`).
    `measure_change` adds `Curve.change` (`change.py`), at the cost of every dictionary whole, whatever the sizes.
    Cost: at most two forward passes per size and prompt; with the fast engine, less the smaller the circuit.
    Raises `InputError` for sizes beyond the number of nodes and for a metric that is not finite.
    """
    pooled = scores.index.positions is None
    expected = basis.index(None if pooled else pairs.positions)
    if scores.index != expected:
        raise InputError(
            f"the scores are those of {_shape(scores.index)}, and basis '{basis.name}' on these prompts is "
            f"{_shape(expected)}: discover and evaluate with one basis and one prompt length"
        )
    check_choice("engine", engine, Engine)
    constants = constants_of(ablation, model, basis)
    candidates, fixed = roles(basis, scores.index, errors, constants)
    total = int(candidates.sum())
    grid = tuple(sorted(set(sizes(total) if callable(sizes) else sizes)))
    if not grid or grid[0] < 0 or grid[-1] > total:
        raise InputError(
            f"the sizes {list(grid)} go beyond the {total} nodes of basis '{basis.name}' with errors='{errors}': "
            f"sizes lie between 0 and {total}"
        )

    def ablate(of: Basis, rows: int = batch_size) -> Ablation:
        return find("ablation", ablation)(model, of, pairs, source or pairs, seed, rows)

    order = scores.order(rank_by=rank_by, among=candidates)
    runs = [Run(False, order[:0])]
    runs += [_run(False, order, k) for k in grid]
    runs += [_run(True, order, k) for k in grid]
    if engine_for(model, basis, engine) == "fast":
        nodes = _error_nodes(basis, scores.index, candidates, fixed, constants)
        values = evaluate_runs(model, basis, scores.index, pairs, runs, nodes, ablate, resolve(metric), batch_size)
    else:
        masks = [_mask(run, candidates, fixed) for run in runs]
        values = _run_exactly(model, basis, scores.index, pairs, masks, ablate(basis), resolve(metric), batch_size)
    if not bool(values.isfinite().all()):
        raise InputError(
            f"the metric is NaN or infinite on {int((~values.isfinite()).any(0).sum())} of {len(pairs)} prompts: look for "
            "NaN in the model's or the SAE's weights (`nvs check`), or use a wider dtype"
        )
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
        change=changes(model, basis, scores.index, pairs, order, grid, ablate, batch_size) if measure_change else None,
    )


def roles(
    basis: Basis,
    index: NodeIndex,
    errors: ErrorPolicy,
    constants: tuple[tuple[str, Tensor] | None, ...],
) -> tuple[Bool[Tensor, " nodes"], Bool[Tensor, " nodes"]]:
    """(nodes that a circuit may choose from, nodes that are kept in every run) under an error policy."""
    check_choice("errors", errors, ErrorPolicy)
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


def engine_for(model: Any, basis: Basis, engine: Engine) -> str:
    """What runs the circuits: `fast`, `exact`, or `exact: ` and why the fast engine is not for this model or basis."""
    if engine == "exact":
        return engine
    reason = unsupported(model, basis)
    return "fast" if reason is None else f"exact: {reason}"


def _run(full: bool, order: Int[Tensor, " nodes"], k: int) -> Run:
    """The run that keeps (`full`: ablates) the first k nodes, told from the base that it is nearer to."""
    return Run(full, order[:k]) if 2 * k <= len(order) else Run(not full, order[k:])


def _error_nodes(
    basis: Basis,
    index: NodeIndex,
    candidates: Bool[Tensor, " nodes"],
    fixed: Bool[Tensor, " nodes"],
    constants: tuple[tuple[str, Tensor] | None, ...],
) -> list[ErrorNode]:
    found = []
    parts = zip(basis.dictionaries, index.unflatten(candidates), index.unflatten(fixed), constants, strict=True)
    for dictionary, (_, chosen), (_, kept), constant in parts:
        exact = dictionary.lossless and (constant is None or not bool(dictionary.at_zero(constant[1]).any()))
        found.append(ErrorNode(empty=bool(kept[0]), full=bool(kept[0] | chosen[0]), exact=exact))
    return found


def _mask(run: Run, candidates: Bool[Tensor, " nodes"], fixed: Bool[Tensor, " nodes"]) -> Bool[Tensor, " nodes"]:
    mask = candidates | fixed if run.full else fixed.clone()
    mask[run.flipped] = not run.full
    return mask


def _run_exactly(
    model: Any,
    basis: Basis,
    index: NodeIndex,
    pairs: PromptPairs,
    masks: list[Bool[Tensor, " nodes"]],
    reference: Ablation,
    metric: Metric,
    batch_size: int,
) -> Float[Tensor, "runs batch"]:
    """The metric per run and prompt: first the model itself, then with all nodes ablated but those of each mask."""
    kept = [_kept(index, mask) for mask in masks]
    columns = []
    for rows in tqdm(torch.arange(len(pairs)).split(batch_size), desc="evaluate", leave=False, delay=2):
        batch = pairs.batch(rows)
        model_logits = run(model, batch.clean, batch.length)
        target = Target(batch.answer, batch.foil, lambda logits=model_logits: logits)
        values = reference(rows)
        found = [metric(model_logits, target)]
        found += [metric(edit(model, basis, batch.clean, batch.length, k, values), target) for k in kept]
        columns.append(torch.stack(found).double().cpu())
    return torch.cat(columns, 1)


def _kept(index: NodeIndex, mask: Bool[Tensor, " nodes"]) -> Kept:
    parts = index.unflatten(mask)
    return Kept(tuple(units for units, _ in parts), tuple(error for _, error in parts))


def _shape(index: NodeIndex) -> str:
    where = "pooled positions" if index.positions is None else f"{index.positions} positions"
    return f"{index.basis}: {len(index.sites)} sites, {where}"
