"""What a unit does across prompts, in numbers, and a name for it by thresholds that the source chose ad hoc.

Source: Birardi 2025 (LessWrong), cross-prompt signatures. The classes are conventions, not findings: every threshold is a setting.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float

from neuron_vs_sae.analyses.interventions.doses import Handle
from neuron_vs_sae.analyses.interventions.handles import names_of
from neuron_vs_sae.core.basis import Basis
from neuron_vs_sae.core.pairs import PromptPairs
from neuron_vs_sae.execution.changes import unit_values
from neuron_vs_sae.execution.splice import home, read

FUNCTION_WORDS = frozenset(
    [
        "the",
        "a",
        "an",
        "of",
        "in",
        "on",
        "at",
        "to",
        "is",
        "are",
        "was",
        "were",
        "and",
        "or",
        "that",
        "with",
        "for",
        "from",
        "by",
        "as",
        "it",
    ]
)


@dataclass(frozen=True)
class Thresholds:
    """When a unit is called what. Chosen ad hoc by the source; none was validated."""

    consistency: float = 0.80
    peaks: int = 1
    early_layer: int = 3
    semantic: float = 0.50
    sparsity: float = 0.45
    functional: float = 0.50
    confidence: float = 0.90
    late_layer: int = 7


def signatures(
    model: Any,
    basis: Basis,
    handle: Handle,
    pairs: PromptPairs,
    *,
    thresholds: Thresholds | None = None,
    function_words: Collection[str] = FUNCTION_WORDS,
) -> pd.DataFrame:
    """A row per unit over the clean prompts (BOS aside): `cosine` to its profile on the first prompt (those of equal length), `robust_z` (its peak, in IQRs
    above its median), `peak_token` (most frequent), `density` (share above its 75th percentile of |value|, over all tokens, of prompts' means), `sparsity`
    ((peak - mean) / peak), `consistency` (share of prompts that peak at the most frequent token), `peaks` (distinct ones), `functional` and
    `semantic` (shares of peaks at function words and others), `class` (`Thresholds`).
    """
    thresholds = thresholds or Thresholds()
    seen = read(model, pairs.clean.to(home(model)), pairs.length.to(home(model)), basis.hooks)
    with torch.no_grad():
        tables = [values.abs().double().cpu().numpy() for values in unit_values(basis, seen, handle.units)]
    texts = [[model.tokenizer.decode([t]).strip() for t in row] for row in pairs.clean.tolist()]
    layers = [site.layer for site, units in zip(basis.sites, handle.units, strict=True) for _ in units]
    columns = [table[:, :, u] for table in tables for u in range(table.shape[2])]
    rows = []
    for name, layer, profile in zip(names_of(basis, handle), layers, columns, strict=True):
        numbers = _numbers(profile, pairs, texts, function_words)
        rows.append({"unit": name, **numbers, "class": named_class(numbers, layer, thresholds)})
    return pd.DataFrame(rows)


def _numbers(
    profile: Float[np.ndarray, "batch pos"],
    pairs: PromptPairs,
    texts: Sequence[Sequence[str]],
    function_words: Collection[str],
) -> dict[str, Any]:
    first, lengths = int(pairs.bos), pairs.length.tolist()
    parts = [row[first:n] for row, n in zip(profile, lengths, strict=True)]
    peaks = [first + int(np.argmax(part)) for part in parts]
    at_peak = [texts[i][p] for i, p in enumerate(peaks)]
    everything = np.concatenate(parts)
    low, middle, high = np.percentile(everything, [25, 50, 75])
    common = max(dict.fromkeys(at_peak), key=at_peak.count)
    same = [part for part, n in zip(parts, lengths, strict=True) if n == lengths[0]]
    norms = [float(np.linalg.norm(part) * np.linalg.norm(same[0])) for part in same]
    functional = float(np.mean([word.lower() in function_words for word in at_peak]))
    sparse = [float((part.max() - part.mean()) / part.max()) if part.max() > 0 else 0.0 for part in parts]
    return {
        "cosine": float(
            np.mean([part @ same[0] / norm if norm else 0.0 for part, norm in zip(same, norms, strict=True)])
        ),
        "robust_z": float((everything.max() - middle) / (high - low)) if high > low else float("nan"),
        "peak_token": common,
        "density": float(np.mean([(part > high).mean() for part in parts])),
        "sparsity": float(np.mean(sparse)),
        "consistency": at_peak.count(common) / len(at_peak),
        "peaks": len(set(at_peak)),
        "functional": functional,
        "semantic": 1 - functional,
    }


def named_class(numbers: dict[str, Any], layer: int, thresholds: Thresholds) -> str:
    """`semantic`, `relationship`, `say` or `none`, the first whose conditions hold."""
    is_consistent = numbers["consistency"] >= thresholds.consistency and numbers["peaks"] <= thresholds.peaks
    if is_consistent and (layer <= thresholds.early_layer or numbers["semantic"] >= thresholds.semantic):
        return "semantic"
    if numbers["sparsity"] < thresholds.sparsity:
        return "relationship"
    confident = max(numbers["functional"], numbers["semantic"]) >= thresholds.confidence
    if numbers["functional"] >= thresholds.functional and confident and layer >= thresholds.late_layer:
        return "say"
    return "none"
