"""Load a model, from a hub name or a local folder: the only file that knows how."""

import contextlib
import io
import json
import os
import re
import subprocess
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import patch

import torch
from jaxtyping import Float
from torch import Tensor

from neuron_vs_sae.core.conventions import Backend
from neuron_vs_sae.core.errors import InputError, check_choice
from neuron_vs_sae.models.architectures import settings
from neuron_vs_sae.models.hub import commit
from neuron_vs_sae.models.presets import hub_name, located, presets

DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16, "float16": torch.float16}


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
    n_devices: int = 1,
) -> Any:
    """A model by preset, hub name or from a local Hugging Face folder, parameters frozen, ready for evaluation.

    `backend` is transformer-lens' `HookedTransformer` (hooked) or its `TransformerBridge`, which runs transformers' own
    code behind the same hooks: they differ by rounding. `revision` is a branch, tag or commit of the hub.
    Weights are taken as they are unless `process_weights` (fold_ln, centring): SAEs are trained on raw activations.
    `device` defaults to CUDA where there is one; `n_devices` GPUs share its layers, by transformer-lens' own means. Nothing
    is downloaded for a local folder; no remote code is run unless `trust_remote_code`. Raises `InputError` for an unknown
    name, an incomplete or damaged folder, weights that are not finite, and log probabilities other than transformers' own
    (by more than .01; in half precision, by more than .2 on average).
    """
    if dtype not in DTYPES:
        raise InputError(f"no dtype {dtype!r}; there are: {', '.join(DTYPES)}")
    check_choice("backend", backend, Backend)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device {device!r} (--device) cannot be used: {str(error).splitlines()[0]}") from error
    there = torch.cuda.device_count() if device == "cuda" else 1
    if not 1 <= n_devices <= there:
        raise InputError(
            f"{n_devices} devices are asked for (--n-devices), and there are {there} of kind {device!r}: a model is spread over "
            "the GPUs of one machine"
        )
    options = {"dtype": DTYPES[dtype], "device": device, "trust_remote_code": trust_remote_code}
    name = hub_name(str(name))
    folder = located(name)
    if folder.is_dir():
        if revision is not None:
            raise InputError(f"{folder} is a folder, which has no revision {revision!r}: only models of the hub have")
        build = partial(_through_transformers, _checked(folder.resolve()), None)
    else:
        official = _official_name(name, trust_remote_code, backend)
        build = partial(
            _published_otherwise if official.startswith(_UNPICKLED) else _through_transformers, official, revision
        )
    try:
        with _quiet():
            model = build(backend, process_weights, n_devices, options)
    except InputError:
        raise
    except Exception as error:  # transformers and transformer-lens raise of every kind on files they make no sense of
        raise InputError(f"model {name!s} cannot be loaded: {error}") from error
    return prepare(model)


def _published_otherwise(
    name: str, revision: str | None, backend: Backend, process_weights: bool, n_devices: int, options: dict[str, Any]
) -> Any:
    """A model that transformers does not know, loaded by transformer-lens alone."""
    if revision is not None:
        raise InputError(
            f"model {name} is published in transformer-lens' own form, which it loads at its newest only: "
            f"revision {revision!r} cannot be had"
        )
    return _builder(backend, process_weights)(name, n_devices=n_devices, **options)


