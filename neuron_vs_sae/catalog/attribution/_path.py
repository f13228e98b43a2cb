"""Points on a path from clean (0) to corrupt (1), for the integrated methods."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from neuron_vs_sae.core.conventions import Pairing
from neuron_vs_sae.core.errors import InputError, check_choice
from neuron_vs_sae.core.pairs import PromptPairs
from neuron_vs_sae.execution.splice import Edit, read

Schedule = Literal["left", "right", "midpoint"]


def points(steps: int, schedule: Schedule) -> list[float]:
    """`j / n` for j = 0..n-1 (left: with clean, without corrupt), j = 1..n (right), or `(j + 1/2) / n` (midpoint)."""
    check_choice("schedule", schedule, Schedule)
    if steps < 1:
        raise InputError(f"steps={steps}: a path has at least one step")
    shift = {"left": 0.0, "right": 1.0, "midpoint": 0.5}[schedule]
    return [(j + shift) / steps for j in range(steps)]


def together(alphas: Sequence[float], n_pairs: int, batch_size: int) -> list[Sequence[float]]:
    """The points in chunks that go through the model in one pass: as many as `batch_size` pairs allow, at least one."""
    k = max(1, batch_size // n_pairs)
    return [alphas[i : i + k] for i in range(0, len(alphas), k)]


def copies(batch: PromptPairs, k: int) -> PromptPairs:
    """The pairs repeated `k` times, round after round, as `between` lays out its points."""
    return batch.batch(list(range(len(batch))) * k)


def between(start: Float[Tensor, "batch *s"], end: Tensor, alphas: Sequence[float]) -> Float[Tensor, "rows *s"]:
    """`(1 - alpha) start + alpha end` at each point, one after another; `end` may lack the batch's axis."""
    return torch.cat([(1 - alpha) * start + alpha * end for alpha in alphas])


def embeddings(model: Any, batch: PromptPairs, pairing: Pairing) -> Callable[[Sequence[float]], Edit]:
    """`alphas -> edit` that puts copies' token embeddings `between` clean and corrupt (zero when unpaired)."""
    clean = read(model, batch.clean, batch.length, ["hook_embed"])["hook_embed"]
    corrupt = read(model, batch.corrupt, batch.length, ["hook_embed"])["hook_embed"]
    end = corrupt if pairing == "paired" else torch.zeros_like(corrupt)
    return lambda alphas: ("hook_embed", lambda x: between(clean, end, alphas).to(x))
