"""Load a model, from a hub name or a local folder: the only file that knows how."""

import contextlib
import io
import json
import os
import re
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal
from unittest.mock import patch

import torch
from jaxtyping import Float
from torch import Tensor

from neuron_vs_sae.architectures import settings
from neuron_vs_sae.errors import InputError, check_choice
from neuron_vs_sae.hub import commit
from neuron_vs_sae.presets import hub_name, located, presets

DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16, "float16": torch.float16}

Backend = Literal["hooked", "bridge"]
"""transformer-lens' own implementation of a model, or its hooks around transformers'."""

# Their loaders in transformer-lens unpickle files, which can run code.
_UNPICKLED = ("NeelNanda/", "ArthurConmy/", "Baidicoot/")


def load_model(
    name: str | Path,
    *,
    dtype: str = "float32",
    device: str | None = None,
    backend: Backend = "hooked",
    revision: str | None = None,
    process_weights: bool = False,
    trust_remote_code: bool = False,
) -> Any:
    """A model by preset, hub name or from a local Hugging Face folder, parameters frozen, ready for evaluation.

    `backend` is transformer-lens' `HookedTransformer` (hooked) or its `TransformerBridge`, which runs transformers' own
    code behind the same hooks: they differ by rounding. `revision` is a branch, tag or commit of the hub.
    Weights are taken as they are unless `process_weights` (fold_ln, centring): SAEs are trained on raw activations.
    `device` defaults to CUDA where there is one. Nothing is downloaded for a local folder; no remote code is run unless
    `trust_remote_code`. Raises `InputError` for an unknown name, an incomplete or damaged folder, weights that are not
    finite, and a folder whose logits come out other than transformers' own (float32 and float64).
    """
    if dtype not in DTYPES:
        raise InputError(f"no dtype {dtype!r}; there are: {', '.join(DTYPES)}")
    check_choice("backend", backend, Backend)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device {device!r} (--device) cannot be used: {str(error).splitlines()[0]}") from error
    options = {"dtype": DTYPES[dtype], "device": device, "trust_remote_code": trust_remote_code}
    name = hub_name(str(name))
    folder = located(name)
    if folder.is_dir():
        if revision is not None:
            raise InputError(f"{folder} is a folder, which has no revision {revision!r}: only models of the hub have")
        build = partial(_from_folder, folder.resolve())
    else:
        build = partial(_from_hub, _official_name(name, trust_remote_code, backend), revision)
    try:
        with _quiet():
            model = build(backend, process_weights, options)
    except InputError:
        raise
    except Exception as error:  # transformers and transformer-lens raise of every kind on files they make no sense of
        raise InputError(f"model {name!s} cannot be loaded: {error}") from error
    return prepare(model)


def _from_hub(name: str, revision: str | None, backend: Backend, process_weights: bool, options: dict[str, Any]) -> Any:
    from transformer_lens import loading_from_pretrained as loading
    from transformers import AutoTokenizer

    if revision is not None:
        trust = options["trust_remote_code"]
        tokenizer = AutoTokenizer.from_pretrained(name, revision=revision, trust_remote_code=trust)
        options = {**options, "revision": revision, "tokenizer": tokenizer}
    # transformer-lens turns remote code on by itself for the names on this list.
    with patch.object(loading, "NEED_REMOTE_CODE_MODELS", ()):
        return _builder(backend, process_weights)(name, **options)


def _from_folder(folder: Path, backend: Backend, process_weights: bool, options: dict[str, Any]) -> Any:
    from transformer_lens import loading_from_pretrained as loading
    from transformers import AutoModelForCausalLM, AutoTokenizer

    _check_folder(folder)
    local = {"local_files_only": True, "trust_remote_code": options["trust_remote_code"]}
    auto: Any = AutoModelForCausalLM  # annotated as if it never returned the loading information
    theirs, found = auto.from_pretrained(
        folder,
        dtype=options["dtype"],
        use_safetensors=True,
        output_loading_info=True,
        attn_implementation="eager",  # the only one whose patterns the bridge can show
        **local,
    )
    lacking = sorted([*found["missing_keys"], *(key for key, *_ in found["mismatched_keys"])])
    if lacking:
        raise InputError(
            f"{folder} lacks weights that its config.json asks for: {', '.join(lacking[:3])}"
            f"{' and others' if len(lacking) > 3 else ''}; they would be random"
        )
    config = theirs.config
    size = config.get_text_config().vocab_size
    # Before the bridge, which works inside `theirs`, has touched it.
    expected = _log_probabilities(theirs, size) if options["dtype"] in (torch.float32, torch.float64) else None
    if config.model_type == "gpt2":
        config.n_ctx = config.n_positions  # transformers 5 no longer saves it, and transformer-lens asks for it
    # transformer-lens guesses a model's family from its path ("llama", "bert", "t5" anywhere in it), and some families'
    # shape too. It is given a name of which it makes nothing, and the folder's own configuration when it looks that up.
    read, own = SimpleNamespace(from_pretrained=lambda *_, **__: config), loading.convert_hf_model_config

    def convert(*given: Any, **options: Any) -> dict[str, Any]:
        return settings(config, lambda: own(*given, **options))

    tokenizer = AutoTokenizer.from_pretrained(folder, **local)
    with patch.multiple(loading, AutoConfig=read, convert_hf_model_config=convert):
        name = str(folder) if backend == "bridge" else "gpt2"
        model = _builder(backend, process_weights)(name, hf_model=theirs, tokenizer=tokenizer, **options)
    model.cfg.model_name, model.cfg.tokenizer_name = folder.name, str(folder)
    if expected is not None:
        _check(_log_probabilities(model, size), expected, folder, backend)
    return model


