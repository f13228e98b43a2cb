"""Nodes in one flat order, circuits of exactly k of them, and the scores of curves against numbers worked by hand."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings, strategies as st

from neuron_vs_sae.core.curve import Curve
from neuron_vs_sae.core.errors import InputError, NothingToExplainError
from neuron_vs_sae.core.nodes import NodeIndex, NodeScores
from neuron_vs_sae.core.sizes import MIB_FRACTIONS, bits, log_sizes, mib_sizes, size_grid

INDEX = NodeIndex(("blocks.0.hook_mlp_out", "blocks.1.hook_mlp_out"), (2, 3), positions=2)

indices = st.builds(
    lambda widths, positions: NodeIndex(tuple(f"blocks.{i}.s" for i in range(len(widths))), tuple(widths), positions),
    st.lists(st.integers(1, 4), min_size=1, max_size=3),
    st.none() | st.integers(1, 3),
)
# Few distinct values, so that ties and opposite signs are the rule.
scores_of = st.integers(0, 2**32).map(lambda seed: torch.Generator().manual_seed(seed))


def tied(index: NodeIndex, generator: torch.Generator) -> NodeScores:
    return NodeScores(index, torch.randint(-2, 3, (len(index),), generator=generator).double())


def test_the_order_is_by_site_position_and_unit_with_the_error_last() -> None:
    assert [INDEX.name(i).removeprefix("blocks.") for i in range(len(INDEX))] == [
        "0.hook_mlp_out/0@0", "0.hook_mlp_out/1@0", "0.hook_mlp_out/error@0",
        "0.hook_mlp_out/0@1", "0.hook_mlp_out/1@1", "0.hook_mlp_out/error@1",
        "1.hook_mlp_out/0@0", "1.hook_mlp_out/1@0", "1.hook_mlp_out/2@0", "1.hook_mlp_out/error@0",
        "1.hook_mlp_out/0@1", "1.hook_mlp_out/1@1", "1.hook_mlp_out/2@1", "1.hook_mlp_out/error@1",
    ]  # fmt: skip


def test_pooled_nodes_have_no_position() -> None:
    pooled = NodeIndex(("blocks.3.mlp.hook_post",), (2,), positions=None)
    assert [pooled.name(i) for i in range(3)] == [f"blocks.3.mlp.hook_post/{x}" for x in ("0", "1", "error")]
    assert pooled != NodeIndex(("blocks.3.mlp.hook_post",), (2,), positions=1)


def test_there_is_no_node_beyond_the_last() -> None:
    with pytest.raises(IndexError, match="there is no node"):
        INDEX.name(14)


@given(indices)
@settings(max_examples=50, deadline=None)
def test_every_node_has_one_name_and_errors_are_those_called_so(index: NodeIndex) -> None:
    names = [index.name(i) for i in range(len(index))]
    assert len(set(names)) == len(names)
    assert index.is_error.tolist() == ["/error" in name for name in names]


@pytest.mark.checked
@given(indices, scores_of)
@settings(max_examples=50, deadline=None)
def test_unflatten_is_the_inverse_of_flatten(index: NodeIndex, generator: torch.Generator) -> None:
    flat = torch.randn(len(index), generator=generator)
    parts = index.unflatten(flat)
    assert [tuple(units.shape) for units, _ in parts] == [(index.blocks, width) for width in index.widths]
    assert torch.equal(index.flatten([units for units, _ in parts], [error for _, error in parts]), flat)


@pytest.mark.checked
@pytest.mark.parametrize("rank_by", ["absolute", "signed"])
@given(index=indices, generator=scores_of)
@settings(max_examples=50, deadline=None)
def test_a_circuit_has_exactly_k_nodes_none_worse_than_any_left_out(
    rank_by: Any, index: NodeIndex, generator: torch.Generator
) -> None:
    scores = tied(index, generator)
    keys = scores.values.abs() if rank_by == "absolute" else scores.values
    n_scored = int((scores.values != 0).sum())
    for k in range(n_scored + 1):
        circuit = scores.top(k, rank_by=rank_by)
        assert len(circuit) == int(circuit.mask.sum()) == len(set(circuit.names)) == k
        assert circuit.n_units + circuit.n_error_nodes == k
        assert circuit.n_error_nodes == sum("/error" in name for name in circuit.names)
        left_out = ~circuit.mask & (scores.values != 0)
        if 0 < k < n_scored:
            assert keys[circuit.mask].min() >= keys[left_out].max()


@pytest.mark.parametrize("rank_by", ["absolute", "signed"])
@given(index=indices, generator=scores_of)
@settings(max_examples=50, deadline=None)
def test_circuits_are_nested_and_ties_go_to_the_earlier_node(
    rank_by: Any, index: NodeIndex, generator: torch.Generator
) -> None:
    scores = tied(index, generator)
    keys = scores.values.abs() if rank_by == "absolute" else scores.values
    scored = [i for i in range(len(index)) if scores.values[i] != 0]
    whole = scores.top(len(scored), rank_by=rank_by).nodes.tolist()
    assert whole == sorted(scored, key=lambda i: -keys[i])  # Python's sort is stable
    assert scores.unscored().tolist() == [i for i in range(len(index)) if i not in scored]
    for k in range(len(scored)):
        assert scores.top(k, rank_by=rank_by).nodes.tolist() == whole[:k]


def test_signed_and_absolute_rankings_differ_where_signs_do() -> None:
    index = NodeIndex(("s",), (3,), positions=None)
    scores = NodeScores(index, torch.tensor([1.0, -3.0, 2.0, 0.0], dtype=torch.float64))
    assert scores.top(2).names == ["s/1", "s/2"]
    assert scores.top(2, rank_by="signed").names == ["s/2", "s/0"]
    assert scores.top(3, rank_by="signed").names == ["s/2", "s/0", "s/1"]
    with pytest.raises(InputError, match="a circuit of 4 nodes is asked for, and 3 of 4 nodes have a score"):
        scores.top(4, rank_by="signed")


@given(indices, scores_of)
@settings(max_examples=50, deadline=None)
def test_a_choice_among_some_nodes_keeps_their_order(index: NodeIndex, generator: torch.Generator) -> None:
    scores = tied(index, generator)
    among = ~index.is_error
    chosen = scores.order(among=among).tolist()
    assert chosen == [node for node in scores.order().tolist() if among[node]]
    assert scores.top(len(chosen), among=among).n_error_nodes == 0


def test_more_nodes_than_there_are_cannot_be_asked_for() -> None:
    scores = NodeScores(INDEX, torch.ones(14, dtype=torch.float64))
    with pytest.raises(InputError, match="a circuit of 15 nodes is asked for, and 14 of 14 nodes have a score"):
        scores.top(15)
    with pytest.raises(InputError, match="a circuit of -1 nodes"):
        scores.top(-1)
    with pytest.raises(InputError, match="13 scores for 14 nodes"):
        NodeScores(INDEX, torch.ones(13, dtype=torch.float64))


def test_scores_that_are_not_finite_are_refused_with_the_first_nodes_name() -> None:
    values = torch.ones(14, dtype=torch.float64)
    values[4], values[9] = torch.nan, torch.inf
    with pytest.raises(InputError, match=r"2 of 14 scores .* first at node blocks.0.hook_mlp_out/1@1.*nvs check"):
        NodeScores(INDEX, values)


# Sizes.


@given(st.integers(0, 3000).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))))
@settings(max_examples=200, deadline=None)
def test_bits_are_the_log_of_the_number_of_circuits(sizes: tuple[int, int]) -> None:
    total, k = sizes
    exact = math.log2(math.comb(total, k))
    # lgamma of n is about n ln n, and three of them cancel.
    assert bits(total, k) == pytest.approx(exact, abs=1e-11 * (total + 1) + 1e-12)
    assert bits(total, k) == pytest.approx(bits(total, total - k), abs=1e-9)


def test_bits_hold_at_the_size_of_a_real_dictionary() -> None:
    total = 26 * 65_536 * 12
    assert bits(total, 100) == pytest.approx(math.log2(math.comb(total, 100)), abs=1e-4)
    assert bits(total, 1) == pytest.approx(math.log2(total), abs=1e-4)


@pytest.mark.parametrize(
    ("total", "expected"),
    [(0, (0,)), (1, (0, 1)), (2, (0, 1, 2)), (7, (0, 1, 2, 5, 7)), (10, (0, 1, 2, 5, 10)), (11, (0, 1, 2, 5, 10, 11)),
     (1234, (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 1234))],
)  # fmt: skip
def test_log_sizes_are_one_two_five_up_to_all(total: int, expected: tuple[int, ...]) -> None:
    assert log_sizes(total) == expected


def test_log_sizes_of_two_bases_agree_up_to_the_smaller() -> None:
    small, large = log_sizes(300), log_sizes(5000)
    assert small[:-1] == large[: len(small) - 1]


def test_mib_sizes_are_cut_off_as_mibs_are() -> None:
    assert mib_sizes(10_000) == (10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000)
    assert mib_sizes(512) == (0, 1, 2, 5, 10, 25, 51, 102, 256, 512)


def test_a_grid_ends_at_the_last_node_with_a_score() -> None:
    grid = size_grid(("log",), total=61_500, n_scored=1495)
    assert grid.ranked == (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 1495)
    assert grid.tied == grid.dropped == ()
    assert size_grid(("all",), 61_500, 1495).ranked == (1495,)
    assert size_grid((3, 10), 61_500, 1495).ranked == (3, 10, 1495)


def test_numbers_beyond_the_nodes_with_a_score_are_dropped_and_beyond_all_nodes_refused() -> None:
    grid = size_grid((1, 60, 100), total=100, n_scored=50)
    assert (grid.ranked, grid.tied, grid.dropped) == ((1, 50), (), (60,))  # 100 is the whole circuit, which is no size
    with pytest.raises(InputError, match=r"a circuit of 101 nodes is asked for .* basis 'sae' has 100"):
        size_grid((101,), 100, 50, "sae")
    with pytest.raises(InputError, match="a circuit of -1 nodes"):
        size_grid((-1,), 100, 50)
    with pytest.raises(InputError, match=r"no sizes \['logs'\]; there are numbers, 'log', 'mib' and 'all'"):
        size_grid(("logs",), 100, 50)


def test_mibs_sizes_alone_go_on_past_the_nodes_with_a_score() -> None:
    grid = size_grid(("log", "mib"), total=512, n_scored=60)
    assert grid.ranked == (0, 1, 2, 5, 10, 20, 25, 50, 51, 60)
    assert grid.tied == (102, 256, 512)


def test_a_function_of_all_nodes_gives_exactly_its_sizes() -> None:
    grid = size_grid(lambda total: (0, 7, 70, total), total=100, n_scored=50)
    assert (grid.ranked, grid.tied, grid.dropped) == ((0, 7), (), (70,))


# Curves, at sizes 0, 1, 10 and 100 of 100 nodes; F(M) = 5, F(empty) = 1.


def curve(
    circuit: list[float],
    complement: list[float],
    sizes: tuple[int, ...] = (0, 1, 10, 100),
    whole: float = 5.0,
    empty: float = 1.0,
    total: int | None = None,
) -> Curve:
    """Two prompts, one above and one below the given means."""

    def prompts(means: list[float]) -> torch.Tensor:
        return torch.tensor([[m - 1, m + 1] for m in means], dtype=torch.float64)

    return Curve(
        sizes=sizes,
        n_error_nodes=(0,) * len(sizes),
        n_total=sizes[-1] if total is None else total,
        whole=prompts([whole])[0],
        empty=prompts([empty])[0],
        circuit=prompts(circuit),
        complement=prompts(complement),
    )


BY_HAND = curve([1.0, 3.0, 7.0, 5.0], [5.0, 4.0, 1.4, 1.0])


@pytest.mark.checked
def test_faithfulness_and_completeness_by_hand() -> None:
    assert BY_HAND.faithfulness.tolist() == pytest.approx([0, 0.5, 1.5, 1])
    assert BY_HAND.completeness.tolist() == pytest.approx([1, 0.75, 0.1, 0])
    assert BY_HAND.denominator == 4
    assert BY_HAND.fraction == [0, 0.01, 0.1, 1]
    assert BY_HAND.bits == pytest.approx([math.log2(math.comb(100, k)) for k in (0, 1, 10, 100)])


def test_scores_are_ratios_of_means_not_means_of_ratios() -> None:
    one = Curve((0, 1), (0, 0), 1, torch.tensor([1.0, 9.0]), torch.zeros(2), torch.tensor([[0.0, 0.0], [1.0, 3.0]]),
                torch.tensor([[1.0, 9.0], [0.0, 0.0]]))  # fmt: skip
    assert one.faithfulness.tolist() == pytest.approx([0, 0.4])  # (1 + 3) / (1 + 9), not (1/1 + 3/9) / 2


def test_the_size_at_a_level_is_the_first_crossing_linear_in_log_size() -> None:
    # Faithfulness 0.5, 1.5, 1 and completeness 0.75, 0.1, 0 at 10^0, 10^1, 10^2.
    assert BY_HAND.size_at(faithfulness=0.5) == 1
    assert BY_HAND.size_at(faithfulness=0.8) == pytest.approx(10**0.3)
    assert BY_HAND.size_at(faithfulness=1.5) == pytest.approx(10)
    assert BY_HAND.size_at(completeness=0.8) == 1
    assert BY_HAND.size_at(completeness=0.05) == pytest.approx(10**1.5)
    assert BY_HAND.size_at(faithfulness=0.8, completeness=0.05) == pytest.approx(10**1.5)  # the later of the two
    assert BY_HAND.size_at(faithfulness=0.8, completeness=0.2) == pytest.approx(10 ** (0.55 / 0.65))


def test_a_level_that_no_circuit_reaches_has_no_size() -> None:
    assert BY_HAND.size_at(faithfulness=1.6) is None
    assert curve([1.0, 2.0, 3.0], [5.0] * 3, sizes=(0, 1, 10), total=5000).size_at(faithfulness=0.8) is None


def test_the_smallest_size_run_stands_for_what_it_reaches() -> None:
    assert curve([4.6, 4.8], [5.0] * 2, sizes=(5, 10)).size_at(faithfulness=0.8) == 5


def test_a_stable_size_is_one_that_no_larger_size_falls_below() -> None:
    wavy = curve([1.0, 4.8, 2.0, 5.0], [5.0] * 4)  # faithfulness 0.95, 0.25, 1
    assert wavy.size_at(faithfulness=0.9) == 1
    assert wavy.size_at(faithfulness=0.9, stable=True) == pytest.approx(10 ** (1 + 0.65 / 0.75))
    assert BY_HAND.size_at(faithfulness=0.5, stable=True) == 1
    assert curve([1.0, 5.0, 5.0, 4.0], [5.0] * 4).size_at(faithfulness=0.9, stable=True) is None


def test_the_values_at_a_level_are_those_of_the_same_crossing() -> None:
    counted = replace(BY_HAND, values=(0.0, 128.0, 265.0, 355.0))
    assert counted.values_at(faithfulness=0.5) == 128
    assert counted.values_at(faithfulness=0.8) == pytest.approx(128 * (265 / 128) ** 0.3)
    assert counted.values_at(faithfulness=1.6) is None
    with pytest.raises(InputError, match="no `values`"):
        BY_HAND.values_at(faithfulness=0.5)


def test_a_size_within_a_margin_is_near_on_both_sides_and_both_scores() -> None:
    # At 10 nodes faithfulness is 1.5: above, but not near; towards 100 it falls to 1, and is within .05 at .9 of the way.
    assert BY_HAND.size_within(0.05) == pytest.approx(10**1.9)
    assert BY_HAND.size_within(0.5) == pytest.approx(10 ** (0.25 / 0.65))
    assert curve([1.0, 5.1, 5.0, 5.0], [5.0, 1.1, 1.0, 1.0]).size_within(0.05) == 1
    assert curve([1.0, 2.0, 2.0, 2.0], [5.0] * 4).size_within() is None


def test_all_nodes_are_in_no_size_and_no_area() -> None:
    short = curve([1.0, 3.0, 3.0], [5.0] * 3, sizes=(0, 1, 10), total=5000)
    apart = replace(short, all_nodes=torch.full((2,), 5.0, dtype=torch.float64))
    assert apart.n_scored == 10
    assert apart.size_at(faithfulness=0.9) is None
    assert apart.area() == short.area() == pytest.approx(0.5)


@pytest.mark.checked
def test_the_area_by_hand() -> None:
    # In log10 k the sizes 1, 10, 100 are 0, 1, 2: trapezoids of (.5, 1.5, 1), (.5, .5, 0) and (.75, .1, 0), over 2.
    assert BY_HAND.area() == pytest.approx((1.0 + 1.25) / 2)
    assert BY_HAND.area("unfaithfulness") == pytest.approx((0.5 + 0.25) / 2)
    assert BY_HAND.area("completeness") == pytest.approx((0.425 + 0.05) / 2)
    assert BY_HAND.area(up_to=10) == pytest.approx(1.0)
    # Half way between 10 and 100 in log k is 31.6; at 32 it is .505 of the way, where faithfulness is 1.5 - .5 * .505.
    part = math.log10(32) - 1
    assert BY_HAND.area(up_to=32) == pytest.approx((1.0 + part * (1.5 + 1.5 - 0.5 * part) / 2) / (1 + part))


def test_the_area_of_a_constant_is_that_constant() -> None:
    flat = curve([3.0] * 4, [2.0] * 4)
    for up_to in (2, 10, 77, 100):
        assert flat.area(up_to=up_to) == pytest.approx(0.5)
        assert flat.area("completeness", up_to=up_to) == pytest.approx(0.25)


def test_an_area_beyond_the_sizes_that_were_run_is_refused() -> None:
    with pytest.raises(InputError, match=r"the area from 1 to 200 nodes needs sizes that reach from 1 to 200"):
        BY_HAND.area(up_to=200)
    with pytest.raises(InputError, match=r"needs sizes that reach from 1"):
        curve([1.0, 5.0], [5.0, 1.0], sizes=(2, 100)).area()
    with pytest.raises(InputError, match=r"\(end > 1\)"):
        BY_HAND.area(up_to=1)
    with pytest.raises(InputError, match="no score 'quality'; there are: completeness, faithfulness, unfaithfulness"):
        BY_HAND.area("quality")


def mib(value: float) -> Curve:
    sizes = mib_sizes(1000)
    return curve([value] * len(sizes), [1.0] * len(sizes), sizes=sizes)


def test_tied_circuits_are_for_cpr_and_cmd_alone() -> None:
    whole = mib(5.0)
    ranked, beyond = (part(whole, mib_sizes(1000)[at]) for at in (slice(6), slice(6, None)))
    split = replace(ranked, tied=beyond)
    assert (split.cpr(), split.cmd(), split.n_scored) == (whole.cpr(), whole.cmd(), 50)
    assert split.area() == ranked.area()
    with pytest.raises(InputError, match=r"\[100, 200, 500, 1000\] were not run"):
        ranked.cpr()


def part(of: Curve, sizes: tuple[int, ...]) -> Curve:
    at = [of.sizes.index(k) for k in sizes]
    n_error_nodes = tuple(of.n_error_nodes[i] for i in at)
    return replace(of, sizes=sizes, n_error_nodes=n_error_nodes, circuit=of.circuit[at], complement=of.complement[at])


def test_a_perfect_curve_has_cpr_999_and_cmd_0() -> None:
    assert mib(5.0).cpr() == pytest.approx(0.999)
    assert mib(5.0).cmd() == 0
    assert mib(3.0).cpr() == pytest.approx(0.4995)
    assert mib(7.0).cmd() == pytest.approx(0.4995)  # too much is as far from the model as too little


def test_cpr_is_the_trapezoid_rule_on_mibs_fractions() -> None:
    sizes = mib_sizes(1000)
    one = curve([1 + 4 * k / 1000 for k in sizes], [1.0] * len(sizes), sizes=sizes)  # faithfulness is the fraction
    assert one.cpr() == pytest.approx((1 - 0.001**2) / 2)
    assert one.cmd() == pytest.approx(0.999 - (1 - 0.001**2) / 2)
    assert MIB_FRACTIONS == (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


def test_cpr_needs_mibs_sizes() -> None:
    with pytest.raises(InputError, match=r"CPR and CMD need the sizes .*, and \[2, 5, 20, 50\] were not run"):
        BY_HAND.cpr()
    with pytest.raises(InputError, match=r"were not run: add 'mib' to the sizes \(--sizes log,mib\)"):
        BY_HAND.cmd()


@pytest.mark.parametrize("whole", [1.0, 1.0 + 5e-7, 0.0, 3000.0])
def test_a_metric_that_ablation_does_not_move_has_no_faithfulness(whole: float) -> None:
    flat = curve([1.0] * 4, [1.0] * 4, whole=whole, empty=whole * (1 - 1e-7))
    with pytest.raises(NothingToExplainError, match=r"ablating every node moves the metric by .*nothing to explain"):
        _ = flat.faithfulness
    with pytest.raises(NothingToExplainError, match="Check that clean and corrupt prompts have different answers"):
        _ = flat.completeness


def test_a_small_metric_is_not_mistaken_for_nothing() -> None:
    assert curve([0.0, 1e-4], [1e-4, 0.0], sizes=(0, 1), whole=1e-4, empty=0.0).faithfulness.tolist() == pytest.approx(
        [0, 1]
    )
