"""The answer in sentences: who is better where, by how much, and what it depends on; the same wherever it is said."""

from typing import Any

import pandas as pd
import pytest
from compared import compared, robust_row

from neuron_vs_sae.report.console import console_table
from neuron_vs_sae.report.words import Pair, answer, answers, interval, share_decided, signed, why_no_answer
from neuron_vs_sae.studies.per_curve import per_curve

PAIR = Pair("MLP neurons", "SAE features", "SAE")
TASKS = {"t.0": "agreement", "u": "two hop", "v": "ioi", "w": "sums"}


def said(
    *rows: dict[str, Any], error_first: tuple[str, ...] = (), tasks: dict[str, str] | None = None
) -> tuple[str, str]:
    """The answer from these rows, of a study of their tasks alone unless others are given."""
    own = {row["task"]: TASKS[row["task"]] for row in rows if row["task"] != "all"}
    return answer(pd.DataFrame(rows), PAIR, tasks or own, error_first)


def test_every_verdict_has_its_place_in_the_answer() -> None:
    who, how_much = said(
        robust_row("t.0", "a better"), robust_row("u", "depends"), robust_row("v", "depends", decided_by="size_measure"),
        robust_row("w", "undecided"), robust_row("all", "depends", median_difference=0.0861, low=0.0502, high=0.1204),
        error_first=("u", "v"),
    )  # fmt: skip
    assert who == (
        "MLP neurons are robustly better on 1 of 4 tasks (agreement), SAE features on none; on two hop the answer depends on how error "
        "nodes are treated, on ioi the answer depends on how size is counted and on sums it is undecided."
    )
    assert how_much == (
        "The mean difference in area under faithfulness (median of 60 specifications) is +0.086 [+0.050, +0.120], in favour of MLP "
        "neurons; the SAE's top-ranked node is an error node on two hop and ioi."
    )


def test_the_row_of_all_tasks_is_no_task_and_gives_the_difference() -> None:
    who, how_much = said(
        robust_row("u", "b better", median_difference=0.9), robust_row("v", "b better"), robust_row("w", "equivalent"),
        robust_row("all", "undecided", median_difference=-0.02, low=-0.05, high=0.01),
    )  # fmt: skip
    assert (
        who
        == "SAE features are robustly better on 2 of 3 tasks (two hop and ioi), MLP neurons on none; on sums they are equivalent."
    )
    assert how_much.endswith("is \u22120.020 [\u22120.050, +0.010], which favours neither.")


def test_an_undecided_task_says_which_control_is_not_beaten() -> None:
    who, _ = said(
        robust_row("u", "undecided", disqualified_by="random_sae", median_t=-2.0), robust_row("v", "undecided"),
        robust_row("w", "undecided", disqualified_by="rotation,seed=1", median_t=2.0),
    )  # fmt: skip
    assert who.endswith(
        "; on two hop SAE features are ahead, but not always beyond an untrained SAE, on ioi it is undecided and on sums MLP neurons are "
        "ahead, but not always beyond a random rotation."
    )


def test_what_explains_the_variance_and_what_turns_the_sign_are_both_named() -> None:
    turned = {"decided_by": "size_measure", "turn_factor": "errors", "turn_share": 0.8}
    who, _ = said(robust_row("u", "depends", **turned), robust_row("v", "depends", **{**turned, "turn_share": 0.0}))
    assert "on two hop the answer depends on how size is counted and how error nodes are treated" in who
    assert "on ioi the answer depends on how size is counted." in who


def test_a_task_that_was_not_compared_is_named_and_there_is_no_mean_without_a_row_of_it() -> None:
    who, how_much = said(robust_row("u", "a better"), robust_row("v", "a better"), tasks=TASKS)
    assert who.endswith("; on agreement and sums nothing could be compared.")
    assert how_much == "The tasks share no specification to take a mean over."


def test_where_all_tasks_say_the_same_they_are_not_listed() -> None:
    assert (
        said(robust_row("u", "a better"), robust_row("v", "a better"))[0]
        == "MLP neurons are robustly better on all 2 tasks."
    )
    rows = (robust_row("u", "depends"), robust_row("v", "depends"), robust_row("all", "depends"))
    who, how_much = said(*rows, error_first=("u", "v"))
    assert who == (
        "Neither MLP neurons nor SAE features are robustly better on any of the 2 tasks; on all of them the answer depends on how "
        "error nodes are treated."
    )
    assert how_much.endswith("top-ranked node is an error node on all tasks.")


@pytest.mark.parametrize(
    ("verdict", "sentence"),
    [
        ("a better", "On ioi, MLP neurons are robustly better than SAE features."),
        ("b better", "On ioi, SAE features are robustly better than MLP neurons."),
        ("equivalent", "On ioi, MLP neurons and SAE features are equivalent."),
        ("depends", "On ioi, whether MLP neurons or SAE features are better depends on how error nodes are treated."),
        ("undecided", "On ioi, it is undecided whether MLP neurons or SAE features are better."),
    ],
)
def test_one_task_is_named(verdict: str, sentence: str) -> None:
    who, how_much = said(robust_row("v", verdict, low=-0.2, high=-0.1, median_difference=-0.15), error_first=("v",))
    assert who == sentence
    assert "in favour of SAE features; the SAE's top-ranked node is an error node." in how_much
    assert how_much.startswith("The difference in area")


def test_what_decides_is_said_with_its_share_and_the_change_that_turns_the_sign() -> None:
    row = robust_row("v", "depends", turn_factor="errors", turn_from="nodes", turn_to="ablate", turn_share=0.8)
    assert share_decided(row, PAIR, "ioi") == (
        "On ioi, 50 % of 60 specifications find MLP neurons better and 25 % find SAE features better; how error nodes are treated explains "
        "72 % of the variance between them. Changing the treatment of error nodes from “ranked as nodes” to “always ablated” turns the sign in 80 % of otherwise equal cases."
    )
    assert share_decided(robust_row("v", "undecided"), PAIR, "ioi").endswith("25 % find SAE features better.")


def test_numbers_have_a_sign_of_their_own_width() -> None:
    assert (signed(0.0864), signed(-0.0864, 2)) == ("+0.086", "\u22120.09")
    assert interval(-0.1, 0.25) == "[\u22120.100, +0.250]"


def test_console_and_page_say_the_same_sentences(evident: Any) -> None:
    tables = compared(evident)
    table = console_table(evident, per_curve(evident), tables)
    (only,) = answers(evident, tables)
    assert table.sentences == only.sentences
    assert table.headers == ("task", "MLP neurons", "SAE features", "verdict")
    ((_, neurons, _, verdict),) = table.rows
    size = evident.curve(basis="mlp_neurons", method="relp").size_at(0.8)
    assert neurons == ("-" if size is None else f"{size:,.0f}")
    assert verdict == "depends on error nodes"


def test_without_a_comparison_the_reason_is_said(evident: Any) -> None:
    assert answers(evident, None) == []
    assert "holds no robustness.csv" in why_no_answer(evident)
    assert console_table(evident, per_curve(evident), None).sentences == (why_no_answer(evident),)
