"""Read, edit and differentiate a running model: the exact reference execution.

The idea: at each site of a basis the activation is taken apart (`decode(units) + error`), some parts are replaced, and
the sum is written back; everything else runs live, so what is kept is recomputed in the partly ablated network. To
differentiate, a zero is added to the activation and the gradient of that zero is read: the forward pass is the plain
model's, the gradient that reaches earlier sites is the plain model's too, and a unit's own gradient follows from the
site's (`Dictionary.pull_back`), so one backward pass serves all sites of all bases.

This is the only file that registers hooks, always inside a `with`.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from neuron_vs_sae.core.basis import Basis, Features
from neuron_vs_sae.core.dictionary import split
from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.execution.cache import shared_each

Edit = tuple[str, Callable[[Tensor], Tensor | None]]
"""A hook's name and a function of the activation there, which returns its replacement (None: leave it)."""

Objective = Callable[[Float[Tensor, "batch vocab"]], Float[Tensor, " batch"]]


@dataclass(frozen=True, eq=False)
class ReferenceValues:
    """What is written for an ablated unit and for an ablated error node.

    What a site passes on when nothing is live there is not a node, and most ablations leave it in place. Where an ablation removes it,
    from runs that do not keep it (`Kept.constants`), these hold it per site: `offsets` is what the dictionary writes for units at 0,
    `constants` the hook and vector of what the model itself adds after the site (`b_out`, `b_O`).
    """

    features: Features
    offsets: tuple[Float[Tensor, " _"] | None, ...]
    constants: tuple[tuple[str, Float[Tensor, " d"]] | None, ...]


Ablation = Callable[[Int[Tensor, " rows"]], ReferenceValues]
"""The reference values of the evaluated pairs at these rows: what an ablation of the catalog returns."""


@dataclass(frozen=True, eq=False)
class Start:
    """Where a pass begins: at a block, with what the blocks below it leave in the residual stream, computed once."""

    layer: int
    resid: Float[Tensor, "batch pos d"]


@dataclass(frozen=True, eq=False)
class Kept:
    """Per site which units `[blocks, width]` and which error nodes `[blocks]` stay live; and whether the constants that the
    ablation removes (`ReferenceValues`) do."""

    units: tuple[Bool[Tensor, "blocks _"], ...]
    errors: tuple[Bool[Tensor, " blocks"], ...]
    constants: bool = True


def precision(model: Any) -> torch.dtype:
    """The dtype that scores and metrics are computed in: float32, or float64 for a float64 model."""
    return torch.float64 if model.cfg.dtype == torch.float64 else torch.float32


def home(model: Any) -> torch.device:
    """Where scores and metrics are computed: the device of the model's first parameter, even where the model is spread over several."""
    return next(model.parameters()).device


def run(
    model: Any, tokens: Int[Tensor, "batch pos"], length: Int[Tensor, " batch"], edits: Sequence[Edit] = ()
) -> Float[Tensor, "batch vocab"]:
    """The logits after each prompt's last real token, with `edits` applied in order; no gradient."""
    with torch.no_grad():
        return answer_logits(model, tokens, length, edits)


def read(
    model: Any,
    tokens: Int[Tensor, "batch pos"],
    length: Int[Tensor, " batch"],
    hooks: Sequence[str],
    edits: Sequence[Edit] = (),
) -> dict[str, Float[Tensor, "batch pos ..."]]:
    """The activations at `hooks`, after `edits`, in the precision of scores; shared (`cache.py`) where there are no edits."""
    del length  # nothing is read off at an answer
    if edits:
        return _read(model, tokens, hooks, edits)
    return shared_each(model, hooks, tokens, lambda missing: _read(model, tokens, missing, ()))


def _read(
    model: Any, tokens: Int[Tensor, "batch pos"], hooks: Sequence[str], edits: Sequence[Edit]
) -> dict[str, Float[Tensor, "batch pos ..."]]:
    values: dict[str, Tensor] = {}
    watched = [*edits, *(_record(hook, values, model) for hook in hooks)]
    # The model is run no further than the last hook: unembedding is a large part of a small model.
    layers = [_layer(hook) for hook, _ in watched]
    stop = None if None in layers or not layers else 1 + max(layer for layer in layers if layer is not None)
    with torch.no_grad(), _installed(model, watched):
        model(tokens, padding_side="right", stop_at_layer=stop)
    return values


def _layer(hook: str) -> int | None:
    """The block that a hook is in, -1 before the first, None after the last."""
    if hook.startswith("blocks."):
        return int(hook.split(".")[1])
    return -1 if hook in ("hook_embed", "hook_pos_embed") else None


def starts_at_blocks(model: Any) -> bool:
    """Whether a pass may begin at a block's `hook_resid_pre`: not with the bridge, nor where a block has further inputs."""
    from transformer_lens import HookedTransformer

    hooked = isinstance(model, HookedTransformer) and model.cfg.positional_embedding_type != "shortformer"
    return hooked and not any(hook.fwd_hooks for hook in model.hook_dict.values())


