"""What two orders have in common: by hand, and by chance."""

from itertools import combinations

import numpy as np
import pytest
import torch

from neuron_vs_sae.statistics.overlap import by_chance, in_common, jaccard


def test_what_two_orders_have_in_common_by_hand() -> None:
    one, other = torch.tensor([3, 1, 2, 0]), torch.tensor([1, 3, 0, 2])
    found = in_common(one, other, [1, 2, 3, 4])
    assert [nodes.tolist() for nodes in found] == [[], [3, 1], [3, 1], [3, 1, 2, 0]]
    assert jaccard(np.array([0, 1, 2]), 2).tolist() == [0, 1 / 3, 1]


@pytest.mark.parametrize(("total", "size"), [(4, 2), (6, 3), (7, 5), (5, 5), (5, 1)])
def test_chance_is_the_mean_over_all_circuits_of_that_size(total: int, size: int) -> None:
    common = np.array([len(set(nodes) & set(range(size))) for nodes in combinations(range(total), size)])
    assert by_chance(total, size) == pytest.approx((common.mean() / size, jaccard(common, size).mean()))


def test_chance_by_hand() -> None:
    """Of the six pairs of four nodes one is the pair itself, four share a node with it and one shares none."""
    assert by_chance(4, 2) == pytest.approx((1 / 2, (4 * 1 / 3 + 1) / 6))
