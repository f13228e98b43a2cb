"""What steering should not do: how far it moves predictions on neutral text, and other tasks."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from neuron_vs_sae.analyses.interventions.outcomes import kl
from neuron_vs_sae.analyses.interventions.subjects import Subject, subject
from neuron_vs_sae.catalog.corpora import Batch, Corpus
from neuron_vs_sae.core.basis import Basis
from neuron_vs_sae.core.conventions import SteerAt
from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.execution.changes import Changes, edits_of
from neuron_vs_sae.execution.passes import logits
from neuron_vs_sae.execution.splice import Edit, home, read


@dataclass(frozen=True, eq=False)
class Neutral:
    """Neutral text to guard with: its batches as subjects, and where predictions of the next token are compared."""

    name: str
    subjects: tuple[Subject, ...]
    compared: tuple[Bool[Tensor, "batch pos"], ...]

    @property
    def contexts(self) -> int:
        return sum(int(compared.any(1).sum()) for compared in self.compared)


@dataclass(frozen=True, eq=False)
class SideEffects:
    """Per context of the neutral text, means over its compared tokens: KL(plain || steered) in nats, the rise of the cross-entropy in
    nats, and the share of tokens whose first prediction stays."""

    kl: Float[Tensor, " contexts"]
    cross_entropy: Float[Tensor, " contexts"]
    agreement: Float[Tensor, " contexts"]


def neutral(model: Any, basis: Basis, corpus: Corpus, at: SteerAt, *, seed: int = 0, batch_size: int = 16) -> Neutral:
    """The corpus made ready for a basis: steered and compared at every token of the text that another follows, or (`answer`) at one of
    them in each context, drawn by `seed`.

    Raises `InputError` where no context has two tokens in a row.
    """
    subjects, compared = [], []
    for batch in corpus.batches(batch_size):
        where = _places(batch, at, seed)
        if bool(where.any()):
            subjects.append(subject(model, basis, batch.tokens, batch.length, where))
            compared.append(subjects[-1].where)
    if not subjects:
        raise InputError(
            f"corpus '{corpus.name}' has no context with two tokens in a row to guard with: give a longer text"
        )
    return Neutral(corpus.name, tuple(subjects), tuple(compared))


def _places(batch: Batch, at: SteerAt, seed: int) -> Bool[Tensor, "batch pos"]:
    """Tokens of the text that are followed by one; of each context all, or one."""
    followed = batch.real.clone()
    followed[:, :-1] &= batch.real[:, 1:]
    followed[:, -1] = False
    if at == "all":
        return followed
    draws = torch.rand(followed.shape, generator=torch.Generator().manual_seed(seed + batch.first))
    drawn = torch.where(followed, draws, -1.0).argmax(1)
    return followed & (torch.arange(followed.shape[1]) == drawn[:, None])


def side_effects(model: Any, basis: Basis, of: Neutral, changes: list[Changes]) -> SideEffects:
    """What these changes (one per batch of the text) do to predictions of the next token. All 0 (agreement 1) where nothing changes.

    Cost: two forward passes per batch, one where the plain model's are shared.
    """
    parts = [
        _of_batch(model, basis, part, compared, change)
        for part, compared, change in zip(of.subjects, of.compared, changes, strict=True)
    ]
    return SideEffects(*(torch.cat(columns) for columns in zip(*parts, strict=True)))


def _of_batch(
    model: Any, basis: Basis, of: Subject, compared: Bool[Tensor, "batch pos"], changes: Changes
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"], Float[Tensor, " n"]]:
    edits = edits_of(model, basis, changes)
    plain = _predictions(model, of, compared, [])
    steered = _predictions(model, of, compared, edits) if edits else plain
    row, position = compared.nonzero(as_tuple=True)
    following = of.tokens[row, position + 1][:, None]
    nats = [-predicted.log_softmax(-1).gather(1, following)[:, 0] for predicted in (plain, steered)]
    columns = (kl(plain, steered), nats[1] - nats[0], (plain.argmax(-1) == steered.argmax(-1)).to(plain.dtype))
    counts = compared.sum(1)
    present = counts > 0

    def mean(column: Float[Tensor, " m"]) -> Float[Tensor, " n"]:
        sums = torch.zeros(len(compared), dtype=torch.float64, device=column.device).index_add_(0, row, column.double())
        return (sums / counts)[present].cpu()

    return mean(columns[0]), mean(columns[1]), mean(columns[2])


def _predictions(
    model: Any, of: Subject, compared: Bool[Tensor, "batch pos"], edits: list[Edit]
) -> Float[Tensor, "m vocab"]:
    """The logits at the compared tokens."""
    last = f"blocks.{model.cfg.n_layers - 1}.hook_resid_post"
    resid = read(model, of.tokens, of.length, [last], edits)[last].to(home(model))
    with torch.no_grad():
        return logits(model, resid[compared].to(model.cfg.dtype))
