"""Names of models on the hub, in transformer-lens' list and among the presets."""

import os
import re

from neuron_vs_sae.core.conventions import Backend
from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.models.hub import commit
from neuron_vs_sae.models.presets import hub_name, located, presets

# Their loaders in transformer-lens unpickle files, which can run code.
UNPICKLED = ("NeelNanda/", "ArthurConmy/", "Baidicoot/")


def official_name(name: str, trust_remote_code: bool, backend: Backend) -> str:
    """The name on the hub of a known model. Raises `InputError` for an unknown one, and for a pickle that is not trusted.

    The bridge runs whatever transformers runs, so for it any `OWNER/NAME` may be a model.
    """
    from transformer_lens.loading_from_pretrained import make_model_alias_map

    names = make_model_alias_map()
    if backend == "bridge" and name.lower() not in names and re.fullmatch(r"[\w-]+/[\w.-]+", name):
        return name
    if name.lower() not in names:
        from difflib import get_close_matches

        near = [names[n] for n in get_close_matches(name.lower(), names, n=5, cutoff=0.5)]
        what = "no such folder, and no known model" if os.sep in name or name.startswith(".") else "not a known model"
        raise InputError(
            f"model {name!r} is {what}; similar names: {', '.join(dict.fromkeys(near)) or 'none'} (`nvs list models`)"
        )
    official = names[name.lower()]
    if official.startswith(UNPICKLED) and not trust_remote_code:
        raise InputError(
            f"model {official} is published as a pickle, which can run code when it is loaded: pass trust_remote_code=True "
            "(--trust-remote-code) if you trust it"
        )
    return official


def model_commit(name: str, revision: str | None = None) -> str | None:
    """The hub's commit of a model that has been loaded by name, from the local cache; None of a folder."""
    from transformer_lens.loading_from_pretrained import make_model_alias_map

    name = hub_name(name)
    return None if located(name).is_dir() else commit(make_model_alias_map().get(name.lower(), name), revision)


def known_models() -> list[tuple[str, str]]:
    """(name, what it is) of every model that can be loaded by name: presets, and transformer-lens' with their aliases."""
    from transformer_lens.supported_models import MODEL_ALIASES, OFFICIAL_MODEL_NAMES

    ours = [(name, preset.summary) for name, preset in presets().items()]
    return ours + [(name, ", ".join(MODEL_ALIASES.get(name, ()))) for name in OFFICIAL_MODEL_NAMES]
