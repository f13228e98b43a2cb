"""Robust verdicts of hand-made studies whose answer is known: what survives every convention, what depends on one, what a control takes away."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import binomtest

from neuron_vs_sae.core.curve import Curve
from neuron_vs_sae.statistics.resampling import draw, independent
from neuron_vs_sae.studies import result
from neuron_vs_sae.studies.comparing import Comparison, TaskCurves, compare
from neuron_vs_sae.studies.families import controls_of
from neuron_vs_sae.studies.findings import finding, findings
from neuron_vs_sae.studies.limits import family_size, limits
from neuron_vs_sae.studies.multiverse import of_finding
from neuron_vs_sae.studies.robustness import COLUMNS, judged, robustness, rows_of
from neuron_vs_sae.studies.rows import to_rows
from neuron_vs_sae.studies.specifications import COLUMNS as SPECIFIED, specifications
from neuron_vs_sae.studies.study import Study, make_study
from neuron_vs_sae.studies.verdict import verdicts, write_verdicts

POLICIES = ("nodes", "keep", "ablate")
N = 24


def curve(level: float, *, noise: float = 0.05, seed: int = 0, sizes: tuple[int, ...] = (0, 1, 2, 5, 10, 20)) -> Curve:
    """Faithfulness is `level` at every size between none and the last, completeness `1 - level`; prompts differ by `noise`."""
    generator = torch.Generator().manual_seed(seed)

    def drawn(count: int) -> torch.Tensor:
        return noise * torch.randn(count, N, generator=generator, dtype=torch.float64)

    whole, empty, inner = 4 + drawn(1)[0], drawn(1)[0], len(sizes) - 2
    kept = level * whole + (1 - level) * empty + drawn(inner)
    left = (1 - level) * whole + level * empty + drawn(inner)
    return Curve(
        sizes=sizes, n_error_nodes=(0,) * len(sizes), n_total=50, whole=whole, empty=empty,
        circuit=torch.cat([empty[None], kept, kept[-1:]]), complement=torch.cat([whole[None], left, left[-1:]]),
    )  # fmt: skip


Named = Mapping[tuple[str, str, str], Curve]


def finished(curves: Named, folder: Path = Path(), **settings: Any) -> result.Result:
    """A result of these curves, by task, basis and error policy."""
    tasks, bases, policies = (list(dict.fromkeys(key[i] for key in curves)) for i in range(3))
    given = {
        "model": "gpt2",
        "task": [f"{task}.jsonl" for task in tasks],
        "basis": bases,
        "errors": policies,
        "resamples": 300,
        "sign_flips": 2000,
    }
    study = make_study({**given, **settings})
    tables = [
        to_rows(each, {"model": "gpt2", "task": task, "basis": basis, "method": method, "ablation": "mean",
                       "errors": errors, "metric": "logit_difference", "seed": 0})
        for method in study.method
        for (task, basis, errors), each in curves.items()
    ]  # fmt: skip
    rows = pd.concat(tables, ignore_index=True)
    return result.Result(folder, {"study": study.model_dump(mode="json")}, rows, pd.DataFrame())


def by_policy(levels: Mapping[str, tuple[float, float, float]], task: str = "t", **options: Any) -> Named:
    """Curves of these bases at a level per error policy."""
    return {
        (task, basis, errors): curve(level, seed=17 * i + j, **options)
        for i, (basis, own) in enumerate(levels.items())
        for j, (errors, level) in enumerate(zip(POLICIES, own, strict=True))
    }


def row(table: pd.DataFrame, **values: Any) -> dict[str, Any]:
    for column, value in {"score": "faithfulness", **values}.items():
        table = table.loc[table[column] == value]
    (only,) = table.to_dict("records")
    return {str(name): value for name, value in only.items()}


NEURONS_WIN = {"mlp_neurons": (0.8, 0.8, 0.8), "sae": (0.4, 0.5, 0.3)}
FEATURES_WIN = {"mlp_neurons": (0.4, 0.4, 0.4), "sae": (0.8, 0.9, 0.7)}


@pytest.mark.parametrize(
    ("levels", "verdict"), [(NEURONS_WIN, "a better"), (FEATURES_WIN, "b better")], ids=["neurons", "features"]
)
def test_what_is_better_under_every_convention_is_better_by_both_scores(levels: Any, verdict: str) -> None:
    table = robustness(finished(by_policy(levels)))
    assert list(table.columns) == COLUMNS
    assert set(table["verdict"]) == {verdict}
    assert set(table["score"]) == {"faithfulness", "completeness"}
    assert (table["p_joint"] >= table["resolution"]).all()
    found = row(table)
    assert found["n_specifications"] == 3 * 4  # no `change` or `values` in a curve made by hand
    assert (found["share_a_better"], found["share_b_better"]) == ((1, 0) if verdict == "a better" else (0, 1))
    assert found["low"] < found["median_difference"] < found["high"]
    assert found["turn_factor"] == ""


def test_a_basis_that_wins_only_by_its_error_nodes_is_no_winner_and_errors_decide() -> None:
    found = row(robustness(finished(by_policy({"mlp_neurons": (0.6, 0.6, 0.6), "sae": (0.9, 0.85, 0.3)}))))
    assert found["verdict"] == "depends"
    assert found["decided_by"] == "errors"
    assert found["decided_share"] > 0.9
    assert (found["turn_factor"], found["turn_from"], found["turn_to"]) == ("errors", "nodes", "ablate")
    assert found["turn_share"] == 1
    assert found["n_significant_a"] == 4
    assert found["n_significant_b"] == 8


def test_one_error_policy_that_says_nothing_is_a_veto_that_is_told() -> None:
    """Two of three policies say that neurons are better and the third is noise about a small difference of the other sign."""
    quiet = by_policy({"mlp_neurons": (0.8, 0.8, 0.6), "sae": (0.4, 0.4, 0.6)})
    loud = {("t", "sae", "ablate"): curve(0.62, noise=1.5, seed=99)}
    found = row(robustness(finished({**quiet, **loud})))
    assert (found["verdict"], found["decided_by"]) == ("depends", "errors")
    assert found["n_significant_b"] == 0


def test_bases_within_the_margin_everywhere_are_equivalent() -> None:
    table = robustness(finished(by_policy({"mlp_neurons": (0.6, 0.6, 0.6), "sae": (0.61, 0.6, 0.59)})))
    assert set(table["verdict"]) == {"equivalent"}
    assert (table["share_equivalent"] == 1).all()


@pytest.mark.parametrize(
    ("level", "verdict"),
    [(0.3, "b better"), pytest.param(0.8, "undecided", marks=pytest.mark.checked), (0.95, "undecided")],
)
def test_a_dictionary_that_does_not_beat_its_untrained_control_does_not_win(level: float, verdict: str) -> None:
    levels = {"mlp_neurons": (0.4,) * 3, "sae": (0.8,) * 3, "random_sae": (level,) * 3}
    given = finished(by_policy(levels))
    found = row(robustness(given), basis_a="mlp_neurons", basis_b="sae")
    assert found["verdict"] == verdict
    assert found["disqualified_by"] == ("" if verdict == "b better" else "random_sae")
    rows = specifications(given)
    wins = rows.loc[(rows["basis_b"] == "sae") & (rows["basis_a"] == "mlp_neurons")]
    assert (wins["verdict"] == "b better").all()
    assert (wins["control"] == "random_sae").all()
    assert wins["control_wins"].mean() == (0 if verdict == "b better" else pytest.approx(1, abs=0.1))
    assert found["share_control_wins"] == pytest.approx(
        wins.loc[wins["score"] == "faithfulness", "control_wins"].mean()
    )


def test_neurons_that_do_not_beat_a_rotation_do_not_win_and_without_one_no_control_is_named() -> None:
    alone = specifications(finished(by_policy(NEURONS_WIN)))
    assert (alone["control"] == "").all()
    assert not alone["control_wins"].any()
    found = row(
        robustness(finished(by_policy({**NEURONS_WIN, "rotation": (0.8, 0.8, 0.8)}))),
        basis_a="mlp_neurons",
        basis_b="sae",
    )
    assert (found["verdict"], found["disqualified_by"]) == ("undecided", "rotation")


def test_where_a_control_disqualifies_no_convention_is_said_to_decide() -> None:
    """Features win under two policies, and one finds them equivalent; the untrained dictionary does as well as they do."""
    levels = {"mlp_neurons": (0.4, 0.4, 0.8), "sae": (0.8, 0.9, 0.8)}
    alone = row(robustness(finished(by_policy(levels))), basis_b="sae")
    control = row(robustness(finished(by_policy({**levels, "random_sae": (0.8, 0.9, 0.8)}))), basis_b="sae")
    assert alone["verdict"] == "b better"
    assert (control["verdict"], control["disqualified_by"]) == ("undecided", "random_sae")


def test_a_control_changes_no_estimate_however_short_its_curve() -> None:
    two = by_policy(FEATURES_WIN)
    short = {("t", "random_sae", errors): curve(0.2, sizes=(0, 1, 3), seed=5) for errors in POLICIES}
    columns = ["estimate", "low", "high", "p", "range_low", "range_high", "verdict"]
    without, beside = specifications(finished(two)), specifications(finished({**two, **short}))
    beside = beside.loc[(beside["basis_b"] == "sae")].reset_index(drop=True)
    pd.testing.assert_frame_equal(without[columns], beside[columns])
    assert not beside["control_wins"].any()


def test_a_basis_that_loses_nothing_is_stored_under_one_policy_and_compared_under_all() -> None:
    every = by_policy(NEURONS_WIN)
    neurons = every["t", "mlp_neurons", "nodes"]
    every = {key: neurons if key[1] == "mlp_neurons" else each for key, each in every.items()}
    once = {
        key: each for key, each in every.items() if key[1:] not in {("mlp_neurons", "keep"), ("mlp_neurons", "ablate")}
    }
    pd.testing.assert_frame_equal(robustness(finished(every)), robustness(finished(once)))


def test_all_tasks_together_are_their_mean_with_clusters_within_tasks() -> None:
    curves = {**by_policy(NEURONS_WIN, "t"), **by_policy(FEATURES_WIN, "u")}
    given = finished(curves)
    table, rows = robustness(given), specifications(given)
    assert table["task"].tolist() == ["t", "u", "all"] * 2
    together = row(table, task="all")
    estimates = rows.loc[rows["score"] == "faithfulness"].groupby(["errors", "size_measure"])["estimate"].mean()
    assert together["median_difference"] == pytest.approx(estimates.median(), rel=1e-12)
    assert (together["n"], together["n_clusters"], together["resolution"]) == (2 * N, 2 * N, 2 / 2 ** (2 * N))
    assert (row(table, task="t")["verdict"], row(table, task="u")["verdict"]) == ("a better", "b better")
    assert table.loc[table["score"] == "faithfulness", "p_joint_holm"].min() == pytest.approx(
        3 * table.loc[table["score"] == "faithfulness", "p_joint"].min()
    )


@pytest.mark.checked
def test_seeds_are_averaged_specification_by_specification() -> None:
    first, second = finished(by_policy(NEURONS_WIN)), finished(by_policy(FEATURES_WIN))
    study = {**first.record["study"], "seed": [0, 1]}
    rows = pd.concat([first.curves, second.curves.assign(seed=1)], ignore_index=True)
    both = result.Result(Path(), {"study": study}, rows, pd.DataFrame())
    several, *alone = (of_finding(next(findings(each))[0], "faithfulness") for each in (both, first, second))
    assert several is not None
    values = [each.difference.value for each in alone if each is not None]
    assert several.names() == alone[0].names()
    np.testing.assert_allclose(several.difference.value, np.mean(values, axis=0))


def test_the_declared_family_is_adjusted_apart_from_what_is_explored() -> None:
    levels = {"mlp_neurons": (0.6,) * 3, "sae": (0.55,) * 3, "rotation": (0.5,) * 3}
    table = verdicts(finished(by_policy(levels, noise=1.0), method=["relp", "random"]))
    declared = (table["basis_b"] == "sae") & (table["method"] == "relp")
    assert set(table.loc[declared, "family"]) == {"confirmatory"}
    assert set(table.loc[~declared, "family"]) == {"exploratory"}
    few = table.loc[declared & (table["score"] == "faithfulness") & (table["size_measure"] == "nodes")]
    assert len(few) == 3
    assert few["p_holm"].min() == pytest.approx(min(1.0, 3 * few["p"].min()))
    assert set(specifications(finished(by_policy(levels), method=["relp", "random"]))["method"]) == {"relp"}


def test_the_files_hold_the_tables(tmp_path: Path) -> None:
    given = finished(by_policy(NEURONS_WIN), tmp_path)
    write_verdicts(given)
    robust = pd.read_csv(tmp_path / "robustness.csv", keep_default_na=False)
    assert robust["verdict"].tolist() == robustness(given)["verdict"].tolist()
    stored = pd.read_parquet(tmp_path / "specifications.parquet")
    assert list(stored.columns) == SPECIFIED
    assert stored["estimate"].tolist() == specifications(given)["estimate"].tolist()
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "verdicts.csv"), verdicts(given), check_dtype=False)


def test_one_basis_or_one_prompt_has_columns_and_no_rows(tmp_path: Path) -> None:
    given = finished(by_policy({"mlp_neurons": (0.5,) * 3}), tmp_path)
    write_verdicts(given)
    for table, columns in ((robustness(given), COLUMNS), (specifications(given), SPECIFIED)):
        assert list(table.columns) == columns
        assert len(table) == 0


# Rates, without the tables.


def drawn(rng: np.random.Generator, study: Study, shift: float) -> Comparison:
    """Two bases with common prompts: 3 policies x 2 methods whose noise is shared by half; b's level is lower by `shift`."""
    shared = {basis: rng.normal(size=N) for basis in "ab"}
    whole = torch.tensor(3 + rng.normal(size=N) * 0.5)

    def one(basis: str) -> Curve:
        level = 0.5 - (shift if basis == "b" else 0.0)
        kept = [level * whole.numpy() + shared[basis] + rng.normal(size=N) for _ in range(4)]
        circuit = torch.tensor(np.stack(kept))
        zero = torch.zeros(N, dtype=torch.float64)
        return Curve((1, 2, 5, 10), (0,) * 4, 50, whole, zero, circuit, whole - circuit)

    cases = [(0, method, "mean", errors, "m") for method in ("relp", "integrated_gradients") for errors in POLICIES]
    curves = {name: {case: one(side) for case in cases} for name, side in (("mlp_neurons", "a"), ("sae", "b"))}
    draws = draw(independent(N), study.resamples, 0)
    comparison = compare(TaskCurves("t", curves, draws), "mlp_neurons", "sae")
    assert comparison is not None
    return comparison


