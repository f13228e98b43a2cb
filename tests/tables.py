"""The conformance tables: every basis, method and ablation there is, with what each of them promises.

A file in `bases/`, `attribution/` or `ablation/` without a line here fails `test_every_file_has_a_line`.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import toys

import neuron_vs_sae as nvs
from neuron_vs_sae.core.basis import Basis
from neuron_vs_sae.core.pairs import PromptPairs


def identity_sae(hook: str, d: int = toys.D_MODEL) -> Any:
    """A sae-lens SAE that gives every vector back: abs-top-k of all d coordinates, identity weights."""
    sae = toys.sae(hook, d=d, width=d, architecture="abstopk", k=d)
    for name, parameter in sae.named_parameters():
        parameter.data = torch.eye(d, dtype=torch.float64) if name.startswith("W") else torch.zeros_like(parameter)
    return sae


@dataclass(frozen=True)
class BasisCase:
    """`site`: bases of one site must agree on the empty circuit and on the site's total attribution."""

    name: str
    site: str
    make: Callable[[Any, PromptPairs], Basis]


def _sae(site: str, **config: Any) -> Callable[[Any, PromptPairs], Basis]:
    return lambda model, pairs: nvs.bases.sae(model, source=toys.saes(site, **config))


def _head_saes(model: Any, pairs: PromptPairs) -> Basis:
    heads = [
        toys.sae(f"blocks.{layer}.attn.hook_z", d=4, width=6, seed=head, metadata={"hook_head_index": head})
        for layer in range(2)
        for head in range(2)
    ]
    return nvs.bases.sae(model, source=heads)


def _three_kinds(model: Any, pairs: PromptPairs) -> Basis:
    kinds = ("hook_attn_out", "hook_mlp_out", "hook_resid_post")
    return nvs.bases.sae(model, source=[s for kind in kinds for s in toys.saes(kind)])


def _random_sae(model: Any, pairs: PromptPairs) -> Basis:
    return nvs.bases.random_sae(model, source=toys.saes(), prompts=pairs)


def _transcoder(architecture: str) -> Callable[[Any, PromptPairs], Basis]:
    return lambda model, pairs: nvs.bases.transcoder(model, source=toys.transcoders(architecture=architecture))


OUT, POST, RESID, Z = "hook_mlp_out", "mlp.hook_post", "hook_resid_post", "attn.hook_z"

BASES: list[BasisCase] = [
    BasisCase("mlp_neurons", POST, lambda model, pairs: nvs.bases.mlp_neurons(model)),
    BasisCase("mlp_outputs", OUT, lambda model, pairs: nvs.bases.mlp_outputs(model)),
    BasisCase("residual", RESID, lambda model, pairs: nvs.bases.residual(model)),
    BasisCase("attention", Z, lambda model, pairs: nvs.bases.attention(model)),
    BasisCase("sae", OUT, _sae(OUT)),
    BasisCase("sae jumprelu", OUT, _sae(OUT, architecture="jumprelu")),
    BasisCase("sae topk", OUT, _sae(OUT, architecture="topk", k=3)),
    BasisCase("sae topk rescaled", OUT, _sae(OUT, architecture="topk", k=3, rescale_acts_by_decoder_norm=True)),
    BasisCase("sae gated", OUT, _sae(OUT, architecture="gated")),
    BasisCase("sae layer_norm", OUT, _sae(OUT, normalize_activations="layer_norm")),
    BasisCase("sae constant_norm", OUT, _sae(OUT, normalize_activations="constant_norm_rescale")),
    BasisCase("sae identity", OUT, lambda m, p: nvs.bases.sae(m, source=[identity_sae(f"blocks.{i}.{OUT}") for i in (0, 1)])),
    BasisCase("sae neurons", POST, _sae(POST, d=toys.D_MLP, width=20)),
    BasisCase("sae resid_post", RESID, _sae(RESID)),
    BasisCase("sae resid_pre", "hook_resid_pre", _sae("hook_resid_pre")),
    BasisCase("sae attn_out", "hook_attn_out", _sae("hook_attn_out")),
    BasisCase("sae hook_z", Z, _sae(Z, reshape_activations="hook_z")),
    BasisCase("sae hook_z per head", Z + " heads", _head_saes),
    BasisCase("sae three kinds", "three kinds", _three_kinds),
    BasisCase("transcoder", OUT, _transcoder("transcoder")),
    BasisCase("transcoder skip", OUT, _transcoder("skip_transcoder")),
    BasisCase("transcoder jumprelu", OUT, _transcoder("jumprelu_transcoder")),
    BasisCase("rotation", OUT, lambda model, pairs: nvs.bases.rotation(model)),
    BasisCase("rotation of neurons", POST, lambda model, pairs: nvs.bases.rotation(model, site=POST)),
    BasisCase("pca", OUT, lambda model, pairs: nvs.bases.pca(model, prompts=pairs)),
    BasisCase("pca of 3", OUT, lambda model, pairs: nvs.bases.pca(model, prompts=pairs, components=3)),
    BasisCase("random_sae", OUT, _random_sae),
]  # fmt: skip


