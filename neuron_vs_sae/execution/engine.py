"""Run circuits at the cost of the circuit: the numbers of `splice.edit`, up to rounding, with less work.

Every run is computed from an *anchor* (`slots.py`), and only what differs from it is computed again. Only flipped units are
encoded and decoded. An MLP is skipped where everything it writes is at its reference; of MLP neurons, only the kept ones are
computed. Positions and layers before the first flipped slot are copied from the anchor, keys and values included. The last
block and the unembedding see the answer's position alone, and only the tokens that the metric reads. Runs that leave their
anchor at the same slots go through the model together, as a `Bundle`. Where an error node is flipped, or where an encoder's
units depend on each other, the whole dictionary is used, in those slots only.

The engine goes through the blocks itself, with the model's own attention and norms. `unsupported` names the models and bases
for which that is not known to be right; they are left to `splice`.
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
from neuron_vs_sae.execution.overwrite import AblatedSite
from neuron_vs_sae.execution.passes import Bundle, Pass, Trace, logits, norms_last
from neuron_vs_sae.execution.slots import LIVE, REFERENCE, ErrorNode, Flips, Run, beginnings, flips, form_of, slots
from neuron_vs_sae.execution.splice import Ablation, ReferenceValues, precision

_WRITES = ("hook_resid_pre", "attn.hook_z", "hook_attn_out", "hook_resid_mid", "mlp.hook_post", "hook_mlp_out", "hook_resid_post")  # fmt: skip
_READS = ("hook_resid_pre", "ln1.hook_normalized", "hook_resid_mid", "ln2.hook_normalized")


def unsupported(model: Any, basis: Basis) -> str | None:
    """Why this model or basis is left to `splice`; None where the engine supports it."""
    from transformer_lens.components.unembed import Unembed

    if type(model.unembed) is not Unembed or any(hook.fwd_hooks or hook.bwd_hooks for hook in model.hook_dict.values()):
        return "the model has an unembedding or hooks of its own"
    cfg = model.cfg
    settings = ("use_attn_in", "use_split_qkv_input", "use_hook_mlp_in", "use_hook_tokens", "use_attn_result")
    for setting in settings:
        if getattr(cfg, setting, False):
            return f"the model is set to {setting}"
    if cfg.attention_dir != "causal" or cfg.positional_embedding_type in ("shortformer", "relative_positional_bias"):
        return "the model's attention is not causal"
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
    """Every metric per run and prompt, the model's own run first; all metrics are read from the same passes.

    `ablation(narrowed)` gives the ablation of a basis that holds some of this basis's units.
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
    """Everything about a curve's runs that does not depend on the prompts."""

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
            units = [u for by_site in flipped for u in by_site[s].units.values()]
            all_units = torch.cat(units).unique() if units else torch.zeros(0, dtype=torch.long)
            taken_apart = not errors[s].exact and (
                any(by_site[s].errors for by_site in flipped)
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
        narrowed_ablation = ablation(replace(basis, dictionaries=tuple(narrowed)))
        return _Plan(
            model, basis.sites, dictionaries, index, tuple(runs), flipped, tuple(errors), tuple(listed),
            narrowed_ablation,
        )  # fmt: skip

    def batch(
        self, pairs: PromptPairs, rows: Int[Tensor, " batch"], length: int, metrics: Sequence[Metric]
    ) -> Float[Tensor, "metrics runs batch"]:
        """The metrics of the model and of every run on prompts of one length."""
        batch = pairs.batch(rows)
        tokens = batch.clean[:, :length]
        ablated = self._ablated_sites(self.ablation(rows), length)
        answer, foil, columns = batch.answer, batch.foil, None
        if all(map(reads_targets_only, metrics)):
            columns, places = torch.cat([answer, foil]).unique(return_inverse=True)
            answer, foil = places.split(len(rows))

        def score(last: Tensor) -> Tensor:
            target, read = Target(answer, foil, lambda: whole), logits(self.model, last, columns)
            return torch.stack([metric(read, target) for metric in metrics])

        clean = self._anchor(tokens, None, False, ablated, length)
        whole = logits(self.model, clean.last[0], columns)
        is_clean = all(form_of(e, True, False) == LIVE for e in self.errors)
        anchors = {
            (full, bare): clean if full and not bare and is_clean else self._anchor(tokens, full, bare, ablated, length)
            for full, bare in sorted({(run.full, self._bare(run, ablated)) for run in self.runs})
        }
        values: list[Tensor | None] = [None] * len(self.runs)
        for bundle, members in self._bundles(len(rows), length, ablated):
            theirs = [anchors[key] for key in zip(bundle.full, bundle.bare, strict=True)]
            if bundle.starts[-1] == length:  # nothing differs from the anchor where the answer is read
                last = torch.stack([anchor.last[0] for anchor in theirs])
            else:
                last = Pass(self.model, self.sites, self.dictionaries, bundle, ablated, length).through(tokens, theirs)
            for run, resid in zip(members, last, strict=True):
                values[run] = score(resid)
        return torch.stack([score(clean.last[0]), *[v for v in values if v is not None]], 1)

    @staticmethod
    def _bare(run: Run, ablated: list[AblatedSite]) -> bool:
        """Whether the run loses anything beside nodes: the constants that the ablation removes."""
        return not run.constants and any(site.offset is not None or site.constant is not None for site in ablated)

    def _ablated_sites(self, reference: ReferenceValues, length: int) -> list[AblatedSite]:
        by_site = []
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
            by_site.append(AblatedSite(written, units, error, listed, reference.offsets[s], reference.constants[s]))
        return by_site

    def _anchor(self, tokens: Tensor, full: bool | None, bare: bool, ablated: list[AblatedSite], length: int) -> Trace:
        """The recorded run of an anchor; for `full=None` that of the model itself, which all curves of these prompts share."""
        if full is None:
            return Trace.of(
                shared(self.model, "trace", tokens, lambda: self._run(tokens, None, bare, ablated, length).tensors)
            )
        return self._run(tokens, full, bare, ablated, length)

    def _run(self, tokens: Tensor, full: bool | None, bare: bool, ablated: list[AblatedSite], length: int) -> Trace:
        flags = () if full is None else (full,)
        none = [Flips({}, frozenset())] * len(flags)
        n_layers = self.model.cfg.n_layers
        flipped = [[flip] * len(self.sites) for flip in none]
        bundle = self._bundle(flags, (bare,) * len(flags), flipped, (0,) * n_layers, length)
        trace = Trace()
        Pass(self.model, self.sites, self.dictionaries, bundle, ablated, length).through(tokens, None, trace)
        return trace

    def _bundle(
        self,
        full: Sequence[bool],
        bare: Sequence[bool],
        flipped: Sequence[Sequence[Flips]],
        starts: tuple[int, ...],
        length: int,
    ) -> Bundle:
        last = self.model.cfg.n_layers - 1
        pooled = self.index.positions is None
        by_site = []
        for s, site in enumerate(self.sites if full else ()):
            # In the last block only the answer's position goes on, after the keys and values.
            first = length - 1 if site.layer == last and site.kind != "hook_resid_pre" else starts[site.layer]
            by_site.append(
                slots(full, [f[s] for f in flipped], self.errors[s], self.index.widths[s], pooled, first, length)
            )
        return Bundle(tuple(full), tuple(bare), starts, tuple(by_site))

    def _bundles(self, n_prompts: int, length: int, ablated: list[AblatedSite]) -> Iterator[tuple[Bundle, list[int]]]:
        """Runs that leave their anchor at the same slots, as many at a time as memory has room for."""
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
                bare = [self._bare(self.runs[r], ablated) for r in some]
                yield self._bundle(full, bare, flipped, starts, length), some


def _is_neurons(site: Site, dictionary: Dictionary) -> bool:
    return isinstance(dictionary, Coordinates) and site.kind == "mlp.hook_post"


def runs_at_once(model: Any, n_prompts: int, length: int, first: int) -> int:
    """How many runs from position `first` on go through the model together: as many as fit in a quarter of the free memory,
    and no more than a few thousand tokens, beyond which nothing is gained.

    The model's memory per token is measured (`bytes_per_token`); dictionaries work in slices of a fixed size.
    """
    device = next(model.parameters()).device
    enough = 1 << (17 if device.type == "cuda" else 12)
    tokens = max(1, n_prompts * (length - first))
    return max(1, min(free_memory(device) // 4 // (bytes_per_token(model, length) * tokens), enough // tokens))


def bytes_per_token(model: Any, length: int) -> int:
    """The peak memory of a pass per token of a prompt of that length: measured on one prompt, once per model."""
    known = _MEASURED.setdefault(model, {})
    if length not in known:
        tokens = torch.zeros(1, length, dtype=torch.long, device=next(model.parameters()).device)
        alone = Pass(model, (), (), Bundle((), (), (0,) * model.cfg.n_layers, ()), (), length)
        known[length] = max(1, peak_bytes(lambda: alone.through(tokens, None)) // length)
    return known[length]


_MEASURED: WeakKeyDictionary[Any, dict[int, int]] = WeakKeyDictionary()
