"""Which units tell two tasks apart, and how much of that is the wording: a caution about statistics on templates.

Published per-unit tests on two fixed templates call a third of all neurons specific to recall or reasoning; whatever differs between the wordings passes
them. Here a unit's AUROC is taken on templates that did not choose its sign, against labels exchanged template by template.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.stats import rankdata

from neuron_vs_sae.core.basis import Basis
from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.core.pairs import PromptPairs
from neuron_vs_sae.execution.splice import home, read

Design = Literal["held_out", "permuted", "confounded"]
"""AUROC on held-out templates; the same, mean over draws, with the two tasks' labels exchanged in each template or not, at random; and on all prompts of two templates, one for each task."""
DESIGNS: tuple[Design, ...] = ("held_out", "permuted", "confounded")
_DRAWS = 200
SEPARATING = 0.98
"""An AUROC from which a unit passes Bonferroni-corrected tests of thirty prompts against thirty."""


@dataclass(frozen=True, eq=False)
class Telling:
    """Per design every unit's AUROC (1/2: tells nothing), and which units vary at all."""

    auroc: dict[Design, Float[np.ndarray, " units"]]
    varies: Bool[np.ndarray, " units"]

    def share(self, design: Design, above: float = SEPARATING) -> float:
        """The share of the units that vary with an AUROC of at least so much."""
        return float((self.auroc[design][self.varies] >= above).mean()) if self.varies.any() else float("nan")


def telling(
    model: Any, basis: Basis, a: PromptPairs, b: PromptPairs, *, tag: str = "template", seed: int = 0
) -> Telling:
    """How well each unit's value at the answer's position tells clean prompts of two tasks apart, worded in the same templates.

    Raises `InputError` where they share fewer than two templates.
    """
    for pairs in (a, b):
        if any(tag not in tags for tags in pairs.tags):
            raise InputError(f"task '{pairs.name}' has no tag {tag!r}, so its wordings are not known")
    shared = [t for t in dict.fromkeys(tags[tag] for tags in a.tags) if t in {tags[tag] for tags in b.tags}]
    if len(shared) < 2:
        raise InputError(
            f"tasks '{a.name}' and '{b.name}' share {len(shared)} templates: units are judged on templates that did not choose them, so two are needed"
        )
    x = np.concatenate([answers(model, basis, pairs) for pairs in (a, b)])
    label = np.repeat([False, True], [len(a), len(b)])
    template = np.array([*(tags[tag] for tags in a.tags), *(tags[tag] for tags in b.tags)])
    kept = np.isin(template, shared)
    x, label, template = x[kept], label[kept], template[kept]
    within = np.stack([auroc(x[template == t], label[template == t]) for t in shared])
    turned = np.random.default_rng(seed).integers(0, 2, (_DRAWS, len(shared), 1)).astype(bool)
    one_each = (~label & (template == shared[0])) | (label & (template == shared[1]))
    plain = auroc(x[one_each], label[one_each])
    scores: dict[Design, Float[np.ndarray, " units"]] = {
        "held_out": _held_out(within),
        "permuted": np.mean([_held_out(np.where(turn, 1 - within, within)) for turn in turned], axis=0),
        "confounded": np.maximum(plain, 1 - plain),
    }
    return Telling(scores, np.ptp(x, axis=0) > 0)


def answers(model: Any, basis: Basis, pairs: PromptPairs) -> Float[np.ndarray, "batch units"]:
    """Every unit's value at the clean prompts' last tokens, site by site."""
    parts = []
    for batch in pairs.batches(64):
        length = batch.length.to(home(model))
        seen = read(model, batch.clean.to(home(model)), length, basis.hooks)
        rows = torch.arange(len(batch), device=length.device)
        with torch.no_grad():
            parts.append(torch.cat([units[rows, length - 1] for units in basis.features(seen).units], 1).double().cpu())
    return torch.cat(parts).numpy()


def auroc(x: Float[np.ndarray, "n units"], label: Bool[np.ndarray, " n"]) -> Float[np.ndarray, " units"]:
    """The probability that a prompt with the label has the larger value, ties counting half (Mann and Whitney's U over its range)."""
    n, m = int(label.sum()), int((~label).sum())
    return (rankdata(x, axis=0)[label].sum(0) - n * (n + 1) / 2) / (n * m)


def _held_out(within: Float[np.ndarray, "templates units"]) -> Float[np.ndarray, " units"]:
    """Mean over templates of the AUROC there, its direction being that of the other templates' mean; 1/2 where they have none."""
    others = (within.sum(0) - within) / (len(within) - 1) - 0.5
    directed = np.where(others > 0, within, 1 - within)
    return np.where(np.abs(others) > 1e-12, directed, 0.5).mean(0)
