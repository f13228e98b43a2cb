"""A share of the fuzzer's cases; `make fuzz` runs two thousand, with kills, full disks, two writers and memory limits."""

import itertools
from pathlib import Path

import pytest
from fuzzing import Figures, case
from ground import build
from hypothesis import HealthCheck, given, settings, strategies as st


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("ground"))


def test_spoilt_input_ends_with_a_message_or_the_right_numbers(
    ground: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TQDM_DISABLE", "1")
    figures, number = Figures(), itertools.count()

    @settings(
        max_examples=16, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck), print_blob=False,
    )  # fmt: skip
    @given(st.data())
    def cases(data: st.DataObject) -> None:
        case(data.draw, ground, tmp_path / str(next(number)), figures)

    cases()
    assert sum(figures.cases.values()) >= 14
    assert len(figures.cases) >= 4
