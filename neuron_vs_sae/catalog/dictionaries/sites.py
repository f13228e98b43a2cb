"""Sites of a model: which layers have a kind of hook, and how wide they are."""

from collections.abc import Iterable
from typing import Any

import torch

from neuron_vs_sae.core.basis import Basis, Site
from neuron_vs_sae.core.dictionary import Coordinates
from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.execution.splice import precision, read


def layer_numbers(model: Any, layers: str | None) -> list[int]:
    """All layers, or those of `"2"`, `"0-3"`."""
    n = model.cfg.n_layers
    if layers is None:
        return list(range(n))
    first, _, last = str(layers).partition("-")
    try:
        chosen = list(range(int(first), int(last or first) + 1))
    except ValueError:
        raise InputError(f"layers={layers!r} is not a layer or a range of layers such as 2 or 0-3") from None
    if not chosen or chosen[-1] >= n:
        raise InputError(f"layers={layers!r}: the model has layers 0-{n - 1}")
    return chosen


def site_hooks(model: Any, site: str, layers: str | None) -> list[tuple[int, str]]:
    """(layer, hook) of a kind of site; raises `InputError` where a layer has no such hook."""
    hooks = [(layer, f"blocks.{layer}.{site}") for layer in layer_numbers(model, layers)]
    missing = [hook for _, hook in hooks if hook not in model.hook_dict]
    if missing:
        kinds = sorted(name[9:] for name in model.hook_dict if name.startswith("blocks.0."))
        raise InputError(f"the model has no hook {missing[0]!r}; kinds of site it has: {', '.join(kinds)}")
    return hooks


def widths(model: Any, hooks: Iterable[str]) -> dict[str, int]:
    """The width of each hook (heads flattened), in the order in which the model reaches them, found by running a token.

    Raises `InputError` for a hook that never runs, and for attention's matrices over positions.
    """
    hooks = tuple(dict.fromkeys(hooks))
    for hook in hooks:
        if hook.endswith(("hook_pattern", "hook_attn_scores")):
            raise InputError(f"{hook!r} is no site: it holds a matrix over positions, not a vector per token")
    device = next(model.parameters()).device
    tokens = torch.zeros(1, 1, dtype=torch.long, device=device)
    seen = read(model, tokens, torch.ones(1, dtype=torch.long, device=device), hooks)
    return {hook: x[0, 0].numel() for hook, x in seen.items()}


def coordinates(model: Any, name: str, site: str, layers: str | None) -> Basis:
    """The raw coordinates of one kind of site at every layer."""
    hooks = site_hooks(model, site, layers)
    width = widths(model, [hook for _, hook in hooks])
    return Basis(
        name=name,
        sites=tuple(Site(layer, hook, hook) for layer, hook in hooks),
        dictionaries=tuple(Coordinates(width[hook], precision(model)) for _, hook in hooks),
    )
