"""Small random checkpoints in Hugging Face form, of every architecture: transformers' own classes and configurations."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3Config,
    Gemma3TextConfig,
    GemmaConfig,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MixtralConfig,
    Olmo2Config,
    Olmo3Config,
    OlmoConfig,
    OlmoeConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3_5Config,
    Qwen3_5MoeTextConfig,
    Qwen3_5TextConfig,
    Qwen3Config,
    Qwen3MoeConfig,
)

VOCAB = 23
D_MODEL = 16
_SHAPE = {
    "vocab_size": VOCAB, "hidden_size": D_MODEL, "intermediate_size": 24, "num_hidden_layers": 2,
    "num_attention_heads": 4, "max_position_embeddings": 32, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1,
}  # fmt: skip
_LLAMA3_ROPE = {
    "rope_type": "llama3", "rope_theta": 500.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}  # fmt: skip
# Heads of a size of their own, a scale that is not their root, and every third layer global.
_GEMMA3 = {
    **_SHAPE, "num_hidden_layers": 3, "num_key_value_heads": 2, "head_dim": 6, "query_pre_attn_scalar": 9,
    "sliding_window": 4, "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
    "rope_parameters": {
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
    },
}  # fmt: skip
_EYE = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28}

CONFIGS: dict[str, Callable[[], Any]] = {
    "gpt2": lambda: GPT2Config(
        vocab_size=VOCAB, n_embd=D_MODEL, n_layer=2, n_head=4, n_positions=32, bos_token_id=0, eos_token_id=1
    ),
    "pythia": lambda: GPTNeoXConfig(**_SHAPE, rotary_pct=0.5),
    "llama": lambda: LlamaConfig(**_SHAPE, num_key_value_heads=2, rms_norm_eps=1e-4),
    "gemma2": lambda: Gemma2Config(
        **_SHAPE, num_key_value_heads=2, head_dim=6, query_pre_attn_scalar=9, sliding_window=3,
        attn_logit_softcapping=2.0, final_logit_softcapping=3.0,
    ),
    "gemma3": lambda: Gemma3TextConfig(**_GEMMA3),
    "qwen3": lambda: Qwen3Config(**_SHAPE, num_key_value_heads=2, head_dim=6),
    "olmo": lambda: OlmoConfig(**_SHAPE, num_key_value_heads=4, clip_qkv=1.0),
    "olmo2": lambda: Olmo2Config(**_SHAPE, num_key_value_heads=4),
    "mixtral": lambda: MixtralConfig(**_SHAPE, num_key_value_heads=2, num_local_experts=4, num_experts_per_tok=2),
}  # fmt: skip
"""One of each architecture."""

VARIANTS: dict[str, Callable[[], Any]] = {
    "llama without shared keys": lambda: LlamaConfig(**_SHAPE, num_key_value_heads=4),
    "llama with heads of another size": lambda: LlamaConfig(**_SHAPE, num_key_value_heads=2, head_dim=6),
    "llama 3 scaled": lambda: LlamaConfig(**_SHAPE, num_key_value_heads=2, rope_parameters=_LLAMA3_ROPE),
    "pythia in series": lambda: GPTNeoXConfig(**_SHAPE, rotary_pct=0.5, use_parallel_residual=False),
    "gemma": lambda: GemmaConfig(**_SHAPE, num_key_value_heads=1, head_dim=6),
    "gemma2 without caps": lambda: Gemma2Config(
        **_SHAPE, num_key_value_heads=1, head_dim=4, attn_logit_softcapping=None, final_logit_softcapping=None
    ),
    "gemma3 that sees": lambda: Gemma3Config(
        text_config=_GEMMA3, vision_config=_EYE, mm_tokens_per_image=1, image_token_index=20, boi_token_index=21,
        eoi_token_index=22,
    ),
    "qwen2": lambda: Qwen2Config(**_SHAPE, num_key_value_heads=2),
    "olmo3": lambda: Olmo3Config(**_SHAPE, num_key_value_heads=2, sliding_window=4),
    "olmoe": lambda: OlmoeConfig(**_SHAPE, num_key_value_heads=2, num_experts=4, num_experts_per_tok=2),
}  # fmt: skip
"""Settings within an architecture that change what is computed."""

# Three layers of linear attention, and one of the usual.
_QWEN3_5 = {
    **_SHAPE, "num_hidden_layers": 4, "num_key_value_heads": 2, "head_dim": 8, "linear_num_key_heads": 2,
    "linear_num_value_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8,
}  # fmt: skip
_EYE_3_5 = {"hidden_size": 16, "intermediate_size": 24, "depth": 1, "num_heads": 2, "out_hidden_size": 16}

BRIDGED: dict[str, Callable[[], Any]] = {
    "qwen3_5": lambda: Qwen3_5TextConfig(**_QWEN3_5),
    "qwen3_5 that sees": lambda: Qwen3_5Config(text_config=_QWEN3_5, vision_config=_EYE_3_5),
    "qwen3_5_moe": lambda: Qwen3_5MoeTextConfig(
        **_QWEN3_5, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=24, shared_expert_intermediate_size=24
    ),
    "qwen3_moe": lambda: Qwen3MoeConfig(
        **_SHAPE, num_key_value_heads=2, head_dim=6, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=24
    ),
}
"""Architectures that the bridge alone knows."""


def words() -> PreTrainedTokenizerFast:
    """A tokenizer of one token per word, `w2` to `w22`."""
    tokenizer = Tokenizer(WordLevel({"<s>": 0, "</s>": 1, **{f"w{i}": i for i in range(2, VOCAB)}}, unk_token="</s>"))
    tokenizer.pre_tokenizer = Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")


def checkpoint(folder: Path, kind: str = "llama", tokenizer: Any = None) -> Path:
    """A small random checkpoint with biases and norms off their starting values, and a tokenizer of words."""
    torch.manual_seed(0)
    config = {**CONFIGS, **VARIANTS, **BRIDGED}[kind]()
    if tokenizer is not None:
        config.get_text_config().vocab_size = len(tokenizer)
    model = AutoModelForCausalLM.from_config(config)
    for name, p in model.named_parameters():
        with torch.no_grad():
            p.add_(torch.randn_like(p) * (0.3 if "norm" not in name and "ln_" not in name else 0.1))
    model.save_pretrained(folder)
    (tokenizer or words()).save_pretrained(folder)
    return folder


def in_hub_cache(cache: Path, repo: str, folder: Path, *, commit: str = "c0ffee" + "0" * 34, main: bool = True) -> Path:
    """A folder's files as a commit of `repo` in a cache of the hub, as huggingface_hub lays it out; its `main` branch, if so."""
    there = cache / f"models--{repo.replace('/', '--')}"
    shutil.copytree(folder, there / "snapshots" / commit)
    if main:
        (there / "refs").mkdir()
        (there / "refs" / "main").write_text(commit)
    return there / "snapshots" / commit
