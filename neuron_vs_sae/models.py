"""Load a model, from a hub name or a local folder: the only file that knows how."""

import contextlib
import io
import json
import os
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch

from neuron_vs_sae.errors import InputError
from neuron_vs_sae.presets import located, presets

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
    """A `HookedTransformer` by preset, hub name or from a local Hugging Face folder, parameters frozen, ready for use.

    Weights are taken as they are unless `process_weights` (fold_ln, centring): SAEs are trained on raw activations.
    `device` defaults to CUDA where there is one. Nothing is downloaded for a local folder; no remote code is run unless
    `trust_remote_code`. Raises `InputError` for an unknown name, an incomplete or damaged folder, weights that are not
    finite, and a folder whose logits come out other than transformers' own (float32 and float64).
    """
    if dtype not in DTYPES:
        raise InputError(f"no dtype {dtype!r}; there are: {', '.join(DTYPES)}")
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"device {device!r} (--device) cannot be used: {str(error).splitlines()[0]}") from error
    options = {"dtype": DTYPES[dtype], "device": device, "trust_remote_code": trust_remote_code}
    known = presets().get(str(name))
    name = known.model if known else name
    folder = located(name)
    if folder.is_dir():
        build = partial(_from_folder, folder.resolve())
    else:
        build = partial(_from_hub, _official_name(str(name), trust_remote_code))
    try:
        with _quiet():
            model = build(process_weights, options)
    except InputError:
        raise
    except Exception as error:  # transformers and transformer-lens raise of every kind on files they make no sense of
        raise InputError(f"model {name!s} cannot be loaded: {error}") from error
    return prepare(model)


def _from_hub(name: str, process_weights: bool, options: dict[str, Any]) -> Any:
    from transformer_lens import loading_from_pretrained as loading

    # transformer-lens turns remote code on by itself for the names on this list.
    with patch.object(loading, "NEED_REMOTE_CODE_MODELS", ()):
        return _builder(process_weights)(name, **options)


def _from_folder(folder: Path, process_weights: bool, options: dict[str, Any]) -> Any:
    from transformer_lens import loading_from_pretrained as loading
    from transformers import AutoModelForCausalLM, AutoTokenizer

    _check_folder(folder)
    local = {"local_files_only": True, "trust_remote_code": options["trust_remote_code"]}
    auto: Any = AutoModelForCausalLM  # annotated as if it never returned the loading information
    theirs, found = auto.from_pretrained(
        folder, dtype=options["dtype"], use_safetensors=True, output_loading_info=True, **local
    )
    lacking = sorted([*found["missing_keys"], *(key for key, *_ in found["mismatched_keys"])])
    if lacking:
        raise InputError(
            f"{folder} lacks weights that its config.json asks for: {', '.join(lacking[:3])}"
            f"{' and others' if len(lacking) > 3 else ''}; they would be random"
        )
    config = theirs.config
    if config.model_type == "gpt2":
        config.n_ctx = config.n_positions  # transformers 5 no longer saves it, and transformer-lens asks for it
    # transformer-lens guesses a model's family from its path ("llama", "bert", "t5" anywhere in it), and Gemma 2's shape
    # too. It is given a name of which it makes nothing, and the folder's own configuration when it looks that up.
    read = SimpleNamespace(from_pretrained=lambda *_, **__: config)
    convert = (lambda *_, **__: _gemma2(config)) if config.model_type == "gemma2" else loading.convert_hf_model_config
    tokenizer = AutoTokenizer.from_pretrained(folder, **local)
    with patch.multiple(loading, AutoConfig=read, convert_hf_model_config=convert):
        model = _builder(process_weights)("gpt2", hf_model=theirs, tokenizer=tokenizer, **options)
    model.cfg.model_name, model.cfg.tokenizer_name = folder.name, str(folder)
    if options["dtype"] in (torch.float32, torch.float64):
        _check_logits(model, theirs, folder)
    return model


def _builder(process_weights: bool) -> Any:
    from transformer_lens import HookedTransformer

    return HookedTransformer.from_pretrained if process_weights else HookedTransformer.from_pretrained_no_processing


def _gemma2(config: Any) -> dict[str, Any]:
    """What transformer-lens has for the published Gemma 2 models by name, for any size."""
    return {
        "original_architecture": "Gemma2ForCausalLM",
        "d_model": config.hidden_size,
        "d_head": config.head_dim,
        "n_heads": config.num_attention_heads,
        "n_key_value_heads": config.num_key_value_heads,
        "d_mlp": config.intermediate_size,
        "n_layers": config.num_hidden_layers,
        "n_ctx": config.max_position_embeddings,
        "d_vocab": config.vocab_size,
        "eps": config.rms_norm_eps,
        "act_fn": config.hidden_activation,
        "normalization_type": "RMS",
        "final_rms": True,
        "use_normalization_before_and_after": True,
        "gated_mlp": True,
        "positional_embedding_type": "rotary",
        "rotary_base": config.rope_parameters["rope_theta"],
        "attn_scale": config.query_pre_attn_scalar**0.5,
        "use_local_attn": True,
        "window_size": config.sliding_window,
        "attn_types": ["local" if kind == "sliding_attention" else "global" for kind in config.layer_types],
        "attn_scores_soft_cap": config.attn_logit_softcapping or -1.0,
        "output_logits_soft_cap": config.final_logit_softcapping or -1.0,
    }


def _check_logits(model: Any, theirs: Any, folder: Path) -> None:
    """transformer-lens passes over settings that it does not know (kinds of rope scaling, biases): the numbers tell."""
    generator = torch.Generator().manual_seed(0)
    length = min(16, model.cfg.n_ctx)
    tokens = torch.randint(model.cfg.d_vocab, (1, length), generator=generator)
    with torch.no_grad():
        ours = model(tokens.to(model.cfg.device)).cpu().log_softmax(-1)
        expected = theirs.eval()(tokens.to(theirs.device)).logits.cpu().log_softmax(-1)
    difference = float((ours - expected).abs().max())
    if difference > 1e-2:
        raise InputError(
            f"{folder} computes other numbers in transformer-lens than in transformers (log probabilities differ by "
            f"{difference:.2g}): its config.json has a setting that transformer-lens does not know"
        )


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


def _official_name(name: str, trust_remote_code: bool) -> str:
    """The name on the hub. Raises `InputError` for one that is not known, and for a pickle that is not trusted."""
    from transformer_lens.loading_from_pretrained import make_model_alias_map

    names = make_model_alias_map()
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
    """(hub name, aliases) of every model that can be loaded by name."""
    from transformer_lens.supported_models import MODEL_ALIASES, OFFICIAL_MODEL_NAMES

    return [(name, ", ".join(MODEL_ALIASES.get(name, ()))) for name in OFFICIAL_MODEL_NAMES]
