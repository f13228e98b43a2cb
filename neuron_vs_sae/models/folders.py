"""Checkpoints in Hugging Face form: what one must contain, and what its folder is called."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.core.reading import read_bytes


def checked_folder(folder: Path) -> Path:
    """The folder. Raises `InputError` where it lacks what a checkpoint holds."""
    if not (folder / "config.json").exists():
        raise InputError(f"{folder} is not a model folder: it has no config.json (a Hugging Face checkpoint has one)")
    config = _json(folder / "config.json")
    if not isinstance(config, dict) or not config.get("architectures"):
        raise InputError(f"{folder}/config.json names no 'architectures', so it does not say which kind of model it is")
    if not list(folder.glob("*.safetensors")):
        raise InputError(
            f"{folder} has no *.safetensors: save the model with model.save_pretrained(folder) (pickled weights are not read)"
        )
    if not list(folder.glob("tokenizer*")):
        raise InputError(f"{folder} has no tokenizer: save it with tokenizer.save_pretrained(folder)")
    for index in folder.glob("*.index.json"):
        _check_index(index)
    return folder


def _json(file: Path) -> Any:
    try:
        return json.loads(read_bytes(file).decode("utf-8"))
    except (ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{file} is damaged: {error}") from error


def _check_index(index: Path) -> None:
    """Raises `InputError` where a list of a checkpoint's files names one outside its folder."""
    listed = _json(index)
    weights = listed.get("weight_map") if isinstance(listed, dict) else None
    if not isinstance(weights, dict) or not all(isinstance(name, str) for name in weights.values()):
        raise InputError(f"{index} is damaged: it has no 'weight_map' from weights to files")
    for name in sorted(set(weights.values())):
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise InputError(f"{index} names {name!r}, which is not in the model's folder: no file outside it is read")


def called(folder: Path) -> str:
    """A folder's name; in the hub's cache, where the folder is named by a commit, the model's name."""
    cached = folder.parent.parent.name
    return (
        cached.split("--")[-1] if folder.parent.name == "snapshots" and cached.startswith("models--") else folder.name
    )


# Layers that a checkpoint may hold beside the decoder's: for multi-token prediction, images and sound.
_BESIDE_THE_DECODER = re.compile(r"(^|[._])(mtp|nextn|vision|visual|audio)")


def check_weights_fit(source: str | Path, info: Mapping[str, Any], config: Any) -> None:
    """Raises `InputError` where a checkpoint lacks weights of its configuration's model, or holds further decoder layers.

    `info` is what transformers says of the loading, `config` the model's configuration.
    """
    lacking = sorted([*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])])
    if lacking:
        raise InputError(
            f"{source} lacks weights that its config.json asks for: {_listed(lacking)}; they would be random"
        )
    layers = config.get_text_config().num_hidden_layers
    further = [
        key
        for key in sorted(info["unexpected_keys"])
        if (layer := re.search(r"(?:^|\.)(?:layers|h)\.(\d+)\.", key))
        and int(layer[1]) >= layers
        and not _BESIDE_THE_DECODER.search(key)
    ]
    if further:
        raise InputError(
            f"{source} holds weights of more than the {layers} layers of its config.json: {_listed(further)}; the model would run "
            "without them. Correct num_hidden_layers, or save the model again"
        )


def _listed(keys: list[str]) -> str:
    return f"{', '.join(keys[:3])}{' and others' if len(keys) > 3 else ''}"
