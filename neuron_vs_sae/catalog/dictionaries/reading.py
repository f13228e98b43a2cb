"""How the units of a sae-lens SAE read a token: their slopes, with the choice of active units and the rescaling held constant."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from neuron_vs_sae.core.dictionary import EncoderOfSome, Rows, slopes

# Normalisations with a scale and a shift for each token.
PER_TOKEN = ("layer_norm", "constant_norm_rescale")
_LAYER_NORM_EPS = 1e-5  # sae-lens'
# Encoders that are not a matrix followed by a choice among its columns.
_WITHOUT_MATRIX = ("matching_pursuit",)


def rows_of(module: Any, encode_some: EncoderOfSome, scaled: bool) -> Rows:
    """The `rows` of a dictionary (`Dictionary.reading`) whose units are `encode_some`.

    They come from the encoder's matrix where sae-lens' own code is run, else from the encoder's gradient. With `scaled`, the
    token's scale is part of the units' values.
    """
    kind, plain = module.cfg.normalize_activations, _plain(module)

    def rows(y: Float[Tensor, " d_in"], units: Int[Tensor, " k"]) -> Float[Tensor, "k d_in"]:
        with torch.no_grad():
            normal = module.run_time_activation_norm_fn_in(y)
            scale = take_scale(module)
            if plain is None:
                entering = (encode_some(y[None], units)[0] != 0)[:, None] * _matrix(module, units)
            else:
                entering = slopes(lambda z: type(plain).encode(plain, z[None])[0, units], normal)
            if scale is None:
                return entering
            if kind == "layer_norm":
                entering, divisor = entering - entering.mean(1, keepdim=True), scale + _LAYER_NORM_EPS
            else:
                divisor = scale
            return entering * (scale / divisor if scaled else 1 / divisor)

    return rows


def encodes_as_sae_lens(module: Any) -> bool:
    """Whether its encoder is sae-lens' own, and not that of a caller's class, about which nothing is known."""
    return type(module).encode.__module__.partition(".")[0] == "sae_lens"


def take_scale(module: Any) -> Tensor | None:
    """The scale that the last call's normalisation put on each token, taken off the module; None where there is none.

    sae-lens would keep it there until the next decode.
    """
    if hasattr(module, "ln_std"):
        scale = module.ln_std
        del module.ln_std, module.ln_mu
        return scale
    if hasattr(module, "x_norm_coeff"):
        scale = 1 / module.x_norm_coeff
        del module.x_norm_coeff
        return scale
    return None


def _plain(module: Any) -> Any:
    """The module without its normalisation, sharing its weights; None where the encoder's matrix alone gives the slopes."""
    if encodes_as_sae_lens(module) and module.cfg.architecture() not in _WITHOUT_MATRIX:
        return None
    cfg = type(module.cfg).from_dict({**module.cfg.to_dict(), "device": "meta", "normalize_activations": "none"})
    plain = type(module)(cfg)
    plain.load_state_dict(module.state_dict(), assign=True)
    return plain.to(next(module.parameters()).dtype).eval().requires_grad_(False)


def _matrix(module: Any, units: Int[Tensor, " k"]) -> Float[Tensor, "k d_in"]:
    """What each unit reads of the normalised token where it is active."""
    rows = module.W_enc[:, units].T
    if module.cfg.architecture() == "gated":
        rows = rows * module.r_mag[units, None].exp()
    if getattr(module.cfg, "rescale_acts_by_decoder_norm", False):
        rows = rows * module.W_dec[units].norm(dim=-1, keepdim=True)
    return rows
