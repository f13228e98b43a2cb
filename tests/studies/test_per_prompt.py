"""Means over prompts, and bases compared by them: numbers worked by hand."""

import numpy as np
import pandas as pd
import pytest

from neuron_vs_sae.analyses.interventions.frontier import chosen_efficacy, log_weights
from neuron_vs_sae.studies.intervening import PatchStudy
from neuron_vs_sae.studies.per_prompt import cases, compared, draws_of, ends_of, judged_within, mean_of

STUDY = PatchStudy(model="gpt2", basis=("mlp_neurons",), task=("pairs.jsonl",), resamples=200)
TABLE = pd.DataFrame({"prompt": range(12), "cluster": range(12), "stratum": 0})


@pytest.mark.checked
def test_a_difference_that_every_prompt_shows_is_told_with_the_sign_flips_p() -> None:
    """Twelve prompts, all 1 higher in `a`: of the 4096 sign patterns two are as large."""
    draws = draws_of(TABLE, STUDY)
    b = np.linspace(0, 1, 12)
    rows = compared({"a": b + 1, "b": b, "c": b}, draws, {"question": "q"}, STUDY).set_index(["basis_a", "basis_b"])
    assert rows.loc[("a", "b"), "difference"] == pytest.approx(1.0)
    assert rows.loc[("a", "b"), "p"] == pytest.approx(2 / 4096)
    assert rows.loc[("b", "c"), "p"] == 1.0
    judged = judged_within(rows.reset_index(), ["question"], 0.95)
    assert judged["verdict"].tolist() == ["a better", "a better", "equivalent"]
    assert judged["p_holm"].tolist()[:2] == pytest.approx([6 / 4096, 6 / 4096])


@pytest.mark.checked
def test_a_mean_has_an_interval_around_it() -> None:
    values = np.arange(12.0)
    estimate = mean_of(values, draws_of(TABLE, STUDY))
    low, high = ends_of(estimate, 0.95)
    assert float(estimate.value[0]) == 5.5
    assert 2.5 < low < 5.5 < high < 8.5
    chosen_efficacy(np.ones((2, 4)), np.zeros((2, 4)), [0.0, 1.0], (0.1,))
    assert log_weights((1.0, 2.0)).tolist() == pytest.approx([0.5, 0.5])


def test_absent_values_are_cases_too() -> None:
    parts = list(cases(pd.DataFrame({"k": [1.0, np.nan, 1.0], "v": [1, 2, 3]}), ["k"]))
    assert [len(part) for _, part in parts] == [2, 1]
    assert not len(judged_within(pd.DataFrame(columns=["p", "question"]), ["question"], 0.95))
