"""The circuit as data for the page: its nodes by row and token, in neurons and in each trained dictionary."""

from typing import Any

from neuron_vs_sae.report.circuit_nodes import best_nodes, row_labels, tokens
from neuron_vs_sae.report.names import task_names
from neuron_vs_sae.report.page.curves import legend_entries
from neuron_vs_sae.report.robust_tables import confirmatory, usual_levels
from neuron_vs_sae.studies.result import Result


def circuit(result: Result) -> dict[str, Any]:
    """Per task its tokens and, per basis, the nodes of largest |score|, with the share of the sum of |score| that they hold."""
    bases = list(result.study.basis)
    pairs = confirmatory(result)
    shown = [pairs[0][0], *(b for _, b in pairs)] if pairs else bases[:2]
    separate = result.study.positions == "separate"
    return {
        "bases": legend_entries(bases),
        "first": bases.index(shown[0]),
        "others": [bases.index(basis) for basis in shown[1:]],
        "tasks": [
            {
                "label": name, "separate": separate, "tokens": tokens(result, task),
                "circuits": {bases.index(basis): _circuit(result, task, basis) for basis in shown},
            }
            for task, name in task_names(result.summary["task"]).items()
        ],
    }  # fmt: skip


def _circuit(result: Result, task: str, basis: str) -> dict[str, Any]:
    scores = result.scores(task=task, basis=basis, method=usual_levels(result)["method"])
    nodes = best_nodes(scores, rank_by=result.study.rank_by)
    sites = scores.index.sites
    return {
        "sites": list(sites),
        "rows": row_labels(sites),
        "held": f"{sum(node.share for node in nodes):.0%}",
        "nodes": [[n.row, n.position, n.unit, n.score, n.share, n.rank] for n in nodes],
    }
