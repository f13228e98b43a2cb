"""A sae-lens SAE or transcoder as a dictionary: affine in its units, and without state between calls."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from neuron_vs_sae.catalog.dictionaries.reading import PER_TOKEN, encodes_as_sae_lens, rows_of, take_scale
from neuron_vs_sae.catalog.dictionaries.sources import quiet
from neuron_vs_sae.core.dictionary import Affine
from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.core.unit_wise import UnitWise
from neuron_vs_sae.execution.splice import precision

# Architectures whose units do not depend on each other, and the encoder's parameters that have a column per unit.
_UNIT_WISE = ("standard", "jumprelu", "gated", "transcoder", "skip_transcoder", "jumprelu_transcoder")
_PER_UNIT = ("W_enc", "b_enc", "threshold", "b_gate", "b_mag", "r_mag")


def dictionary(sae: Any, model: Any) -> Affine:
    """A `Dictionary` of one sae-lens SAE or transcoder, in the precision of the model's scores.

    Raises `InputError` where its decoder is not affine in the units.
    """
    dtype, device = precision(model), next(model.parameters()).device
    module = _own(sae, dtype, device)
    decoder, bias = _decoder(module, type(sae).__name__, dtype, device)
    normalised = module.cfg.normalize_activations in PER_TOKEN and not is_transcoder(sae.cfg)

    def scaled(encoder: Any, y: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch k"]:
        with torch.no_grad():
            units = type(module).encode(encoder, y)
            scale = take_scale(module)
            return units * scale if normalised else units

    def encode(y: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch width"]:
        return scaled(module, y)

    def encode_some(y: Float[Tensor, "*batch d_in"], units: Int[Tensor, " k"]) -> Float[Tensor, "*batch k"]:
        return scaled(_UnitsOf(module, units), y)

    is_unit_wise = encodes_as_sae_lens(module) and module.cfg.architecture() in _UNIT_WISE
    some = encode_some if is_unit_wise else None
    unit_wise = _as_numbers(module, normalised, encode) if is_unit_wise else None
    # Functions of the module alone: one that referred to the dictionary would keep it in memory after it was given up.
    rows = rows_of(module, some or (lambda y, units: encode(y)[..., units]), normalised)
    # The scale is folded into the units; the shift and the scaled bias go to the error.
    offset = torch.zeros_like(bias) if normalised else bias
    affine = Affine(encode, decoder, offset, some=some, rows=rows, unit_wise=unit_wise)
    affine.lossless = not is_transcoder(sae.cfg) and _gives_back(affine, dtype, device)
    return affine


def _decoder(
    module: Any, kind: str, dtype: torch.dtype, device: torch.device
) -> tuple[Float[Tensor, "width d"], Float[Tensor, " d"]]:
    """(matrix, bias) of a decoder. Raises `InputError` for a decoder that is not affine."""
    matrix = module.W_dec.detach()
    if getattr(module.cfg, "rescale_acts_by_decoder_norm", False):
        matrix = matrix / matrix.norm(dim=-1, keepdim=True)
    with torch.no_grad():
        bias = module.decode(torch.zeros(1, 1, module.cfg.d_sae, dtype=dtype, device=device))[0, 0]
        units = _probe(module.cfg.d_sae, dtype, device)
        if not torch.allclose(module.decode(units), units @ matrix + bias, atol=1e-4, rtol=1e-3):
            raise InputError(
                f"the decoder of {kind} is not units @ W_dec + b_dec, so a unit has no fixed direction: "
                "this kind of SAE cannot be a basis"
            )
    return matrix, bias


class _UnitsOf:
    """Stands in for an SAE in its own `encode`, with only some of its units: sae-lens' code, on fewer columns."""

    def __init__(self, module: Any, units: Int[Tensor, " k"]):
        self._module = module
        for name, parameter in module.named_parameters():
            if name in _PER_UNIT:
                setattr(self, name, parameter[..., units])

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


def _as_numbers(module: Any, scaled: bool, encode: Callable[[Tensor], Tensor]) -> UnitWise | None:
    """The encoder as weights and thresholds; None where these do not reproduce `encode`, as with another activation function."""

    def normalised(y: Tensor) -> tuple[Tensor, Tensor | None]:
        with torch.no_grad():
            z, scale = module.process_sae_in(y), take_scale(module)
        return z, scale if scaled else None

    weights: dict[str, Tensor] = dict(module.named_parameters())
    bias = weights["b_gate" if "b_gate" in weights else "b_enc"].detach()
    threshold = weights.get("threshold", torch.zeros_like(bias)).detach().clamp(min=0)
    gated = {"gain": weights["r_mag"].detach().exp(), "shift": weights["b_mag"].detach()} if "r_mag" in weights else {}
    numbers = UnitWise(normalised, weights["W_enc"].detach(), bias, threshold, **gated)
    y = _probe(module.cfg.d_in, bias.dtype, bias.device)[0]
    active, units = numbers.active(y), torch.zeros(len(y), len(bias), dtype=bias.dtype, device=bias.device)
    units[active.row, active.unit] = active.value
    return numbers if torch.allclose(units, encode(y), atol=1e-4, rtol=1e-3) else None


def _own(sae: Any, dtype: torch.dtype, device: torch.device) -> Any:
    """The same SAE as a module of our own, in that precision; its weights are shared where they need no conversion.

    It takes and returns flat vectors, and decodes without undoing a normalisation. It is built afresh, not copied: sae-lens'
    normalisations are closures over the module they were made for, and in a copy would keep writing to the original.
    """
    cfg = type(sae.cfg).from_dict({**sae.cfg.to_dict(), "device": "meta", "reshape_activations": "none"})
    with quiet():
        module = type(sae)(cfg)
    module.load_state_dict(sae.state_dict(), assign=True)
    module.run_time_activation_norm_fn_out = lambda x: x
    return module.to(dtype=dtype, device=device).eval().requires_grad_(False)


def _probe(d: int, dtype: torch.dtype, device: torch.device) -> Float[Tensor, "1 8 d"]:
    return torch.randn(1, 8, d, generator=torch.Generator().manual_seed(0), dtype=dtype).to(device)


def _gives_back(affine: Affine, dtype: torch.dtype, device: torch.device) -> bool:
    """Whether an autoencoder returns any vector bit for bit: it is then a raw basis, and has no error node either."""
    x = _probe(affine.d, dtype, device)
    return affine.width == affine.d and torch.equal(affine.decode(affine.encode(x)), x)


def is_transcoder(cfg: Any) -> bool:
    return hasattr(cfg, "d_out") or bool(cfg.metadata.hook_name_out)
