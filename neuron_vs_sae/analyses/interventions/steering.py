"""Steering: units added to, scaled, clamped or patched by a dose, what that does to a task, and what it does elsewhere."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import brentq
from torch import Tensor

from neuron_vs_sae.analyses.interventions.doses import (
    Handle,
    changes_at,
    check_doses,
    measure_of,
    written_norms,
)
from neuron_vs_sae.analyses.interventions.guards import Neutral, SideEffects, side_effects
from neuron_vs_sae.analyses.interventions.handles import handle_of, largest_values, names_of
from neuron_vs_sae.analyses.interventions.outcomes import outcomes
from neuron_vs_sae.analyses.interventions.subjects import Subject, places, subject
from neuron_vs_sae.catalog.corpora import Corpus
from neuron_vs_sae.core.basis import Basis
from neuron_vs_sae.core.conventions import DoseMeasure, Engine, SteerAt, SteerKind
from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.core.pairs import PromptPairs
from neuron_vs_sae.execution.changes import Changes, unit_values
from neuron_vs_sae.execution.splice import home, read

_WIDEST = 64.0  # relative norms between which a dose in KL is looked for
_STEPS = 24


@dataclass(frozen=True)
class Steering:
    """Where units are steered, in what doses are counted, and what is measured.

    `dose_in` None: what is usual for the kind (add: norm; clamp: maximum; scale, patch: value). `others`: pairs of other tasks whose metric should stay.
    """

    at: SteerAt = "answer"
    dose_in: DoseMeasure | None = None
    metric: str = "logit_difference"
    others: Mapping[str, PromptPairs] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Doses:
    """What each dose did to each prompt. `before`, `after`: the metric; `kl`: KL(plain || steered) at the answer, in nats; `norm`: the
    relative norm written; `foil_wins`: whether the corrupt prompt's answer is above the clean one's; `probability`: the foil's; `rank`: its rank.

    `level` is what a dose came to: the relative norm at which a dose in KL is reached (NaN where none reaches it), else the dose. `side` holds a dose's effects
    on neutral text, `others` the changes of other tasks' metrics.
    """

    basis: str
    units: tuple[str, ...]
    kind: SteerKind
    at: SteerAt
    dose_in: DoseMeasure
    doses: tuple[float, ...]
    level: tuple[float, ...]
    before: Float[Tensor, " batch"]
    after: Float[Tensor, "doses batch"]
    kl: Float[Tensor, "doses batch"]
    norm: Float[Tensor, "doses batch"]
    foil_wins: Float[Tensor, "doses batch"]
    probability: Float[Tensor, "doses batch"]
    rank: Float[Tensor, "doses batch"]
    side: tuple[SideEffects, ...]
    others: dict[str, Float[Tensor, "doses batch"]]

    @property
    def effect(self) -> Float[Tensor, "doses batch"]:
        """By how much each prompt's metric rose."""
        return self.after - self.before


def steer(
    model: Any,
    basis: Basis,
    units: Sequence[str] | Handle,
    pairs: PromptPairs,
    *,
    kind: SteerKind = "add",
    doses: Sequence[float] = (),
    guard: Corpus | Neutral | None = None,
    options: Steering | None = None,
    engine: Engine = "fast",
) -> Doses:
    """The clean prompts with a set of units at each dose (`doses.changes_at` says what that writes; none given: the kind's grid).

    The original model runs, the error is kept, and all units of the set share the dose. `guard` is neutral text, steered at every token (or at
    the last, `at="answer"`). At a dose that changes nothing every effect and every side effect is exactly 0.
    Cost: per dose a run from the first steered layer and token on; per dose and batch of neutral text a forward pass.
    Raises `InputError` for units of another basis, doses that are NaN or count what the kind does not have, and donors that lack.
    """
    options = options or Steering()
    measure, chosen = measure_of(kind, options.dose_in), check_doses(kind, doses)
    handle = units if isinstance(units, Handle) else handle_of(model, basis, units)
    text = _neutral(model, basis, guard, options.at)
    if measure == "maximum":
        if not isinstance(guard, Corpus):
            raise InputError(
                "doses in multiples of the largest value need a corpus to find it on: give one (--guard-corpus)"
            )
        handle = largest_values(model, basis, handle, guard)
    of = subject(model, basis, pairs.clean, pairs.length, places(pairs, options.at))
    dosing = _Dosing(model, basis, handle, kind, measure, options.metric, engine)
    level = dosing.levels(pairs, of, chosen)
    reached = [value == value for value in level]
    runs = [dosing.changes(pairs, of, value if ok else 0.0) for value, ok in zip(level, reached, strict=True)]
    measured = outcomes(model, basis, pairs, runs, options.metric, engine=engine)
    plain = outcomes(model, basis, pairs, [(None,) * len(basis.sites)], options.metric, engine=engine)
    blank = torch.tensor([1.0 if ok else torch.nan for ok in reached], dtype=torch.float64)[:, None]
    return Doses(
        basis=basis.name,
        units=names_of(basis, handle),
        kind=kind,
        at=options.at,
        dose_in=measure,
        doses=chosen,
        level=tuple(level),
        before=plain["metric"][0],
        after=measured["metric"] * blank,
        kl=measured["kl"] * blank,
        norm=torch.stack([written_norms(model, basis, changes, of) for changes in runs]) * blank,
        foil_wins=measured["foil_wins"] * blank,
        probability=measured["foil_probability"] * blank,
        rank=measured["foil_rank"] * blank,
        side=() if text is None or kind == "patch" else tuple(dosing.side(text, value) for value in level),
        others={} if kind == "patch" else dosing.others(options, level),
    )


