"""What transformer-lens needs to know about a model, read from the model's own configuration.

transformer-lens reads the configurations of some families, and knows others (Gemma, OLMo) only by their published names.
These are read here, at any size and under any name, and what transformer-lens reads wrongly is corrected.
"""

from collections.abc import Callable
from typing import Any

from neuron_vs_sae.core.errors import InputError

# A causal mask of n_ctx x n_ctx is kept in every layer: at 131,072 tokens that is 16 GiB each, and prompts are short.
_LONGEST = 2048


def settings(config: Any, read: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The `HookedTransformerConfig` of a Hugging Face configuration, as a dictionary.

    `read` is transformer-lens' own reading, for the families that it can read. Raises `InputError` for a setting that
    transformer-lens has no means to run.
    """
    family = _FAMILIES.get(config.model_type)
    shape = family(config) if family else read()
    if shape.get("positional_embedding_type") == "rotary":
        shape["n_ctx"] = min(shape["n_ctx"], _LONGEST)
    if config.model_type == "llama" and config.head_dim:
        shape["d_head"] = shape["rotary_dim"] = config.head_dim
    if config.model_type == "gpt2" and config.n_inner:  # transformer-lens takes four times the model's width
        shape["d_mlp"] = config.n_inner
    return shape


def _shape(config: Any) -> dict[str, Any]:
    """What all these families share: the settings of a Llama, but for the kind of norm."""
    return {
        "d_model": config.hidden_size,
        "d_head": getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads,
        "n_heads": config.num_attention_heads,
        "n_key_value_heads": config.num_key_value_heads,
        "d_mlp": config.intermediate_size,
        "n_layers": config.num_hidden_layers,
        "n_ctx": config.max_position_embeddings,
        "d_vocab": config.vocab_size,
        "act_fn": getattr(config, "hidden_activation", None) or config.hidden_act,
        "eps": getattr(config, "rms_norm_eps", 1e-5),
        "normalization_type": "RMS",
        "final_rms": True,
        "gated_mlp": True,
        "positional_embedding_type": "rotary",
    }


def _gemma(config: Any) -> dict[str, Any]:
    return {
        **_shape(config),
        "original_architecture": "GemmaForCausalLM",
        "rotary_base": config.rope_parameters["rope_theta"],
        "rotary_dim": config.head_dim,
    }


def _gemma2(config: Any) -> dict[str, Any]:
    return {
        **_shape(config),
        **_local_layers(config),
        "original_architecture": "Gemma2ForCausalLM",
        "rotary_base": config.rope_parameters["rope_theta"],
        "attn_scores_soft_cap": config.attn_logit_softcapping or -1.0,
        "output_logits_soft_cap": config.final_logit_softcapping or -1.0,
    }


def _gemma3(config: Any) -> dict[str, Any]:
    config = config.get_text_config()  # of the sizes that also read images
    rope = config.rope_parameters
    far, near = rope["full_attention"], rope["sliding_attention"]
    if far.get("rope_type", "default") not in ("default", "linear"):
        raise InputError(f"transformer-lens has no {far['rope_type']!r} rope scaling for Gemma 3")
    return {
        **_shape(config),
        **_local_layers(config),
        "original_architecture": "Gemma3ForCausalLM",
        "use_qk_norm": True,
        "rotary_base": far["rope_theta"],
        "rotary_scaling_factor": far.get("factor", 1.0),
        "rotary_base_local": near["rope_theta"],
        "output_logits_soft_cap": config.final_logit_softcapping or -1.0,
        "attn_scores_soft_cap": config.attn_logit_softcapping or -1.0,
    }


def _local_layers(config: Any) -> dict[str, Any]:
    """Gemma 2's and 3's alternation of local and global attention, and their norms around both parts of a block."""
    return {
        "use_normalization_before_and_after": True,
        "attn_scale": config.query_pre_attn_scalar**0.5,
        "use_local_attn": True,
        "window_size": config.sliding_window,
        "attn_types": ["local" if kind == "sliding_attention" else "global" for kind in config.layer_types],
    }


def _olmo(config: Any) -> dict[str, Any]:
    """Norms without weights, and queries, keys and values that may be clipped."""
    return {
        **_olmo_attention(config),
        "original_architecture": "OlmoForCausalLM",
        "normalization_type": "LN",
        "final_rms": False,
        "clip_qkv": config.clip_qkv,
    }


def _olmo2(config: Any) -> dict[str, Any]:
    """Norms after attention and MLP, before what they wrote is added."""
    return {**_olmo_attention(config), "original_architecture": "Olmo2ForCausalLM"}


def _olmo_attention(config: Any) -> dict[str, Any]:
    if config.num_key_value_heads != config.num_attention_heads:
        raise InputError("transformer-lens reads OLMo's weights only where every head has its own keys and values")
    rope = config.rope_parameters
    return {**_shape(config), "n_key_value_heads": None, "rotary_base": rope["rope_theta"]}


_FAMILIES: dict[str, Callable[[Any], dict[str, Any]]] = {
    "gemma": _gemma,
    "gemma2": _gemma2,
    "gemma3": _gemma3,
    "gemma3_text": _gemma3,
    "olmo": _olmo,
    "olmo2": _olmo2,
}
