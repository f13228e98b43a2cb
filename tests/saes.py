"""Small SAEs of every architecture and normalisation, and what tests of them share."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import toys
from sae_lens import SAE

import neuron_vs_sae as nvs
from neuron_vs_sae.core.dictionary import Affine

HOOK = "blocks.0.hook_mlp_out"

ARCHITECTURES: dict[str, dict[str, Any]] = {
    "standard": {},
    "standard, b_dec not subtracted": {"apply_b_dec_to_input": False},
    "jumprelu": {},
    "topk": {"k": 3},
    "topk, rescaled": {"k": 3, "rescale_acts_by_decoder_norm": True},
    "abstopk": {"k": 3},
    "abstopk, rescaled": {"k": 3, "rescale_acts_by_decoder_norm": True},
    "gated": {},
    "matching_pursuit": {"max_iterations": 4},
    "matching_pursuit, no b_dec": {"max_iterations": 4, "apply_b_dec_to_input": False},
}
NORMALISATIONS = ("none", "layer_norm", "constant_norm_rescale")
TRANSCODERS = ("transcoder", "skip_transcoder", "jumprelu_transcoder", "jumprelu_skip_transcoder")

every_kind = pytest.mark.parametrize(
    ("architecture", "normalisation"), list(itertools.product(ARCHITECTURES, NORMALISATIONS))
)


def make(architecture: str, normalisation: str = "none", **more: Any) -> SAE:
    sae = toys.sae(
        HOOK,
        architecture=architecture.split(",")[0],
        normalize_activations=normalisation,
        **ARCHITECTURES[architecture],
        **more,
    )
    if architecture.startswith("matching_pursuit"):  # its encoder takes directions to have length 1
        sae.W_dec.data /= sae.W_dec.data.norm(dim=-1, keepdim=True)
    return sae


def activations(d: int = toys.D_MODEL, scale: float = 1.0) -> torch.Tensor:
    """Vectors whose sizes and means differ from token to token."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, 6, d, generator=generator, dtype=torch.float64)
    return scale * (torch.arange(1.0, 7.0)[:, None] * x + torch.arange(6.0)[:, None]).double()


def only(model: Any, sae: SAE, **options: Any) -> Affine:
    (dictionary,) = nvs.bases.sae(model, source=[sae], **options).dictionaries
    assert isinstance(dictionary, Affine)
    return dictionary


def close(a: torch.Tensor, b: torch.Tensor) -> bool:
    return torch.allclose(a, b, rtol=1e-12, atol=1e-12)  # float64 rounding of sums of ten terms


def save(sae: SAE, folder: Path, **changes: Any) -> Path:
    """Saved as sae-lens saves it, then with its cfg.json changed: `metadata__hook_name=...` reaches into the metadata."""
    sae.save_model(folder)
    cfg = json.loads((folder / "cfg.json").read_text())
    for key, value in changes.items():
        *path, last = key.split("__")
        inner = cfg[path[0]] if path else cfg
        inner[last] = value
    (folder / "cfg.json").write_text(json.dumps(cfg))
    return folder
