"""Circuits in the neuron basis and in SAE bases, found and judged by one pipeline.

    import neuron_vs_sae as nvs

    model = nvs.load_model("default")
    discover = nvs.tasks.world(model, source="agreement_nounpp", n=100)
    held_out = nvs.tasks.world(model, source="agreement_nounpp", part="evaluation", n=40)
    for basis in [nvs.bases.mlp_neurons(model), nvs.bases.sae(model)]:
        scores = nvs.attribution.relp(model, basis, discover)
        curve = nvs.evaluate(model, basis, scores, held_out)
        size = curve.size_at(faithfulness=0.8)
        print(basis.name, "not reached" if size is None else f"{size:.0f} nodes")

Names are imported when they are first used, so that `import neuron_vs_sae` and `nvs --help` are quick.
"""

from typing import TYPE_CHECKING

from neuron_vs_sae.core.lazy import lazily

if TYPE_CHECKING:
    from neuron_vs_sae.analyses.circuits.evaluation import evaluate as evaluate, evaluate_metrics as evaluate_metrics
    from neuron_vs_sae.analyses.circuits.options import EvaluationOptions as EvaluationOptions
    from neuron_vs_sae.analyses.graphs.graph import Graph as Graph
    from neuron_vs_sae.analyses.graphs.profiles import profiles as profiles
    from neuron_vs_sae.analyses.graphs.storing import load_graph as load_graph, save_graph as save_graph
    from neuron_vs_sae.analyses.graphs.supernodes import Supernodes as Supernodes, supernodes as supernodes
    from neuron_vs_sae.analyses.graphs.targets import Direction as Direction
    from neuron_vs_sae.analyses.graphs.trace import trace as trace
    from neuron_vs_sae.analyses.interventions.frontier import frontier as frontier
    from neuron_vs_sae.analyses.interventions.generation import generate as generate
    from neuron_vs_sae.analyses.interventions.heads import heads as heads
    from neuron_vs_sae.analyses.interventions.patching import Patches as Patches, Patching as Patching, patch as patch
    from neuron_vs_sae.analyses.interventions.selectivity import selectivity as selectivity
    from neuron_vs_sae.analyses.interventions.steering import Doses as Doses, Steering as Steering, steer as steer
    from neuron_vs_sae.analyses.interventions.swapping import Swaps as Swaps, swap as swap
    from neuron_vs_sae.catalog import (
        ablation as ablation,
        attribution as attribution,
        bases as bases,
        metrics as metrics,
        tasks as tasks,
    )
    from neuron_vs_sae.catalog.dictionaries.selection import Selection as Selection
    from neuron_vs_sae.catalog.dictionaries.streaming import Shelf as Shelf
    from neuron_vs_sae.catalog.rows.columns import Columns as Columns
    from neuron_vs_sae.core.basis import Basis as Basis, Features as Features, Site as Site
    from neuron_vs_sae.core.building import pairs as pairs
    from neuron_vs_sae.core.curve import Curve as Curve
    from neuron_vs_sae.core.dictionary import Dictionary as Dictionary
    from neuron_vs_sae.core.errors import (
        FolderError as FolderError,
        InputError as InputError,
        NothingToExplainError as NothingToExplainError,
    )
    from neuron_vs_sae.core.nodes import Circuit as Circuit, NodeIndex as NodeIndex, NodeScores as NodeScores
    from neuron_vs_sae.core.pairs import PromptPairs as PromptPairs
    from neuron_vs_sae.core.sizes import bits as bits, log_sizes as log_sizes, mib_sizes as mib_sizes
    from neuron_vs_sae.models.loading import load_model as load_model, prepare as prepare
    from neuron_vs_sae.report import plots as plots, tables as tables
    from neuron_vs_sae.running.checks import check as check
    from neuron_vs_sae.running.comparison import compare as compare
    from neuron_vs_sae.running.machine import Machine as Machine
    from neuron_vs_sae.running.runner import compute as compute
    from neuron_vs_sae.studies.chance import null_band as null_band
    from neuron_vs_sae.studies.result import Result as Result, load as load
    from neuron_vs_sae.studies.robustness import robustness as robustness
    from neuron_vs_sae.studies.specifications import specifications as specifications
    from neuron_vs_sae.studies.study import Study as Study
    from neuron_vs_sae.studies.verdict import across_tasks as across_tasks, verdicts as verdicts