def _builder(backend: Backend, process_weights: bool) -> Callable[..., Any]:
    from transformer_lens import HookedTransformer
    from transformer_lens.model_bridge import TransformerBridge
    from transformer_lens.model_bridge.generalized_components.normalization import NormalizationBridge

    if backend == "hooked":
        return HookedTransformer.from_pretrained if process_weights else HookedTransformer.from_pretrained_no_processing

    def boot(name: str, **options: Any) -> Any:
        model = TransformerBridge.boot_transformers(name, **options)
        model.cfg.model_name = name.split("/")[-1]
        if process_weights:
            model.enable_compatibility_mode(disable_warnings=True)
        for norm in model.modules():
            if isinstance(norm, NormalizationBridge):
                # Or a norm would be computed in one way with hooks on it and in another without.
                norm.use_native_layernorm_autograd = False
                own = norm.original_component
                if own is not None and getattr(own, "weight", None) is None:  # OLMo's; the bridge multiplies by it
                    own.register_buffer("weight", torch.ones(()), persistent=False)
        return model

    return boot


def _log_probabilities(model: Any, size: int) -> Float[Tensor, "1 pos vocab"]:
    """Of random tokens."""
    tokens = torch.randint(size, (1, 16), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = model.eval()(tokens.to(next(model.parameters()).device))
    return getattr(found, "logits", found).cpu().log_softmax(-1)


def _check(
    ours: Float[Tensor, "1 pos vocab"], expected: Float[Tensor, "1 pos vocab"], folder: Path, backend: Backend
) -> None:
    """transformer-lens passes over settings that it does not know (kinds of rope scaling, biases): the numbers tell."""
    difference = float((ours - expected).abs().max())
    if difference > 1e-2:
        raise InputError(
            f"{folder} computes other numbers in transformer-lens than in transformers (log probabilities differ by "
            f"{difference:.2g}): its config.json has a setting that transformer-lens does not know"
            + (". Try --backend bridge, which runs transformers' own code" if backend == "hooked" else "")
        )


def prepare(model: Any) -> Any:
    """Any HookedTransformer or TransformerBridge made ready: parameters frozen, dropout off. Raises `InputError` for weights not finite."""
    bad = [n.replace("._original_component", "") for n, p in model.named_parameters() if not bool(p.isfinite().all())]
    if bad:
        raise InputError(
            f"model '{model.cfg.model_name}' has NaN or infinite weights in {', '.join(bad[:3])}"
            f"{' and others' if len(bad) > 3 else ''}: its file is damaged, or its dtype too narrow"
        )
    return model.eval().requires_grad_(False)


def model_commit(name: str, revision: str | None = None) -> str | None:
    """The hub's commit of a model that has been loaded by name, from the local cache; None of a folder."""
    from transformer_lens.loading_from_pretrained import make_model_alias_map

    name = hub_name(name)
    return None if located(name).is_dir() else commit(make_model_alias_map().get(name.lower(), name), revision)


def same_model(a: str, b: str) -> bool:
    """Whether two names mean one model: the same, aliases of one, or equal but for the organisation before `/`."""
    from transformer_lens.loading_from_pretrained import make_model_alias_map

    aliases = make_model_alias_map()

    def canonical(name: str) -> str:
        name = hub_name(name)
        known = aliases.get(name.lower(), name)
        return known.split("/")[-1].lower()

    return canonical(a) == canonical(b)


def _check_folder(folder: Path) -> None:
    if not (folder / "config.json").exists():
        raise InputError(f"{folder} is no model folder: it has no config.json (a Hugging Face checkpoint has one)")
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{folder}/config.json is damaged: {error}") from error
    if not isinstance(config, dict) or not config.get("architectures"):
        raise InputError(f"{folder}/config.json names no 'architectures', so what the model is is not known")
    if not list(folder.glob("*.safetensors")):
        raise InputError(
            f"{folder} has no *.safetensors: save the model with model.save_pretrained(folder) (pickled weights are not read)"
        )
    if not list(folder.glob("tokenizer*")):
        raise InputError(f"{folder} has no tokenizer: save it with tokenizer.save_pretrained(folder)")


def _official_name(name: str, trust_remote_code: bool, backend: Backend) -> str:
    """The name on the hub. Raises `InputError` for one that is not known, and for a pickle that is not trusted.

    The bridge runs what transformers runs, so to it any `OWNER/NAME` may be one.
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
            f"model {name!r} is {what}; names near it: {', '.join(dict.fromkeys(near)) or 'none'} (`nvs list models`)"
        )
    official = names[name.lower()]
    if official.startswith(_UNPICKLED) and not trust_remote_code:
        raise InputError(
            f"model {official} is published as a pickle, which can run code when it is loaded: pass trust_remote_code=True "
            "(--trust-remote-code) if you trust it"
        )
    return official


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without transformer-lens' deprecation warning, its line on standard output, and transformers' progress bar."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        try:
            yield
        finally:
            if shown:
                logging.enable_progress_bar()


def known_models() -> list[tuple[str, str]]:
    """(name, what it is) of every model that can be loaded by name: presets, and transformer-lens' with their aliases."""
    from transformer_lens.supported_models import MODEL_ALIASES, OFFICIAL_MODEL_NAMES

    ours = [(name, preset.summary) for name, preset in presets().items()]
    return ours + [(name, ", ".join(MODEL_ALIASES.get(name, ()))) for name in OFFICIAL_MODEL_NAMES]
