"""Signatures are held to their types and shapes (jaxtyping, beartype) in the tests marked `checked`, which run once more here.

Checking each call costs several times what small tests do, so the others run unchecked; `make test-all` checks them all.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import mutants
import pytest

from neuron_vs_sae.core.dictionary import Dictionary

CHECKED = [file for file in sorted((mutants.ROOT / "tests").rglob("test_*.py")) if "mark.checked" in file.read_text()]


ABSTRACT = {f"{Dictionary.__module__}.Dictionary.{method}" for method in Dictionary.__abstractmethods__}


@pytest.mark.long
@pytest.mark.unchecked
def test_the_checked_tests_pass_and_call_all_public_functions_that_state_a_shape(tmp_path: Path) -> None:
    """A function that is missing here needs `@pytest.mark.checked` on a quick test that calls it."""
    files = [str(file) for file in CHECKED if file != Path(__file__)]
    calls = tmp_path / "calls.json"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-n", "0", "-q", "-m", "checked",
         "--jaxtyping-packages=neuron_vs_sae,checking.recorded", *files],
        cwd=mutants.ROOT, env={**environment, "CHECKED_CALLS": str(calls)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout[-5000:]
    called = json.loads(calls.read_text())
    missing = {name for name, was in called.items() if not was}
    assert len(called) > 100
    assert missing <= ABSTRACT
