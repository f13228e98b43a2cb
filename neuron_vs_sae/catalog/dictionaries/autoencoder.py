"""A sae-lens SAE or transcoder as a dictionary: affine in its units, and nothing remembered between calls."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from neuron_vs_sae.catalog.dictionaries.sources import quiet
from neuron_vs_sae.core.dictionary import Affine, slopes
from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.execution.splice import precision

# The scale that these put on each token is folded into the units; the shift and the scaled bias go to the error.
PER_TOKEN = ("layer_norm", "constant_norm_rescale")
_LAYER_NORM_EPS = 1e-5  # sae-lens'

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
            # Taken off the module at once: sae-lens would keep the scale there until the next decode.
            scale = _take_scale(module)
            return units * scale if normalised else units

    def encode(y: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch width"]:
        return scaled(module, y)

    def encode_some(y: Float[Tensor, "*batch d_in"], units: Int[Tensor, " k"]) -> Float[Tensor, "*batch k"]:
        return scaled(_UnitsOf(module, units), y)

    def rows(y: Float[Tensor, " d_in"], units: Int[Tensor, " k"]) -> Float[Tensor, "k d_in"]:
        with torch.no_grad():
            values = made.encode_some(y, units)
            return (values != 0)[:, None] * _slopes(module, y, units, normalised)

    unit_wise = module.cfg.architecture() in _UNIT_WISE
    has_matrix = hasattr(module, "W_enc") and module.cfg.architecture() != "matching_pursuit"
    made = Affine(
        encode,
        decoder,
        torch.zeros_like(bias) if normalised else bias,
        some=encode_some if unit_wise else None,
        rows=rows if has_matrix else lambda y, units: slopes(lambda y: type(module).encode(module, y)[units], y),
    )
    made.lossless = not is_transcoder(sae.cfg) and _gives_back(made, dtype, device)
    return made


def _decoder(
    module: Any, kind: str, dtype: torch.dtype, device: torch.device
) -> tuple[Float[Tensor, "width d"], Float[Tensor, " d"]]:
    """(matrix, bias) of a decoder. Raises `InputError` where it is no such thing."""
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


def _slopes(
    module: Any, y: Float[Tensor, " d_in"], units: Int[Tensor, " k"], normalised: bool
) -> Float[Tensor, "k d_in"]:
    """The slope in `y` that each unit has where it is active, the scale that a normalisation gives this token held constant."""
    rows = module.W_enc[:, units].T
    if module.cfg.architecture() == "gated":
        rows = rows * module.r_mag[units, None].exp()
    if getattr(module.cfg, "rescale_acts_by_decoder_norm", False):
        rows = rows * module.W_dec[units].norm(dim=-1, keepdim=True)
    kind = module.cfg.normalize_activations
    if kind not in PER_TOKEN:
        return rows
    module.run_time_activation_norm_fn_in(y)
    scale = _take_scale(module)
    assert scale is not None
    if kind == "layer_norm":
        rows, divisor = rows - rows.mean(1, keepdim=True), scale + _LAYER_NORM_EPS
    else:
        divisor = scale
    return rows * (scale / divisor if normalised else 1 / divisor)


class _UnitsOf:
    """Stands in for an SAE in its own `encode`, with only some of its units: sae-lens' code, on fewer columns."""

    def __init__(self, module: Any, units: Int[Tensor, " k"]):
        self._module = module
        for name, parameter in module.named_parameters():
            if name in _PER_UNIT:
                setattr(self, name, parameter[..., units])

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


def _own(sae: Any, dtype: torch.dtype, device: torch.device) -> Any:
    """The same SAE as a module of our own, in that precision; its weights are shared where they need no conversion.

    It takes and gives flat vectors, and decodes without undoing a normalisation. Built anew, not copied: sae-lens'
    normalisations are closures over the module that they were made for, and in a copy would go on writing to the original.
    """
    cfg = type(sae.cfg).from_dict({**sae.cfg.to_dict(), "device": "meta", "reshape_activations": "none"})
    with quiet():
        module = type(sae)(cfg)
    module.load_state_dict(sae.state_dict(), assign=True)
    module.run_time_activation_norm_fn_out = lambda x: x
    return module.to(dtype=dtype, device=device).eval().requires_grad_(False)


def _take_scale(module: Any) -> Tensor | None:
    if hasattr(module, "ln_std"):
        scale = module.ln_std
        del module.ln_std, module.ln_mu
        return scale
    if hasattr(module, "x_norm_coeff"):
        scale = 1 / module.x_norm_coeff
        del module.x_norm_coeff
        return scale
    return None


def _probe(d: int, dtype: torch.dtype, device: torch.device) -> Float[Tensor, "1 8 d"]:
    return torch.randn(1, 8, d, generator=torch.Generator().manual_seed(0), dtype=dtype).to(device)


def _gives_back(made: Affine, dtype: torch.dtype, device: torch.device) -> bool:
    """An autoencoder that returns any vector bit for bit is a raw basis, and has no error node either."""
    x = _probe(made.d, dtype, device)
    return made.width == made.d and torch.equal(made.decode(made.encode(x)), x)


def is_transcoder(cfg: Any) -> bool:
    return hasattr(cfg, "d_out") or bool(cfg.metadata.hook_name_out)
