"""Which nodes a circuit may choose from, which are kept in every run, and how many numbers a circuit's nodes carry."""

from collections.abc import Sequence

from jaxtyping import Bool, Int
from torch import Tensor, full, zeros

from neuron_vs_sae.core.basis import Basis
from neuron_vs_sae.core.conventions import ErrorPolicy
from neuron_vs_sae.core.errors import check_choice
from neuron_vs_sae.core.nodes import NodeIndex
from neuron_vs_sae.execution.slots import ErrorNode

_RESIDUAL = ("hook_resid_pre", "hook_resid_mid", "hook_resid_post")


def candidates(basis: Basis, index: NodeIndex, errors: ErrorPolicy) -> Bool[Tensor, " nodes"]:
    """The nodes that a circuit may choose from under an error policy: all units, and error nodes where they are nodes."""
    return _spread(index, True, [policy == "nodes" for policy in _policies(basis, errors)])


def n_candidates(basis: Basis, positions: int | None, errors: ErrorPolicy) -> int:
    """How many nodes a circuit could have (`Curve.n_total`); `positions=None` pools them."""
    return int(candidates(basis, basis.index(positions), errors).sum())


def always_kept(basis: Basis, index: NodeIndex, errors: ErrorPolicy) -> Bool[Tensor, " nodes"]:
    """The nodes that are kept in every run: error nodes under `keep`, and the rounding that lossless dictionaries leave over."""
    return _spread(index, False, [policy in ("keep", "lossless") for policy in _policies(basis, errors)])


def error_nodes(basis: Basis, errors: ErrorPolicy) -> list[ErrorNode]:
    """Per site whether its error nodes are kept in either anchor."""
    return [
        ErrorNode(
            empty=policy in ("keep", "lossless"),
            full=policy in ("keep", "lossless", "nodes"),
            exact=policy == "lossless",
        )
        for policy in _policies(basis, errors)
    ]


def values_carried(
    basis: Basis, index: NodeIndex, order: Int[Tensor, " nodes"], sizes: Sequence[int], tokens: float
) -> tuple[float, ...]:
    """How many numbers the first `sizes[i]` nodes of `order` carry: 1 per unit, and per error node as many as its site has
    dimensions, which is what `mlp_outputs` pays for that position. A pooled node is one at every position: it counts `tokens`
    times, the mean number of tokens of the prompts that are judged. What a policy always keeps or always ablates is not a node, and counts 0.
    """
    each = 1.0 if index.positions is not None else tokens
    per_node = index.flatten(
        [full((index.blocks, width), each) for width in index.widths],
        [full((index.blocks,), each * dictionary.d) for dictionary in basis.dictionaries],
    )
    counts = zeros(len(order) + 1).double()
    counts[1:] = per_node[order].double().cumsum(0)
    return tuple(counts[list(sizes)].tolist())


def _policies(basis: Basis, errors: ErrorPolicy) -> list[str]:
    """Per site `nodes`, `keep`, `ablate`, or `lossless` where there is no error node."""
    check_choice("errors", errors, ErrorPolicy)
    policies = []
    for site, dictionary in zip(basis.sites, basis.dictionaries, strict=True):
        policy = errors
        if errors == "resid_only":
            policy = "nodes" if site.kind in _RESIDUAL else "ablate"
        policies.append("lossless" if dictionary.lossless else policy)
    return policies


def _spread(index: NodeIndex, units: bool, errors: Sequence[bool]) -> Bool[Tensor, " nodes"]:
    return index.flatten(
        [full((index.blocks, width), units) for width in index.widths],
        [full((index.blocks,), flag) for flag in errors],
    )
