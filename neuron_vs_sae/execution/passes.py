"""Runs going through the blocks: a bundle of them at once, from where they begin to differ from their anchors."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from neuron_vs_sae.core.basis import Site
from neuron_vs_sae.core.dictionary import Dictionary
from neuron_vs_sae.execution.changes import Changed
from neuron_vs_sae.execution.neurons import Neurons, is_known, post
from neuron_vs_sae.execution.overwrite import AblatedSite, overwrite
from neuron_vs_sae.execution.slots import REFERENCE, Slots
from neuron_vs_sae.execution.splice import precision


@dataclass(frozen=True, eq=False)
class Trace:
    """What an anchor's run left behind: the residual stream before each block, keys and values, and the answer's residual."""

    resid: list[Float[Tensor, "batch pos d"]] = field(default_factory=list)
    keys: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)
    last: list[Float[Tensor, "batch d"]] = field(default_factory=list)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """All of it by name, as `of` takes it."""
        return {f"{f.name}.{i}": x for f in fields(self) for i, x in enumerate(getattr(self, f.name))}

    @staticmethod
    def of(tensors: dict[str, Tensor]) -> "Trace":
        names = {f.name: [name for name in tensors if name.split(".")[0] == f.name] for f in fields(Trace)}
        return Trace(
            **{field: [tensors[f"{field}.{i}"] for i in range(len(its_names))] for field, its_names in names.items()}
        )


class _Entry:
    """An entry of a key-value cache as attention asks for it: the past is the anchor's, and what is added can be recorded."""

    def __init__(self, past: tuple[Tensor, Tensor] | None, offset: int, trace: Trace | None):
        self.past, self.trace = past, trace
        self.past_keys = torch.empty(0, offset)  # attention asks for its length alone

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        if self.trace is not None:
            self.trace.keys.append(keys)
            self.trace.values.append(values)
        if self.past is None:
            return keys, values
        return torch.cat([self.past[0], keys], 1), torch.cat([self.past[1], values], 1)


@dataclass(frozen=True, eq=False)
class Bundle:
    """Runs that leave their anchors at the same slots: from where on (`starts`, per layer), how each site is written in them
    (`slots`), and which of them lack the constants that the ablation removes (`bare`).

    A site has `Slots` where nodes are kept and ablated, `Changed` where units take other values, None where it is left alone.
    """

    full: tuple[bool, ...]
    bare: tuple[bool, ...]
    starts: tuple[int, ...]
    slots: tuple[Slots | Changed | None, ...]