_HOMES = {
    "Basis": "core.basis",
    "Circuit": "core.nodes",
    "Columns": "catalog.rows.columns",
    "Curve": "core.curve",
    "Dictionary": "core.dictionary",
    "Direction": "analyses.graphs.targets",
    "Doses": "analyses.interventions.steering",
    "EvaluationOptions": "analyses.circuits.options",
    "Features": "core.basis",
    "FolderError": "core.errors",
    "Graph": "analyses.graphs.graph",
    "InputError": "core.errors",
    "Machine": "running.machine",
    "NodeIndex": "core.nodes",
    "NodeScores": "core.nodes",
    "NothingToExplainError": "core.errors",
    "Patches": "analyses.interventions.patching",
    "Patching": "analyses.interventions.patching",
    "PromptPairs": "core.pairs",
    "Result": "studies.result",
    "Selection": "catalog.dictionaries.selection",
    "Shelf": "catalog.dictionaries.streaming",
    "Site": "core.basis",
    "Steering": "analyses.interventions.steering",
    "Study": "studies.study",
    "Supernodes": "analyses.graphs.supernodes",
    "Swaps": "analyses.interventions.swapping",
    "ablation": "catalog.ablation",
    "across_tasks": "studies.verdict",
    "attribution": "catalog.attribution",
    "bases": "catalog.bases",
    "bits": "core.sizes",
    "check": "running.checks",
    "compare": "running.comparison",
    "compute": "running.runner",
    "evaluate": "analyses.circuits.evaluation",
    "evaluate_metrics": "analyses.circuits.evaluation",
    "frontier": "analyses.interventions.frontier",
    "generate": "analyses.interventions.generation",
    "heads": "analyses.interventions.heads",
    "load": "studies.result",
    "load_graph": "analyses.graphs.storing",
    "load_model": "models.loading",
    "log_sizes": "core.sizes",
    "metrics": "catalog.metrics",
    "mib_sizes": "core.sizes",
    "null_band": "studies.chance",
    "pairs": "core.building",
    "patch": "analyses.interventions.patching",
    "plots": "report.plots",
    "prepare": "models.loading",
    "profiles": "analyses.graphs.profiles",
    "robustness": "studies.robustness",
    "save_graph": "analyses.graphs.storing",
    "selectivity": "analyses.interventions.selectivity",
    "specifications": "studies.specifications",
    "steer": "analyses.interventions.steering",
    "supernodes": "analyses.graphs.supernodes",
    "swap": "analyses.interventions.swapping",
    "tables": "report.tables",
    "tasks": "catalog.tasks",
    "trace": "analyses.graphs.trace",
    "verdicts": "studies.verdict",
}

__all__ = [
    "Basis",
    "Circuit",
    "Columns",
    "Curve",
    "Dictionary",
    "Direction",
    "Doses",
    "EvaluationOptions",
    "Features",
    "FolderError",
    "Graph",
    "InputError",
    "Machine",
    "NodeIndex",
    "NodeScores",
    "NothingToExplainError",
    "Patches",
    "Patching",
    "PromptPairs",
    "Result",
    "Selection",
    "Shelf",
    "Site",
    "Steering",
    "Study",
    "Supernodes",
    "Swaps",
    "ablation",
    "across_tasks",
    "attribution",
    "bases",
    "bits",
    "check",
    "compare",
    "compute",
    "evaluate",
    "evaluate_metrics",
    "frontier",
    "generate",
    "heads",
    "load",
    "load_graph",
    "load_model",
    "log_sizes",
    "metrics",
    "mib_sizes",
    "null_band",
    "pairs",
    "patch",
    "plots",
    "prepare",
    "profiles",
    "robustness",
    "save_graph",
    "selectivity",
    "specifications",
    "steer",
    "supernodes",
    "swap",
    "tables",
    "tasks",
    "trace",
    "verdicts",
]

if not TYPE_CHECKING:  # or every name would be one to a type checker
    __getattr__ = lazily(__name__, _HOMES)


def __dir__() -> list[str]:
    return __all__
