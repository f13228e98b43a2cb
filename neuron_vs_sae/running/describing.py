"""What the record says of a study's bases."""

import math
from typing import Any

from neuron_vs_sae.catalog.dictionaries.diagnosis import reconstruction
from neuron_vs_sae.core.basis import Basis
from neuron_vs_sae.studies.analysis import Analysis
from neuron_vs_sae.studies.loaded import Loaded, Task


def describe_bases(analysis: Analysis[Any], loaded: Loaded[Any]) -> dict[str, dict[str, dict[str, Any]]]:
    """By task and by the basis's text: sites, widths, how well it reconstructs the task's prompts, what it is made of.

    Under the first seed that is loaded. A study without tasks has its bases under the empty name. Raises `InputError` for
    SAEs that are found to belong elsewhere, and unless the study accepts them for those that explain next to nothing.
    """
    described: dict[str, dict[str, dict[str, Any]]] = {}
    for (task, text), basis in loaded.bases.items():
        bases = described.setdefault("" if task is None else task.name, {})
        if text not in bases:
            bases[text] = _describe(analysis, loaded, task, basis)
    return described


def _describe(analysis: Analysis[Any], loaded: Loaded[Any], task: Task | None, basis: Basis) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "sites": [site.name for site in basis.sites],
        "widths": [dictionary.width for dictionary in basis.dictionaries],
    }
    if task is not None:
        seen = reconstruction(loaded.model, basis, task.discovery, strict=not loaded.spec.accept_poor_sae)
        facts["active"] = [round(n, 2) for n in seen.active]
        facts["explained_variance"] = [round(r, 4) if math.isfinite(r) else None for r in seen.explained]
    return {**facts, **analysis.facts(loaded, basis), **basis.provenance}
