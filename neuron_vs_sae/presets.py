"""Models known by name, with the dictionaries that were trained on them: `presets.toml`, read."""

import tomllib
from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from neuron_vs_sae import default
from neuron_vs_sae.errors import InputError


class Preset(BaseModel):
    """A model, and the source of its dictionaries for each kind of site (the first is the usual one)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    saes: dict[str, str] = {}
    transcoders: dict[str, str] = {}


@cache
def presets() -> dict[str, Preset]:
    """Every preset by its name."""
    text = (Path(__file__).parent / "presets.toml").read_text(encoding="utf-8")
    return {name: Preset(**table) for name, table in tomllib.loads(text).items()}


def source_for(model: str, kind: Literal["saes", "transcoders"], site: str | None) -> tuple[str, str]:
    """(source, kind of site) of a model's dictionaries at `site`, or at their usual one.

    Raises `InputError` for a model without a preset, or a site that its preset has none for.
    """
    found = presets().get(model)
    sources = getattr(found, kind) if found else {}
    if not sources:
        name = {"saes": "sae", "transcoders": "transcoder"}[kind]
        raise InputError(
            f"there is no preset with {kind} of model '{model}': say which (write {name}:FOLDER or {name}:RELEASE; "
            "`nvs list saes` shows releases)"
        )
    chosen = site or next(iter(sources))
    if chosen not in sources:
        raise InputError(f"the preset of model '{model}' has no {kind} at {chosen}; it has: {', '.join(sources)}")
    return sources[chosen], chosen


def located(text: str | Path) -> Path:
    """Where a model or a set of dictionaries is on disk: `default`, `default/main` and the like in this package, else
    the path as written (`./default` is a folder of that name here)."""
    name, _, below = str(text).partition("/")
    packaged = default.MODELS / name / "saes" / below if below else default.MODELS / name
    return packaged if name in default.NAMES and packaged.is_dir() else Path(text)