def _neutral(model: Any, basis: Basis, guard: Corpus | Neutral | None, at: SteerAt) -> Neutral | None:
    from neuron_vs_sae.analyses.interventions.guards import neutral

    return neutral(model, basis, guard, at) if isinstance(guard, Corpus) else guard


@dataclass(frozen=True, eq=False)
class _Dosing:
    """A handle with what its doses mean."""

    model: Any
    basis: Basis
    handle: Handle
    kind: SteerKind
    measure: DoseMeasure
    metric: str
    engine: Engine

    def changes(self, pairs: PromptPairs, of: Subject, level: float) -> Changes:
        donor = None
        if self.kind == "patch":
            tokens, length = pairs.corrupt.to(home(self.model)), pairs.length.to(home(self.model))
            seen = read(self.model, tokens, length, self.basis.hooks)
            donor = unit_values(self.basis, seen, self.handle.units)
        return self._on(of, level, donor)

    def _on(self, of: Subject, level: float, donor: Any = None) -> Changes:
        measure: DoseMeasure = "norm" if self.measure == "kl" else self.measure
        return changes_at(self.model, self.basis, self.handle, self.kind, level, of, measure=measure, donor=donor)

    def levels(self, pairs: PromptPairs, of: Subject, doses: tuple[float, ...]) -> list[float]:
        """The doses themselves; of those in KL, the relative norms that cost so much."""
        return [self._norm_at(pairs, of, dose) for dose in doses] if self.measure == "kl" else list(doses)

    def _norm_at(self, pairs: PromptPairs, of: Subject, dose: float) -> float:
        """The smallest norm of a grid's first crossing at which the mean KL at the answer is |dose|; its sign is the dose's; NaN: none."""
        if dose == 0:
            return 0.0
        sign = 1.0 if dose > 0 else -1.0

        def excess(norms: Sequence[float]) -> list[float]:
            runs = [self.changes(pairs, of, sign * norm) for norm in norms]
            costs = outcomes(self.model, self.basis, pairs, runs, self.metric, engine=self.engine)["kl"].mean(1)
            return [float(cost) - abs(dose) for cost in costs]

        grid = [_WIDEST * 2.0**-i for i in range(_STEPS)][::-1]
        above = [i for i, value in enumerate(excess(grid)) if value >= 0]
        if not above:
            return float("nan")
        if above[0] == 0:
            return sign * grid[0]
        first = above[0]
        level: Any = brentq(lambda norm: excess([norm])[0], grid[first - 1], grid[first], rtol=np.float64(1e-6))
        return sign * level

    def side(self, text: Neutral, level: float) -> SideEffects:
        """On neutral text; NaN where the dose is not reached."""
        known = level == level
        effects = side_effects(
            self.model, self.basis, text, [self._on(part, level if known else 0.0) for part in text.subjects]
        )
        if known:
            return effects
        return SideEffects(
            *(torch.full_like(x, torch.nan) for x in (effects.kl, effects.cross_entropy, effects.agreement))
        )

    def others(self, options: Steering, level: Sequence[float]) -> dict[str, Float[Tensor, "doses batch"]]:
        """By how much the metric of other tasks' clean prompts rises."""
        risen = {}
        for name, pairs in options.others.items():
            of = subject(self.model, self.basis, pairs.clean, pairs.length, places(pairs, options.at))
            runs = [self._on(of, value if value == value else 0.0) for value in level]
            runs = [(None,) * len(self.basis.sites), *runs]
            metric = outcomes(self.model, self.basis, pairs, runs, options.metric, engine=self.engine)["metric"]
            risen[name] = metric[1:] - metric[0]
        return risen
