"""The last digit in the first layer: which basis isolates it, and does the successor head need those units?

Source: Gould et al. 2023 (arXiv 2312.09230), who find features of the digits 0 to 9 in the first MLP by SAEs, by probes and by neuron ablation.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from neuron_vs_sae.analyses.interventions.heads import FIRST_MLP, Order, alone, first, hits, through_heads
from neuron_vs_sae.core.basis import Basis
from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.execution.splice import home, precision
from neuron_vs_sae.statistics.proportions import wilson

_KINDS = ("mlp.hook_post", "hook_mlp_out")


@dataclass(frozen=True, eq=False)
class Digits:
    """The numbers of an order with every unit's value at the first MLP: `x` as that MLP writes, `written` a row per unit."""

    order: Order
    digit: Int[np.ndarray, " n"]
    units: Float[np.ndarray, "n width"]
    written: Float[Tensor, "width d"]
    x: Float[Tensor, "n d"]


def first_site(basis: Basis) -> int | None:
    """The basis's site at the first layer's MLP, None where it has none."""
    for s, site in enumerate(basis.sites):
        if site.layer == 0 and site.kind in _KINDS:
            return s
    return None


def digits(model: Any, basis: Basis, numbers: Order) -> Digits:
    """Raises `InputError` for a basis without a site at the first layer's MLP, and for numbers of fewer than three tens."""
    s = first_site(basis)
    if s is None:
        raise InputError(f"basis '{basis.name}' has no site at the first layer's MLP, where successors are looked for")
    digit = np.array([int(item) % 10 for item in numbers.items])
    if len(digit) < 30 or len(set(digit.tolist())) < 10:
        raise InputError(f"{len(digit)} numbers are single tokens: the last digit is looked for in three tens or more")
    site, dictionary = basis.sites[s], basis.dictionaries[s]
    seen = alone(model, numbers.tokens, list(dict.fromkeys([site.reads, FIRST_MLP])))
    with torch.no_grad():
        units = dictionary.encode(site.view(seen[site.reads]))[:, 0]
        rows = dictionary.directions(torch.arange(dictionary.width, device=home(model))).to(precision(model))
        if site.kind == "mlp.hook_post":
            rows = rows @ model.blocks[0].mlp.W_out.detach().to(rows)
    return Digits(numbers, digit, units.double().cpu().numpy(), rows, seen[FIRST_MLP][:, 0])


def check_installed() -> None:
    """Raises `InputError` without scikit-learn."""
    if find_spec("sklearn") is None:
        raise InputError("the ordinal probe needs scikit-learn: pip install 'neuron_vs_sae[probing]'")


def mod10(
    model: Any, basis: Basis, numbers: Order, head: tuple[int, int], *, k: Sequence[int], trials: int = 5, seed: int = 0
) -> pd.DataFrame:
    """A row per k: how well the first k units tell the last digit, what of them it explains, and what the head does without them or with others.

    Units are ranked by the F statistic of the digit on one half of the tens and probed on the other, both ways. `accuracy`: of a logistic probe (chance .1);
    `explained`: the share of what the k units write that is due to the digit (`explained_permuted`: the same of the units ranked by digits dealt out
    at random, which is what choosing alone gives). `ablated`: the head's score when they take their mean (`random`: as many others,
    mean of trials). `steered`: the share of numbers whose first token is the successor of the number with another digit, when the units take that digit's
    mean; `steered_random` likewise. Raises `InputError` without scikit-learn, and as `digits` does.
    """
    check_installed()
    if not k or min(k) < 1:
        raise InputError(f"k of {list(k)}: give numbers of units, 1 or more (--k)")
    of = digits(model, basis, numbers)
    ranked = _ranked(of.units, of.digit)
    alive = np.flatnonzero(np.ptp(of.units, axis=0) > 0)
    rng = np.random.default_rng(seed)
    plain = _score(model, of, of.x, head)
    rows = []
    for size in sorted({min(size, len(alive)) for size in k}):
        chosen = ranked[:size]
        drawn = [rng.permutation(alive)[:size] for _ in range(trials)]
        steered = _steered(model, of, chosen, head)
        low, high = wilson(round(steered * _targets(of)), _targets(of))
        rows.append({
            "basis": basis.name, "site": basis.sites[first_site(basis) or 0].name, "k": size, "accuracy": _accuracy(of, size),
            "explained": _explained(of, chosen, of.digit), "explained_permuted": _by_chance(of, size, rng, trials), "score": plain, "ablated": _score(model, of, _without(of, chosen), head),
            "random": float(np.mean([_score(model, of, _without(of, units), head) for units in drawn])),
            "steered": steered, "low": low, "high": high,
            "steered_random": float(np.mean([_steered(model, of, units, head) for units in drawn])),
        })  # fmt: skip
    return pd.DataFrame(rows)


