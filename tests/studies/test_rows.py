"""A curve as rows and back."""

from typing import Any

import pytest
import torch

from neuron_vs_sae.core.curve import Curve
from neuron_vs_sae.studies.rows import CURVE, curve_columns, each_curve, to_curve, to_rows


def drawn(sizes: tuple[int, ...], **more: Any) -> Curve:
    generator = torch.Generator().manual_seed(sum(sizes))

    def table(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    return Curve(sizes, (0,) * len(sizes), 50, table(3), table(3), table(len(sizes), 3), table(len(sizes), 3), **more)


def assert_same(a: Curve, b: Curve) -> None:
    assert vars(a).keys() == vars(b).keys()
    for name, mine in vars(a).items():
        theirs = getattr(b, name)
        if isinstance(mine, torch.Tensor):
            assert torch.equal(mine, theirs), name
        elif isinstance(mine, Curve) and name == "tied":
            assert torch.equal(mine.circuit, theirs.circuit)
            assert (mine.sizes, mine.values, mine.n_total) == (theirs.sizes, theirs.values, theirs.n_total)
        else:
            assert mine == theirs, name


@pytest.mark.parametrize("whole", [True, False])
def test_a_curve_comes_back_from_its_rows(whole: bool) -> None:
    sizes = (0, 1, 5, 20)
    more: dict[str, Any] = {}
    if whole:
        more = {"values": (0.0, 128.0, 132.0, 147.0), "change": torch.rand(4, 3, dtype=torch.float64)}
        more |= {"all_nodes": torch.ones(3, dtype=torch.float64), "tied": drawn((25, 50), values=(152.0, 177.0))}
    curve = drawn(sizes, **more)
    rows = to_rows(curve, dict.fromkeys(CURVE, "x"))
    assert_same(to_curve(rows), curve)
    assert set(rows["n_scored"]) == {20}
    assert sorted(rows.loc[rows["tied"], "size"].unique()) == ([25, 50] if whole else [])


def test_curves_of_two_metrics_are_two_curves() -> None:
    rows = to_rows(drawn((0, 1)), dict.fromkeys(CURVE, "x"))
    assert len(list(each_curve(rows))) == 1
    rows.loc[rows.index % 2 == 0, "metric"] = "kl"
    assert [names["metric"] for names, _ in each_curve(rows)] == ["kl", "x"]


def test_a_case_is_a_curve_without_some_of_its_columns() -> None:
    assert curve_columns(without=["basis", "seed"]) == ["task", "method", "ablation", "errors", "metric"]
