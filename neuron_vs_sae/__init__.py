"""Circuits in the neuron basis and in SAE bases, found and judged by one pipeline.

    import neuron_vs_sae as nvs

    model = nvs.load_model("default")
    discover = nvs.tasks.world(model, source="agreement_nounpp", n=100)
    held_out = nvs.tasks.world(model, source="agreement_nounpp", part="evaluation", n=40)
    for basis in [nvs.bases.mlp_neurons(model), nvs.bases.sae(model)]:
        scores = nvs.attribution.relp(model, basis, discover)
        curve = nvs.evaluate(model, basis, scores, held_out)
        print(basis.name, curve.size_at(faithfulness=0.8), "nodes")

Names are imported when they are first used, so that `import neuron_vs_sae` and `nvs --help` are quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from neuron_vs_sae.analyses.circuits.evaluation import evaluate
    from neuron_vs_sae.catalog import ablation, attribution, bases, metrics, tasks
    from neuron_vs_sae.catalog.dictionaries.streaming import Shelf
    from neuron_vs_sae.core.basis import Basis, Dictionary, Features, Site
    from neuron_vs_sae.core.curve import Curve
    from neuron_vs_sae.core.errors import FolderError, InputError, NothingToExplainError
    from neuron_vs_sae.core.nodes import Circuit, NodeIndex, NodeScores, bits, log_sizes, mib_sizes
    from neuron_vs_sae.core.pairs import PromptPairs
    from neuron_vs_sae.models.loading import load_model, prepare
    from neuron_vs_sae.report import plots, tables
    from neuron_vs_sae.running.checks import check
    from neuron_vs_sae.running.comparison import compare
    from neuron_vs_sae.running.machine import Machine
    from neuron_vs_sae.studies.chance import null_band
    from neuron_vs_sae.studies.result import Result, load
    from neuron_vs_sae.studies.robustness import robustness
    from neuron_vs_sae.studies.specifications import specifications
    from neuron_vs_sae.studies.study import Study
    from neuron_vs_sae.studies.verdict import across_tasks, verdicts

_HOME = {
    "Basis": "core.basis",
    "Circuit": "core.nodes",
    "Curve": "core.curve",
    "Dictionary": "core.basis",
    "Features": "core.basis",
    "FolderError": "core.errors",
    "InputError": "core.errors",
    "Machine": "running.machine",
    "NodeIndex": "core.nodes",
    "NodeScores": "core.nodes",
    "NothingToExplainError": "core.errors",
    "PromptPairs": "core.pairs",
    "Result": "studies.result",
    "Shelf": "catalog.dictionaries.streaming",
    "Site": "core.basis",
    "Study": "studies.study",
    "across_tasks": "studies.verdict",
    "bits": "core.nodes",
    "check": "running.checks",
    "compare": "running.comparison",
    "evaluate": "analyses.circuits.evaluation",
    "load": "studies.result",
    "load_model": "models.loading",
    "log_sizes": "core.nodes",
    "mib_sizes": "core.nodes",
    "null_band": "studies.chance",
    "prepare": "models.loading",
    "robustness": "studies.robustness",
    "specifications": "studies.specifications",
    "verdicts": "studies.verdict",
}
_MODULES = {
    "ablation": "catalog.ablation",
    "attribution": "catalog.attribution",
    "bases": "catalog.bases",
    "metrics": "catalog.metrics",
    "plots": "report.plots",
    "tables": "report.tables",
    "tasks": "catalog.tasks",
}

__all__ = [
    "Basis",
    "Circuit",
    "Curve",
    "Dictionary",
    "Features",
    "FolderError",
    "InputError",
    "Machine",
    "NodeIndex",
    "NodeScores",
    "NothingToExplainError",
    "PromptPairs",
    "Result",
    "Shelf",
    "Site",
    "Study",
    "ablation",
    "across_tasks",
    "attribution",
    "bases",
    "bits",
    "check",
    "compare",
    "evaluate",
    "load",
    "load_model",
    "log_sizes",
    "metrics",
    "mib_sizes",
    "null_band",
    "plots",
    "prepare",
    "robustness",
    "specifications",
    "tables",
    "tasks",
    "verdicts",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"neuron_vs_sae.{_MODULES[name]}")
    if name in _HOME:
        return getattr(import_module(f"neuron_vs_sae.{_HOME[name]}"), name)
    raise AttributeError(f"module 'neuron_vs_sae' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
