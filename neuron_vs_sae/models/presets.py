"""Models known by name, with the dictionaries that were trained on them: `presets.toml`, read."""

import tomllib
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict

from neuron_vs_sae import default
from neuron_vs_sae.core.errors import InputError

_Sources = Annotated[tuple[str, ...], BeforeValidator(lambda given: (given,) if isinstance(given, str) else given)]
_DECIDES = ("dtype", "prepend_bos", "backend")


class Preset(BaseModel):
    """A model, how to run it, and the sources of its dictionaries for each kind of site (the first is the usual one)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    dtype: str = "float32"
    prepend_bos: bool = True
    backend: str = "hooked"
    any_model: bool = False
    """The dictionaries were trained on another model: a chat model's on its base."""
    memory_gib: float | None = None
    """The model's weights in its dtype, and the first source's at every layer in float32."""
    paper: str = ""
    saes: dict[str, _Sources] = {}
    transcoders: dict[str, _Sources] = {}

    @property
    def settings(self) -> dict[str, Any]:
        """The study's fields that the preset sets where the user does not."""
        return {name: getattr(self, name) for name in _DECIDES if name in self.model_fields_set}

    @property
    def summary(self) -> str:
        """What it is, how it runs, its dictionaries, and what to cite: `google/gemma-2-2b, bfloat16, BOS, about 13.3 GiB ...`."""
        size = f", about {self.memory_gib} GiB with dictionaries" if self.memory_gib else ""
        how = f"{self.dtype}, {'BOS' if self.prepend_bos else 'no BOS'}{', bridge' if self.backend == 'bridge' else ''}"
        parts = [f"{self.model}, {how}{size}"]
        parts += [
            f"{what} at {', '.join(getattr(self, what))}" for what in ("saes", "transcoders") if getattr(self, what)
        ]
        return "; ".join([*parts, *filter(None, [self.paper])])


@cache
def presets() -> dict[str, Preset]:
    """Every preset by its name."""
    text = (Path(__file__).parent / "presets.toml").read_text(encoding="utf-8")
    return {name: Preset(**table) for name, table in tomllib.loads(text).items()}


def hub_name(name: str) -> str:
    """The hub name of a preset's model; any other name unchanged."""
    return presets()[name].model if name in presets() else name


def same_model(a: str, b: str) -> bool:
    """Whether two names mean one model: the same, aliases of one, or equal but for the organisation before `/`."""
    from transformer_lens.loading_from_pretrained import make_model_alias_map

    aliases = make_model_alias_map()

    def canonical(name: str) -> str:
        name = hub_name(name)
        known = aliases.get(name.lower(), name)
        return known.split("/")[-1].lower()

    return canonical(a) == canonical(b)


def preset_of(model: str) -> Preset | None:
    """The preset of a model under any of the names that it has on the hub or here."""
    by_name = {preset.model.lower(): preset for preset in presets().values()} | presets()
    if model.lower() in by_name:  # without transformer-lens, which takes seconds to import
        return by_name[model.lower()]
    return next((preset for preset in presets().values() if same_model(preset.model, model)), None)


def source_for(model: str, kind: Literal["saes", "transcoders"], site: str | None) -> tuple[str, str, bool]:
    """(source, kind of site, whether they were trained on another model) of a model's dictionaries at `site`, or at the preset's first.

    Raises `InputError` for a model without a preset, or a site that its preset has none for.
    """
    preset = preset_of(model)
    sources = getattr(preset, kind) if preset else {}
    if preset is None or not sources:
        name = {"saes": "sae", "transcoders": "transcoder"}[kind]
        raise InputError(
            f"there is no preset with {kind} of model '{model}': say which (write {name}:FOLDER or {name}:RELEASE; "
            "`nvs list saes` shows releases)"
        )
    chosen = site or next(iter(sources))
    if chosen not in sources:
        raise InputError(f"the preset of model '{model}' has no {kind} at {chosen}; it has: {', '.join(sources)}")
    return sources[chosen][0], chosen, preset.any_model


def located(text: str | Path) -> Path:
    """Where a model or a set of dictionaries is on disk: `default`, `default/main` and the like in this package, else
    the path as written (`./default` is a folder of that name here)."""
    name, _, below = str(text).partition("/")
    packaged = default.MODELS / name / "saes" / below if below else default.MODELS / name
    return packaged if name in default.NAMES and packaged.is_dir() else Path(text)
