"""Many runs with changed units on the same prompts, each at the cost of what comes after its first changed slot.

Runs that begin at the same slot go through the model together; below and before it they take the plain model's residual stream,
keys and values. The numbers are those of `changes.edits_of`, up to rounding; a run in which nothing changes has the plain model's bits.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from neuron_vs_sae.core.basis import Basis
from neuron_vs_sae.core.conventions import Engine
from neuron_vs_sae.execution.cache import shared
from neuron_vs_sae.execution.changes import Changed, Changes, edits_of
from neuron_vs_sae.execution.engine import runs_at_once, unsupported
from neuron_vs_sae.execution.overwrite import HELD, AblatedSite
from neuron_vs_sae.execution.passes import Bundle, Pass, Trace, logits
from neuron_vs_sae.execution.splice import run

Score = Callable[[Tensor, Tensor, Tensor], Tensor]
"""`(logits [batch, vocab], the plain model's [batch, vocab], rows [batch]) -> [batch, m]`: m numbers of each prompt."""


def evaluate_changes(
    model: Any,
    basis: Basis,
    tokens: Int[Tensor, "batch pos"],
    length: Int[Tensor, " batch"],
    runs: Sequence[Changes],
    score: Score,
    *,
    engine: Engine = "fast",
    batch_size: int = 64,
) -> Float[Tensor, "runs batch m"]:
    """The scores of every run and prompt, read from the logits after the prompt's last token. On the CPU, in float64.

    `exact` runs every cell whole, by hooks; `fast` is used where the model and the basis allow it (`engine.unsupported`).
    """
    fast = engine == "fast" and unsupported(model, basis) is None
    table: Tensor | None = None
    with torch.no_grad():
        for n in sorted(set(length.tolist())):
            for rows in (length.cpu() == n).nonzero().flatten().split(batch_size):
                part = tokens[rows.to(tokens.device), :n]
                mine = [tuple(None if c is None else c.of(rows, n) for c in changes) for changes in runs]
                logits_of_runs = _fast(model, basis, part, mine) if fast else _exact(model, basis, part, mine)
                _, plain = next(logits_of_runs)
                for r, changed in logits_of_runs:
                    scores = score(changed, plain, rows.to(changed.device)).double().cpu()
                    if table is None:
                        table = torch.zeros(len(runs), len(tokens), scores.shape[1], dtype=torch.float64)
                    table[r, rows] = scores
    assert table is not None  # there are prompts, and at least one run
    return table


def _exact(
    model: Any, basis: Basis, tokens: Int[Tensor, "batch pos"], runs: Sequence[Changes]
) -> Iterator[tuple[int, Tensor]]:
    """(-1, the plain model's logits), and then (run, its logits)."""
    length = torch.full((len(tokens),), tokens.shape[1], device=tokens.device)
    plain = run(model, tokens, length)
    yield -1, plain
    for r, changes in enumerate(runs):
        edits = edits_of(model, basis, changes)
        yield r, run(model, tokens, length, edits) if edits else plain


def _fast(
    model: Any, basis: Basis, tokens: Int[Tensor, "batch pos"], runs: Sequence[Changes]
) -> Iterator[tuple[int, Tensor]]:
    length = tokens.shape[1]
    trace = Trace.of(shared(model, "trace", tokens, lambda: _plain(model, tokens).tensors))
    plain = logits(model, trace.last[0])
    yield -1, plain
    together: dict[tuple[int, int], list[int]] = {}
    for r, changes in enumerate(runs):
        together.setdefault(_beginning(basis, changes, length), []).append(r)
    for (layer, first), members in sorted(together.items()):
        if first == length:
            yield from ((r, plain) for r in members)
            continue
        starts = (length,) * layer + (first,) * (model.cfg.n_layers - layer)
        for some in _portions(model, tokens, first, [runs[r] for r in members]):
            part = [members[i] for i in some]
            slots = _slots(basis, [runs[r] for r in part], starts, length)
            bundle = Bundle((True,) * len(part), (False,) * len(part), starts, slots)
            nothing = (_NOTHING,) * len(basis.sites)
            forward = Pass(model, basis.sites, basis.dictionaries, bundle, nothing, length)
            last = forward.through(tokens, [trace] * len(part))
            yield from ((r, logits(model, resid)) for r, resid in zip(part, last, strict=True))


def _plain(model: Any, tokens: Int[Tensor, "batch pos"]) -> Trace:
    trace = Trace()
    bundle = Bundle((), (), (0,) * model.cfg.n_layers, ())
    Pass(model, (), (), bundle, (), tokens.shape[1]).through(tokens, None, trace)
    return trace


def _beginning(basis: Basis, changes: Changes, length: int) -> tuple[int, int]:
    """(layer, position) from which a run may differ from the plain model's; the position is `length` where it never does."""
    layers, firsts = [], []
    for site, change in zip(basis.sites, changes, strict=True):
        if change is None or change.is_nothing:
            continue
        where = (change.offset.any(-1) | change.slope.any(-1)).any(0)
        layers.append(site.layer)
        at = 0 if len(where) == 1 else int(where.nonzero()[0])
        if at < length:
            firsts.append(at)
    return (min(layers), min(firsts)) if firsts else (0, length)


def _portions(model: Any, tokens: Int[Tensor, "batch pos"], first: int, runs: Sequence[Changes]) -> list[list[int]]:
    """As many runs at a time as the memory has room for."""
    n, length = tokens.shape
    units = max((len(change.units) for changes in runs for change in changes if change is not None), default=1)
    size = min(runs_at_once(model, n, length, first), max(1, HELD // (n * (length - first) * units)))
    return [list(range(i, min(i + size, len(runs)))) for i in range(0, len(runs), size)]


def _slots(basis: Basis, runs: Sequence[Changes], starts: tuple[int, ...], length: int) -> tuple[Changed | None, ...]:
    return tuple(
        Changed.of([changes[s] for changes in runs], length, min(starts[site.layer], length - 1))
        for s, site in enumerate(basis.sites)
    )


_EMPTY = torch.zeros(1, 1, 0)
_NOTHING = AblatedSite(_EMPTY, _EMPTY, _EMPTY, None, None, None)
"""A site at which nothing is ablated."""
