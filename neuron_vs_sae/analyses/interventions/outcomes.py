"""What is read off an intervened run, per prompt: the metric, whether the answer flipped, how far predictions moved."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from neuron_vs_sae.core.basis import Basis
from neuron_vs_sae.core.conventions import Engine
from neuron_vs_sae.core.metric import Metric, Target, resolve
from neuron_vs_sae.core.pairs import PromptPairs
from neuron_vs_sae.execution.changes import Changes
from neuron_vs_sae.execution.grids import Score, evaluate_changes

OUTCOMES = ("metric", "kl", "foil_rank", "foil_probability", "foil_wins", "foil_first", "top")
"""`metric`; KL(plain model || run) in nats; the foil's rank (0: first) and probability; whether its logit is above the answer's, and
above all others; the token that is predicted."""


def kl(plain: Float[Tensor, "*batch vocab"], changed: Float[Tensor, "*batch vocab"]) -> Float[Tensor, "*batch"]:
    """KL(plain || changed) of the predictions with these logits, in nats; exactly 0 for equal ones."""
    log_p, log_q = plain.log_softmax(-1), changed.log_softmax(-1)
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def scoring(pairs: PromptPairs, metric: str | Metric) -> Score:
    """Reads `OUTCOMES`, in that order."""
    measure = resolve(metric)

    def score(logits: Tensor, plain: Tensor, rows: Int[Tensor, " batch"]) -> Float[Tensor, "batch m"]:
        answer, foil = (x.to(logits.device)[rows] for x in (pairs.answer, pairs.foil))
        of_foil = logits.gather(1, foil[:, None])
        rank = (logits > of_foil).sum(1)
        columns = (
            measure(logits, Target(answer, foil, lambda: plain)),
            kl(plain, logits),
            rank,
            logits.softmax(-1).gather(1, foil[:, None])[:, 0],
            of_foil[:, 0] > logits.gather(1, answer[:, None])[:, 0],
            rank == 0,
            logits.argmax(-1),
        )
        return torch.stack([column.double() for column in columns], 1)

    return score


def outcomes(
    model: Any,
    basis: Basis,
    pairs: PromptPairs,
    runs: Sequence[Changes],
    metric: str | Metric = "logit_difference",
    *,
    engine: Engine = "fast",
) -> dict[str, Float[Tensor, "runs batch"]]:
    """`OUTCOMES` by name, of every run on the clean prompts. A run that changes nothing is the plain model's."""
    table = evaluate_changes(model, basis, pairs.clean, pairs.length, runs, scoring(pairs, metric), engine=engine)
    return dict(zip(OUTCOMES, table.unbind(-1), strict=True))
