"""Fixtures of the tests that read files of pairs."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch


@pytest.fixture(scope="session")
def reader(tokenizer: Any) -> Any:
    return SimpleNamespace(tokenizer=tokenizer, parameters=lambda: iter([torch.zeros(1)]))
