"""What the fast engine may skip, by hand."""

import pytest
import torch

from neuron_vs_sae.execution.slots import ErrorNode, Flips, beginnings

ABLATED = ErrorNode(empty=False, full=False, exact=False)


def flips(*positions: int) -> Flips:
    return Flips({position: torch.tensor([0]) for position in positions}, frozenset())


@pytest.mark.checked
@pytest.mark.parametrize(("cut", "expected"), [(False, (1, 1, 1)), (True, (1, 2, 3))])
def test_a_cut_undoes_what_came_before_it_and_not_its_own_slots(cut: bool, expected: tuple[int, ...]) -> None:
    """Sites of layers 0 and 1 of three, flipped from position 2 and 3, after an uncut one of layer 0 flipped from 1."""
    sites = [flips(1), flips(2, 3), flips(3)]
    got = beginnings(False, sites, [ABLATED] * 3, [0, 0, 1], [False, cut, cut], 3, 4, False)
    assert got == expected
