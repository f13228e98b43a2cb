"""How faithful and complete circuits are: F(M), F(empty), F(C) and F(complement) on held-out pairs."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Unpack

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from tqdm.auto import tqdm

from neuron_vs_sae.analyses.circuits.change import changes
from neuron_vs_sae.analyses.circuits.options import EvaluationChoices, EvaluationOptions
from neuron_vs_sae.analyses.circuits.roles import always_kept, candidates, error_nodes, values_carried
from neuron_vs_sae.core.basis import Basis
from neuron_vs_sae.core.conventions import Engine, ErrorPolicy
from neuron_vs_sae.core.curve import Curve
from neuron_vs_sae.core.errors import InputError, check_choice
from neuron_vs_sae.core.lookup import find
from neuron_vs_sae.core.metric import Metric, Target, resolve
from neuron_vs_sae.core.nodes import NodeIndex, NodeScores
from neuron_vs_sae.core.pairs import PromptPairs
from neuron_vs_sae.core.sizes import SizeGrid, size_grid
from neuron_vs_sae.execution.engine import evaluate_runs, unsupported
from neuron_vs_sae.execution.slots import Run
from neuron_vs_sae.execution.splice import Ablation, Kept, edit, run

_LOG = logging.getLogger(__name__)


def evaluate(
    model: Any,
    basis: Basis,
    scores: NodeScores,
    pairs: PromptPairs,
    options: EvaluationOptions | None = None,
    *,
    batch_size: int = 64,
    engine: Engine = "fast",
    **choices: Unpack[EvaluationChoices],
) -> Curve:
    """The curve of the circuits that `scores` rank first, judged on `pairs` by one metric.

    `options` say how circuits are judged, and each of them can be given as a keyword instead:
    `evaluate(model, basis, scores, pairs, metric="kl", errors="keep")`. Circuits run in the model itself, never in RelP's
    replacement model. Nodes of score 0 are in no circuit, so the curve ends at the last node that has a score; a size beyond it is
    left out, with a line to the log. `engine` and `batch_size` (pairs per pass) say how it is computed and change numbers by
    rounding only: "fast" falls back to "exact" for models and bases that it does not support (`engine_for`).
    Cost: at most two forward passes per size and prompt; with the fast engine, the less the smaller the circuit.
    Raises `InputError` for sizes beyond the number of nodes, for a metric that is not finite, and for several metrics.
    """
    options = options or EvaluationOptions()
    if "metric" in choices:
        options = replace(options, metrics=(choices.pop("metric"),))
    options = replace(options, **choices)
    if len(options.metrics) != 1:
        raise InputError(f"evaluate judges by one metric, and {len(options.metrics)} are given: use evaluate_metrics")
    return evaluate_metrics(model, basis, scores, pairs, options, batch_size=batch_size, engine=engine)[0]


def evaluate_metrics(
    model: Any,
    basis: Basis,
    scores: NodeScores,
    pairs: PromptPairs,
    options: EvaluationOptions,
    *,
    batch_size: int = 64,
    engine: Engine = "fast",
) -> tuple[Curve, ...]:
    """A curve per metric of `options`, in their order, all read from the same passes; otherwise as `evaluate`."""
    policies = (options.errors,)
    return evaluate_policies(model, basis, scores, pairs, options, policies, batch_size=batch_size, engine=engine)[0]


def evaluate_policies(
    model: Any,
    basis: Basis,
    scores: NodeScores,
    pairs: PromptPairs,
    options: EvaluationOptions,
    policies: Sequence[ErrorPolicy],
    *,
    batch_size: int = 64,
    engine: Engine = "fast",
) -> list[tuple[Curve, ...]]:
    """Per error policy (instead of that of `options`) what `evaluate_metrics` gives, what is common to them computed once."""
    check_choice("engine", engine, Engine)
    _check_index(basis, scores.index, pairs)
    fast = engine_for(model, basis, engine) == "fast"
    rankings = [_ranking(basis, scores, options, errors) for errors in policies]

    def ablate(of: Basis, rows: int = batch_size) -> Ablation:
        return find("ablation", options.ablation)(model, of, pairs, options.source or pairs, options.seed, rows)

    metrics = [resolve(metric) for metric in options.metrics]
    tables = []
    for errors, ranking in zip(policies, rankings, strict=True):
        runs = _runs(ranking.order, ranking.grid)
        if fast:
            nodes = error_nodes(basis, errors)
            values = evaluate_runs(model, basis, scores.index, pairs, runs, nodes, ablate, metrics, batch_size)
        else:
            fixed = always_kept(basis, scores.index, errors)
            kept = [_kept(scores.index, run, ranking.among, fixed) for run in runs]
            values = _run_exactly(model, basis, pairs, kept, ablate(basis), metrics, batch_size)
        if not bool(values.isfinite().all()):
            raise InputError(
                f"the metric is NaN or infinite on {int((~values.isfinite()).any(0).any(0).sum())} of {len(pairs)} prompts: look "
                "for NaN in the model's or the SAE's weights (`nvs check`), or use a wider dtype"
            )
        tables.append(values)
    shares: list[Float[Tensor, "sizes batch"] | None] = [None] * len(rankings)
    if options.measure_change:
        circuits = [(ranking.order, ranking.sizes) for ranking in rankings]
        shares[:] = changes(model, basis, scores.index, pairs, circuits, ablate, batch_size)
    tokens = float(pairs.length.double().mean())
    return [
        tuple(_curve(basis, scores.index, ranking, tokens, of_metric, change) for of_metric in values)
        for ranking, values, change in zip(rankings, tables, shares, strict=True)
    ]


@dataclass(frozen=True, eq=False)
class _Ranking:
    """The nodes that circuits may choose from under an error policy, best first and those without a score last, and their sizes."""

    among: Bool[Tensor, " nodes"]
    order: Int[Tensor, " some"]
    grid: SizeGrid

    @property
    def sizes(self) -> tuple[int, ...]:
        return (*self.grid.ranked, *self.grid.tied)


def _ranking(basis: Basis, scores: NodeScores, options: EvaluationOptions, errors: ErrorPolicy) -> _Ranking:
    among = candidates(basis, scores.index, errors)
    ranked = scores.order(rank_by=options.rank_by, among=among)
    order = torch.cat([ranked, scores.unscored(among)])
    grid = size_grid(options.sizes, len(order), len(ranked), basis.name)
    if grid.dropped:
        _LOG.warning(
            "basis '%s': no circuit of %s nodes is run, because only %d of its %d nodes have a score",
            basis.name, ", ".join(map(str, grid.dropped)), len(ranked), len(order),
        )  # fmt: skip
    return _Ranking(among, order, grid)


def engine_for(model: Any, basis: Basis, engine: Engine) -> str:
    """What runs the circuits: `fast`, `exact`, or `exact: ` and why the fast engine does not support this model or basis."""
    if engine == "exact":
        return engine
    reason = unsupported(model, basis)
    return "fast" if reason is None else f"exact: {reason}"


def _check_index(basis: Basis, index: NodeIndex, pairs: PromptPairs) -> None:
    expected = basis.index(None if index.positions is None else pairs.positions)
    if index != expected:
        raise InputError(
            f"the scores are those of {_shape(index)}, and basis '{basis.name}' on these prompts is "
            f"{_shape(expected)}: discover and evaluate with one basis and one prompt length"
        )


def _runs(order: Int[Tensor, " nodes"], grid: SizeGrid) -> list[Run]:
    """All nodes ablated, all kept, and then every size's circuit and every size's complement."""
    sizes = (*grid.ranked, *grid.tied)
    circuits, complements = ([_run(full, order, k) for k in sizes] for full in (False, True))
    return [_run(False, order, 0), _run(True, order, 0), *circuits, *complements]


def _run(full: bool, order: Int[Tensor, " nodes"], k: int) -> Run:
    """The run that keeps (`full`: ablates) the first k nodes, as the nodes flipped in the nearer anchor.

    Any run that keeps a node keeps the constants that the ablation removes.
    """
    constants = k < len(order) if full else k > 0
    return Run(full, order[:k], constants) if 2 * k <= len(order) else Run(not full, order[k:], constants)


def _curve(
    basis: Basis,
    index: NodeIndex,
    ranking: _Ranking,
    tokens: float,
    values: Float[Tensor, "runs batch"],
    change: Float[Tensor, "sizes batch"] | None,
) -> Curve:
    """The curve of one metric's values: of the model, of `_runs`."""
    whole, empty, all_nodes = values[:3]
    circuit, complement = values[3:].chunk(2)
    order, sizes = ranking.order, ranking.sizes
    carried = values_carried(basis, index, order, sizes, tokens)
    counted = index.is_error[order].cumsum(0)
    n_error_nodes = tuple(int(counted[k - 1]) if k else 0 for k in sizes)

    def part(sizes: tuple[int, ...], where: slice) -> Curve:
        return Curve(
            sizes=sizes,
            n_error_nodes=n_error_nodes[where],
            n_total=len(order),
            whole=whole,
            empty=empty,
            circuit=circuit[where],
            complement=complement[where],
            change=None if change is None else change[where],
            values=carried[where],
        )

    grid, n = ranking.grid, len(ranking.grid.ranked)
    tied = part(grid.tied, slice(n, None)) if grid.tied else None
    return replace(part(grid.ranked, slice(n)), all_nodes=all_nodes, tied=tied)