def gradients(
    model: Any,
    tokens: Int[Tensor, "batch pos"],
    length: Int[Tensor, " batch"],
    hooks: Sequence[str],
    objective: Objective,
    edits: Sequence[Edit] = (),
    observers: Sequence[Edit] = (),
    start: Start | None = None,
) -> tuple[dict[str, Float[Tensor, "batch pos ..."]], dict[str, Float[Tensor, "batch pos ..."]]]:
    """(activations, gradients of the objective) at `hooks`: one forward and one backward pass, with `edits` applied.

    `observers` see each activation as the rest of the model does: after the edits and with the gradient's probe in it.
    Prompts do not see each other, so each row is that prompt's own gradient. With a `start` the blocks below it are not run.
    """
    values: dict[str, Tensor] = {}
    probes: dict[str, Tensor] = {}

    def probe(hook: str) -> Edit:
        def add_zero(x: Tensor) -> Tensor:
            values[hook] = x.detach().to(home(model), precision(model))
            probes[hook] = torch.zeros_like(x, requires_grad=True)
            return x + probes[hook]

        return hook, add_zero

    with torch.enable_grad():
        total = objective(answer_logits(model, tokens, length, [*edits, *map(probe, hooks), *observers], start)).sum()
        inputs = [probes[hook] for hook in hooks]
        # A site from which no path leads to the answer (that may be all of them) has a gradient of 0.
        slopes = torch.autograd.grad(total, inputs, allow_unused=True) if total.requires_grad else [None] * len(hooks)
    return values, {
        hook: (torch.zeros_like(probes[hook]) if g is None else g).to(home(model), precision(model))
        for hook, g in zip(hooks, slopes, strict=True)
    }


def edit(
    model: Any,
    basis: Basis,
    tokens: Int[Tensor, "batch pos"],
    length: Int[Tensor, " batch"],
    kept: Kept,
    reference: ReferenceValues,
) -> Float[Tensor, "batch vocab"]:
    """The logits with every node outside `kept` at its reference value; kept nodes are recomputed live."""
    edits: list[Edit] = []
    for s, (site, dictionary) in enumerate(zip(basis.sites, basis.dictionaries, strict=True)):
        inputs: dict[str, Tensor] = {}
        if site.reads != site.writes:
            edits.append(_record(site.reads, inputs, model))

        # Bound as defaults: the function runs after the loop has moved on.
        def write(
            activation: Tensor, s: int = s, site: Any = site, dictionary: Any = dictionary, inputs: dict = inputs
        ) -> Tensor:
            x = site.view(activation).to(home(model), precision(model))
            y = site.view(inputs[site.reads]) if site.reads != site.writes else x
            units, error = split(dictionary, y, x)
            units = torch.where(kept.units[s].to(x.device), units, reference.features.units[s])
            error = torch.where(kept.errors[s][:, None].to(x.device), error, reference.features.errors[s])
            offset = None if kept.constants else reference.offsets[s]
            return site.put(activation, dictionary.decode(units) + error - (0.0 if offset is None else offset))

        edits.append((site.writes, write))
        constant = reference.constants[s]
        if constant is not None and not kept.constants:
            edits.append((constant[0], lambda x, vector=constant[1]: x - vector.to(x)))
    return run(model, tokens, length, edits)


def answer_logits(
    model: Any,
    tokens: Int[Tensor, "batch pos"],
    length: Int[Tensor, " batch"],
    edits: Sequence[Edit],
    start: Start | None = None,
) -> Float[Tensor, "batch vocab"]:
    """The logits after each prompt's last real token, with `edits` applied in order; as differentiable as the edits leave them."""
    rows = torch.arange(tokens.shape[0], device=tokens.device)
    last: list[Tensor] = []

    def last_only(x: Tensor) -> Tensor:
        last.append(x[rows.to(x.device), length.to(x.device) - 1][:, None])
        return last[0]

    def unrounded(logits: Tensor) -> Tensor | None:
        """A model of half precision rounds a logit to three digits: its difference of logits would have one or two."""
        if logits.dtype not in (torch.float16, torch.bfloat16):
            return None
        return last[0].float() @ model.W_U.float() + model.b_U.float()

    # Only the answer position is unembedded.
    with _installed(model, [("unembed.hook_out", unrounded), *edits, ("unembed.hook_in", last_only)]):
        # The side only matters to transformer-lens when it guesses a mask from pad tokens; prompts here need none.
        if start is None:
            logits = model(tokens, padding_side="right")
        else:
            logits = model(start.resid.to(model.cfg.dtype), padding_side="right", start_at_layer=start.layer)
        return logits[:, 0].to(home(model), precision(model))


def _record(hook: str, into: dict[str, Tensor], model: Any) -> Edit:
    def record(x: Tensor) -> None:
        into[hook] = x.detach().to(home(model), precision(model))

    return hook, record


@contextmanager
def _installed(model: Any, edits: Sequence[Edit]) -> Iterator[None]:
    """The edits as hooks, gone afterwards whatever happens; each must have been reached."""
    known = model.hook_dict  # the bridge makes it anew each time
    unknown = [name for name, _ in edits if name not in known]
    if unknown:
        raise InputError(
            f"the model has no hook {unknown[0]!r}; hooks of its first block: "
            f"{', '.join(name for name in known if name.startswith('blocks.0.'))}"
        )
    reached = [False] * len(edits)

    def wrap(i: int) -> tuple[str, Callable[..., Tensor | None]]:
        def call(tensor: Tensor, hook: Any) -> Tensor | None:
            del hook
            reached[i] = True
            return edits[i][1](tensor)

        return edits[i][0], call

    with model.hooks(fwd_hooks=[wrap(i) for i in range(len(edits))]):
        yield
    missed = [edits[i][0] for i in range(len(edits)) if not reached[i]]
    if missed:
        raise InputError(
            f"the hook {missed[0]!r} exists but this model never runs it, so nothing can be read or written there "
            "(some hooks need a setting of the model, e.g. use_hook_mlp_in for hook_mlp_in)"
        )
