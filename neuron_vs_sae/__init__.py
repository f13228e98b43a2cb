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
    from neuron_vs_sae import ablation, attribution, bases, metrics, plots, tables, tasks
    from neuron_vs_sae.basis import Basis, Dictionary, Features, Site
    from neuron_vs_sae.chance import null_band
    from neuron_vs_sae.checks import check
    from neuron_vs_sae.comparison import compare
    from neuron_vs_sae.curve import Curve
    from neuron_vs_sae.errors import FolderError, InputError, NothingToExplainError
    from neuron_vs_sae.evaluation import evaluate
    from neuron_vs_sae.machine import Machine
    from neuron_vs_sae.models import load_model, prepare
    from neuron_vs_sae.nodes import Circuit, NodeIndex, NodeScores, bits, log_sizes, mib_sizes
    from neuron_vs_sae.pairs import PromptPairs
    from neuron_vs_sae.result import Result, load
    from neuron_vs_sae.shelf import Shelf
    from neuron_vs_sae.study import Study
    from neuron_vs_sae.verdict import across_tasks, verdicts

_HOME = {
    "Basis": "basis",
    "Circuit": "nodes",
    "Curve": "curve",
    "Dictionary": "basis",
    "Features": "basis",
    "FolderError": "errors",
    "InputError": "errors",
    "Machine": "machine",
    "NodeIndex": "nodes",
    "NodeScores": "nodes",
    "NothingToExplainError": "errors",
    "PromptPairs": "pairs",
    "Result": "result",
    "Shelf": "shelf",
    "Site": "basis",
    "Study": "study",
    "across_tasks": "verdict",
    "bits": "nodes",
    "check": "checks",
    "compare": "comparison",
    "evaluate": "evaluation",
    "load": "result",
    "load_model": "models",
    "log_sizes": "nodes",
    "mib_sizes": "nodes",
    "null_band": "chance",
    "prepare": "models",
    "verdicts": "verdict",
}
_MODULES = ("ablation", "attribution", "bases", "metrics", "plots", "tables", "tasks")

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
    "tables",
    "tasks",
    "verdicts",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"neuron_vs_sae.{name}")
    if name in _HOME:
        return getattr(import_module(f"neuron_vs_sae.{_HOME[name]}"), name)
    raise AttributeError(f"module 'neuron_vs_sae' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
