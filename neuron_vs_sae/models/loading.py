"""Load a model, from a hub name or a local folder: the only file that knows how."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from neuron_vs_sae.core.conventions import Backend
from neuron_vs_sae.core.errors import InputError, check_choice
from neuron_vs_sae.core.reading import exists
from neuron_vs_sae.models.agreement import check_agreement, log_probabilities
from neuron_vs_sae.models.folders import called, check_weights_fit, checked_folder
from neuron_vs_sae.models.hub import check_cached, why
from neuron_vs_sae.models.names import UNPICKLED, official_name
from neuron_vs_sae.models.patches import configured_by, correct_norms, nothing_installed, quiet
from neuron_vs_sae.models.presets import hub_name, located

DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16, "float16": torch.float16}


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
    Weights are left as they are unless `process_weights` (fold_ln, centring): SAEs are trained on raw activations.
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
            f"{n_devices} devices were requested (--n-devices), and there are {there} of kind {device!r}: a model is spread over "
            "the GPUs of one machine"
        )
    options = {"dtype": DTYPES[dtype], "device": device, "trust_remote_code": trust_remote_code}
    name = hub_name(str(name))
    folder = located(name)
    local = exists(folder) and folder.is_dir()
    if local:
        if revision is not None:
            raise InputError(f"{folder} is a folder, which has no revision {revision!r}: only models of the hub have")
        build = partial(_through_transformers, checked_folder(folder.resolve()), None)
    else:
        name = official_name(name, trust_remote_code, backend)
        build = partial(_published_otherwise if name.startswith(UNPICKLED) else _through_transformers, name, revision)
    try:
        with quiet():
            model = build(backend, process_weights, n_devices, options)
    except InputError:
        raise
    except (
        Exception
    ) as error:  # transformers and transformer-lens raise errors of many types on files that they cannot read
        if not local:
            check_cached(name, revision)
        raise InputError(f"model {name!s} cannot be loaded: {error if local else why(error)}") from error
    if not local:
        check_cached(name, revision)
    return prepare(model)


def _published_otherwise(
    name: str, revision: str | None, backend: Backend, process_weights: bool, n_devices: int, options: dict[str, Any]
) -> Any:
    """A model that transformers does not know, loaded by transformer-lens alone."""
    if revision is not None:
        raise InputError(
            f"model {name} is published in transformer-lens' own form, of which it loads the newest only: "
            f"revision {revision!r} is not available"
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
    """A folder or hub model, read by transformers and run by transformer-lens, after checking that the two agree."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    local = isinstance(source, Path)
    where: dict[str, Any] = {"trust_remote_code": options["trust_remote_code"], "local_files_only": local}
    if revision is not None:
        where["revision"] = revision
    auto: Any = AutoModelForCausalLM  # annotated as if it never returned the loading information
    theirs, info = auto.from_pretrained(
        source,
        dtype=options["dtype"],
        use_safetensors=True if local else None,
        output_loading_info=True,
        attn_implementation="eager",  # the only one whose patterns the bridge can show
        **({"device_map": "balanced"} if n_devices > 1 and backend == "bridge" else {}),
        **where,
    )
    check_weights_fit(source, info, theirs.config)
    config = theirs.config
    size, n_parameters = config.get_text_config().vocab_size, theirs.num_parameters()
    expected = log_probabilities(theirs, size)  # before the bridge, which works inside `theirs`, has touched it
    tokenizer = AutoTokenizer.from_pretrained(source, **where)
    with configured_by(config):
        name = "gpt2" if local and backend == "hooked" else str(source)
        spread = {"n_devices": n_devices} if backend == "hooked" else {}
        model = _builder(backend, process_weights)(name, hf_model=theirs, tokenizer=tokenizer, **spread, **options)
    if local:
        model.cfg.model_name, model.cfg.tokenizer_name = called(source), str(source)
    # transformer-lens unties embeddings and adds biases of 0, so a count of its tensors is no published one.
    model.n_parameters = n_parameters
    if not bool(expected.isfinite().all()):
        prepare(model)  # names the weights, where they are the cause
        raise InputError(
            f"{source} gives NaN or infinite logits in transformers too: {options['dtype']} is too narrow for it "
            "(--dtype bfloat16 or float32)"
        )
    hint = ". Try --backend bridge, which runs transformers' own code" if backend == "hooked" else ""
    try:
        ours = log_probabilities(model, size)
    except RuntimeError as error:
        raise InputError(f"transformer-lens cannot run {source} in {options['dtype']} ({error}){hint}") from error
    check_agreement(ours, expected, source, options["dtype"], hint)
    return model


def _builder(backend: Backend, process_weights: bool) -> Callable[..., Any]:
    from transformer_lens import HookedTransformer
    from transformer_lens.model_bridge import TransformerBridge

    if backend == "hooked":
        return HookedTransformer.from_pretrained if process_weights else HookedTransformer.from_pretrained_no_processing

    def boot(name: str, **options: Any) -> Any:
        with nothing_installed():
            model = TransformerBridge.boot_transformers(name, **options)
        model.cfg.model_name = name.split("/")[-1]
        if process_weights:
            model.enable_compatibility_mode(disable_warnings=True)
        correct_norms(model)
        return model

    return boot


def prepare(model: Any) -> Any:
    """Any HookedTransformer or TransformerBridge made ready: parameters frozen, dropout off. Raises `InputError` for weights not finite."""
    bad = [n.replace("._original_component", "") for n, p in model.named_parameters() if not bool(p.isfinite().all())]
    if bad:
        raise InputError(
            f"model '{model.cfg.model_name}' has NaN or infinite weights in {', '.join(bad[:3])}"
            f"{' and others' if len(bad) > 3 else ''}: its file is damaged, or its dtype too narrow"
        )
    return model.eval().requires_grad_(False)