class Pass:
    """A bundle of runs going through the blocks; activations are `[runs, batch, pos, d]`."""

    def __init__(
        self,
        model: Any,
        sites: Sequence[Site],
        dictionaries: Sequence[Dictionary],
        bundle: Bundle,
        ablated: Sequence[AblatedSite],
        length: int,
    ):
        self.model, self.sites, self.dictionaries = model, sites, dictionaries
        self.bundle, self.ablated, self.length = bundle, ablated, length
        self.n = max(1, len(bundle.full))
        self.bare = torch.tensor(bundle.bare, dtype=torch.bool).nonzero().flatten()
        self.norms_last = norms_last(model)
        self.by_layer: dict[int, list[int]] = {}
        for s in (s for s, at in enumerate(bundle.slots) if at is not None):
            self.by_layer.setdefault(self.sites[s].layer, []).append(s)

    def through(self, tokens: Tensor, anchors: list[Trace] | None, trace: Trace | None = None) -> Tensor:
        """The residual stream at the answer's position `[runs, batch, d]`.

        `anchors` are the recorded runs that the bundle's runs continue, one each; without them the runs start at the tokens.
        `trace` records a run that is to be an anchor.
        """
        x, start = None, self.length
        if anchors is None:
            x, start = self.model(tokens, stop_at_layer=0, padding_side="right")[None], 0
        for layer, first in enumerate(self.bundle.starts):
            if anchors is not None and first < start:
                joining = torch.stack([anchor.resid[layer][:, first:start] for anchor in anchors])
                x = joining if x is None else torch.cat([joining, x], 2)
            elif first > start and x is not None:
                x = x[:, :, first - start :] if first < self.length else None
            start = first
            if x is None:
                continue
            if trace is not None:
                trace.resid.append(x[0].clone())
            past = None
            if anchors is not None and start > 0:
                past = (
                    torch.stack([anchor.keys[layer][:, :start] for anchor in anchors]).flatten(0, 1),
                    torch.stack([anchor.values[layer][:, :start] for anchor in anchors]).flatten(0, 1),
                )
            x = self._block(layer, x, past, trace)
        assert x is not None  # a bundle that ends where its anchors do is not sent through
        if trace is not None:
            trace.last.append(x[0, :, -1])
        return x[:, :, -1]

    def _block(self, layer: int, x: Tensor, past: tuple[Tensor, Tensor] | None, trace: Trace | None) -> Tensor:
        block, cfg = self.model.blocks[layer], self.model.cfg
        seen: dict[str, Tensor] = {}
        self._write(layer, "hook_resid_pre", x, seen)
        # Of the last block only the answer's position is read.
        asked = 1 if layer == cfg.n_layers - 1 else x.shape[2]
        with self._watching(layer, block, seen):
            normed = x.flatten(0, 1) if self.norms_last else block.ln1(x.flatten(0, 1))
            # An attention layer that is wholly ablated need not be run, unless its keys and values are wanted later.
            attended = self._attend(layer, block, normed, asked, past, trace)
            x = x[:, :, -asked:]
            self._write(layer, "hook_attn_out", attended, seen)
            middle = x + attended
            if cfg.attn_only:
                out = middle
            else:
                if not cfg.parallel_attn_mlp:
                    self._write(layer, "hook_resid_mid", middle, seen)
                mlp_in = x if cfg.parallel_attn_mlp else middle
                if not self.norms_last:
                    mlp_in = block.ln2(mlp_in.flatten(0, 1)).unflatten(0, x.shape[:2])
                mlp_out = self._mlp(layer, block.mlp, mlp_in, seen)
                after = block.ln2 if self.norms_last else getattr(block, "ln2_post", None)
                if after is not None:
                    mlp_out = after(mlp_out.flatten(0, 1)).unflatten(0, x.shape[:2])
                self._write(layer, "hook_mlp_out", mlp_out, seen)
                out = middle + mlp_out
        self._write(layer, "hook_resid_post", out, seen)
        return out

    def _attend(
        self,
        layer: int,
        block: Any,
        normed: Tensor,
        asked: int,
        past: tuple[Tensor, Tensor] | None,
        trace: Trace | None,
    ) -> Tensor:
        wanted = self._wanted(layer, "hook_attn_out", asked)
        if trace is None and not bool(wanted.any()):
            return normed.new_zeros(self.n, normed.shape[0] // self.n, asked, normed.shape[2])
        attended = block.attn(
            query_input=normed[:, -asked:],
            key_input=normed,
            value_input=normed,
            past_kv_cache_entry=_Entry(past, self.length - asked, trace),
        )
        after = block.ln1 if self.norms_last else getattr(block, "ln1_post", None)
        if after is not None:
            attended = after(attended)
        return attended.unflatten(0, (self.n, -1))

    def _mlp(self, layer: int, mlp: Any, y: Tensor, seen: dict[str, Tensor]) -> Tensor:
        """What the MLP adds in the slots where something depends on it; zeros elsewhere."""
        wanted = self._wanted(layer, "hook_mlp_out", y.shape[2])
        out = y.new_zeros(y.shape)
        inner = [s for s in self.by_layer.get(layer, []) if self.sites[s].kind == "mlp.hook_post"]
        neurons = [s for s in inner if isinstance(self.dictionaries[s], Neurons)]
        own = self.bundle.slots[neurons[0]] if neurons else None
        dense = wanted & (own.form != REFERENCE) if isinstance(own, Slots) else wanted
        rows = dense.nonzero(as_tuple=True)
        if len(rows[0]):
            into = y[rows[0], :, rows[1]]
            if inner and not neurons:
                neurons_at = y.new_zeros(*y.shape[:3], mlp.W_out.shape[0])
                neurons_at[rows[0], :, rows[1]] = post(mlp, into)
                for s in inner:
                    self._write_site(s, neurons_at, seen)
                added = neurons_at[rows[0], :, rows[1]] @ mlp.W_out + mlp.b_out
            else:
                added = post(mlp, into) @ mlp.W_out + mlp.b_out if is_known(mlp) else mlp(into)
            out[rows[0], :, rows[1]] = added
        for s in neurons:
            self._write_site(s, out, {**seen, self.sites[s].reads: y})
        return out

    def _wanted(self, layer: int, kind: str, positions: int) -> Bool[Tensor, "runs pos"]:
        """Where the activation at that hook is needed: not where it is replaced unread."""
        for s in self.by_layer.get(layer, []):
            site, at = self.sites[s], self.bundle.slots[s]
            if site.kind == kind and isinstance(at, Slots):
                return (at.form != REFERENCE) | (
                    at.listed if site.reads == site.writes else torch.zeros_like(at.listed)
                )
        return torch.ones(self.n, positions, dtype=torch.bool)

    @contextmanager
    def _watching(self, layer: int, block: Any, seen: dict[str, Tensor]) -> Iterator[None]:
        """Hooks on the model's own modules, for as long as a block runs: the heads' values to edit, the norms' outputs to read."""
        here = self.by_layer.get(layer, [])
        reads = {self.sites[s].reads for s in here}
        heads = [s for s in here if self.sites[s].kind == "attn.hook_z"]
        with ExitStack() as stack:

            def watch(hook: Any, see: Callable[[Any, Any, Tensor], Tensor | None]) -> None:
                stack.callback(hook.register_forward_hook(see).remove)

            for name in ("ln1", "ln2"):
                hook = f"blocks.{layer}.{name}.hook_normalized"
                if hook in reads:

                    def remember(module: Any, args: Any, x: Tensor, hook: str = hook) -> None:
                        seen[hook] = x.unflatten(0, (self.n, -1))

                    watch(getattr(block, name).hook_normalized, remember)
            if heads:

                def replace_heads(module: Any, args: Any, z: Tensor) -> Tensor:
                    edited = z.clone(memory_format=torch.contiguous_format)
                    for s in heads:
                        self._write_site(s, edited.unflatten(0, (self.n, -1)), seen)
                    return edited

                watch(block.attn.hook_z, replace_heads)
            yield

    def _write(self, layer: int, kind: str, x: Tensor, seen: dict[str, Tensor]) -> None:
        """Write every site at that hook, in place, take out the constants that bare runs lack there, and note the activation
        for sites that read it."""
        hook = f"blocks.{layer}.{kind}"
        for s in self.by_layer.get(layer, []):
            constant = self.ablated[s].constant
            if constant is not None and constant[0] == hook:
                x[self.bare] -= constant[1].to(x.dtype)
            if self.sites[s].kind == kind:
                self._write_site(s, x, seen)
        seen[hook] = x

    def _write_site(self, s: int, activation: Tensor, seen: dict[str, Tensor]) -> None:
        """Write one site's slots into `activation` `[runs, batch, pos, *d]`."""
        site, dictionary = self.sites[s], self.dictionaries[s]
        x = activation.flatten(3) if site.head is None else activation[..., site.head, :]
        y = x
        if site.reads != site.writes or isinstance(dictionary, Neurons):
            y = seen[site.reads][:, :, -x.shape[2] :]
        at = self.bundle.slots[s]
        if isinstance(at, Changed):
            at.write(x, y, dictionary, precision(self.model))
        elif at is not None:
            overwrite(x, y, dictionary, at, self.ablated[s], precision(self.model))
        offset = self.ablated[s].offset
        if offset is not None:
            x[self.bare] -= offset.to(x.dtype)


def norms_last(model: Any) -> bool:
    """Whether the norms apply to what attention and the MLP write, rather than to what they read (OLMo 2)."""
    from transformer_lens.utilities.architectures import POST_NORM_ARCHITECTURES

    return model.cfg.original_architecture in POST_NORM_ARCHITECTURES


def logits(
    model: Any, resid: Float[Tensor, "batch d"], columns: Int[Tensor, " k"] | None = None
) -> Float[Tensor, "batch _"]:
    """The logits (of the tokens `columns`, or all) after the final norm, soft-cap included, in the precision of scores."""
    if model.cfg.normalization_type is not None:
        resid = model.ln_final(resid[:, None])[:, 0]
    W, b = model.unembed.W_U, model.unembed.b_U
    if columns is not None:
        W, b = W[:, columns.to(W.device)], b[columns.to(b.device)]
    wide = precision(model)  # a half-precision logit is too coarse for a difference
    values = resid.to(wide) @ W.to(wide) + b.to(wide)
    cap = getattr(model.cfg, "output_logits_soft_cap", None)
    if cap is not None and cap > 0:
        values = cap * torch.tanh(values / cap)
    return values
