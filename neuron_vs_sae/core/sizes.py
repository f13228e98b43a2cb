"""How many nodes the circuits of a curve have: grids of sizes, and the size in bits.

A ranking orders the `n_scored` nodes that have a score and says nothing about the others: if circuits were filled up with
nodes of score 0, the order in which nodes are stored would decide the result.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import lgamma, log

from neuron_vs_sae.core.errors import InputError

MIB_FRACTIONS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)

Sizes = Sequence[int | str] | Callable[[int], Sequence[int]]
"""What sizes are asked for: numbers of nodes and names (`log`, `mib`, `all`), or a function of how many nodes there are."""


def log_sizes(total: int) -> tuple[int, ...]:
    """0, 1, 2, 5, 10, 20, 50, ... and `total`: the same grid for every basis, up to its own last size."""
    grid = [0] + [m * 10**e for e in range(len(str(max(total, 1)))) for m in (1, 2, 5)]
    return (*[k for k in grid if k < total], total)


def mib_sizes(total: int) -> tuple[int, ...]:
    """MIB's ten sizes, `int(p * total)` for its fractions p from .1 % to 100 %; some may be equal, or 0.

    Source: Mueller et al. 2025 (arXiv 2504.13151), whose code truncates the product. The circuit of 0 nodes is not MIB's:
    theirs removes all edges, attention and embeddings included; ours ablates the basis's sites alone.
    """
    return tuple(int(p * total) for p in MIB_FRACTIONS)


def bits(total: int, k: int | float) -> float:
    """log2 of the number of circuits of `k` nodes among `total`: the size that is comparable between dictionaries.

    `k` between two whole numbers is interpolated by the gamma function.
    """
    return (lgamma(total + 1) - lgamma(k + 1) - lgamma(total - k + 1)) / log(2)


@dataclass(frozen=True)
class SizeGrid:
    """The sizes of one curve, each tuple increasing: `ranked`, up to `n_scored`; `tied`, beyond it, for MIB's CPR and CMD alone;
    `dropped`, asked for by number and not run because the ranking does not reach them."""

    ranked: tuple[int, ...]
    tied: tuple[int, ...]
    dropped: tuple[int, ...]


def size_grid(asked: Sizes, total: int, n_scored: int, basis: str = "") -> SizeGrid:
    """The sizes of a curve of a basis with `total` nodes, of which `n_scored` have a score.

    `log` and `all` end at `n_scored`, which is always a size; a number between `n_scored` and `total` is dropped, `total` itself
    is not a size of the curve but the whole circuit (`Curve.all_nodes`). `mib` alone goes on past `n_scored`. A function is called with `total`
    and gives exactly the sizes to run, up to `n_scored`, which need not be among them.
    Raises `InputError` for a size below 0 or beyond `total`, and for an unknown name.
    """
    if callable(asked):
        numbers, ranked, tied = set(asked(total)), set[int](), set[int]()
    else:
        names = {part for part in asked if isinstance(part, str)}
        if names - {"log", "mib", "all"}:
            raise InputError(
                f"no sizes {sorted(names - {'log', 'mib', 'all'})}; there are numbers, 'log', 'mib' and 'all'"
            )
        numbers = {part for part in asked if not isinstance(part, str)}
        ranked = {n_scored, *(log_sizes(n_scored) if "log" in names else ())}
        mib = mib_sizes(total) if "mib" in names else ()
        ranked |= {k for k in mib if k <= n_scored}
        tied = {k for k in mib if k > n_scored}
    outside = sorted(k for k in numbers if not 0 <= k <= total)
    if outside:
        raise InputError(
            f"a circuit of {outside[-1]} nodes is asked for (--sizes), and basis {basis!r} has {total}: ask for 0 to {total}, or 'all'"
        )
    ranked |= {k for k in numbers if k <= n_scored}
    dropped = {k for k in numbers if n_scored < k < total}
    return SizeGrid(tuple(sorted(ranked)), tuple(sorted(tied)), tuple(sorted(dropped)))
