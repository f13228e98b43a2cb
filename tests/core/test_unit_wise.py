"""The bound on what an encoder's units can do: it never leaves out one that is active, however the inputs are chosen."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neuron_vs_sae.core.unit_wise import UnitWise

KINDS = ("relu", "jumprelu", "gated")
D, WIDTH = 6, 40


def encoder(kind: str, seed: int, dtype: torch.dtype, bias: float) -> UnitWise:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Any:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    # Encoder vectors of very different lengths, some of them zero.
    rows = normal(WIDTH, D) * torch.tensor([0.0, 1e-3, 1.0, 1e3], dtype=dtype).repeat(WIDTH // 4)[:, None]
    threshold = normal(WIDTH).abs() if kind == "jumprelu" else torch.zeros(WIDTH, dtype=dtype)
    gated = {"gain": normal(WIDTH).exp(), "shift": normal(WIDTH)} if kind == "gated" else {}
    return UnitWise(lambda y: (y, None), rows, bias * normal(WIDTH), threshold, **gated)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    single=st.booleans(),
    bias=st.sampled_from([0.0, 1.0, 1e3]),
    size=st.sampled_from([0.0, 1e-6, 0.1, 1.0, 100.0]),
    unit=st.integers(0, WIDTH - 1),
)
def test_no_active_unit_is_screened_out(
    kind: str, seed: int, single: bool, bias: float, size: float, unit: int
) -> None:
    """Also where the change is along a unit's own encoder vector (the bound's worst case) and ends just past its threshold."""
    dtype = torch.float32 if single else torch.float64
    made = encoder(kind, seed, dtype, bias)
    z = torch.randn(D, generator=torch.Generator().manual_seed(seed + 1), dtype=torch.float64).to(dtype)
    along = made.rows[unit] / made.norms[unit].clamp(min=1e-9)
    missing = (made.threshold[unit] - z @ made.rows[unit] - made.bias[unit]) / made.norms[unit].clamp(min=1e-9)
    other = torch.randn(D, generator=torch.Generator().manual_seed(seed + 2), dtype=torch.float64).to(dtype)
    moved = torch.stack([z, z + size * other, z + size * along, z + missing * along, z + (1 + 1e-6) * missing * along])
    change = (moved - z).norm(dim=-1)
    pre = made.pre(z[None])[0]
    for at, row in enumerate(moved):
        active = made.active(row[None]).unit
        assert bool(made.can_fire(pre, z, change[at])[active].all())
        assert bool(made.can_fire(pre, z, change.amax())[active].all())


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_change_units_far_from_their_threshold_are_screened_out(kind: str) -> None:
    made = encoder(kind, 3, torch.float64, 1.0)
    z = torch.ones(D, dtype=torch.float64)
    pre = made.pre(z[None])[0]
    possible = made.can_fire(pre, z, torch.zeros((), dtype=torch.float64))
    assert 0 < int(possible.sum()) < WIDTH
    assert int(possible.sum()) <= int((pre > made.threshold - 0.1 * (1 + pre.abs())).sum())


@pytest.mark.parametrize("kind", KINDS)
def test_some_units_and_active_units_are_those_of_all(kind: str) -> None:
    """Worked out here from the definitions: ReLU, JumpReLU, and the gated encoder's two paths."""
    made = encoder(kind, 5, torch.float64, 1.0)
    z = torch.randn(7, D, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    pre = z @ made.rows.T + made.bias
    expected = pre * (pre > made.threshold)
    if made.gain is not None and made.shift is not None:
        expected = (pre > 0) * (z @ made.rows.T * made.gain + made.shift).relu()
    units = torch.tensor([0, 3, 17, 39])
    assert torch.allclose(made.values(z, units), expected[:, units], atol=1e-9)
    active, dense = made.active(z), torch.zeros(7, WIDTH, dtype=torch.float64)
    dense[active.row, active.unit] = active.value
    assert torch.allclose(dense, expected, atol=1e-9)