def _ranked(x: Float[np.ndarray, "n width"], digit: Int[np.ndarray, " n"]) -> Int[np.ndarray, " width"]:
    from sklearn.feature_selection import f_classif

    varies = np.flatnonzero(np.ptp(x, axis=0) > 0)
    statistic = np.zeros(x.shape[1])
    with np.errstate(divide="ignore", invalid="ignore"):  # of a unit that does not vary within digits
        statistic[varies] = np.nan_to_num(f_classif(x[:, varies], digit)[0], nan=0.0, posinf=np.finfo(float).max)
    return np.argsort(-statistic, kind="stable")


def _accuracy(of: Digits, k: int) -> float:
    """Chosen and fitted on every other ten, judged on the rest; the mean of both ways."""
    from sklearn.linear_model import LogisticRegression

    half = np.array([(int(item) // 10) % 2 for item in of.order.items])
    right = []
    for train in (0, 1):
        x, y = of.units[half == train], of.digit[half == train]
        units = _ranked(x, y)[:k]
        scale = np.maximum(x[:, units].std(0), 1e-6)
        fitted = LogisticRegression(max_iter=500).fit(x[:, units] / scale, y)
        right.append((fitted.predict(of.units[half != train][:, units] / scale) == of.digit[half != train]).mean())
    return float(np.mean(right))


def _by_chance(of: Digits, k: int, rng: np.random.Generator, trials: int) -> float:
    """What the first k units of a digit that is dealt out at random explain of it."""
    dealt = [rng.permutation(of.digit) for _ in range(trials)]
    return float(np.mean([_explained(of, _ranked(of.units, digit)[:k], digit) for digit in dealt]))


def _explained(of: Digits, chosen: Int[np.ndarray, " k"], digit: Int[np.ndarray, " n"]) -> float:
    """1 less the share of the variance of what the units write that is within digits."""
    written = torch.from_numpy(of.units[:, chosen]) @ of.written[torch.from_numpy(chosen)].double().cpu()
    centred = written - written.mean(0)
    total = float(centred.square().sum())
    means = torch.stack([written[torch.from_numpy(digit == d)].mean(0) for d in range(10)])
    within = float((written - means[torch.from_numpy(digit)]).square().sum())
    return 1 - within / total if total else 0.0


def _without(of: Digits, chosen: Int[np.ndarray, " k"]) -> Float[Tensor, "n d"]:
    """What the MLP writes with these units at their mean over the numbers."""
    values = of.units[:, chosen]
    return of.x + _written(of, chosen, values.mean(0) - values)


def _written(of: Digits, chosen: Int[np.ndarray, " k"], change: Float[np.ndarray, "n k"]) -> Float[Tensor, "n d"]:
    rows = of.written[torch.from_numpy(chosen).to(of.written.device)]
    return (torch.from_numpy(change).to(rows) @ rows).to(of.x)


def _score(model: Any, of: Digits, x: Float[Tensor, "n d"], head: tuple[int, int]) -> float:
    return float(hits(through_heads(model, x, of.order.tokens)[head], of.order).double().mean())


def _targets(of: Digits) -> int:
    return len(_moves(of))


def _moves(of: Digits) -> list[tuple[int, int, int]]:
    """(place, another digit, place of the successor of the number with that digit) within the order."""
    at = {int(item): i for i, item in enumerate(of.order.items)}
    moves = []
    for number, place in at.items():
        for digit in range(10):
            after = number - number % 10 + digit + 1
            if digit != number % 10 and after in at:
                moves.append((place, digit, at[after]))
    return moves


def _steered(model: Any, of: Digits, chosen: Int[np.ndarray, " k"], head: tuple[int, int]) -> float:
    """The share of moves to another digit whose successor comes first."""
    place, digit, wanted = (np.array(column) for column in zip(*_moves(of), strict=True))
    means = np.stack([of.units[of.digit == d][:, chosen].mean(0) for d in range(10)])
    change = means[digit] - means[of.digit[place]]
    x = of.x[torch.from_numpy(place)] + _written(of, chosen, change)
    firsts = first(through_heads(model, x, of.order.tokens)[head]).cpu().numpy()
    return float((firsts == wanted).mean())
