"""What is committed under results/ is what the README says, and was made by the study that the package runs by default."""

import json
import sys
from pathlib import Path

import pandas as pd
import pytest

import neuron_vs_sae as nvs
from neuron_vs_sae.studies.study import make_study, with_defaults

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))
default_results = pytest.importorskip("default_results")
HERE = default_results.HERE


def committed() -> nvs.Result:
    """Without the per-prompt values, which are not committed."""
    record = json.loads((HERE / "study.json").read_text(encoding="utf-8"))
    return nvs.Result(HERE, record, pd.DataFrame(), pd.read_csv(HERE / "summary.csv"))


def test_the_committed_results_are_of_the_default_study() -> None:
    found = committed()
    assert found.study == make_study(with_defaults({}))
    assert found.record["finished"]
    assert all((HERE / name).exists() for name in (*default_results.KEPT, "answer.png"))


def test_the_readme_says_what_the_committed_results_say() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert default_results.placed(readme, default_results.told(committed())) == readme
