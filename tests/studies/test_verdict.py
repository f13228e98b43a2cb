"""Verdicts from values per prompt: what is better, equivalent or undecided, by every measure of size."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from level_curves import N, Named, curve, finished, told

from neuron_vs_sae.core.curve import Curve
from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.statistics.multiplicity import benjamini_hochberg, holm
from neuron_vs_sae.statistics.resampling import Clusters
from neuron_vs_sae.statistics.size_measures import MEASURES
from neuron_vs_sae.studies.per_curve import per_curve
from neuron_vs_sae.studies.verdict import ACROSS, COLUMNS, verdicts, write_verdicts


@pytest.mark.checked
def test_the_basis_that_needs_less_is_better_by_both_scores_and_every_measure() -> None:
    table = verdicts(finished({("t", "mlp_neurons"): curve(0.8, seed=1), ("t", "mlp_outputs"): curve(0.4, seed=2)}))
    assert list(table.columns) == COLUMNS
    assert set(zip(table["size_measure"], table["score"], strict=True)) == {
        (measure, score) for measure in MEASURES for score in ("faithfulness", "completeness")
    }
    assert set(table["verdict"]) == {"a better"}
    assert told(table)["difference"] == pytest.approx(told(table)["a"] - told(table)["b"], abs=1e-12)
    assert told(table)["difference"] > 0 > told(table, "completeness")["difference"]
    assert (table["n"] == N).all()
    assert (table["n_clusters"] == N).all()
    swapped = verdicts(finished({("t", "mlp_neurons"): curve(0.4, seed=2), ("t", "mlp_outputs"): curve(0.8, seed=1)}))
    assert set(swapped["verdict"]) == {"b better"}


def test_equal_bases_are_equivalent_with_a_difference_of_exactly_0_and_a_p_of_1() -> None:
    table = verdicts(finished({("t", "mlp_neurons"): curve(0.6), ("t", "mlp_outputs"): curve(0.6)}))
    assert set(table["verdict"]) == {"equivalent"}
    for column in ("difference", "low", "high"):
        assert not table[column].any()
    for column in ("p", "p_holm", "p_bh"):
        assert (table[column] == 1).all()


def test_a_significant_difference_within_the_margin_is_equivalence_and_beyond_a_smaller_margin_it_is_not() -> None:
    curves = {("t", "mlp_neurons"): curve(0.62, seed=1), ("t", "mlp_outputs"): curve(0.6, seed=2)}
    row = told(verdicts(finished(curves)))
    assert row["low"] > 0
    assert row["p_holm"] < 0.05
    assert row["verdict"] == "equivalent"
    assert told(verdicts(finished(curves, margin=0.01)))["verdict"] == "a better"


def test_too_few_or_too_noisy_prompts_leave_it_undecided_and_say_what_they_could_have_found() -> None:
    row = told(
        verdicts(
            finished(
                {("t", "mlp_neurons"): curve(0.6, noise=2, seed=1), ("t", "mlp_outputs"): curve(0.55, noise=2, seed=2)}
            )
        )
    )
    assert row["verdict"] == "undecided"
    assert row["minimum_detectable"] > abs(row["difference"])
    # Five prompts have 32 sign patterns: no p below 2 / 32, however clear it is.
    row = told(
        verdicts(finished({("t", "mlp_neurons"): curve(0.9, prompts=5), ("t", "mlp_outputs"): curve(0.1, prompts=5)}))
    )
    assert row["p"] == 2 / 32
    assert row["verdict"] == "undecided"


def test_areas_over_nodes_end_where_the_shorter_curve_does_and_are_its_own_of_the_table_per_curve() -> None:
    longer, shorter = curve(0.8, seed=1), curve(0.4, seed=2, total=15)
    found = finished({("t", "mlp_neurons"): longer, ("t", "mlp_outputs"): shorter})
    areas = per_curve(found).set_index("basis")
    for score in ("faithfulness", "completeness"):
        row = told(verdicts(found), score)
        assert (row["range_low"], row["range_high"]) == (1, 15)
        assert row["a"] == pytest.approx(longer.area(score, up_to=15), rel=1e-12)
        assert row["b"] == pytest.approx(areas[f"area_{score}"]["mlp_outputs"], rel=1e-12)
        low, high = (areas[f"area_{score}_{end}"]["mlp_outputs"] for end in ("low", "high"))
        assert low < row["b"] < high
        assert areas[f"area_{score}"]["mlp_neurons"] == pytest.approx(longer.area(score, up_to=20), rel=1e-12)


def test_p_values_are_adjusted_for_all_comparisons_by_one_measure_and_score() -> None:
    bases = ("mlp_neurons", "mlp_outputs", "residual")
    table = verdicts(
        finished(
            {
                (task, basis): curve(0.6, noise=1, seed=i + 3 * j)
                for i, task in enumerate("tu")
                for j, basis in enumerate(bases)
            }
        )
    )
    family = table[(table["size_measure"] == "bits") & (table["score"] == "completeness")]
    assert len(family) == 2 * 3
    assert family["p_holm"].tolist() == holm(family["p"].to_numpy()).tolist()
    assert family["p_bh"].tolist() == benjamini_hochberg(family["p"].to_numpy()).tolist()


def test_what_is_significant_alone_but_not_by_holm_is_undecided() -> None:
    """Differences of about 2.5 standard errors: fifteen other comparisons forgive one false finding in twenty, Holm does not."""
    curves: Named = {
        ("t0", "mlp_neurons"): curve(0.75, noise=1, seed=1),
        ("t0", "mlp_outputs"): curve(0.6, noise=1, seed=2),
    }
    for i in range(1, 16):
        curves |= {
            (f"t{i}", basis): curve(0.6, noise=1, seed=40 + 2 * i + j)
            for j, basis in enumerate(("mlp_neurons", "mlp_outputs"))
        }
    table = verdicts(finished(curves, margin=0.001))
    held_back = (table["p"] < 0.05) & (table["p_holm"] >= 0.05) & ((table["low"] > 0) | (table["high"] < 0))
    assert held_back.any()
    assert set(table[held_back]["verdict"]) == {"undecided"}


def test_every_pair_is_compared_once_neurons_first_or_all_with_the_one_asked_for() -> None:
    found = finished(
        {("t", basis): curve(0.6, seed=i) for i, basis in enumerate(("residual", "mlp_neurons", "attention"))}
    )

    def compared(table: pd.DataFrame) -> list[Any]:
        return list(dict.fromkeys(zip(table["basis_a"], table["basis_b"], strict=True)))

    neurons = [("mlp_neurons", "residual"), ("mlp_neurons", "attention")]
    assert compared(verdicts(found)) == [*neurons, ("residual", "attention")]
    assert compared(verdicts(found, against="attention")) == [("attention", "residual"), ("attention", "mlp_neurons")]
    with pytest.raises(InputError, match="no basis 'sae' in this study; there are: residual, mlp_neurons, attention"):
        verdicts(found, against="sae")


def test_clusters_are_counted_and_make_intervals_wider_where_their_prompts_agree() -> None:
    """Every prompt twice: as clusters of two nothing is gained over having it once."""

    def twice(one: Curve) -> Curve:
        names = ("whole", "empty", "circuit", "complement", "change")
        return Curve(**{**vars(one), **{name: torch.cat([getattr(one, name)] * 2, -1) for name in names}})

    single: Named = {
        ("t", "mlp_neurons"): curve(0.6, noise=1, seed=1),
        ("t", "mlp_outputs"): curve(0.5, noise=1, seed=2),
    }
    double = {key: twice(each) for key, each in single.items()}
    clusters = Clusters(np.arange(2 * N) % N, np.zeros(2 * N, dtype=np.int64))
    once, clustered, naive = (
        told(verdicts(finished(*given))) for given in ((single,), (double, Path(), clusters), (double,))
    )
    assert (clustered["n"], clustered["n_clusters"], naive["n_clusters"]) == (2 * N, N, 2 * N)
    for column in ("difference", "low", "high", "p", "p_equivalence", "minimum_detectable"):
        assert clustered[column] == pytest.approx(once[column], rel=1e-9)
    assert naive["high"] - naive["low"] < 0.8 * (once["high"] - once["low"])


@pytest.mark.parametrize(
    "curves",
    [
        {("t", "mlp_neurons"): curve(0.6)},
        {("t", basis): curve(0.6, prompts=1) for basis in ("mlp_neurons", "mlp_outputs")},
    ],
    ids=["one basis", "one prompt"],
)
def test_where_there_is_nothing_to_compare_there_are_columns_and_no_rows(curves: Named, tmp_path: Path) -> None:
    found = finished(curves, tmp_path)
    write_verdicts(found)
    for file, columns in (("verdicts.csv", COLUMNS), ("verdicts_across_tasks.csv", ACROSS)):
        table = pd.read_csv(tmp_path / file)
        assert list(table.columns) == columns
        assert len(table) == 0


def test_two_writings_are_the_same_bytes(tmp_path: Path) -> None:
    found = finished(
        {
            (t, b): curve(0.6, seed=i)
            for i, (t, b) in enumerate([(t, b) for t in "tu" for b in ("mlp_neurons", "residual")])
        },
        tmp_path,
    )
    files = [tmp_path / "verdicts.csv", tmp_path / "verdicts_across_tasks.csv"]
    write_verdicts(found)
    first = [file.read_bytes() for file in files]
    write_verdicts(found)
    assert [file.read_bytes() for file in files] == first
    pd.testing.assert_frame_equal(pd.read_csv(files[0]), verdicts(found), check_dtype=False)
