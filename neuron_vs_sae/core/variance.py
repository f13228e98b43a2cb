"""Explained variance: how much of what varies at a site a reconstruction keeps."""

from jaxtyping import Float
from torch import Tensor


def explained_variance(lost: Float[Tensor, "*sizes"], spread: Float[Tensor, ""]) -> Float[Tensor, "*sizes"]:
    """`1 - lost / spread`: 1 is the activation itself, 0 its mean, below 0 worse than the mean.

    `lost` is the sum over tokens of |activation - reconstruction|², `spread` that of |activation - its mean|².
    """
    return 1 - lost / spread
