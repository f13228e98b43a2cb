"""Load a model, from a hub name or a local folder: the only file that knows how."""

import contextlib
import hashlib
import io
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from neuron_vs_sae.errors import InputError

DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16, "float16": torch.float16}

# Their loaders in transformer-lens unpickle files, which can run code.
_UNPICKLED = ("NeelNanda/", "ArthurConmy/", "Baidicoot/")


def load_model(
    name: str | Path,
    *,
    dtype: str = "float32",
    device: str | None = None,
    process_weights: bool = False,
    trust_remote_code: bool = False,
) -> Any:
    """A `HookedTransformer` by hub name or from a local Hugging Face folder, parameters frozen, ready for evaluation.

    Weights are taken as they are unless `process_weights` (fold_ln, centring): SAEs are trained on raw activations.
    `device` defaults to CUDA where there is one. Nothing is downloaded for a local folder; no remote code is run unless
    `trust_remote_code`. Raises `InputError` for an unknown name, an incomplete folder, or weights that are not finite.
    """
    if dtype not in DTYPES:
        raise InputError(f"no dtype {dtype!r}; there are: {', '.join(DTYPES)}")
    import transformer_lens
    from transformer_lens import HookedTransformer, loading_from_pretrained
    from transformer_lens.supported_models import OFFICIAL_MODEL_NAMES

    del transformer_lens
    local = Path(name).is_dir()
    label = str(Path(name).resolve()) if local else str(name)
    if local:
        _check_folder(Path(name))
    else:
        label = _official_name(label)
        if label.startswith(_UNPICKLED) and not trust_remote_code:
            raise InputError(
                f"model {label} is published as a pickle, which can run code when it is loaded: pass trust_remote_code=True "
                "(--trust-remote-code) if you trust it"
            )
    build = HookedTransformer.from_pretrained if process_weights else HookedTransformer.from_pretrained_no_processing
    options: dict[str, Any] = {"trust_remote_code": True} if trust_remote_code else {}
    listed = [label] if local else []
    remote = loading_from_pretrained.NEED_REMOTE_CODE_MODELS
    try:
        # transformer-lens takes a folder once it is on its list of names, and turns remote code on for some names.
        OFFICIAL_MODEL_NAMES.extend(listed)
        loading_from_pretrained.NEED_REMOTE_CODE_MODELS = remote if trust_remote_code else ()
        with _quiet():
            model = build(
                label, device=device or ("cuda" if torch.cuda.is_available() else "cpu"), dtype=DTYPES[dtype], **options
            )
    except (OSError, ValueError, KeyError, NotImplementedError) as error:
        raise InputError(f"model {name!s} cannot be loaded: {error}") from error
    finally:
        loading_from_pretrained.NEED_REMOTE_CODE_MODELS = remote
        for one in listed:
            OFFICIAL_MODEL_NAMES.remove(one)
    if local:
        model.cfg.model_name = Path(label).name
    return prepare(model)


def prepare(model: Any) -> Any:
    """Any HookedTransformer made ready: parameters frozen, dropout off. Raises `InputError` for weights not finite."""
    bad = [n for n, p in model.named_parameters() if not bool(p.isfinite().all())]
    if bad:
        raise InputError(
            f"model '{model.cfg.model_name}' has NaN or infinite weights in {', '.join(bad[:3])}"
            f"{' and others' if len(bad) > 3 else ''}: its file is damaged, or its dtype too narrow"
        )
    return model.eval().requires_grad_(False)


def same_model(a: str, b: str) -> bool:
    """Whether two names mean one model: the same, aliases of one, or equal but for the organisation before `/`."""
    from transformer_lens.loading_from_pretrained import make_model_alias_map

    aliases = make_model_alias_map()

    def canonical(name: str) -> str:
        known = aliases.get(name.lower(), name)
        return known.split("/")[-1].lower()

    return canonical(a) == canonical(b)


def fingerprint(name: str | Path) -> dict[str, str]:
    """What identifies the weights: SHA-256 of a local folder's files; for a hub model the snapshot in the cache."""
    folder = Path(name)
    if not folder.is_dir():
        return {"name": str(name)}
    digest = hashlib.sha256()
    for file in sorted([*folder.glob("*.safetensors"), *folder.glob("*.json")]):
        digest.update(file.name.encode())
        with file.open("rb") as stream:
            while chunk := stream.read(1 << 22):
                digest.update(chunk)
    return {"name": folder.resolve().name, "sha256": digest.hexdigest()}


def _check_folder(folder: Path) -> None:
    if not (folder / "config.json").exists():
        raise InputError(f"{folder} is no model folder: it has no config.json (a Hugging Face checkpoint has one)")
    if not list(folder.glob("*.safetensors")):
        raise InputError(
            f"{folder} has no *.safetensors: save the model with model.save_pretrained(folder) (pickled weights are not read)"
        )
    if not list(folder.glob("tokenizer*")):
        raise InputError(f"{folder} has no tokenizer: save it with tokenizer.save_pretrained(folder)")


def _official_name(name: str) -> str:
    from transformer_lens.loading_from_pretrained import make_model_alias_map

    names = make_model_alias_map()
    if name.lower() not in names:
        from difflib import get_close_matches

        near = [names[n] for n in get_close_matches(name.lower(), names, n=5, cutoff=0.5)]
        where = "a folder that does not exist" if os.sep in name or name.startswith(".") else "not a known model"
        raise InputError(
            f"model {name!r} is {where}; names near it: {', '.join(dict.fromkeys(near)) or 'none'} (`nvs list models`)"
        )
    return names[name.lower()]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without transformer-lens' deprecation warning, its line on standard output, and transformers' progress bar."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        yield
    if shown:
        logging.enable_progress_bar()


def known_models() -> list[tuple[str, str]]:
    """(hub name, aliases) of every model that can be loaded by name."""
    from transformer_lens.supported_models import MODEL_ALIASES, OFFICIAL_MODEL_NAMES

    return [(name, ", ".join(MODEL_ALIASES.get(name, ()))) for name in OFFICIAL_MODEL_NAMES]
