"""Model folders on disk: what a Hugging Face checkpoint must hold, and what it is called."""

import json
from pathlib import Path

from neuron_vs_sae.core.errors import InputError


def checked_folder(folder: Path) -> Path:
    """The folder. Raises `InputError` where it lacks what a checkpoint holds."""
    if not (folder / "config.json").exists():
        raise InputError(f"{folder} is no model folder: it has no config.json (a Hugging Face checkpoint has one)")
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{folder}/config.json is damaged: {error}") from error
    if not isinstance(config, dict) or not config.get("architectures"):
        raise InputError(f"{folder}/config.json names no 'architectures', so it does not say which kind of model it is")
    if not list(folder.glob("*.safetensors")):
        raise InputError(
            f"{folder} has no *.safetensors: save the model with model.save_pretrained(folder) (pickled weights are not read)"
        )
    if not list(folder.glob("tokenizer*")):
        raise InputError(f"{folder} has no tokenizer: save it with tokenizer.save_pretrained(folder)")
    return folder


def called(folder: Path) -> str:
    """A folder's name; in the hub's cache, where that is a commit, its model's."""
    cached = folder.parent.parent.name
    return (
        cached.split("--")[-1] if folder.parent.name == "snapshots" and cached.startswith("models--") else folder.name
    )
