"""Every patch of transformers and transformer-lens, each in force only while a model loads."""

import contextlib
import io
import subprocess
import warnings
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import patch

import torch

from neuron_vs_sae.models.architectures import settings


@contextlib.contextmanager
def quiet() -> Iterator[None]:
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


@contextlib.contextmanager
def configured_by(config: Any) -> Iterator[None]:
    """Make transformer-lens take a model's shape from the model's own configuration, as `architectures.settings` reads it.

    Left to itself it guesses a folder's family from its path ("llama", "bert", "t5" anywhere in it) and some families' shape from
    their name, and turns on remote code for the names on a list of its own.
    """
    from transformer_lens import loading_from_pretrained as loading

    if config.model_type == "gpt2":
        config.n_ctx = config.n_positions  # transformers 5 no longer saves it, and transformer-lens asks for it
    read, convert = SimpleNamespace(from_pretrained=lambda *_, **__: config), loading.convert_hf_model_config

    def converted(*given: Any, **options: Any) -> dict[str, Any]:
        return settings(config, lambda: convert(*given, **options))

    with patch.multiple(loading, AutoConfig=read, convert_hf_model_config=converted, NEED_REMOTE_CODE_MODELS=()):
        yield


@contextlib.contextmanager
def nothing_installed() -> Iterator[None]:
    """Keep transformer-lens from running `pip install torchvision`, which replaces torch, for a model that also reads images and
    whose image processor is missing. No image is needed here."""
    with patch.object(subprocess, "check_call", side_effect=OSError("nothing is installed")):
        yield


def correct_norms(model: Any) -> None:
    """Make a bridge's norms compute what transformers' do, with hooks on them and without."""
    from transformer_lens.model_bridge.generalized_components.normalization import NormalizationBridge

    for norm in model.modules():
        if isinstance(norm, NormalizationBridge):
            # Otherwise a norm would be computed one way with hooks on it and another way without.
            norm.use_native_layernorm_autograd = False
            own, config = norm.original_component, cast(Any, norm.config)
            if type(own).__name__ in ("Qwen3_5RMSNorm", "Qwen3_5MoeRMSNorm"):
                config.rmsnorm_uses_offset = True  # 1 + weight, which the bridge does not know
            if own is not None and getattr(own, "weight", None) is None:  # OLMo's; the bridge multiplies by it
                own.register_buffer("weight", torch.ones(()), persistent=False)
