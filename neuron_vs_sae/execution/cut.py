"""One prompt through a model that is cut at a basis's sites: what every later quantity takes directly from each of them.

The idea: at each site, and at the embeddings, the activation is written as a constant plus a probe of zeros. The gradient of
anything later with respect to a probe is then its *direct* dependence on that site: along every path that avoids all other
sites. With the norms' scales and the attention patterns constant, and MLPs as chords (`replacement.rules`), these paths are
linear, so the parts that the sites, the embeddings and the biases contribute add up to the quantity itself.

The same run without the cut (`through`) has each site pass on what its units pass on, the error being constant: there a
gradient is the sum over all paths.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from neuron_vs_sae.core.basis import Basis, Site
from neuron_vs_sae.core.dictionary import Dictionary
from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.execution.replacement import Rules
from neuron_vs_sae.execution.splice import Edit, answer_logits


@dataclass(frozen=True, eq=False)
class Cut:
    """A run of one prompt, kept for differentiating. Per site what it read (with its gradient) and wrote (without)."""

    logits: Float[Tensor, "1 vocab"]
    read: tuple[Float[Tensor, "1 pos _"], ...]
    written: tuple[Float[Tensor, "1 pos _"], ...]
    probes: tuple[Float[Tensor, "1 pos _"], ...]
    embedded: tuple[Float[Tensor, "1 pos d"], ...]
    embedding_probes: tuple[Float[Tensor, "1 pos d"], ...]
    heads: tuple[Float[Tensor, "1 pos head d_head"], ...]
    """Per layer what its heads write, where they are watched."""
    head_probes: tuple[Float[Tensor, "1 pos head d_head"], ...]
    seen: dict[str, Float[Tensor, "1 pos ..."]]
    """The activations at hooks that are watched by name, with their gradients."""
    biases: tuple[Tensor, ...]
    """The model's biases that are not all zero."""

    def backward(
        self, quantity: Float[Tensor, "1 ..."], weights: Float[Tensor, "rows 1 ..."], wanted: Sequence[Tensor]
    ) -> list[Tensor | None]:
        """For each row of `weights`, the gradient of `<row, quantity>` with respect to each of `wanted`, `[rows, *its shape]`; None
        where there is no path."""
        if not quantity.requires_grad or not wanted:
            return [None] * len(wanted)
        return list(
            torch.autograd.grad(
                quantity, list(wanted), weights, retain_graph=True, allow_unused=True, is_grads_batched=True
            )
        )


@dataclass
class _Recorder:
    """What the hooks of one run leave."""

    read: dict[int, Tensor] = field(default_factory=dict)
    written: dict[int, Tensor] = field(default_factory=dict)
    probes: dict[int, Tensor] = field(default_factory=dict)
    embedded: dict[str, Tensor] = field(default_factory=dict)
    embedding_probes: dict[str, Tensor] = field(default_factory=dict)
    heads: dict[int, Tensor] = field(default_factory=dict)
    head_probes: dict[int, Tensor] = field(default_factory=dict)
    seen: dict[str, Tensor] = field(default_factory=dict)


@contextmanager
def cut(
    model: Any,
    basis: Basis,
    tokens: Int[Tensor, "1 pos"],
    rules: Rules,
    *,
    heads: bool = False,
    cut_heads: bool = False,
    watch: Sequence[str] = (),
) -> Iterator[Cut]:
    """The run of a prompt, cut at the basis's sites and at the embeddings; differentiable inside the `with`.

    `heads` puts probes at what each attention head writes, `cut_heads` cuts there too, so that what is left are the paths past all
    attention. Raises `InputError` for a model of half precision, and one whose biases cannot be reached.
    """
    check_precision(model)
    record = _Recorder()
    edits = [
        *rules.edits,
        *_of_embeddings(model, record),
        *(_of_heads(model, record, cut_heads) if heads or cut_heads else ()),
        *(_cut_site(s, site, record) for s, site in enumerate(basis.sites)),
        *(_read_site(s, site, record) for s, site in enumerate(basis.sites) if site.reads != site.writes),
        *((hook, _keeper(record.seen, hook)) for hook in watch),
        *rules.observers,
    ]
    with _biases(model) as biases, torch.enable_grad():
        logits = _one_prompt(model, tokens, edits)
        n = range(len(basis.sites))
        yield Cut(
            logits=logits,
            read=tuple(record.read[s] for s in n),
            written=tuple(record.written[s] for s in n),
            probes=tuple(record.probes[s] for s in n),
            embedded=tuple(record.embedded.values()),
            embedding_probes=tuple(record.embedding_probes.values()),
            heads=tuple(record.heads.values()),
            head_probes=tuple(record.head_probes.values()),
            seen=record.seen,
            biases=biases,
        )


