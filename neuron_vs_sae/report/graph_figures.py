"""Static figures of graphs, for papers: scores over size, one graph, supernodes and what flows between them, heads."""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch

from neuron_vs_sae.analyses.graphs.graph import Graph
from neuron_vs_sae.analyses.graphs.influence import Pruning, influence, normalised
from neuron_vs_sae.report.circuit_nodes import row_labels
from neuron_vs_sae.report.escaping import in_drawing
from neuron_vs_sae.report.graph_viewer import plain as plain_name
from neuron_vs_sae.report.names import basis_names
from neuron_vs_sae.report.paper_style import COLUMN, LEGEND, SMALL, beside, legend_height, marker, plain, short
from neuron_vs_sae.report.plots.style import colours_of
from neuron_vs_sae.statistics.bootstrap import interval, ratio
from neuron_vs_sae.statistics.resampling import draw, independent
from neuron_vs_sae.studies.graph_verdicts import SCORES, frontiers
from neuron_vs_sae.studies.graphs import GraphsResult

_EDGES = 150
_BLUE, _ORANGE = "#0072b2", "#d55e00"


def figures(result: GraphsResult) -> Iterator[tuple[str, Figure]]:
    """Names and figures: the frontier where a task has several prompts, the first graph of each task and basis, its heads where they are known,
    and supernodes where there are some."""
    for task in [str(t) for t in dict.fromkeys(result.table["task"]) if t]:
        if result.table.loc[result.table["task"] == task, "index"].nunique() > 1:
            yield f"frontier-{plain_name(task)}", frontier(result, task)
    study = result.study
    for name in result.table.drop_duplicates(["task", "basis"])["slug"]:
        graph = result.graph(name)
        yield name, drawn(graph, graph.prune(node_threshold=study.node_threshold, edge_threshold=study.edge_threshold))
        if graph.heads is not None:
            yield f"{name}-heads", head_map(graph)
    for _, members in result.members.groupby(["task", "basis"], sort=False) if len(result.members) else ():
        task, basis = members["task"].iloc[0], members["basis"].iloc[0]
        names = list(
            result.table.loc[(result.table["task"] == task) & (result.table["basis"] == basis), "slug"].unique()
        )
        figure = supernode_diagram([result.graph(name) for name in names], members)
        yield f"supernodes-{plain_name(str(task))}-{plain_name(str(basis))}", figure


def frontier(result: GraphsResult, task: str) -> Figure:
    """Replacement, completeness and faithfulness of one task over the units of a graph (log), means over prompts with intervals."""
    study, bases = result.study, list(result.study.basis)
    names, colours = basis_names(bases), colours_of(bases)
    rows = result.table.loc[result.table["task"] == task]
    entries = [short(names[basis]) for basis in bases]
    figure = Figure(figsize=(COLUMN, 3.9 + legend_height(entries)), layout="constrained")
    for axes, score in zip(figure.subplots(3, 1, sharex=True), SCORES, strict=True):
        for basis, curve in frontiers(rows, score).items():
            if not bool(curve.circuit.isfinite().all()):
                continue
            draws = draw(independent(len(curve.whole)), study.resamples, study.seed[0])
            top, bottom = (curve.circuit - curve.empty).T.numpy(), (curve.whole - curve.empty)[:, None].numpy()
            estimate = ratio(top, bottom, draws)
            ends = interval(estimate, study.confidence)
            line = {"color": colours[basis], "linewidth": 1, "markersize": 3, **marker(bases, basis)}
            axes.plot(curve.sizes, estimate.value, **line)
            axes.fill_between(curve.sizes, ends.low, ends.high, color=colours[basis], alpha=0.15, linewidth=0)
        axes.set_ylabel(score, fontsize=SMALL)
        axes.set_xscale("log")
        plain(axes)
    figure.axes[-1].set_xlabel("units of the graph", fontsize=SMALL)
    figure.suptitle(f"{in_drawing(task)}, {rows['index'].nunique()} prompts", fontsize=SMALL + 1)
    handles = [
        Line2D([], [], color=colours[b], linewidth=1, markersize=3, label=e, **marker(bases, b))
        for b, e in zip(bases, entries, strict=True)
    ]
    figure.legend(handles=handles, ncols=beside(entries), **LEGEND)
    return figure


