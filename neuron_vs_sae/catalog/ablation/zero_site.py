"""Zero at the site, the same in every basis."""

from typing import Any

from jaxtyping import Float
from torch import Tensor

from neuron_vs_sae.catalog.ablation.zero_units import zeros
from neuron_vs_sae.core.basis import Basis, Site
from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.core.pairs import PromptPairs
from neuron_vs_sae.execution.splice import Ablation, ReferenceValues, precision


def zero_site(
    model: Any, basis: Basis, pairs: PromptPairs, source: PromptPairs, seed: int, batch_size: int
) -> Ablation:
    """Units and errors at 0, and no constants: with everything ablated the site writes exactly 0; with everything kept it is the model.

    What a basis passes on when its units and errors are 0 is a constant: an SAE's decoder bias, and what the model adds after the
    site (`b_out` after `mlp.hook_post`, `b_O` after `attn.hook_z`). It is not a node, and is the same on every prompt. In every
    basis, any run that keeps a node keeps it, and only the run that keeps none lacks it: a circuit of one node has all constants,
    and completeness falls to what the constants do alone.
    """
    del source, seed, batch_size
    nothing = zeros(model, basis, pairs)
    offsets = tuple(offset if bool(offset.any()) else None for offset in basis.constants(nothing.units[0]))
    after = tuple(constant_after(model, site) for site in basis.sites)
    return lambda rows: ReferenceValues(nothing, offsets, after)


def constant_after(model: Any, site: Site) -> tuple[str, Float[Tensor, " d"]] | None:
    """(hook, vector) of the constant that the model adds between the site and the residual stream, or None.

    Raises `InputError` where no hook sees that constant alone: one head of several, or a norm after it.
    """
    block = model.blocks[site.layer]
    added_after = {
        f"blocks.{site.layer}.mlp.hook_post": (
            f"blocks.{site.layer}.hook_mlp_out",
            getattr(block, "mlp", None),
            "b_out",
        ),
        f"blocks.{site.layer}.attn.hook_z": (f"blocks.{site.layer}.hook_attn_out", block.attn, "b_O"),
    }.get(site.writes)
    if added_after is None:
        return None
    hook, module, name = added_after
    vector = getattr(module, name, None)
    if vector is None or not bool(vector.any()):
        return None
    normed = f"blocks.{site.layer}.ln2_post.hook_scale" in model.hook_dict
    if site.head is not None or normed:
        reason = "its heads share one b_O" if site.head is not None else "a norm follows it"
        raise InputError(f"ablation 'zero_site' cannot remove {name} after {site.name}: {reason}. Use 'mean'")
    return hook, vector.detach().to(precision(model))
