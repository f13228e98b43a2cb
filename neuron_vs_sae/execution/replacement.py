"""RelP's replacement model: the forward pass of the model, bit for bit, with other slopes.

Layer-wise relevance propagation as a gradient (Jafari et al. 2025, arXiv 2508.21258): a normalisation's scale counts as
constant (its centring stays linear), an activation as the chord `act(g) / g` instead of its slope, a product of two
branches gives each of them half, an attention pattern and a router's weights count as constant. Each rule is a function
on one activation that returns the same value with another path for the gradient; nothing in the model is changed.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from neuron_vs_sae.core.conventions import Gate
from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.execution.splice import Edit

_SHARED = {"shared_expert", "shared_expert_gate"}


@dataclass(frozen=True)
class Rules:
    """The replacement as `edits` and `observers` for `splice.gradients`: what to change, and what to record for it."""

    edits: tuple[Edit, ...]
    observers: tuple[Edit, ...]


def rules(model: Any, *, gate: Gate = "half", freeze_attention: bool = False) -> Rules:
    """The rules for this model. Raises `InputError` for an MLP that they do not cover."""
    edits: list[Edit] = [(hook, _detach) for hook in model.hook_dict if hook.endswith(".hook_scale")]
    observers: list[Edit] = []
    for layer, block in enumerate(model.blocks):
        if freeze_attention:
            edits.append((f"blocks.{layer}.attn.hook_pattern", _detach))
        if hasattr(block, "mlp"):
            products = _mlp(model, layer, gate)
            edits += products.edits
            observers += products.observers
    cap = getattr(model.cfg, "output_logits_soft_cap", None)
    if cap is not None and cap > 0:
        edits.append(("unembed.hook_out", lambda logits: _chord_through_cap(logits, cap)))
    return Rules(tuple(edits), tuple(observers))


def frozen(model: Any) -> Rules:
    """Norms' scales and attention patterns constant, and nothing else: MLPs keep their own slopes."""
    constant = (".hook_scale", "attn.hook_pattern")
    return Rules(tuple((hook, _detach) for hook in model.hook_dict if hook.endswith(constant)), ())