def _kept(index: NodeIndex, run: Run, among: Bool[Tensor, " nodes"], fixed: Bool[Tensor, " nodes"]) -> Kept:
    mask = among | fixed if run.full else fixed.clone()
    mask[run.flipped] = not run.full
    parts = index.unflatten(mask)
    return Kept(tuple(units for units, _ in parts), tuple(error for _, error in parts), run.constants)


def _run_exactly(
    model: Any,
    basis: Basis,
    pairs: PromptPairs,
    kept: list[Kept],
    reference: Ablation,
    metrics: list[Metric],
    batch_size: int,
) -> Float[Tensor, "metrics runs batch"]:
    """Every metric per run and prompt: first of the model itself, then with all nodes ablated but those that are kept."""
    columns = []
    for rows in tqdm(torch.arange(len(pairs)).split(batch_size), desc="evaluate", leave=False, delay=2):
        batch = pairs.batch(rows)
        model_logits = run(model, batch.clean, batch.length)
        target = Target(batch.answer, batch.foil, lambda logits=model_logits: logits)
        values = reference(rows)

        def score(logits: Tensor, target: Target = target) -> Tensor:
            return torch.stack([metric(logits, target) for metric in metrics]).double().cpu()

        by_run = [score(model_logits)]
        by_run += [score(edit(model, basis, batch.clean, batch.length, k, values)) for k in kept]
        columns.append(torch.stack(by_run, 1))
    return torch.cat(columns, 2)


def _shape(index: NodeIndex) -> str:
    where = "pooled positions" if index.positions is None else f"{index.positions} positions"
    return f"{index.basis}: {len(index.sites)} sites, {where}"