@pytest.mark.parametrize("shift", [0.0, 0.6])
def test_exchangeable_bases_are_rarely_called_better_and_clear_differences_are(shift: float) -> None:
    study = make_study({"model": "gpt2", "task": ["t.jsonl"], "basis": ["mlp_neurons", "sae"], "errors": POLICIES,
                        "resamples": 200, "sign_flips": 1000})  # fmt: skip
    rng, draws, better = np.random.default_rng(5), 60, 0
    for _ in range(draws):
        table = judged(rows_of([finding(drawn(rng, study, shift), study)], study), study)
        better += row(table)["verdict"] in {"a better", "b better"}
    interval = binomtest(better, draws).proportion_ci(0.95)
    assert (interval.low <= 0.05) if shift == 0 else (better / draws > 0.5)


# Whose control, and what cannot be decided.


def test_controls_are_matched_by_source_then_by_shape() -> None:
    bases = ["mlp_neurons", "sae:one", "sae:two", "random_sae:one", "transcoder:one", "rotation"]
    study = make_study({"model": "gpt2", "task": ["t.jsonl"], "basis": bases})
    assert set(controls_of(study, {}, "t")) == {("sae:one", "random_sae:one"), ("mlp_neurons", "rotation")}
    shapes = {"sae:one": [64], "sae:two": [32], "random_sae:one": [64], "transcoder:one": [64]}
    made: dict[str, dict[str, Any]] = {basis: {"sites": ["s"], "widths": widths} for basis, widths in shapes.items()}
    by_shape = controls_of(study, {"bases": {"t": made}}, "t")
    assert set(by_shape) == {
        ("sae:one", "random_sae:one"), ("transcoder:one", "random_sae:one"), ("mlp_neurons", "rotation"),
    }  # fmt: skip
    made["sae:two"] = {"sites": ["s"], "widths": [64], "saes": [{"frozen_decoder": True}]}
    frozen = {
        (basis, control) for basis, control in controls_of(study, {"bases": {"t": made}}, "t") if control == "sae:two"
    }
    assert frozen == {("sae:one", "sae:two"), ("transcoder:one", "sae:two")}


def test_a_family_that_is_too_large_for_its_prompts_is_told_before_it_runs() -> None:
    study = make_study({"model": "gpt2", "task": ["t.jsonl", "u.jsonl"], "basis": ["mlp_neurons", "sae", "transcoder"]})
    assert family_size(study, 2) == 6  # two dictionaries on two tasks and their mean
    few, enough = limits(study, {"t": 7, "u": 8})
    assert few.needed == pytest.approx(0.05 / 6)
    assert (few.resolution, enough.resolution) == (2 / 2**7, 2 / 2**8)
    assert not few.decidable
    assert enough.decidable
    assert few.clusters_needed == 8
    assert "task 't' has 7 evaluation clusters" in few.message
    assert "Give at least 8 clusters" in few.message
    assert enough.message == ""
    assert few.detectable > enough.detectable > 0
    assert (
        limits(make_study({"model": "gpt2", "task": ["t.jsonl"], "basis": ["mlp_neurons", "rotation"]}), {"t": 3}) == []
    )