@dataclass(frozen=True)
class MethodCase:
    """What a method promises. `gradient`: score = change . gradient at the site, so a site's total is basis-free.
    `mean_over_prompts`: so it scores groups of prompts too.
    """

    name: str
    options: dict[str, Any]
    gradient: bool = True
    unpaired: bool = True
    pooled_is_sum: bool = True
    mean_over_prompts: bool = True

    @property
    def id(self) -> str:
        return " ".join([self.name, *(f"{k}={v}" for k, v in self.options.items())])

    def __call__(self, model: Any, basis: Basis, pairs: PromptPairs, *args: Any, **more: Any) -> nvs.NodeScores:
        return getattr(nvs.attribution, self.name)(model, basis, pairs, *args, **self.options, **more)


METHODS: list[MethodCase] = [
    MethodCase("attribution_patching", {}),
    MethodCase("attribution_patching", {"grad_at": "corrupt"}, unpaired=False),
    MethodCase("attribution_patching", {"order": 2}),
    MethodCase("attribution_patching", {"grad_at": "corrupt", "order": 2}, unpaired=False),
    MethodCase("integrated_gradients", {"steps": 3}),
    MethodCase("integrated_gradients", {"steps": 3, "schedule": "right"}),
    MethodCase("integrated_gradients", {"steps": 3, "schedule": "midpoint"}),
    MethodCase("integrated_gradients_inputs", {"steps": 3}),
    MethodCase("conductance", {"steps": 3}),
    MethodCase("relp", {}),
    MethodCase("relp_ah", {}),
    MethodCase("relp_no_half", {}),
    MethodCase("relp_no_gate", {}),
    MethodCase("activation_patching", {}, gradient=False, pooled_is_sum=False),
    MethodCase("activation_patching", {"direction": "denoising"}, gradient=False, unpaired=False, pooled_is_sum=False),
    MethodCase("delta", {}, gradient=False),
    MethodCase("random", {}, gradient=False, pooled_is_sum=False, mean_over_prompts=False),
]


@dataclass(frozen=True)
class AblationCase:
    """`basis_free`: with everything ablated, the metric is the same in every basis of a site."""

    name: str
    basis_free: bool = True


ABLATIONS: list[AblationCase] = [
    AblationCase("mean"),
    AblationCase("mean_global"),
    AblationCase("counterfactual"),
    AblationCase("resample"),
    AblationCase("zero_units", basis_free=False),
    AblationCase("zero_site"),
]


PAIRS = toys.pairs()


@functools.cache
def _made(name: str, model_name: str) -> nvs.Basis:
    case = next(c for c in BASES if c.name == name)
    return case.make(toys.model(model_name.removeprefix("toy-")), PAIRS)


def make(case: BasisCase, model: Any) -> nvs.Basis:
    return _made(case.name, model.cfg.model_name)


def refused(case: BasisCase, ablation: str, kind: str) -> bool:
    """Heads share one `b_O`, so `zero_site` has nothing to remove for one of them where a model has it."""
    return case.name == "sae hook_z per head" and ablation == "zero_site" and kind in toys.BIASED


def random_scores(basis: nvs.Basis, pairs: nvs.PromptPairs = PAIRS, positions: str = "separate") -> nvs.NodeScores:
    return nvs.attribution.random(None, basis, pairs, positions=positions)