def with_slope_of(value: Float[Tensor, "*s"], path: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
    """`value`, exactly, with the gradient of `path`."""
    return value.detach() + (path - path.detach())


def _detach(x: Tensor) -> Tensor:
    return x.detach()


def _mlp(model: Any, layer: int, gate: Gate) -> Rules:
    """An MLP, or every expert of a mixture, whose router's choice and weights count as constant."""
    mlp, prefix = model.blocks[layer].mlp, f"blocks.{layer}.mlp"
    if f"{prefix}.experts.0.hook_post" in model.hook_dict:
        act = _activation(model)
        parts = [
            _product(act, f"{prefix}.experts.{expert}", gate, "hook_gate", "hook_pre")
            for expert in range(len(mlp.experts))
        ]
        router: Edit = (f"{prefix}.hook_expert_weights", _detach)
        return Rules((router, *(e for part in parts for e in part.edits)), tuple(o for p in parts for o in p.observers))
    block = getattr(mlp, "original_component", None)
    if block is not None and {name for name, _ in block.named_children()} - _SHARED == {"gate", "experts"}:
        return _experts(prefix, block, gate)
    experts = getattr(model.cfg, "num_experts", None)
    if f"{prefix}.hook_post" not in model.hook_dict or experts or getattr(mlp, "hook_mid", None) is not None:
        raise InputError(
            f"RelP has no rule for the MLP of layer {layer} ({type(mlp).__name__}, activation {model.cfg.act_fn}): "
            "it covers elementwise activations in plain and gated MLPs, and mixtures of gated experts. "
            "Use attribution_patching or integrated_gradients"
        )
    gated = f"{prefix}.hook_pre_linear" in model.hook_dict
    return _product(_activation(model), prefix, gate, "hook_pre", "hook_pre_linear" if gated else None)


def _activation(model: Any) -> Any:
    """The elementwise function of the model's MLPs, by its name."""
    from transformer_lens.factories.activation_function_factory import ActivationFunctionFactory

    return ActivationFunctionFactory.pick_activation_function(model.cfg)


def _product(act: Any, prefix: str, gate: Gate, before: str, linear: str | None) -> Rules:
    """`hook_post` of an MLP: the activation of `before`, times the branch `linear` if there is one."""
    branch: dict[str, Tensor] = {}

    def keep(name: str) -> Edit:
        def remember(x: Tensor) -> None:
            branch[name] = x

        return f"{prefix}.{name}", remember

    def post(value: Tensor) -> Tensor:
        pre = branch.pop(before)
        at = pre.detach()
        activated = pre * _chord(act, at, value.detach() if linear is None else None)
        if linear is None:
            return with_slope_of(value, activated)
        return with_slope_of(value, _shared(activated, branch.pop(linear), gate))

    observers = tuple(keep(name) for name in (before, linear) if name)
    return Rules(((f"{prefix}.hook_post", post),), observers)


def _shared(activated: Float[Tensor, "*s"], up: Float[Tensor, "*s"], gate: Gate) -> Float[Tensor, "*s"]:
    """A path whose gradient is the product's, shared among its two branches."""
    to_gate = activated * up.detach()
    to_up = activated.detach() * up
    return {"half": 0.5 * (to_gate + to_up), "full": to_gate + to_up, "up_only": to_up}[gate]


def _experts(prefix: str, block: Any, gate: Gate) -> Rules:
    """transformers' mixture of gated experts, which has no hooks inside: its output is given another path from its input.

    `block.gate` gives (logits, weights, indices) of the experts of each token, `block.experts` holds their matrices; some
    have an expert that every token has, with a weight of its own.
    """
    experts, shared, seen = block.experts, getattr(block, "shared_expert", None), list[Tensor]()
    router = getattr(block.gate, "original_component", block.gate)  # itself, not its hooks

    def path(y: Float[Tensor, "tokens d"]) -> Float[Tensor, "tokens d"]:
        with torch.no_grad():
            _, weights, chosen = router(y.detach())
        total = torch.zeros_like(y)
        for expert in chosen.unique().tolist():
            token, place = (chosen == expert).nonzero(as_tuple=True)
            pre, up = functional.linear(y[token], experts.gate_up_proj[expert]).chunk(2, dim=-1)
            product = _shared(pre * _chord(experts.act_fn, pre.detach()), up, gate)
            written = functional.linear(product, experts.down_proj[expert])
            total = total.index_add(0, token, (written * weights[token, place, None]).to(total.dtype))
        if shared is not None:
            pre = shared.gate_proj(y)
            product = _shared(pre * _chord(shared.act_fn, pre.detach()), shared.up_proj(y), gate)
            total = total + shared.down_proj(product) * block.shared_expert_gate(y).sigmoid().detach()
        return total

    def out(value: Tensor) -> Tensor:
        replaced = path(seen.pop().flatten(0, 1)).view_as(value)
        same = replaced / 2 if gate == "full" else replaced
        if float((same - value).detach().norm()) > 0.05 * float(value.detach().norm()):  # a block of another make
            raise InputError(
                f"RelP has no rule for {prefix} ({type(block).__name__}): its experts do not compute what gated experts do. "
                "Use attribution_patching or integrated_gradients"
            )
        return with_slope_of(value, replaced)

    return Rules(((f"{prefix}.hook_out", out),), ((f"{prefix}.hook_in", seen.append),))


def _chord(act: Any, x: Float[Tensor, "*s"], value: Float[Tensor, "*s"] | None = None) -> Float[Tensor, "*s"]:
    """`act(x) / x` (`value`: `act(x)`, where it is known), and its limit at 0: no stabiliser is added, so conservation holds to rounding."""
    with torch.no_grad():
        chord, at_zero = (act(x) if value is None else value) / x, x == 0
        if bool(at_zero.any()):
            near = torch.full_like(x, 1e-6)
            chord = torch.where(at_zero, act(near) / near, chord)
        return chord


def _chord_through_cap(logits: Float[Tensor, "*s"], cap: float) -> Float[Tensor, "*s"]:
    """The slope that makes `cap * tanh(logits / cap)`, which the model applies next, act as its chord.

    The cap's own slope 1 - tanh^2 = 1 / cosh^2 is divided out and the chord put in its place.
    """
    ratio = logits.detach() / cap
    chord = torch.where(ratio == 0, torch.ones_like(ratio), torch.tanh(ratio) / ratio)
    return with_slope_of(logits, logits * chord * torch.cosh(ratio) ** 2)
