"""How much two rankings of the same nodes agree on their first k nodes, and how much they would by chance."""

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.stats import hypergeom
from torch import Tensor


def in_common(order: Int[Tensor, " k"], other: Int[Tensor, " k"], sizes: Sequence[int]) -> list[Int[Tensor, " _"]]:
    """Per size k the nodes that are among the first k of both orders (best first, at least as long as every size)."""
    common = []
    for k in sizes:
        first = order[:k]
        common.append(first[torch.isin(first, other[:k])])
    return common


def jaccard(
    common: Int[np.ndarray, " comparisons"], size: int, other: int | Int[np.ndarray, " comparisons"] | None = None
) -> Float[np.ndarray, " comparisons"]:
    """Intersection over union of two sets of `size` and `other` (default: as many) nodes that have `common` in common: 1 the
    same, 0 disjoint."""
    return common / (size + (size if other is None else other) - common)


@cache
def by_chance(total: int, size: int) -> tuple[float, float]:
    """The expected (share in common, Jaccard) of two sets of `size` nodes, one of them drawn at random from `total`.

    What they have in common is then hypergeometric; the share's expectation is `size / total`.
    """
    common = np.arange(max(0, 2 * size - total), size + 1)
    weights = hypergeom.pmf(common, total, size, size)
    return size / total, float(weights @ jaccard(common, size))
