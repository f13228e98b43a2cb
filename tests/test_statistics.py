"""Intervals: scipy's own on a case made by hand, equal draws for equal prompts, and the coverage that they claim."""

import numpy as np
import pytest
import torch
from scipy.stats import bootstrap

from neuron_vs_sae.curve import Curve
from neuron_vs_sae.statistics import intervals


def curve(seed: int = 0, prompts: int = 30, sizes: tuple[int, ...] = (0, 3, 10)) -> Curve:
    """Size 0 is the empty circuit and the last the whole model, as evaluation has it."""
    generator = torch.Generator().manual_seed(seed)

    def draw(mean: float) -> torch.Tensor:
        return mean + torch.randn(prompts, generator=generator, dtype=torch.float64)

    whole, empty = draw(6), draw(0)
    middle = [0.6 * whole + 0.4 * empty + 0.2 * draw(0) for _ in sizes[1:-1]]
    rest = [0.3 * whole + 0.7 * empty + 0.2 * draw(0) for _ in sizes[1:-1]]
    return Curve(
        sizes=sizes,
        n_error_nodes=(0,) * len(sizes),
        n_total=sizes[-1],
        whole=whole,
        empty=empty,
        circuit=torch.stack([empty, *middle, whole]),
        complement=torch.stack([whole, *rest, empty]),
    )


def test_the_interval_is_scipys_of_the_same_ratio() -> None:
    found = curve()
    kept, whole, empty = (x.numpy() for x in (found.circuit[1], found.whole, found.empty))

    def faithfulness(kept: np.ndarray, whole: np.ndarray, empty: np.ndarray) -> np.floating:
        return (kept.mean() - empty.mean()) / (whole.mean() - empty.mean())

    theirs = bootstrap(
        (kept, whole, empty), faithfulness, paired=True, vectorized=False, n_resamples=500, confidence_level=0.9,
        method="BCa", rng=np.random.default_rng(3),
    ).confidence_interval  # fmt: skip
    # One size at a time, so that scipy draws for it what it draws for ours.
    alone = Curve((3,), (0,), 10, found.whole, found.empty, found.circuit[1:2], found.complement[1:2])
    ours, _ = intervals(alone, confidence=0.9, resamples=500, seed=3)
    assert (ours.low[0], ours.high[0]) == pytest.approx((theirs.low, theirs.high), rel=1e-12)


def test_the_interval_holds_the_score_and_widens_with_confidence() -> None:
    found = curve()
    narrow, wide = (intervals(found, confidence=c)[0] for c in (0.5, 0.99))
    assert wide.low[1] < narrow.low[1] < float(found.faithfulness[1]) < narrow.high[1] < wide.high[1]


def test_a_seed_gives_one_interval_and_another_seed_another() -> None:
    first, again, other = (intervals(curve(), resamples=200, seed=seed)[0] for seed in (1, 1, 2))
    assert np.array_equal(first.low, again.low)
    assert np.array_equal(first.high, again.high)
    assert first.low[1] != other.low[1]


def test_equal_curves_have_equal_intervals_among_others_and_alone() -> None:
    """The draws depend on seed and prompts alone, so two bases are compared on the same resampled prompts."""
    found = curve(sizes=(0, 3, 5, 10))
    twin = Curve(found.sizes, found.n_error_nodes, found.n_total, found.whole, found.empty,
                 found.circuit[[0, 2, 2, 3]], found.complement[[0, 2, 2, 3]])  # fmt: skip
    for mine, theirs in zip(intervals(found), intervals(twin), strict=True):
        assert theirs.low[1] == theirs.low[2] == mine.low[2]
        assert theirs.high[1] == theirs.high[2] == mine.high[2]


def test_sizes_whose_score_cannot_vary_have_intervals_of_no_width() -> None:
    faithful, complete = intervals(curve(), resamples=200)
    for interval, at_none, at_all in ((faithful, 0, 1), (complete, 1, 0)):
        assert (interval.low[0], interval.high[0]) == pytest.approx((at_none, at_none), abs=1e-12)
        assert (interval.low[-1], interval.high[-1]) == pytest.approx((at_all, at_all), abs=1e-12)
        assert interval.low[1] < interval.high[1]


def test_one_prompt_has_no_interval() -> None:
    for interval in intervals(curve(prompts=1)):
        assert np.isnan(interval.low).all()
        assert np.isnan(interval.high).all()


def test_two_prompts_have_one() -> None:
    faithful, _ = intervals(curve(prompts=2))
    assert faithful.low[1] <= faithful.high[1]


def test_nine_in_ten_intervals_hold_the_truth_when_nine_in_ten_are_claimed() -> None:
    """Of 200 draws; a binomial of .9 has a standard deviation of .021, BCa at 40 prompts falls short by about as much."""
    truth = 0.6  # (.6 * 6 + .4 * 0 - 0) / (6 - 0)
    covered = 0
    for seed in range(200):
        faithful, _ = intervals(curve(seed, prompts=40), confidence=0.9, resamples=200, seed=seed)
        covered += faithful.low[1] <= truth <= faithful.high[1]
    assert 0.83 <= covered / 200 <= 0.96