def drawn(graph: Graph, pruning: Pruning) -> Figure:
    """A pruned graph: positions across, sites up, a unit's area its influence; the edges that carry most, dashed where they lower."""
    table, kept = graph.nodes, pruning.nodes.nonzero().flatten().tolist()
    positions, levels = len(graph.tokens), len(graph.sites) + 2
    place: dict[int, tuple[float, float]] = {}
    cells: dict[tuple[int, int], list[int]] = {}
    for node in kept:
        row = table.iloc[node]
        level = {"token": 0, "target": levels - 1}.get(row["kind"])
        level = graph.sites.index(row["site"]) + 1 if level is None else level
        column = positions - 1 if row["kind"] == "target" else int(row["position"])
        cells.setdefault((level, column), []).append(node)
    for (level, column), nodes in cells.items():
        across = int(np.ceil(np.sqrt(len(nodes))))
        for i, node in enumerate(nodes):
            x, y = i % across - (across - 1) / 2, i // across - (len(nodes) // across - 1) / 2
            place[node] = (column + 0.8 * x / max(across, 3), level + 0.6 * y / max(across, 3))
    figure = Figure(figsize=(2 * COLUMN, 0.6 * levels + 0.9), layout="constrained")
    axes = figure.subplots()
    shares = normalised(graph.A * pruning.edges)
    flow = shares * (influence(shares, graph.weights) + graph.weights)[:, None]
    into, source = pruning.edges.nonzero(as_tuple=True)
    for i in flow[into, source].sort(descending=True, stable=True).indices[:_EDGES].tolist():
        t, s = int(into[i]), int(source[i])
        weight, share = float(graph.A[t, s]), float(flow[t, s] / flow.max())
        (x1, y1), (x2, y2) = place[s], place[t]
        axes.plot(
            [x1, x2],
            [y1, y2],
            color="black",
            alpha=0.08 + 0.5 * share,
            linewidth=0.3 + 1.2 * share,
            linestyle="-" if weight > 0 else "--",
            zorder=1,
        )
    largest = float(graph.total.abs().max())
    for node in kept:
        x, y = place[node]
        is_unit = node < len(graph)
        size = 4 + 26 * abs(float(graph.total[node])) / largest if is_unit else 12
        raises = is_unit and float(graph.total[node]) > 0
        colour = (
            (_BLUE if raises else _ORANGE) if is_unit else "black" if table["kind"].iloc[node] != "rest" else "white"
        )
        axes.scatter(
            [x], [y], s=size, color=colour, edgecolors="black", linewidths=0.4, marker="o" if is_unit else "s", zorder=2
        )
    axes.set_xticks(
        range(positions), [short(token, 14) for token in graph.tokens], rotation=45, ha="right", fontsize=SMALL
    )
    axes.set_yticks(range(levels), ["tokens", *row_labels(graph.sites), "target"], fontsize=SMALL)
    axes.set_xlim(-0.6, positions - 0.4)
    axes.set_title(short(f"{graph.settings['basis']}: {graph.prompt}", 90), fontsize=SMALL + 1)
    plain(axes, grid="y")
    return figure


def head_map(graph: Graph) -> Figure:
    """Layers by heads: the sum of |edge| that enters each head first, as a share of all."""
    assert graph.heads is not None
    layers, heads = graph.settings["shape"]["n_layers"], graph.settings["shape"]["n_heads"]
    shares = graph.heads.abs().sum((0, 1)).view(layers, heads) / graph.edges.leaves.abs().sum()
    figure = Figure(figsize=(COLUMN, 0.4 * layers + 0.9), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares.numpy(), cmap="Blues", aspect="auto", origin="lower")
    axes.set_xticks(range(heads))
    axes.set_yticks(range(layers))
    axes.set_xlabel("head", fontsize=SMALL)
    axes.set_ylabel("layer", fontsize=SMALL)
    bar = figure.colorbar(image, ax=axes)
    bar.set_label("share of |edges| that enter here first", fontsize=SMALL)
    bar.ax.tick_params(labelsize=SMALL)
    axes.tick_params(labelsize=SMALL)
    return figure


def supernode_diagram(graphs: Sequence[Graph], members: pd.DataFrame, most: int = 12) -> Figure:
    """The groups of largest |total| by mean layer, and what flows between them: mean over prompts of the sums of members' edges."""
    labels = {int(row["group"]): str(row["label"]) for row in members.to_dict("records")}
    of = {(row["site"], row["unit"], row["sign"]): int(row["group"]) for row in members.to_dict("records")}
    n = max(labels) + 1
    flows, mass, layer = (
        torch.zeros(n, n, dtype=torch.float64),
        torch.zeros(n, dtype=torch.float64),
        torch.zeros(n, dtype=torch.float64),
    )
    for graph in graphs:
        t, k = len(graph.targets), len(graph)
        signs = ["-" if value < 0 else "+" for value in graph.values[t:].tolist()]
        group = torch.tensor(
            [
                of.get((graph.sites[s], u, sign), n)
                for s, u, sign in zip(graph.site.tolist(), graph.unit.tolist(), signs, strict=True)
            ]
        )
        chosen = torch.nn.functional.one_hot(group, n + 1)[:, :n].double()
        flows += chosen.T @ graph.edges.units[t:, :k].double() @ chosen / len(graphs)
        mass += chosen.T @ graph.total.abs().double()
        layer += chosen.T @ (graph.total.abs().double() * torch.tensor(graph.layers).double()[graph.site])
    shown = mass.argsort(descending=True)[:most]
    shown = shown[mass[shown] > 0]
    height = (layer / mass.clamp(min=1e-12))[shown]
    order = shown[height.argsort()]
    y = (layer / mass.clamp(min=1e-12))[order]
    figure = Figure(figsize=(2 * COLUMN, 3.2), layout="constrained")
    axes = figure.subplots()
    x = torch.arange(len(order)).double() * 0.62 % 1.0 * len(order)
    largest = float(flows[order][:, order].abs().max().clamp(min=1e-12))
    for a, target in enumerate(order.tolist()):
        for b, source in enumerate(order.tolist()):
            share = abs(float(flows[target, source])) / largest
            if a != b and share > 0.05:
                axes.add_patch(FancyArrowPatch(
                    (float(x[b]), float(y[b])), (float(x[a]), float(y[a])), arrowstyle="-|>", mutation_scale=6, linewidth=0.3 + 2 * share, alpha=0.2 + 0.6 * share,
                    color=_BLUE if float(flows[target, source]) > 0 else _ORANGE, connectionstyle="arc3,rad=0.1", shrinkA=8, shrinkB=8,
                ))  # fmt: skip
    for i, g in enumerate(order.tolist()):
        axes.text(
            float(x[i]),
            float(y[i]),
            short(labels.get(g, str(g)), 24),
            fontsize=SMALL,
            ha="center",
            va="center",
            bbox={"boxstyle": "round", "facecolor": "white", "linewidth": 0.5},
        )
    axes.set_xlim(-0.7, float(x.max()) + 0.7)
    axes.set_ylim(float(y.min()) - 0.4, float(y.max()) + 0.4)
    axes.set_xticks([])
    axes.set_ylabel("mean layer", fontsize=SMALL)
    plain(axes, grid="y")
    return figure
