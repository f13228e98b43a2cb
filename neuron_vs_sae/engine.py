"""Run circuits at the cost of the circuit: the numbers of `splice.edit`, up to rounding, with less work.

What is not done: only flipped units (`cells.py`) are encoded and decoded; an MLP is not run where all it writes is at its
reference, and of MLP neurons only the kept ones are; positions and layers before the first flipped cell are taken from the
run they are equal to, keys and values included; the last block and the unembedding see the answer's position alone, and only
the tokens that the metric reads. Runs that begin at the same cells go through the model together. Where an error node is
flipped, or an encoder's units look at each other, the whole dictionary is used, in those cells only.

It goes through the blocks itself, with the model's own attention and norms; `unsupported` says for which models and bases
that is not known to be right, and those are left to `splice`.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import gelu
from tqdm.auto import tqdm

from neuron_vs_sae.basis import Basis, Coordinates, Dictionary, Site, Some, split
from neuron_vs_sae.cells import LIVE, REFERENCE, Cells, ErrorNode, Flips, Run, beginnings, cells, flips, form_of
from neuron_vs_sae.metric import Metric, Target, reads_targets_only
from neuron_vs_sae.nodes import NodeIndex
from neuron_vs_sae.pairs import PromptPairs
from neuron_vs_sae.splice import Reference, precision

Ablation = Callable[[Int[Tensor, " rows"]], Reference]

_WRITES = ("hook_resid_pre", "attn.hook_z", "hook_attn_out", "hook_resid_mid", "mlp.hook_post", "hook_mlp_out", "hook_resid_post")  # fmt: skip
_READS = ("hook_resid_pre", "ln1.hook_normalized", "hook_resid_mid", "ln2.hook_normalized")
# transformer-lens writes GPT-2's GELU out in five passes over memory.
_ACTIVATIONS: dict[Any, Callable[[Tensor], Tensor]] = {
    "gelu_new": partial(gelu, approximate="tanh"),
    "gelu_fast": partial(gelu, approximate="tanh"),
}


def unsupported(model: Any, basis: Basis) -> str | None:
    """Why this model or basis is left to `splice`, None where it is not."""
    from transformer_lens.components.unembed import Unembed
    from transformer_lens.utilities.architectures import POST_NORM_ARCHITECTURES

    if type(model.unembed) is not Unembed or any(hook.fwd_hooks or hook.bwd_hooks for hook in model.hook_dict.values()):
        return "the model has an unembedding or hooks of its own"
    cfg = model.cfg
    settings = ("use_attn_in", "use_split_qkv_input", "use_hook_mlp_in", "use_hook_tokens", "use_attn_result")
    for setting in settings:
        if getattr(cfg, setting, False):
            return f"the model is set to {setting}"
    if cfg.attention_dir != "causal" or cfg.positional_embedding_type in ("shortformer", "relative_positional_bias"):
        return "the model's attention is not of a kind that looks back only"
    if cfg.original_architecture in POST_NORM_ARCHITECTURES or getattr(cfg, "n_devices", 1) > 1:
        return "the model's blocks are put together in another way, or lie on several devices"
    for site in basis.sites:
        kind, prefix = site.kind, f"blocks.{site.layer}."
        if kind not in _WRITES or not site.writes.startswith(prefix):
            return f"{site.writes} lies outside the blocks' own hooks"
        if site.reads != site.writes and site.reads.removeprefix(prefix) not in _READS:
            return f"{site.reads} is read for {site.writes}"
        if kind == "mlp.hook_post" and not _known_mlp(model.blocks[site.layer].mlp):
            return f"{site.writes} is inside a {type(model.blocks[site.layer].mlp).__name__}"
    return None


def evaluate_runs(
    model: Any,
    basis: Basis,
    index: NodeIndex,
    pairs: PromptPairs,
    runs: Sequence[Run],
    errors: Sequence[ErrorNode],
    ablation: Callable[[Basis], Ablation],
    metric: Metric,
    batch_size: int,
) -> Float[Tensor, "runs batch"]:
    """The metric per run and prompt, that of the model itself first.

    `ablation(some)` gives the ablation for a basis of some units of this one.
    """
    plan = _Plan.of(model, basis, index, runs, errors, ablation)
    table = torch.empty(1 + len(runs), len(pairs), dtype=torch.float64)
    with torch.no_grad():
        for length in sorted(set(pairs.length.tolist())):
            rows = (pairs.length.cpu() == length).nonzero().flatten()
            for some in tqdm(rows.split(batch_size), desc="evaluate", leave=False, delay=2):
                table[:, some] = plan.batch(pairs, some, length, metric).double().cpu()
    return table


class Neurons(Dictionary):
    """An MLP's neurons seen from what the MLP writes: read its input, write `post @ W_out + b_out`, with no error."""

    lossless = True

    def __init__(self, mlp: Any, dtype: torch.dtype):
        self.mlp, self.dtype = mlp, dtype
        self.width, self.d = mlp.W_out.shape
        self.act = activation(mlp)
        self.gated = hasattr(mlp, "W_gate")

    def _post(self, y: Tensor, units: Any) -> Tensor:
        mlp = self.mlp
        y = y.to(mlp.W_in.dtype)
        if self.gated:
            return self.act(y @ mlp.W_gate[:, units]) * (y @ mlp.W_in[:, units]) + mlp.b_in[units]
        return self.act(y @ mlp.W_in[:, units] + mlp.b_in[units])

    def encode(self, y: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch {self.width}"]:
        return self._post(y, slice(None)).to(self.dtype)

    def encode_some(self, y: Float[Tensor, "*batch d_in"], units: Int[Tensor, " k"]) -> Float[Tensor, "*batch k"]:
        return self._post(y, units).to(self.dtype)

    def decode(self, units: Float[Tensor, "*batch {self.width}"]) -> Float[Tensor, "*batch {self.d}"]:
        return (units.to(self.mlp.W_out.dtype) @ self.mlp.W_out + self.mlp.b_out).to(self.dtype)

    def directions(self, units: Int[Tensor, " k"]) -> Float[Tensor, "k {self.d}"]:
        return self.mlp.W_out[units].to(self.dtype)

    def pull_back(self, gradient: Float[Tensor, "*batch {self.d}"]) -> Float[Tensor, "*batch {self.width}"]:
        return gradient @ self.mlp.W_out.T.to(self.dtype)


def activation(mlp: Any) -> Callable[[Tensor], Tensor]:
    """The MLP's elementwise nonlinearity."""
    return _ACTIVATIONS.get(mlp.cfg.act_fn) or mlp.act_fn


def _known_mlp(mlp: Any) -> bool:
    from transformer_lens.components.mlps.gated_mlp import GatedMLP
    from transformer_lens.components.mlps.mlp import MLP

    return type(mlp) in (MLP, GatedMLP) and not mlp.cfg.is_layer_norm_activation()


@dataclass(frozen=True, eq=False)
class _Reference:
    """What one site writes where it is ablated: everything together, and the units that can be live by themselves."""

    written: Float[Tensor, "_ _ d"]
    units: Float[Tensor, "_ _ w"]
    error: Float[Tensor, "_ _ _"]
    columns: Int[Tensor, " w"] | None
    constant: tuple[str, Float[Tensor, " _"]] | None

    def of(self, units: Int[Tensor, " k"], positions: Int[Tensor, " n"]) -> Float[Tensor, "n _ k"]:
        """The reference values of some units at some positions, by cell and prompt."""
        columns = units if self.columns is None else torch.searchsorted(self.columns, units)
        return _at(self.units[..., columns.to(self.units.device)], positions)


def _at(values: Tensor, positions: Tensor) -> Tensor:
    """`[n, batch or 1, d]` of a reference's `[batch or 1, pos or 1, d]`."""
    at = positions.to(values.device) if values.shape[1] > 1 else torch.zeros_like(positions, device=values.device)
    return values[:, at].transpose(0, 1)


@dataclass(frozen=True, eq=False)
class Trace:
    """What a base's run left behind: the residual stream before each block, keys and values, and the answer's residual."""

    resid: list[Float[Tensor, "batch pos d"]] = field(default_factory=list)
    keys: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)
    last: list[Float[Tensor, "batch d"]] = field(default_factory=list)


