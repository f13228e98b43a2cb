"""How a metric's gradient at a site changes as the site does: a backward pass through a backward pass."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from neuron_vs_sae.execution.splice import Edit, Objective, answer_logits, home, precision

Activations = Mapping[str, Float[Tensor, "batch pos ..."]]


def curvature(
    model: Any,
    tokens: Int[Tensor, "batch pos"],
    length: Int[Tensor, " batch"],
    hooks: Sequence[str],
    objective: Objective,
    moves: Callable[[Activations], Activations],
) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
    """(activations, gradients, curvatures) at `hooks`: a curvature is the hook's block of the Hessian times its move.

    `moves` gives from the activations what each of some hooks is to move by; a hook that it leaves out has a curvature of 0. One
    hook moves at a time, so what it does through later hooks is in its own block. Cost: a forward pass, a backward pass, and one through it
    per hook, from there on. Prompts do not see each other, so each row is that prompt's own.
    """
    values: dict[str, Tensor] = {}
    probes: dict[str, Tensor] = {}

    def probe(hook: str) -> Edit:
        def add_zero(x: Tensor) -> Tensor:
            values[hook] = x.detach()
            probes[hook] = torch.zeros_like(x, requires_grad=True)
            return x + probes[hook]

        return hook, add_zero

    with torch.enable_grad():
        total = objective(answer_logits(model, tokens, length, [probe(hook) for hook in hooks])).sum()
        inputs = [probes[hook] for hook in hooks]
        slopes = torch.autograd.grad(total, inputs, create_graph=True, allow_unused=True)
        gradient = dict(zip(hooks, slopes, strict=True))
        bent: dict[str, Tensor | None] = dict.fromkeys(hooks)
        for hook, move in moves({name: _wide(model, x) for name, x in values.items()}).items():
            slope = gradient[hook]
            if slope is not None and slope.requires_grad:
                along = (slope * move.to(slope)).sum()
                (bent[hook],) = torch.autograd.grad(along, probes[hook], retain_graph=True, allow_unused=True)

    def filled(tensors: Mapping[str, Tensor | None]) -> dict[str, Tensor]:
        return {
            hook: _wide(model, torch.zeros_like(probes[hook]) if x is None else x.detach())
            for hook, x in tensors.items()
        }

    return {hook: _wide(model, x) for hook, x in values.items()}, filled(gradient), filled(bent)


def _wide(model: Any, x: Tensor) -> Tensor:
    return x.to(home(model), precision(model))