def _through_transformers(
    source: str | Path,
    revision: str | None,
    backend: Backend,
    process_weights: bool,
    n_devices: int,
    options: dict[str, Any],
) -> Any:
    """A folder or a model of the hub, as transformers reads it and transformer-lens runs it; and that the two agree."""
    from transformer_lens import loading_from_pretrained as loading
    from transformers import AutoModelForCausalLM, AutoTokenizer

    local = isinstance(source, Path)
    where: dict[str, Any] = {"trust_remote_code": options["trust_remote_code"], "local_files_only": local}
    if revision is not None:
        where["revision"] = revision
    auto: Any = AutoModelForCausalLM  # annotated as if it never returned the loading information
    theirs, found = auto.from_pretrained(
        source,
        dtype=options["dtype"],
        use_safetensors=True if local else None,
        output_loading_info=True,
        attn_implementation="eager",  # the only one whose patterns the bridge can show
        **({"device_map": "balanced"} if n_devices > 1 and backend == "bridge" else {}),
        **where,
    )
    lacking = sorted([*found["missing_keys"], *(key for key, *_ in found["mismatched_keys"])])
    if lacking:
        raise InputError(
            f"{source} lacks weights that its config.json asks for: {', '.join(lacking[:3])}"
            f"{' and others' if len(lacking) > 3 else ''}; they would be random"
        )
    config = theirs.config
    size = config.get_text_config().vocab_size
    expected = _log_probabilities(theirs, size)  # before the bridge, which works inside `theirs`, has touched it
    if config.model_type == "gpt2":
        config.n_ctx = config.n_positions  # transformers 5 no longer saves it, and transformer-lens asks for it
    # transformer-lens guesses a folder's family from its path ("llama", "bert", "t5" anywhere in it), and some families'
    # shape too. It is given a name of which it makes nothing, and the model's own configuration when it looks that up.
    read, own = SimpleNamespace(from_pretrained=lambda *_, **__: config), loading.convert_hf_model_config

    def convert(*given: Any, **options: Any) -> dict[str, Any]:
        return settings(config, lambda: own(*given, **options))

    tokenizer = AutoTokenizer.from_pretrained(source, **where)
    # transformer-lens turns remote code on by itself for the names on its list.
    with patch.multiple(loading, AutoConfig=read, convert_hf_model_config=convert, NEED_REMOTE_CODE_MODELS=()):
        name = "gpt2" if local and backend == "hooked" else str(source)
        spread = {"n_devices": n_devices} if backend == "hooked" else {}
        model = _builder(backend, process_weights)(name, hf_model=theirs, tokenizer=tokenizer, **spread, **options)
    if local:
        model.cfg.model_name, model.cfg.tokenizer_name = _called(source), str(source)
    if not bool(expected.isfinite().all()):
        prepare(model)  # which names the weights, where it is they
        raise InputError(
            f"{source} gives NaN or infinite logits in transformers too: {options['dtype']} is too narrow for it "
            "(--dtype bfloat16 or float32)"
        )
    hint = ". Try --backend bridge, which runs transformers' own code" if backend == "hooked" else ""
    try:
        ours = _log_probabilities(model, size)
    except RuntimeError as error:
        raise InputError(f"transformer-lens cannot run {source} in {options['dtype']} ({error}){hint}") from error
    _check(ours, expected, source, options["dtype"], hint)
    return model


def _called(folder: Path) -> str:
    """A folder's name; in the hub's cache, where that is a commit, its model's."""
    cached = folder.parent.parent.name
    return (
        cached.split("--")[-1] if folder.parent.name == "snapshots" and cached.startswith("models--") else folder.name
    )


def _builder(backend: Backend, process_weights: bool) -> Callable[..., Any]:
    from transformer_lens import HookedTransformer
    from transformer_lens.model_bridge import TransformerBridge
    from transformer_lens.model_bridge.generalized_components.normalization import NormalizationBridge

    if backend == "hooked":
        return HookedTransformer.from_pretrained if process_weights else HookedTransformer.from_pretrained_no_processing

    def boot(name: str, **options: Any) -> Any:
        # Where a model also sees and its processor is not there, transformer-lens would run `pip install torchvision`, which
        # brings another torch: of what a user has installed nothing is changed, and no image is needed here.
        with patch.object(subprocess, "check_call", side_effect=OSError("nothing is installed")):
            model = TransformerBridge.boot_transformers(name, **options)
        model.cfg.model_name = name.split("/")[-1]
        if process_weights:
            model.enable_compatibility_mode(disable_warnings=True)
        for norm in model.modules():
            if isinstance(norm, NormalizationBridge):
                # Or a norm would be computed in one way with hooks on it and in another without.
                norm.use_native_layernorm_autograd = False
                own, config = norm.original_component, cast(Any, norm.config)
                if type(own).__name__ in ("Qwen3_5RMSNorm", "Qwen3_5MoeRMSNorm"):
                    config.rmsnorm_uses_offset = True  # 1 + weight, which the bridge does not know
                if own is not None and getattr(own, "weight", None) is None:  # OLMo's; the bridge multiplies by it
                    own.register_buffer("weight", torch.ones(()), persistent=False)
        return model

    return boot


def _log_probabilities(model: Any, size: int) -> Float[Tensor, "1 pos vocab"]:
    """Of random tokens."""
    tokens = torch.randint(size, (1, 16), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found = model.eval()(tokens.to(next(model.parameters()).device))
    return getattr(found, "logits", found).cpu().double().log_softmax(-1)


def _check(
    ours: Float[Tensor, "1 pos vocab"],
    expected: Float[Tensor, "1 pos vocab"],
    source: str | Path,
    dtype: torch.dtype,
    hint: str,
) -> None:
    """transformer-lens passes over settings that it does not know (kinds of rope scaling, biases): the numbers tell.

    In half precision two right ways round differently at every layer, so there it is the mean that tells.
    """
    apart = (ours - expected).abs()
    half = dtype in (torch.bfloat16, torch.float16)
    difference, bound = (float(apart.mean()), 0.2) if half else (float(apart.max()), 1e-2)
    if not difference <= bound:
        raise InputError(
            f"{source} computes other numbers in transformer-lens than in transformers (log probabilities differ by "
            f"{difference:.2g}{' on average' if half else ''}): its config.json has a setting that transformer-lens does not "
            f"know{hint}"
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


def _checked(folder: Path) -> Path:
    """The folder. Raises `InputError` where it lacks what a checkpoint holds."""
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
    return folder


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
