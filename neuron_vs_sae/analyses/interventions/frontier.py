"""Efficacy against side effect: the most that is gained for a price, the dose being chosen on other prompts than it is scored on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from neuron_vs_sae.analyses.interventions.steering import Doses
from neuron_vs_sae.core.errors import InputError, check_choice

EPSILONS = (0.01, 0.03, 0.1, 0.3)
"""Prices: nats of KL divergence."""

Guard = Literal["kl", "corpus_kl"]
"""KL at the answer of the task's own prompts, or on neutral text."""


@dataclass(frozen=True, eq=False)
class Frontier:
    """Per price, what the best affordable dose does to each prompt; the dose and its sign were chosen on the prompt's other half.

    `efficacy` is in units of the metric, in the direction that was larger on the other half; `area` is its mean over log price, per prompt.
    `chosen` holds both halves' doses.
    """

    guard: Guard
    epsilons: tuple[float, ...]
    efficacy: Float[np.ndarray, "batch prices"]
    chosen: tuple[tuple[float, float], ...]

    @property
    def area(self) -> Float[np.ndarray, " batch"]:
        return self.efficacy @ log_weights(self.epsilons)


def frontier(doses: Doses, guard: Guard = "kl", epsilons: Sequence[float] = EPSILONS, seed: int = 0) -> Frontier:
    """The frontier of a grid of doses (`chosen_efficacy`). Raises `InputError` for a guard that was not measured, and as that does."""
    check_choice("guard", guard, Guard)
    if guard == "corpus_kl" and not doses.side:
        raise InputError("no neutral text was steered, so nothing guards: give a corpus (--guard-corpus)")
    cost = doses.kl.numpy() if guard == "kl" else np.stack([side.kl.numpy() for side in doses.side])
    efficacy, chosen = chosen_efficacy(doses.effect.numpy(), cost, doses.doses, epsilons, seed)
    return Frontier(guard, tuple(epsilons), efficacy, chosen)


def chosen_efficacy(
    effect: Float[np.ndarray, "doses batch"],
    cost: Float[np.ndarray, "doses cases"],
    doses: Sequence[float],
    epsilons: Sequence[float],
    seed: int = 0,
) -> tuple[Float[np.ndarray, "batch prices"], tuple[tuple[float, float], ...]]:
    """Per prompt and price the effect of the dose that the other half of the prompts chose, in the direction that was larger there; and
    both halves' doses (NaN: none is affordable, and the efficacy is 0).

    Two halves of the prompts (and of the cases that cost) are drawn by `seed`; what is chosen on one is scored on the other, both ways, so every prompt is
    scored once. A dose is affordable where its mean cost on the choosing half is at most the price. Raises `InputError` for prices that do not
    grow, and for fewer than two prompts.
    """
    prices, n = tuple(epsilons), effect.shape[1]
    if not prices or min(prices) <= 0 or list(prices) != sorted(set(prices)):
        raise InputError(f"prices {list(prices)}: give growing numbers above 0, in nats")
    if n < 2:
        raise InputError("a frontier chooses on half of the prompts and scores on the other: give two prompts or more")
    halves, paid = _halves(n, seed), _halves(cost.shape[1], seed)
    efficacy, chosen = np.zeros((n, len(prices))), []
    for j, price in enumerate(prices):
        pair = []
        for half in (0, 1):
            costs = cost[:, paid == half].mean(1) if (paid == half).any() else cost.mean(1)
            gains = effect[:, halves == half].mean(1)
            best = _best(gains, costs <= price)
            pair.append(float("nan") if best is None else float(doses[best]))
            if best is not None:
                efficacy[halves != half, j] = np.sign(gains[best]) * effect[best, halves != half]
        chosen.append((pair[0], pair[1]))
    return efficacy, tuple(chosen)


def _best(gains: Float[np.ndarray, " doses"], affordable: Bool[np.ndarray, " doses"]) -> int | None:
    """The affordable dose of largest mean effect, either way; the first of equals; None where none is affordable."""
    candidates = np.flatnonzero(affordable & np.isfinite(gains))
    return int(candidates[np.argmax(np.abs(gains[candidates]))]) if len(candidates) else None


def _halves(n: int, seed: int) -> Int[np.ndarray, " n"]:
    order = np.random.default_rng(seed).permutation(n)
    half = np.zeros(n, dtype=int)
    half[order[n // 2 :]] = 1
    return half


def log_weights(sizes: Sequence[float]) -> Float[np.ndarray, " sizes"]:
    """The weights whose sum of products is the trapezoid mean over the log of `sizes`; 1 for a single one."""
    if len(sizes) == 1:
        return np.ones(1)
    x = np.log(np.asarray(sizes, dtype=float))
    return np.array([np.trapezoid(row, x) for row in np.eye(len(x))]) / (x[-1] - x[0])
