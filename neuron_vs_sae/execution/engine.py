"""Run circuits at the cost of the circuit: the numbers of `splice.edit`, up to rounding, with less work.

What is not done: only flipped units (`slots.py`) are encoded and decoded; an MLP is not run where all it writes is at its
reference, and of MLP neurons only the kept ones are; positions and layers before the first flipped slot are taken from the
run they are equal to, keys and values included; the last block and the unembedding see the answer's position alone, and only
the tokens that the metric reads. Runs that begin at the same slots go through the model together. Where an error node is
flipped, or an encoder's units depend on each other, the whole dictionary is used, in those slots only.

It goes through the blocks itself, with the model's own attention and norms; `unsupported` says for which models and bases
that is not known to be right, and those are left to `splice`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm.auto import tqdm

from neuron_vs_sae.core.basis import Basis, Site
from neuron_vs_sae.core.dictionary import Coordinates, Dictionary, Some
from neuron_vs_sae.core.metric import Metric, Target, reads_targets_only
from neuron_vs_sae.core.nodes import NodeIndex
from neuron_vs_sae.core.pairs import PromptPairs
from neuron_vs_sae.execution.cache import shared
from neuron_vs_sae.execution.memory import free_memory, peak_bytes
from neuron_vs_sae.execution.neurons import Neurons, is_known
from neuron_vs_sae.execution.overwrite import SiteReference
from neuron_vs_sae.execution.passes import Group, Pass, Trace, logits, norms_last
from neuron_vs_sae.execution.slots import LIVE, REFERENCE, ErrorNode, Flips, Run, beginnings, flips, form_of, slots
from neuron_vs_sae.execution.splice import Reference, precision

Ablation = Callable[[Int[Tensor, " rows"]], Reference]

_WRITES = ("hook_resid_pre", "attn.hook_z", "hook_attn_out", "hook_resid_mid", "mlp.hook_post", "hook_mlp_out", "hook_resid_post")  # fmt: skip
_READS = ("hook_resid_pre", "ln1.hook_normalized", "hook_resid_mid", "ln2.hook_normalized")


def unsupported(model: Any, basis: Basis) -> str | None:
    """Why this model or basis is left to `splice`, None where it is not."""
    from transformer_lens.components.unembed import Unembed

    if type(model.unembed) is not Unembed or any(hook.fwd_hooks or hook.bwd_hooks for hook in model.hook_dict.values()):
        return "the model has an unembedding or hooks of its own"
    cfg = model.cfg
    settings = ("use_attn_in", "use_split_qkv_input", "use_hook_mlp_in", "use_hook_tokens", "use_attn_result")
    for setting in settings:
        if getattr(cfg, setting, False):
            return f"the model is set to {setting}"
    if cfg.attention_dir != "causal" or cfg.positional_embedding_type in ("shortformer", "relative_positional_bias"):
        return "the model's attention is not of a kind that looks back only"
    if getattr(cfg, "n_devices", 1) > 1:
        return "the model's blocks lie on several devices"
    for site in basis.sites:
        kind, prefix = site.kind, f"blocks.{site.layer}."
        if kind not in _WRITES or not site.writes.startswith(prefix):
            return f"{site.writes} lies outside the blocks' own hooks"
        reads = site.reads.removeprefix(prefix)
        if site.reads != site.writes and (reads not in _READS or ("ln" in reads and norms_last(model))):
            return f"{site.reads} is read for {site.writes}"
        if kind == "mlp.hook_post" and not is_known(model.blocks[site.layer].mlp):
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
    metrics: Sequence[Metric],
    batch_size: int,
) -> Float[Tensor, "metrics runs batch"]:
    """Every metric per run and prompt, that of the model itself first; all are read from the same passes.

    `ablation(some)` gives the ablation for a basis of some units of this one.
    """
    plan = _Plan.of(model, basis, index, runs, errors, ablation)
    table = torch.empty(len(metrics), 1 + len(runs), len(pairs), dtype=torch.float64)
    with torch.no_grad():
        for length in sorted(set(pairs.length.tolist())):
            rows = (pairs.length.cpu() == length).nonzero().flatten()
            for some in tqdm(rows.split(batch_size), desc="evaluate", leave=False, delay=2):
                table[..., some] = plan.batch(pairs, some, length, metrics).double().cpu()
    return table


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
        self, pairs: PromptPairs, rows: Int[Tensor, " batch"], length: int, metrics: Sequence[Metric]
    ) -> Float[Tensor, "metrics runs batch"]:
        """The metrics of the model and of every run on prompts of one length."""
        batch = pairs.batch(rows)
        tokens = batch.clean[:, :length]
        references = self._references(self.ablation(rows), length)
        answer, foil, columns = batch.answer, batch.foil, None
        if all(map(reads_targets_only, metrics)):
            columns, places = torch.cat([answer, foil]).unique(return_inverse=True)
            answer, foil = places.split(len(rows))

        def score(last: Tensor) -> Tensor:
            target, read = Target(answer, foil, lambda: whole), logits(self.model, last, columns)
            return torch.stack([metric(read, target) for metric in metrics])

        clean = self._base(tokens, None, False, references, length)
        whole = logits(self.model, clean.last[0], columns)
        is_clean = all(form_of(e, True, False) == LIVE for e in self.errors)
        bases = {
            (full, bare): clean
            if full and not bare and is_clean
            else self._base(tokens, full, bare, references, length)
            for full, bare in sorted({(run.full, self._bare(run, references)) for run in self.runs})
        }
        values: list[Tensor | None] = [None] * len(self.runs)
        for group, members in self._groups(len(rows), length, references):
            theirs = [bases[key] for key in zip(group.full, group.bare, strict=True)]
            if group.starts[-1] == length:  # nothing differs from the base where the answer is read
                last = torch.stack([base.last[0] for base in theirs])
            else:
                last = Pass(self.model, self.sites, self.dictionaries, group, references, length).through(
                    tokens, theirs
                )
            for run, found in zip(members, last, strict=True):
                values[run] = score(found)
        return torch.stack([score(clean.last[0]), *[v for v in values if v is not None]], 1)

    @staticmethod
    def _bare(run: Run, references: list[SiteReference]) -> bool:
        """Whether anything is taken out of this run beside nodes."""
        return not run.constants and any(r.offset is not None or r.constant is not None for r in references)

    def _references(self, reference: Reference, length: int) -> list[SiteReference]:
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
            made.append(SiteReference(written, units, error, listed, reference.offsets[s], reference.constants[s]))
        return made

    def _base(
        self, tokens: Tensor, full: bool | None, bare: bool, references: list[SiteReference], length: int
    ) -> Trace:
        """A base's run, recorded; that of the model itself for None, which all curves of these prompts share."""
        if full is None:
            return Trace.of(
                shared(self.model, "trace", tokens, lambda: self._run(tokens, None, bare, references, length).tensors)
            )
        return self._run(tokens, full, bare, references, length)

    def _run(
        self, tokens: Tensor, full: bool | None, bare: bool, references: list[SiteReference], length: int
    ) -> Trace:
        flags = () if full is None else (full,)
        none = [Flips({}, frozenset())] * len(flags)
        n_layers = self.model.cfg.n_layers
        flipped = [[flip] * len(self.sites) for flip in none]
        group = self._group(flags, (bare,) * len(flags), flipped, (0,) * n_layers, length)
        trace = Trace()
        Pass(self.model, self.sites, self.dictionaries, group, references, length).through(tokens, None, trace)
        return trace

    def _group(
        self,
        full: Sequence[bool],
        bare: Sequence[bool],
        flipped: Sequence[Sequence[Flips]],
        starts: tuple[int, ...],
        length: int,
    ) -> Group:
        last = self.model.cfg.n_layers - 1
        pooled = self.index.positions is None
        made = []
        for s, site in enumerate(self.sites if full else ()):
            # In the last block only the answer's position goes on, after the keys and values.
            first = length - 1 if site.layer == last and site.kind != "hook_resid_pre" else starts[site.layer]
            made.append(
                slots(full, [f[s] for f in flipped], self.errors[s], self.index.widths[s], pooled, first, length)
            )
        return Group(tuple(full), tuple(bare), starts, tuple(made))

    def _groups(
        self, n_prompts: int, length: int, references: list[SiteReference]
    ) -> Iterator[tuple[Group, list[int]]]:
        """Runs that begin at the same slots, as many at a time as the memory has room for."""
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
            size = runs_at_once(self.model, n_prompts, length, min(starts))
            for i in range(0, len(members), size):
                some = members[i : i + size]
                full, flipped = [self.runs[r].full for r in some], [self.flips[r] for r in some]
                bare = [self._bare(self.runs[r], references) for r in some]
                yield self._group(full, bare, flipped, starts, length), some


