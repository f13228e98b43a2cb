"""Models, SAEs and prompts small enough to know: random weights in float64, and the trained assets where they are."""

import os
from pathlib import Path
from typing import Any

import pytest
import toys

ASSETS = Path(os.environ["NVS_ASSETS"]) if os.environ.get("NVS_ASSETS") else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs the assets, with the reason that ends the skip."""
    if ASSETS is None:
        for item in items:
            if "assets" in item.keywords:
                item.add_marker(
                    pytest.mark.skip(reason="set NVS_ASSETS to the folder of trained models, SAEs and tasks")
                )


@pytest.fixture(scope="session")
def assets() -> Path:
    """The assets' folder (tests that use it are marked `assets`)."""
    assert ASSETS is not None
    return ASSETS


@pytest.fixture(scope="session", params=list(toys.MODELS))
def model(request: pytest.FixtureRequest) -> Any:
    """Every toy architecture."""
    return toys.model(request.param)


@pytest.fixture(scope="session")
def llama() -> Any:
    """The bias-free toy: RMSNorm, rotary, grouped-query attention, gated SiLU MLP."""
    return toys.model("llama")


@pytest.fixture(scope="session")
def gpt2() -> Any:
    """The biased toy: LayerNorm, learned positions, plain GELU MLP."""
    return toys.model("gpt2")


@pytest.fixture(scope="session")
def stories(assets: Path) -> Any:
    """The trained stories260K, in float32."""
    from neuron_vs_sae.models import load_model

    return load_model(assets / "models" / "stories260K")