class _Entry:
    """A key-value cache's entry as attention asks for it: what is in the past is a base's, what comes can be recorded."""

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
class _Group:
    """Runs that begin at the same cells, and how each site is written in them."""

    full: tuple[bool, ...]
    starts: tuple[int, ...]
    cells: tuple[Cells, ...]


@dataclass(frozen=True, eq=False)
class _Plan:
    """All that is known of a curve's runs before a prompt is seen."""

    model: Any
    sites: tuple[Site, ...]
    dictionaries: tuple[Dictionary, ...]
    index: NodeIndex
    runs: tuple[Run, ...]
    flips: tuple[list[Flips], ...]
    errors: tuple[ErrorNode, ...]
    listed: tuple[Tensor | None, ...]
    ablation: Ablation

    @staticmethod
    def of(
        model: Any,
        basis: Basis,
        index: NodeIndex,
        runs: Sequence[Run],
        errors: Sequence[ErrorNode],
        ablation: Callable[[Basis], Ablation],
    ) -> "_Plan":
        flipped = tuple(flips(index, run) for run in runs)
        like = torch.empty(0, dtype=precision(model), device=next(model.parameters()).device)
        listed, narrowed = [], []
        for s, dictionary in enumerate(basis.dictionaries):
            units = [u for found in flipped for u in found[s].units.values()]
            all_units = torch.cat(units).unique() if units else torch.zeros(0, dtype=torch.long)
            taken_apart = not errors[s].exact and (
                any(found[s].errors for found in flipped)
                or form_of(errors[s], False, False) != REFERENCE
                or form_of(errors[s], True, False) != LIVE
            )
            whole = taken_apart or isinstance(dictionary, Coordinates) or 2 * len(all_units) > dictionary.width
            listed.append(None if whole else all_units)
            narrowed.append(dictionary if whole else Some(dictionary, all_units.to(like.device), like))
        dictionaries = tuple(
            Neurons(model.blocks[site.layer].mlp, precision(model)) if _is_neurons(site, d) else d
            for site, d in zip(basis.sites, basis.dictionaries, strict=True)
        )
        made = ablation(replace(basis, dictionaries=tuple(narrowed)))
        return _Plan(
            model, basis.sites, dictionaries, index, tuple(runs), flipped, tuple(errors), tuple(listed), made
        )  # fmt: skip

    def batch(
        self, pairs: PromptPairs, rows: Int[Tensor, " batch"], length: int, metric: Metric
    ) -> Float[Tensor, "runs batch"]:
        """The metric of the model and of every run on prompts of one length."""
        batch = pairs.batch(rows)
        tokens = batch.clean[:, :length]
        references = self._references(self.ablation(rows), length)
        answer, foil, columns = batch.answer, batch.foil, None
        if reads_targets_only(metric):
            columns, places = torch.cat([answer, foil]).unique(return_inverse=True)
            answer, foil = places.split(len(rows))

        def score(last: Tensor) -> Tensor:
            target = Target(answer, foil, lambda: whole)
            return metric(logits(self.model, last, columns), target)

        clean = self._base(tokens, None, references, length)
        whole = logits(self.model, clean.last[0], columns)
        is_clean = all(
            form_of(e, True, False) == LIVE and (e.full or r.constant is None)
            for e, r in zip(self.errors, references, strict=True)
        )
        bases = {
            True: clean if is_clean else self._base(tokens, True, references, length),
            False: self._base(tokens, False, references, length),
        }
        values: list[Tensor | None] = [None] * len(self.runs)
        for group, members in self._groups(len(rows), length):
            if group.starts[-1] == length:  # nothing differs from the base where the answer is read
                last = torch.stack([bases[full].last[0] for full in group.full])
            else:
                last = _Pass(self, group, references, length).through(tokens, [bases[full] for full in group.full])
            for run, found in zip(members, last, strict=True):
                values[run] = score(found)
        return torch.stack([score(clean.last[0]), *[v for v in values if v is not None]])

    def _references(self, reference: Reference, length: int) -> list[_Reference]:
        made = []
        for s, dictionary in enumerate(self.dictionaries):
            units, error = (
                x if x.shape[1] == 1 else x[:, :length]
                for x in (reference.features.units[s], reference.features.errors[s])
            )
            listed = self.listed[s]
            if isinstance(dictionary, Neurons) or listed is None:
                written = dictionary.decode(units)
            else:
                on = listed.to(units.device)
                written = units @ dictionary.directions(on) + dictionary.at_zero(units)
            if not isinstance(dictionary, Neurons):
                written = written + error
            made.append(_Reference(written, units, error, listed, reference.constants[s]))
        return made

    def _base(self, tokens: Tensor, full: bool | None, references: list[_Reference], length: int) -> Trace:
        """A base's run, recorded; that of the model itself for None."""
        flags = () if full is None else (full,)
        none = [Flips({}, frozenset())] * len(flags)
        n_layers = self.model.cfg.n_layers
        group = self._group(flags, [[flip] * len(self.sites) for flip in none], (0,) * n_layers, length)
        trace = Trace()
        _Pass(self, group, references, length).through(tokens, None, trace)
        return trace

    def _group(
        self, full: Sequence[bool], flipped: Sequence[Sequence[Flips]], starts: tuple[int, ...], length: int
    ) -> _Group:
        last = self.model.cfg.n_layers - 1
        pooled = self.index.positions is None
        made = []
        for s, site in enumerate(self.sites if full else ()):
            # In the last block only the answer's position goes on, after the keys and values.
            first = length - 1 if site.layer == last and site.kind != "hook_resid_pre" else starts[site.layer]
            made.append(
                cells(full, [f[s] for f in flipped], self.errors[s], self.index.widths[s], pooled, first, length)
            )
        return _Group(tuple(full), starts, tuple(made))

    def _groups(self, n_prompts: int, length: int) -> Iterator[tuple[_Group, list[int]]]:
        """Runs that begin at the same cells, as many at a time as the memory has room for."""
        cuts = [site.kind == "hook_resid_post" for site in self.sites]
        layers = [site.layer for site in self.sites]
        together: dict[tuple[int, ...], list[int]] = {}
        for r, (run, flipped) in enumerate(zip(self.runs, self.flips, strict=True)):
            starts = beginnings(
                run.full, flipped, self.errors, layers, cuts, self.model.cfg.n_layers, length,
                self.index.positions is None,
            )  # fmt: skip
            together.setdefault(starts, []).append(r)
        for starts, members in together.items():
            size = runs_at_once(self.model, n_prompts, length - min(starts))
            for i in range(0, len(members), size):
                some = members[i : i + size]
                full, flipped = [self.runs[r].full for r in some], [self.flips[r] for r in some]
                yield self._group(full, flipped, starts, length), some


