"""Tests between bases, adjusted p-values, size measures, effects over tasks: by hand, against scipy and statsmodels, and their rates."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import permutation_test
from statsmodels.stats.multitest import multipletests

from neuron_vs_sae.core.curve import Curve
from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.statistics.bootstrap import interval, ratio
from neuron_vs_sae.statistics.multiplicity import benjamini_hochberg, holm
from neuron_vs_sae.statistics.permutation import contrast, sign_flip
from neuron_vs_sae.statistics.random_effects import across
from neuron_vs_sae.statistics.resampling import Clusters, draw, independent
from neuron_vs_sae.statistics.size_measures import MEASURES, area_weights, common_range, measurable, points
from neuron_vs_sae.studies.findings import differ


def grouped(*cluster: int) -> Clusters:
    return Clusters(np.array(cluster), np.zeros(len(cluster), dtype=np.int64))


# Sign flips.


@pytest.mark.checked
def test_three_prompts_have_eight_sign_patterns() -> None:
    """Sums of +-1 +-2 +-4: only all alike reach 7; |1 + 2 - 4| = 1 is reached by all eight; |-1 + 2 + 4| = 5 by four."""
    values = np.array([[1.0, 1.0, -1.0], [2.0, 2.0, 2.0], [4.0, -4.0, 4.0]])
    assert sign_flip(values, independent(3)).tolist() == [2 / 8, 8 / 8, 4 / 8]


def test_a_clusters_prompts_keep_one_sign() -> None:
    """Two clusters of sums 3 and 4: four patterns, two as extreme as 7."""
    assert sign_flip(np.array([[1.0], [4.0], [2.0]]), grouped(0, 1, 0)).tolist() == [0.5]


def test_the_exact_test_is_scipys() -> None:
    values = np.random.default_rng(0).normal(0.3, size=(10, 4))
    for i, p in enumerate(sign_flip(values, independent(10))):
        theirs = permutation_test(
            (values[:, i], np.zeros(10)), lambda a, b: np.mean(a - b), permutation_type="samples", n_resamples=np.inf
        )
        assert p == pytest.approx(float(theirs.pvalue), abs=1e-12)


def test_drawn_patterns_come_close_to_all_of_them_and_never_give_0() -> None:
    values = np.random.default_rng(1).normal(0.5, size=(14, 1))
    exact = sign_flip(values, independent(14))[0]
    drawn = sign_flip(values, independent(14), flips=10_000, seed=1)[0]
    assert drawn == pytest.approx(exact, abs=4 * (exact / 10_000) ** 0.5)
    # Forty equal values: the observed signs and their mirror alone reach as far, which is what the tail comes to and not below.
    assert sign_flip(np.ones((40, 1)), independent(40), flips=5000).tolist() == [2 / 2**40]


def test_what_is_nothing_everywhere_has_a_p_of_1() -> None:
    for n in (5, 40):
        assert sign_flip(np.zeros((n, 1)), independent(n)).tolist() == [1.0]


@pytest.mark.checked
def test_the_contrasts_mean_is_the_difference_of_the_ratios() -> None:
    rng = np.random.default_rng(0)
    top_a, top_b, bottom_a, bottom_b = (
        rng.normal(size=(20, 2)),
        rng.normal(size=(20, 2)),
        3 + rng.random((20, 1)),
        2 + rng.random((20, 1)),
    )
    found = contrast(top_a, bottom_a, top_b, bottom_b).mean(0)
    assert found == pytest.approx(top_a.mean(0) / bottom_a.mean() - top_b.mean(0) / bottom_b.mean(), rel=1e-12)


def test_bases_of_one_denominator_are_told_apart_by_their_numerators_alone() -> None:
    rng = np.random.default_rng(0)
    top_a, top_b, bottom = rng.normal(size=(20, 1)), rng.normal(size=(20, 1)), 3 + rng.random((20, 1))
    assert contrast(top_a, bottom, top_b, bottom) == pytest.approx((top_a - top_b) / bottom.mean(), rel=1e-12)


def test_two_equal_bases_differ_by_exactly_0_with_a_p_of_exactly_1() -> None:
    rng = np.random.default_rng(0)
    top, bottom = rng.normal(size=(40, 3)), 3 + rng.random((40, 1))
    assert not contrast(top, bottom, top, bottom).any()
    drawn = draw(independent(40), 500, seed=0)
    told = differ(ratio(top, bottom, drawn) - ratio(top, bottom, drawn), 0.95, margin=0.05)
    assert not told["difference"].any()
    assert not told["low"].any()
    assert not told["high"].any()
    assert (told["p_equivalence"] < 0.01).all()


def test_equivalent_is_what_an_interval_of_90_percent_within_the_margin_says() -> None:
    """500 differences about the margin: the test at 5 % and the interval agree, but for a bound within a resample of the margin."""
    rng = np.random.default_rng(0)
    drawn = draw(independent(30), 2000, seed=0)
    bottom = 3 + rng.normal(size=(30, 500))
    one = ratio((0.5 + rng.uniform(-0.1, 0.1, 500)) * bottom + 0.2 * rng.normal(size=(30, 500)), bottom, drawn)
    other = ratio(0.5 * bottom, bottom, drawn)
    told, narrow = differ(one - other, 0.95, 0.05), interval(one - other, 0.9)
    within = (narrow.low > -0.05) & (narrow.high < 0.05)
    equivalent = told["p_equivalence"] < 0.05
    assert 100 < within.sum() < 400
    assert (within != equivalent).sum() <= 5


# Adjusted p-values.


@pytest.mark.checked
def test_holm_by_hand() -> None:
    """Sorted .01 .02 .03 .04 times 4 3 2 1 are .04 .06 .06 .04; each is at least the one before."""
    assert holm(np.array([0.03, 0.01, 0.04, 0.02])) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm(np.array([0.9, 0.6])).tolist() == [1.0, 1.0]


@pytest.mark.checked
@pytest.mark.parametrize(("mine", "theirs"), [(holm, "holm"), (benjamini_hochberg, "fdr_bh")])
def test_adjusted_p_values_are_statsmodels(mine: Any, theirs: str) -> None:
    p = np.random.default_rng(0).random(50) ** 3
    assert mine(p) == pytest.approx(multipletests(p, method=theirs)[1], rel=1e-12)
    assert len(mine(np.array([]))) == 0


# Size measures.


def sized(
    sizes: Sequence[int] = (0, 1, 2, 4, 8), errors: Sequence[int] = (0, 0, 0, 0, 0), total: int = 8,
    change: Sequence[float] = (0.0, 0.2, 0.5, 0.9, 1.0), score: Sequence[float] = (0.0, 0.1, 0.5, 0.7, 1.0),
) -> Curve:  # fmt: skip
    """One prompt with F(M) = 1 and F(empty) = 0, whose faithfulness is `score`."""
    values = torch.tensor([score], dtype=torch.float64).T
    return Curve(
        sizes=tuple(sizes), n_error_nodes=tuple(errors), n_total=total, whole=torch.ones(1).double(), empty=torch.zeros(1).double(),
        circuit=values, complement=1 - values, change=torch.tensor([change], dtype=torch.float64).T,
        values=tuple(float(k - e + 128 * e) for k, e in zip(sizes, errors, strict=True)),
    )  # fmt: skip


@pytest.mark.checked
def test_a_circuit_has_a_size_by_every_measure() -> None:
    found = {measure: points(sized(errors=(0, 1, 1, 2, 4)), measure)[1].tolist() for measure in MEASURES}
    assert found["units"] == [1, 2, 4]  # no size 0, which has no logarithm, nor that of one error node and no unit
    assert found["nodes"] == [1, 2, 4, 8]
    assert found["fraction"] == [1 / 8, 2 / 8, 4 / 8, 1]
    assert found["bits"] == pytest.approx([3, np.log2(28), np.log2(70)])  # 8 of 8 is one circuit: no choice, no bits
    assert found["values"] == [128, 129, 258, 516]
    assert found["change"] == [0, 0.2, 0.5, 0.9, 1.0]


def test_of_circuits_as_large_the_last_counts_and_a_change_that_falls_is_the_largest_so_far() -> None:
    place, size = points(sized(errors=(0, 0, 1, 1, 1)), "units")
    assert (place.tolist(), size.tolist()) == ([2, 3, 4], [1, 3, 7])
    place, size = points(sized(change=(0, 0.4, 0.3, 1.2, 1.0)), "change")
    assert (place.tolist(), size.tolist()) == ([0, 2, 4], [0, 0.4, 1.2])


def test_the_area_over_nodes_is_the_curves_own() -> None:
    curve = sized()
    for end in (8, 5):
        weights = area_weights(curve, "nodes", 1.0, float(end))
        assert weights.sum() == pytest.approx(1)
        assert float(weights @ curve.faithfulness.numpy()) == pytest.approx(curve.area(up_to=end), rel=1e-12)


@pytest.mark.checked
def test_the_area_over_change_by_hand() -> None:
    """Trapezoids: .2 x .05 + .3 x .3 + .4 x .6 + .1 x .85 = .425; to .35 (score .3): (.01 + .15 x .2) / .35."""
    curve = sized()
    score = curve.faithfulness.numpy()
    assert area_weights(curve, "change", 0.0, 1.0) @ score == pytest.approx(0.425)
    assert area_weights(curve, "change", 0.0, 0.35) @ score == pytest.approx(0.04 / 0.35)


def test_a_common_stretch_is_what_all_reach() -> None:
    one, other = sized(), sized(sizes=(0, 2, 5), errors=(0, 0, 0), total=5, change=(0, 0.3, 1), score=(0, 0.5, 1))
    assert common_range([one, other], "nodes") == (2, 5)
    assert common_range([one, other], "change") == (0, 1)
    assert common_range([one, sized(sizes=(8,), errors=(0,), change=(1,), score=(1,))], "nodes") is None
    assert common_range([one, sized(sizes=(1,), errors=(1,), change=(1,), score=(1,))], "units") is None


def test_a_measure_that_is_not_there_is_said() -> None:
    with pytest.raises(
        InputError, match="no size measure 'tokens'; there are: units, nodes, values, fraction, bits, change"
    ):
        points(sized(), "tokens")
    without = Curve(**{**vars(sized()), "change": None})
    with pytest.raises(InputError, match="has no `change`: it was made by hand"):
        points(without, "change")
    with pytest.raises(InputError, match="has no `values`: it was made by hand"):
        points(replace(without, values=None), "values")
    assert measurable([sized(), without]) == ["units", "nodes", "values", "fraction", "bits"]
    assert measurable([sized()]) == list(MEASURES)


def test_a_curve_that_ends_within_a_range_is_held_at_its_last_value() -> None:
    """On 1 to 64 in log2: 0.1, 0.5, 0.7, 1 at 0, 1, 2, 3, and 1 from there to 6."""
    weights = area_weights(sized(), "nodes", 1.0, 64.0)
    assert weights.sum() == pytest.approx(1)
    assert weights @ sized().faithfulness.numpy() == pytest.approx((0.3 + 0.6 + 0.85 + 3) / 6)


def test_a_curve_that_begins_within_a_range_is_held_at_its_first_value() -> None:
    """An error node first: 128 values. On 32 to 128, where a basis of units has sizes, it has its first value."""
    curve = sized(errors=(0, 1, 1, 2, 4))
    assert area_weights(curve, "values", 32.0, 128.0) @ curve.faithfulness.numpy() == pytest.approx(0.1)


def test_the_area_over_values_by_hand() -> None:
    curve = sized(sizes=(0, 1, 2), errors=(0, 0, 1), total=10, change=(0, 0.5, 1), score=(0, 0.2, 0.8))
    assert common_range([curve], "values") == (1, 129)
    assert area_weights(curve, "values", 1.0, 129.0) @ curve.faithfulness.numpy() == pytest.approx(0.5)


# Over tasks and seeds.


@pytest.mark.checked
def test_crossed_effects_by_hand() -> None:
    """Rows (tasks) 1 3 and 5 9, and 9 9: means 2, 7, 9 and 5, 7 about 6; squares T 26, S 6, R 2 (rests -0, 0; -1, 1; 1, -1)."""
    found = across(np.array([[1.0, 3.0], [5.0, 9.0], [9.0, 9.0]]))
    assert found.mean == 6
    assert (found.task_variance, found.seed_variance, found.rest_variance) == pytest.approx((12, 4 / 3, 2))
    freedom = 30**2 / (26**2 / 2 + 6**2 / 1 + 2**2 / 2)  # (26 + 6 - 2)^2 / sum of squares over their freedoms
    assert found.degrees_of_freedom == pytest.approx(freedom)
    assert found.note == "3 tasks and 2 seeds: too few for a claim about others (2.4 degrees of freedom)"
    from scipy.stats import t

    half = t.ppf(0.975, freedom) * (30 / 6) ** 0.5
    assert (found.low, found.high) == pytest.approx((6 - half, 6 + half))


def test_with_one_seed_it_is_the_t_interval_of_tasks() -> None:
    """2, 4, 9: mean 5, variance 13, so half a width of 4.303 (t, 2 degrees) x sqrt(13 / 3)."""
    for values in (np.array([[2.0], [4.0], [9.0]]), np.array([[2.0, 4.0, 9.0]])):
        found = across(values)
        assert (found.low, found.high) == pytest.approx(
            (5 - 4.3027 * (13 / 3) ** 0.5, 5 + 4.3027 * (13 / 3) ** 0.5), rel=1e-4
        )
        assert found.degrees_of_freedom == 2
    assert across(values).note.startswith("3 seeds: too few")
    assert np.isnan(across(values).task_variance)
    assert across(values).seed_variance == pytest.approx(13)


def test_one_task_and_one_seed_have_no_interval_and_say_so() -> None:
    found = across(np.array([[0.3]]))
    assert found.mean == 0.3
    assert np.isnan(found.low)
    assert "there is no interval" in found.note


def test_values_that_are_all_one_have_an_interval_of_no_width() -> None:
    for shape in ((4, 1), (4, 3)):
        found = across(np.full(shape, 0.25))
        assert (found.low, found.high) == (0.25, 0.25)


def test_an_effect_that_is_no_larger_than_the_rest_is_none() -> None:
    """Task means are equal: only seeds differ, and the interval is theirs alone."""
    found = across(np.array([[1.0, 5.0], [2.0, 4.0], [0.0, 6.0]]))
    assert found.task_variance == 0
    assert found.degrees_of_freedom == pytest.approx(1)


def test_nine_in_ten_intervals_hold_the_mean_of_tasks_and_seeds_when_nine_in_ten_are_claimed() -> None:
    """Eight tasks, five seeds, effects of equal size; Satterthwaite's interval is an approximation: of 1,000, 87 to 95 %."""
    rng = np.random.default_rng(0)
    held = []
    for _ in range(1000):
        values = 1 + rng.normal(size=(8, 1)) + rng.normal(size=(1, 5)) + rng.normal(size=(8, 5))
        found = across(values, 0.9)
        held.append(found.low <= 1 <= found.high)
    assert 0.87 <= np.mean(held) <= 0.95


