"""Points on a path from clean (0) to corrupt (1), for the integrated methods."""

from collections.abc import Callable
from typing import Any, Literal

import torch

from neuron_vs_sae.attribution._contraction import Pairing
from neuron_vs_sae.errors import InputError, check_choice
from neuron_vs_sae.pairs import PromptPairs
from neuron_vs_sae.splice import Edit, read

Schedule = Literal["left", "right", "midpoint"]


def points(steps: int, schedule: Schedule) -> list[float]:
    """`j / n` for j = 0..n-1 (left: with clean, without corrupt), j = 1..n (right), or `(j + 1/2) / n` (midpoint)."""
    check_choice("schedule", schedule, Schedule)
    if steps < 1:
        raise InputError(f"steps={steps}: a path has at least one step")
    shift = {"left": 0.0, "right": 1.0, "midpoint": 0.5}[schedule]
    return [(j + shift) / steps for j in range(steps)]


def embeddings(model: Any, batch: PromptPairs, pairing: Pairing) -> Callable[[float], Edit]:
    """`alpha -> edit` that puts the token embeddings at `(1 - alpha) clean + alpha corrupt` (zero when unpaired)."""
    clean = read(model, batch.clean, batch.length, ["hook_embed"])["hook_embed"]
    corrupt = read(model, batch.corrupt, batch.length, ["hook_embed"])["hook_embed"]
    end = corrupt if pairing == "paired" else torch.zeros_like(corrupt)
    return lambda alpha: ("hook_embed", lambda x: ((1 - alpha) * clean + alpha * end).to(x))
