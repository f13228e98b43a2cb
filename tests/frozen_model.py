"""The frozen model as a forward pass of its own, from the formulas alone: an oracle that shares no code with the package."""

from typing import Any

import torch
from torch import Tensor


def clean_run(model: Any, tokens: Tensor) -> dict[str, Tensor]:
    with torch.no_grad():
        logits, cache = model.run_with_cache(tokens, padding_side="right")
    return {**dict(cache.items()), "logits": logits}


def frozen_run(model: Any, tokens: Tensor, clean: dict[str, Tensor], edits: dict[str, Any]) -> dict[str, Tensor]:
    """The activations when norms' scales, patterns and chords are the clean run's, every hook of `edits` being replaced."""
    seen: dict[str, Tensor] = {}

    def hold(x: Tensor, hook: Any) -> Tensor:
        return clean[hook.name]

    def keep(x: Tensor, hook: Any) -> None:
        seen[hook.name] = x

    def linear(x: Tensor, hook: Any) -> Tensor:
        block = hook.name.removesuffix("hook_post")
        before, act = clean[block + "hook_pre"], model.blocks[hook.layer()].mlp.act_fn
        chord = act(before) / before
        if block + "hook_pre_linear" not in model.hook_dict:
            return seen[block + "hook_pre"] * chord
        up = clean[block + "hook_pre_linear"]
        return 0.5 * (seen[block + "hook_pre"] * chord * up + before * chord * seen[block + "hook_pre_linear"])

    hooks = [(lambda name: name.endswith((".hook_scale", "hook_pattern")), hold)]
    hooks += [(lambda name: name.endswith(("mlp.hook_pre", "mlp.hook_pre_linear")), keep)]
    hooks += [(lambda name: name.endswith("mlp.hook_post"), linear)]
    hooks += [(lambda name: "hook_" in name, keep)]  # what the rest of the model is given, before a site is written
    hooks += [(name, lambda x, hook, value=value: value) for name, value in edits.items()]
    with torch.no_grad():
        seen["logits"] = model.run_with_hooks(tokens, fwd_hooks=hooks, padding_side="right")
    return seen