def _is_neurons(site: Site, dictionary: Dictionary) -> bool:
    return isinstance(dictionary, Coordinates) and site.kind == "mlp.hook_post"


def runs_at_once(model: Any, n_prompts: int, length: int, first: int) -> int:
    """How many runs from position `first` on fit in a quarter of the free memory, and are worth it: beyond some thousand
    tokens at once nothing is gained.

    What a token takes in the model is measured (`bytes_per_token`); dictionaries take no more than slices of a fixed size.
    """
    device = next(model.parameters()).device
    enough = 1 << (17 if device.type == "cuda" else 12)
    tokens = max(1, n_prompts * (length - first))
    return max(1, min(free_memory(device) // 4 // (bytes_per_token(model, length) * tokens), enough // tokens))


def bytes_per_token(model: Any, length: int) -> int:
    """The most that a pass holds at once, by token of a prompt of that length: measured on one prompt, once per model."""
    known = _MEASURED.setdefault(model, {})
    if length not in known:
        tokens = torch.zeros(1, length, dtype=torch.long, device=next(model.parameters()).device)
        alone = Pass(model, (), (), Group((), (), (0,) * model.cfg.n_layers, ()), (), length)
        known[length] = max(1, peak_bytes(lambda: alone.through(tokens, None)) // length)
    return known[length]


_MEASURED: WeakKeyDictionary[Any, dict[int, int]] = WeakKeyDictionary()
