"""One test of many specifications, its tail beyond the flips that were drawn, and which convention decides."""

from itertools import product

import numpy as np
import pytest
from jaxtyping import Float
from scipy.stats import norm, ttest_1samp

from neuron_vs_sae.statistics.decision import Turn, first_order, turn
from neuron_vs_sae.statistics.joint import joint_test
from neuron_vs_sae.statistics.permutation import resolution, sign_flip
from neuron_vs_sae.statistics.resampling import Clusters, independent
from neuron_vs_sae.statistics.tails import beyond, exceedances, with_tail


def t_by_hand(values: Float[np.ndarray, "n k"]) -> Float[np.ndarray, " k"]:
    return ttest_1samp(values, 0.0).statistic


@pytest.mark.parametrize("k", [1, 4, 5])
@pytest.mark.parametrize("n", [3, 6, 8])
def test_p_is_the_share_of_all_sign_patterns_counted_one_by_one(n: int, k: int) -> None:
    rng = np.random.default_rng(10 * n + k)
    values = rng.normal(size=(n, 1)) + 0.6 * rng.normal(size=(n, k)) + 0.4
    t = t_by_hand(values)
    flipped = [t_by_hand(np.array(signs)[:, None] * values) for signs in product((1.0, -1.0), repeat=n)]
    medians = np.array([np.median(each) for each in flipped])
    extremes = np.array([np.abs(each).max() for each in flipped])
    found = joint_test(values, independent(n))
    assert found.every
    assert found.t == pytest.approx(t, rel=1e-9)
    assert found.median_t == pytest.approx(np.median(t), rel=1e-9)
    assert found.p == np.mean(np.abs(medians) >= abs(np.median(t)) - 1e-9)
    assert found.p_max_t.tolist() == [np.mean(extremes >= abs(one) - 1e-9) for one in t]
    assert found.resolution == 2 / 2**n <= found.p


def test_of_one_specification_the_joint_test_is_the_sign_flip_test() -> None:
    values = np.random.default_rng(0).normal(0.3, 1, (14, 1))
    found, alone = joint_test(values, independent(14)), sign_flip(values, independent(14))
    assert found.p == alone[0] == found.p_max_t[0]


def test_a_clusters_prompts_are_flipped_together_in_all_specifications() -> None:
    """Every prompt three times: as clusters of three nothing is gained over having it once."""
    values = np.random.default_rng(1).normal(0.5, 1, (9, 6))
    clusters = Clusters(np.arange(27) % 9, np.zeros(27, dtype=np.int64))
    once, thrice = joint_test(values, independent(9)), joint_test(np.tile(values, (3, 1)), clusters)
    assert thrice.p == once.p
    assert thrice.t == pytest.approx(once.t, rel=1e-9)
    assert thrice.resolution == resolution(9) == 2 / 2**9


def test_specifications_without_any_difference_have_a_p_of_1() -> None:
    found = joint_test(np.zeros((30, 4)), independent(30))
    assert (found.p, found.median_t) == (1, 0)
    assert (found.p_max_t == 1).all()


def test_the_tail_is_monotone_bounded_by_the_resolution_and_close_to_all_flips() -> None:
    """20 clusters: all 524,288 patterns up to their mirror, against the tail of 2,000 drawn, far beyond what those show."""
    rng = np.random.default_rng(2)
    noise = rng.normal(size=(20, 1))
    shifts = np.linspace(0.2, 1.3, 12)
    values = noise - noise.mean() + shifts
    exact = sign_flip(values, independent(20), flips=2**19)
    drawn = sign_flip(values, independent(20), flips=2000)
    assert exact.min() < 1 / 20_000
    assert (np.diff(drawn) <= 0).all()
    assert (drawn >= resolution(20)).all()
    far = exact < 1 / 200
    assert far.sum() >= 5
    # 2,000 flips hold 200 of the tail: an order of magnitude of p is what they can promise where they show nothing.
    assert np.abs(np.log10(drawn[far] / exact[far])).max() < 1
    joint_exact, joint_drawn = (
        [joint_test(values[:, [i, i]], independent(20), flips=flips).p for i in (6, 9)] for flips in (2**19, 2000)
    )
    assert np.abs(np.log10(np.array(joint_drawn) / np.array(joint_exact))).max() < 1


def test_without_the_tail_p_would_end_at_one_over_the_flips() -> None:
    values = np.random.default_rng(3).normal(1.0, 1, (60, 1))
    assert resolution(60) <= sign_flip(values, independent(60), flips=1000)[0] < 1 / 1000
    assert resolution(60) <= joint_test(values, independent(60), flips=1000).p < 1 / 1000


def test_the_tail_of_normal_statistics_is_the_normal_tail() -> None:
    statistics = np.abs(np.random.default_rng(4).normal(size=(20_000, 1)))
    size = exceedances(len(statistics)) + 1
    largest = np.sort(statistics, axis=0)[-size:]
    at = np.array([3.0, 3.5, 4.0])
    p = beyond(at, np.repeat(largest, 3, 1), len(statistics))
    assert np.abs(np.log10(p / (2 * norm.sf(at)))).max() < 0.5


def test_the_tail_says_no_more_than_what_was_counted_and_no_less_than_could_be() -> None:
    reached, fitted = np.array([50.0, 9.0, 9.0, 0.0, 0.0]), np.array([1e-9, 0.5, 1e-4, 0.0, np.nan])
    assert with_tail(reached, fitted, 999, 1e-6).tolist() == [0.051, 0.01, 1e-4, 1e-6, 0.001]


# What decides.


def design(levels: dict[str, list[str]]) -> dict[str, list[str]]:
    rows = list(product(*levels.values()))
    return {name: [row[i] for row in rows] for i, name in enumerate(levels)}


FACTORS = design({"errors": ["nodes", "keep", "ablate"], "method": ["relp", "ap"], "metric": ["ld"]})


def test_first_order_shares_are_those_of_an_additive_model_by_hand() -> None:
    """errors adds -1, -1, 2 (variance 2), method 0 or 1 (variance 1/4): shares 8/9 and 1/9."""
    effect = {"nodes": -1.0, "keep": -1.0, "ablate": 2.0, "relp": 0.0, "ap": 1.0}
    estimates = np.array([effect[e] + effect[m] for e, m in zip(FACTORS["errors"], FACTORS["method"], strict=True)])
    assert first_order(estimates, FACTORS) == pytest.approx({"errors": 8 / 9, "method": 1 / 9, "metric": 0})
    assert turn(estimates - 0.5, FACTORS) == Turn("errors", "nodes", "ablate", 1.0)


def test_an_interaction_is_no_share_of_either_factor() -> None:
    factors = design({"errors": ["nodes", "keep"], "method": ["relp", "ap"]})
    estimates = np.array([1.0, -1.0, -1.0, 1.0])
    assert first_order(estimates, factors) == {"errors": 0, "method": 0}
    assert turn(estimates, factors) == Turn("errors", "nodes", "keep", 1.0)


def test_estimates_that_do_not_vary_are_decided_by_nothing_and_turned_by_nothing() -> None:
    assert set(first_order(np.full(6, 0.3), FACTORS).values()) == {0.0}
    assert turn(np.full(6, 0.3), FACTORS) is None
