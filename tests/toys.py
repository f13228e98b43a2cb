"""Toy models, SAEs, bases and prompt pairs with random weights: float64, two layers, seven tokens of vocabulary 17."""

import functools
import warnings
from typing import Any

import torch
from sae_lens import SAE
from transformer_lens import HookedTransformer, HookedTransformerConfig

from neuron_vs_sae.core.pairs import PromptPairs
from neuron_vs_sae.models.loading import prepare

VOCAB = 17
D_MODEL = 8
D_MLP = 12

_COMMON = {
    "n_layers": 2, "d_model": D_MODEL, "n_ctx": 16, "d_head": 4, "n_heads": 2, "d_mlp": D_MLP, "d_vocab": VOCAB,
    "dtype": torch.float64, "device": "cpu", "seed": 0,
}  # fmt: skip

MODELS: dict[str, dict[str, Any]] = {
    "llama": {
        "act_fn": "silu", "gated_mlp": True, "normalization_type": "RMS", "positional_embedding_type": "rotary",
        "rotary_dim": 4, "final_rms": True, "n_key_value_heads": 1,
    },
    "gpt2": {"act_fn": "gelu_new", "normalization_type": "LN"},
    "neox": {
        "act_fn": "gelu", "normalization_type": "LN", "parallel_attn_mlp": True, "positional_embedding_type": "rotary",
        "rotary_dim": 2,
    },
    "gemma2": {
        "act_fn": "gelu_pytorch_tanh", "gated_mlp": True, "normalization_type": "RMS", "final_rms": True,
        "positional_embedding_type": "rotary", "rotary_dim": 4, "n_key_value_heads": 1,
        "use_normalization_before_and_after": True, "attn_scores_soft_cap": 5.0, "output_logits_soft_cap": 3.0,
    },
}  # fmt: skip

BIASED = ("gpt2", "neox")


@functools.cache
def model(kind: str) -> HookedTransformer:
    """A toy of that architecture; weights large enough that nothing is linear by accident, biases not zero."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        toy = HookedTransformer(HookedTransformerConfig(**_COMMON, **MODELS[kind]))
    toy.cfg.model_name = f"toy-{kind}"
    generator = torch.Generator().manual_seed(len(kind))
    for name, parameter in toy.named_parameters():
        if name.split(".")[-1].lstrip("_").startswith("b"):  # grouped queries' are called _b_K
            scale = 0.3 if kind in BIASED else 0.0
            parameter.data = scale * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        elif name.endswith(".w"):
            parameter.data = 1 + 0.2 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        else:
            spread = 0.6 if parameter.ndim > 1 else 1.0
            parameter.data = spread * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return prepare(toy)


def pairs(n: int = 5, positions: int = 6, seed: int = 0, lengths: list[int] | None = None) -> PromptPairs:
    """Random token pairs that share a first token (BOS) and differ in one more; the answer differs from the foil."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randint(1, VOCAB, shape, generator=generator)

    clean = draw(n, positions)
    clean[:, 0] = 0
    corrupt = clean.clone()
    where = 1 + torch.arange(n) % 2
    corrupt[torch.arange(n), where] = 1 + (clean[torch.arange(n), where] + draw(n) % (VOCAB - 2)) % (VOCAB - 1)
    answer = draw(n)
    foil = 1 + answer % (VOCAB - 1)
    length = torch.tensor(lengths) if lengths else torch.full((n,), positions)
    for i, stop in enumerate(length.tolist()):
        clean[i, stop:] = corrupt[i, stop:] = 0
    text = [" ".join(map(str, row)) for row in clean.tolist()]
    other = [" ".join(map(str, row)) for row in corrupt.tolist()]
    return PromptPairs(
        name="toy",
        clean=clean,
        corrupt=corrupt,
        length=length,
        answer=answer,
        foil=foil,
        clean_text=tuple(text),
        corrupt_text=tuple(other),
        answer_text=tuple(map(str, answer.tolist())),
        foil_text=tuple(map(str, foil.tolist())),
        tags=tuple({"case": f"c{i % 2}"} for i in range(n)),
        bos=True,
    )


def sae(
    hook: str,
    d: int = D_MODEL,
    width: int = 10,
    *,
    architecture: str = "standard",
    model_name: str | None = None,
    seed: int = 0,
    metadata: dict[str, Any] | None = None,
    **config: Any,
) -> SAE:
    """An untrained sae-lens SAE (or transcoder) with random weights and biases, in float64."""
    described = {"hook_name": hook, "model_name": model_name, **(metadata or {})}
    given = {"d_in": d, "d_sae": width, "dtype": "float64", "device": "cpu", **config}
    if "transcoder" in architecture:
        given = {"apply_b_dec_to_input": False, "d_out": d, **given}
    toy = SAE.from_dict({**given, "architecture": architecture, "metadata": described})
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in toy.named_parameters():
        spread = 0.1 if name == "threshold" else 0.5
        value = spread * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        parameter.data = value.abs() if name == "threshold" else value
    return toy


def saes(site: str = "hook_mlp_out", **config: Any) -> list[SAE]:
    """One SAE per layer at a kind of site."""
    return [sae(f"blocks.{layer}.{site}", seed=layer, **config) for layer in range(2)]


def transcoders(**config: Any) -> list[SAE]:
    """One transcoder per layer, from `ln2.hook_normalized` to `hook_mlp_out`."""
    return [
        sae(
            f"blocks.{layer}.ln2.hook_normalized",
            seed=layer,
            architecture=config.get("architecture", "transcoder"),
            metadata={"hook_name_out": f"blocks.{layer}.hook_mlp_out"},
        )
        for layer in range(2)
    ]