# Rates over 2,000 samples without a difference (standard deviation .5 points), and with one of the margin.


def _samples(rng: np.random.Generator, clusters: Clusters, shift: float, runs: int) -> tuple[np.ndarray, ...]:
    """Two bases with denominators of their own, whose areas are .5 + shift and .5; half of all noise is the cluster's."""
    n = len(clusters.cluster)

    def noise() -> np.ndarray:
        return 0.7 * (rng.normal(size=(n, runs)) + rng.normal(size=(clusters.n_clusters, runs))[clusters.cluster])

    whole = noise()
    bottom_a, bottom_b = 4 + whole + 0.5 * noise(), 3 + whole + 0.5 * noise()
    return (0.5 + shift) * bottom_a + 0.3 * noise(), bottom_a, 0.5 * bottom_b + 0.3 * noise(), bottom_b


@pytest.mark.parametrize(
    "clusters",
    [independent(40), Clusters(np.arange(120) // 3, np.zeros(120, dtype=np.int64))],
    ids=["prompts", "clusters"],
)
def test_one_comparison_in_twenty_finds_what_is_not_there(clusters: Clusters) -> None:
    """At 40: without a difference the sign-flip test rejects, and one basis is called better, on 3.5 to 6.5 % of samples;
    with one of the margin, they are called equivalent on at most 6.5 %."""
    rng = np.random.default_rng(3)
    drawn = draw(clusters, 1000, seed=0)
    top_a, bottom_a, top_b, bottom_b = _samples(rng, clusters, 0.0, 2000)
    p = sign_flip(contrast(top_a, bottom_a, top_b, bottom_b), clusters, flips=2000)
    told = differ(ratio(top_a, bottom_a, drawn) - ratio(top_b, bottom_b, drawn), 0.95, 0.05)
    better = (p < 0.05) & ((told["low"] > 0) | (told["high"] < 0))
    assert 0.035 <= np.mean(p < 0.05) <= 0.065
    assert 0.035 <= np.mean(better) <= 0.065
    top_a, bottom_a, top_b, bottom_b = _samples(rng, clusters, 0.05, 2000)
    told = differ(ratio(top_a, bottom_a, drawn) - ratio(top_b, bottom_b, drawn), 0.95, 0.05)
    assert np.mean(told["p_equivalence"] < 0.05) <= 0.065
