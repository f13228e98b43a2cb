"""One graph in numbers: its scores at several sizes, how faithful its units are in the model itself, how right its edges are."""

import pandas as pd
import torch

from neuron_vs_sae.analyses.circuits.evaluation import evaluate
from neuron_vs_sae.analyses.graphs.circuits import as_scores
from neuron_vs_sae.analyses.graphs.exact import sampled
from neuron_vs_sae.analyses.graphs.graph import Graph
from neuron_vs_sae.analyses.graphs.prompt import prompt_of
from neuron_vs_sae.core.basis import Basis
from neuron_vs_sae.core.pairs import PromptPairs
from neuron_vs_sae.core.sizes import bits
from neuron_vs_sae.studies.loaded import Loaded, Task
from neuron_vs_sae.studies.tracing import TraceStudy


def scored(
    loaded: Loaded[TraceStudy], task: Task | None, basis: Basis, prompt: str | PromptPairs, graph: Graph
) -> pd.DataFrame:
    """A row per size (of the first `k` units; all there are, where the graph has fewer), and one of the pruned graph.

    `faithfulness` is of one prompt: `(F(C) - F(empty)) / (F(M) - F(empty))`; missing for a text, which has no answer, and where ablating
    everything moves nothing.
    """
    spec = loaded.spec
    pruning = graph.prune(node_threshold=spec.node_threshold, edge_threshold=spec.edge_threshold)
    kept = pruning.nodes[: len(graph)].nonzero().flatten()
    sizes = tuple(k for k in spec.sizes if k <= spec.nodes)
    rows = []
    judged = _judged(loaded, task, basis, prompt, graph, sizes, kept)
    for k in sizes:
        units = min(k, len(graph))
        scores = graph.at(units).scores()
        rows.append(
            {
                "k": k,
                "pruned": False,
                "units": units,
                "replacement": scores.replacement,
                "completeness": scores.completeness,
            }
        )
    # What pruning drops counts as error, as units that a graph never held do.
    scores = graph.keeping(kept).scores()
    rows.append(
        {
            "k": len(kept),
            "pruned": True,
            "units": len(kept),
            "replacement": scores.replacement,
            "completeness": scores.completeness,
        }
    )
    table = pd.DataFrame(rows).join(pd.DataFrame(judged))
    given = prompt_of(loaded.model, prompt)
    sample = [
        sampled(loaded.model, basis, given, graph, n=spec.sampled_edges, live=live, seed=spec.seed[0]).spearman
        for live in (False, True)
    ]
    return table.assign(
        prompt=graph.prompt,
        spearman=sample[0],
        spearman_live=sample[1],
        largest_remainder=float(graph.remainder.abs().max()),
        edges_kept=int(pruning.edges.sum()),
        n_scored=graph.n_scored,
        n_total=graph.n_total,
        fraction=table["units"] / graph.n_total,
        bits=[bits(graph.n_total, k) for k in table["units"]],
        slope=spec.slope,
        targets=", ".join(target.name for target in graph.targets),
        metric=spec.metric,
        ablation=spec.ablation,
        errors=spec.judged_errors,
    )


def _judged(
    loaded: Loaded[TraceStudy],
    task: Task | None,
    basis: Basis,
    prompt: str | PromptPairs,
    graph: Graph,
    sizes: tuple[int, ...],
    kept: torch.Tensor,
) -> list[dict[str, float]]:
    """Per row of the table the metric of the model, with all ablated, and with the graph's units kept."""
    if not isinstance(prompt, PromptPairs) or task is None:
        missing = float("nan")
        return [dict.fromkeys(("f_model", "f_empty", "f_circuit", "faithfulness"), missing)] * (len(sizes) + 1)
    spec, values = loaded.spec, []
    runs = [
        (as_scores(basis, graph), tuple(min(k, len(graph)) for k in sizes)),
        (as_scores(basis, graph, kept), (len(kept),)),
    ]
    for scores, ks in runs:
        there = int((scores.values != 0).sum())
        curve = evaluate(
            loaded.model, basis, scores, prompt, sizes=lambda n, ks=ks, there=there: sorted({0, *(min(k, there) for k in ks)}),
            ablation=spec.ablation, errors=spec.judged_errors, metric=spec.metric, source=task.discovery, seed=spec.seed[0],
            measure_change=False, engine=loaded.engine,
        )  # fmt: skip
        by_size = dict(zip(curve.sizes, curve.circuit[:, 0].tolist(), strict=True))
        whole, empty = float(curve.whole[0]), float(curve.empty[0])
        for k in ks:
            kept_value, span = by_size[min(k, there)], whole - empty
            share = (kept_value - empty) / span if abs(span) > 1e-6 else float("nan")
            values.append({"f_model": whole, "f_empty": empty, "f_circuit": kept_value, "faithfulness": share})
    return values