@contextmanager
def through(
    model: Any, basis: Basis, tokens: Int[Tensor, "1 pos"], rules: Rules, watch: Sequence[str] = ()
) -> Iterator[Cut]:
    """The run of a prompt in which every site passes on what its units do, as they read at this prompt; its error is constant.

    A `Cut` whose gradients are sums over all paths. A lossless site passes on everything.
    """
    check_precision(model)
    record = _Recorder()
    edits = [
        *rules.edits,
        *(_read_site(s, site, record) for s, site in enumerate(basis.sites) if site.reads == site.writes),
        *(
            _pass_on(s, site, dictionary, record)
            for s, (site, dictionary) in enumerate(zip(basis.sites, basis.dictionaries, strict=True))
        ),
        *(_read_site(s, site, record) for s, site in enumerate(basis.sites) if site.reads != site.writes),
        *((hook, _keeper(record.seen, hook)) for hook in watch),
        *rules.observers,
    ]
    n = range(len(basis.sites))
    with torch.enable_grad():
        logits = _one_prompt(model, tokens, edits)
        yield Cut(
            logits=logits,
            read=tuple(record.read[s] for s in n),
            written=tuple(record.written[s] for s in n),
            probes=tuple(record.probes[s] for s in n),
            embedded=(),
            embedding_probes=(),
            heads=(),
            head_probes=(),
            seen=record.seen,
            biases=(),
        )


def check_precision(model: Any) -> None:
    """Raises `InputError` for a model of half precision, whose edges would be reproducible to a digit at best."""
    if model.cfg.dtype in (torch.float16, torch.bfloat16):
        raise InputError(
            f"edges need a model in float32 or float64, and this one is in {str(model.cfg.dtype).removeprefix('torch.')}: in half "
            "precision they change by tens of percent from run to run. Load it with dtype='float32' (--dtype float32)"
        )


def _one_prompt(model: Any, tokens: Int[Tensor, "1 pos"], edits: Sequence[Edit]) -> Float[Tensor, "1 vocab"]:
    return answer_logits(model, tokens, torch.tensor([tokens.shape[1]], device=tokens.device), edits)


def _keeper(into: dict[Any, Tensor], name: Any) -> Any:
    def keep(x: Tensor) -> None:
        into[name] = x

    return keep


def _of_embeddings(model: Any, record: _Recorder) -> list[Edit]:
    def edit(hook: str) -> Edit:
        def write(x: Tensor) -> Tensor:
            record.embedded[hook] = x.detach().expand(1, *x.shape[1:])
            record.embedding_probes[hook] = torch.zeros_like(x, requires_grad=True)
            return x.detach() + record.embedding_probes[hook]

        return hook, write

    return [edit(hook) for hook in embedding_hooks(model)]


def embedding_hooks(model: Any) -> list[str]:
    """The hooks whose sum begins the residual stream. Where positions are not added, some models have the second all the same, and never call it."""
    return ["hook_embed", *(["hook_pos_embed"] if model.cfg.positional_embedding_type == "standard" else [])]


def _of_heads(model: Any, record: _Recorder, is_cut: bool) -> list[Edit]:
    def edit(layer: int) -> Edit:
        def write(z: Tensor) -> Tensor:
            record.heads[layer] = z
            record.head_probes[layer] = torch.zeros_like(z, requires_grad=True)
            return (z.detach() if is_cut else z) + record.head_probes[layer]

        return f"blocks.{layer}.attn.hook_z", write

    return [edit(layer) for layer in range(model.cfg.n_layers)]


def _cut_site(s: int, site: Site, record: _Recorder) -> Edit:
    def write(activation: Tensor) -> Tensor:
        x = site.view(activation)
        record.written[s], record.probes[s] = x.detach(), torch.zeros_like(x, requires_grad=True)
        if site.reads == site.writes:
            record.read[s] = x
        return site.put(activation, x.detach() + record.probes[s])

    return site.writes, write


def _read_site(s: int, site: Site, record: _Recorder) -> Edit:
    """Among the edits its place is after the cuts where the site reads elsewhere: what another site wrote there is read through it."""

    def keep(activation: Tensor) -> None:
        record.read[s] = site.view(activation)

    return site.reads, keep


def _pass_on(s: int, site: Site, dictionary: Dictionary, record: _Recorder) -> Edit:
    def write(activation: Tensor) -> Tensor:
        x = site.view(activation)
        record.written[s], record.probes[s] = x.detach(), torch.zeros_like(x, requires_grad=True)
        live = x if dictionary.lossless else x.detach() + _by_units(dictionary, record.read[s])
        return site.put(activation, live + record.probes[s])

    return site.writes, write


def _by_units(dictionary: Dictionary, y: Float[Tensor, "1 pos d_in"]) -> Float[Tensor, "1 pos d"]:
    """Zero, with the gradient that reaches the site through its active units."""
    change, active = y - y.detach(), dictionary.encode(y.detach()) != 0
    by_token = []
    for p in range(y.shape[1]):
        units = active[0, p].nonzero().flatten()
        if not len(units):
            by_token.append(y.new_zeros(dictionary.d))
            continue
        rows, _ = dictionary.reading(y[0, p].detach(), units)
        by_token.append((change[0, p] @ rows.T) @ dictionary.directions(units))
    return torch.stack(by_token)[None]


@contextmanager
def _biases(model: Any) -> Iterator[tuple[Tensor, ...]]:
    """The model's biases that are not all zero, differentiable inside the `with`."""
    biases = {
        id(parameter): parameter
        for name, parameter in model.named_parameters()
        if name.split(".")[-1].lstrip("_").startswith("b") and bool(parameter.any())
    }
    for parameter in biases.values():
        parameter.requires_grad_(True)
    try:
        yield tuple(biases.values())
    finally:
        for parameter in biases.values():
            parameter.requires_grad_(False)