def _is_neurons(site: Site, dictionary: Dictionary) -> bool:
    return isinstance(dictionary, Coordinates) and site.kind == "mlp.hook_post"


def runs_at_once(model: Any, n_prompts: int, positions: int) -> int:
    """How many runs fit in a quarter of the memory that is free, and are worth it: beyond some thousand tokens nothing is gained."""
    device, cfg = next(model.parameters()).device, model.cfg
    free, enough = free_memory(device), 1 << (17 if device.type == "cuda" else 12)
    per_token = (4 * (cfg.d_mlp or 0) + 12 * cfg.d_model + 3 * cfg.n_heads * positions) * cfg.dtype.itemsize
    tokens = max(1, n_prompts * positions)
    return max(1, min(free // 4 // (per_token * tokens), enough // tokens))


def free_memory(device: torch.device) -> int:
    """Bytes that can be had on the device (4 GiB where the system does not say)."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return 4 << 30


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
    found = resid.to(wide) @ W.to(wide) + b.to(wide)
    cap = getattr(model.cfg, "output_logits_soft_cap", None)
    if cap is not None and cap > 0:
        found = cap * torch.tanh(found / cap)
    return found


class _Pass:
    """A group of runs on their way through the blocks; activations are `[runs, batch, pos, d]`."""

    def __init__(self, plan: _Plan, group: _Group, references: list[_Reference], length: int):
        self.plan, self.group, self.references, self.length = plan, group, references, length
        self.model, self.n = plan.model, max(1, len(group.full))
        self.by_layer: dict[int, list[int]] = {}
        for s in range(len(group.cells)):
            self.by_layer.setdefault(plan.sites[s].layer, []).append(s)

    def through(self, tokens: Tensor, bases: list[Trace] | None, trace: Trace | None = None) -> Tensor:
        """The residual stream at the answer's position `[runs, batch, d]`."""
        x, start = None, self.length
        if bases is None:
            x, start = self.model(tokens, stop_at_layer=0, padding_side="right")[None], 0
        for layer, first in enumerate(self.group.starts):
            if bases is not None and first < start:
                joining = torch.stack([base.resid[layer][:, first:start] for base in bases])
                x = joining if x is None else torch.cat([joining, x], 2)
            elif first > start and x is not None:
                x = x[:, :, first - start :] if first < self.length else None
            start = first
            if x is None:
                continue
            if trace is not None:
                trace.resid.append(x[0].clone())
            past = None
            if bases is not None and start > 0:
                past = (
                    torch.stack([base.keys[layer][:, :start] for base in bases]).flatten(0, 1),
                    torch.stack([base.values[layer][:, :start] for base in bases]).flatten(0, 1),
                )
            x = self._block(layer, x, past, trace)
        assert x is not None  # a group that ends where its bases do is not sent through
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
            normed = block.ln1(x.flatten(0, 1))
            # A wholly ablated attention need not be run, unless its keys and values are wanted later.
            attended = self._attend(layer, block, normed, asked, past, trace)
            x = x[:, :, -asked:]
            self._write(layer, "hook_attn_out", attended, seen)
            middle = x + attended
            if cfg.attn_only:
                out = middle
            else:
                if not cfg.parallel_attn_mlp:
                    self._write(layer, "hook_resid_mid", middle, seen)
                mlp_in = block.ln2((x if cfg.parallel_attn_mlp else middle).flatten(0, 1)).unflatten(0, x.shape[:2])
                made = self._mlp(layer, block.mlp, mlp_in, seen)
                if cfg.use_normalization_before_and_after:
                    made = block.ln2_post(made.flatten(0, 1)).unflatten(0, x.shape[:2])
                self._write(layer, "hook_mlp_out", made, seen)
                out = middle + made
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
        found = block.attn(
            query_input=normed[:, -asked:],
            key_input=normed,
            value_input=normed,
            past_kv_cache_entry=_Entry(past, self.length - asked, trace),
        )
        if self.model.cfg.use_normalization_before_and_after:
            found = block.ln1_post(found)
        return found.unflatten(0, (self.n, -1))

    def _mlp(self, layer: int, mlp: Any, y: Tensor, seen: dict[str, Tensor]) -> Tensor:
        """What the MLP adds, in the cells where something depends on it; elsewhere zeros."""
        wanted = self._wanted(layer, "hook_mlp_out", y.shape[2])
        out = y.new_zeros(y.shape)
        inner = [s for s in self.by_layer.get(layer, []) if self.plan.sites[s].kind == "mlp.hook_post"]
        neurons = [s for s in inner if isinstance(self.plan.dictionaries[s], Neurons)]
        dense = wanted & (self.group.cells[neurons[0]].form != REFERENCE) if neurons else wanted
        rows = dense.nonzero(as_tuple=True)
        if len(rows[0]):
            into = y[rows[0], :, rows[1]]
            if inner and not neurons:
                post = y.new_zeros(*y.shape[:3], mlp.W_out.shape[0])
                post[rows[0], :, rows[1]] = _post(mlp, into)
                for s in inner:
                    self._write_site(s, post, seen)
                made = post[rows[0], :, rows[1]] @ mlp.W_out + mlp.b_out
            else:
                made = _post(mlp, into) @ mlp.W_out + mlp.b_out if _known_mlp(mlp) else mlp(into)
            out[rows[0], :, rows[1]] = made
        for s in neurons:
            self._write_site(s, out, {**seen, self.plan.sites[s].reads: y})
        return out

    def _wanted(self, layer: int, kind: str, positions: int) -> Bool[Tensor, "runs pos"]:
        """Where the activation at that hook is read: not where it is replaced without a look."""
        for s in self.by_layer.get(layer, []):
            site, at = self.plan.sites[s], self.group.cells[s]
            if site.kind == kind:
                return (at.form != REFERENCE) | (
                    at.listed if site.reads == site.writes else torch.zeros_like(at.listed)
                )
        return torch.ones(self.n, positions, dtype=torch.bool)

    @contextmanager
    def _watching(self, layer: int, block: Any, seen: dict[str, Tensor]) -> Iterator[None]:
        """Catch what lies inside the model's own modules: the heads' values to edit, the norms' outputs to read."""
        here = self.by_layer.get(layer, [])
        reads = {self.plan.sites[s].reads for s in here}
        heads = [s for s in here if self.plan.sites[s].kind == "attn.hook_z"]
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
        """Write every site at that hook, in place, and what is removed there; keep it if another site reads it."""
        hook = f"blocks.{layer}.{kind}"
        for s in self.by_layer.get(layer, []):
            constant = self.references[s].constant
            if constant is not None and constant[0] == hook:
                ablated = ~self.group.cells[s].error[:, None, :, None].to(x.device)
                x -= (ablated * constant[1]).to(x.dtype)
            if self.plan.sites[s].kind == kind:
                self._write_site(s, x, seen)
        seen[hook] = x

    def _write_site(self, s: int, activation: Tensor, seen: dict[str, Tensor]) -> None:
        """Write one site's cells into `activation` `[runs, batch, pos, *d]`."""
        site, at, reference = self.plan.sites[s], self.group.cells[s], self.references[s]
        dictionary, dtype = self.plan.dictionaries[s], precision(self.model)
        x = activation.flatten(3) if site.head is None else activation[..., site.head, :]
        y = x
        if site.reads != site.writes or isinstance(dictionary, Neurons):
            y = seen[site.reads][:, :, -x.shape[2] :]
        # Read before anything is written: where units are read from the activation that they write.
        inputs = [y[c.run, :, c.position].to(dtype) for c in at.corrections]
        run, position, kept = at.whole
        whole = y[run, :, position].to(dtype), x[run, :, position].to(dtype)
        on_reference = (at.form == REFERENCE).nonzero(as_tuple=True)
        x[on_reference[0], :, on_reference[1]] = _at(reference.written, at.first + on_reference[1]).to(x.dtype).expand(
            -1, x.shape[1], -1
        )  # fmt: skip
        for c, read in zip(at.corrections, inputs, strict=True):
            units = c.units.to(x.device)
            change = dictionary.encode_some(read, units) - reference.of(c.units, at.first + c.position)
            change = change * c.sign[:, None].to(change)
            before = x[c.run, :, c.position]
            x[c.run, :, c.position] = (before.to(dtype) + change @ dictionary.directions(units)).to(x.dtype)
        if len(run):
            units, error = split(dictionary, *whole)
            at_positions = at.first + position
            units = torch.where(kept[:, None].to(x.device), units, _at(reference.units, at_positions))
            live = at.error[run, position][:, None, None].to(x.device)
            error = torch.where(live, error, _at(reference.error, at_positions))
            x[run, :, position] = (dictionary.decode(units) + error).to(x.dtype)


def _post(mlp: Any, y: Tensor) -> Tensor:
    if hasattr(mlp, "W_gate"):
        return activation(mlp)(y @ mlp.W_gate) * (y @ mlp.W_in) + mlp.b_in
    return activation(mlp)(y @ mlp.W_in + mlp.b_in)
