"""Sparse probes of a concept in several bases: the same tokens, splits, rankers and numbers of units for all.

Units are chosen and probes fitted on the training sequences, the site is chosen on validation sequences, and what is reported is
measured on test sequences: nothing is chosen on what it is judged by.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from neuron_vs_sae.analyses.probing.concepts import Concept
from neuron_vs_sae.analyses.probing.examples import Examples, Of, activations, places
from neuron_vs_sae.analyses.probing.measures import auroc, draws_of, mcc
from neuron_vs_sae.analyses.probing.ranking import fitted, supports
from neuron_vs_sae.catalog.corpora import Corpus
from neuron_vs_sae.core.basis import Basis
from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.statistics.bootstrap import Estimate, interval
from neuron_vs_sae.statistics.resampling import Draws

DENSE, DIRECTION = "dense", "direction"
"""Upper bounds: a probe on all units, and the difference of the class means as one direction."""


@dataclass(frozen=True)
class Probing:
    """How concepts are probed. `candidates`: a basis with more units than this is probed on that many drawn at random as well, the mean
    of `subsets` draws, because the best of more units is better by chance. `of`: what is probed, values or values times |write vector|.
    """

    ks: tuple[int, ...] = (1, 2, 5)
    rankers: tuple[str, ...] = ("mean_difference",)
    of: Of = "activations"
    candidates: int | None = None
    subsets: int = 20
    examples: int = 10_000
    skip: int = 0
    resamples: int = 1000
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Outcome:
    """One probe on one split. Outcomes of one concept and split are of the same tokens, so their estimates subtract, paired."""

    basis: str
    site: str
    concept: str
    ranker: str
    k: int
    candidates: int
    split: str
    units: tuple[int, ...]
    mcc: Estimate
    auroc: Estimate


def probe(
    model: Any, bases: Sequence[Basis], corpus: Corpus, concept: Concept, settings: Probing | None = None
) -> list[Outcome]:
    """Every basis, site, ranker and k on the validation and the test split. Raises `InputError` without scikit-learn."""
    settings = settings or Probing()
    check_installed()
    where = places(corpus, concept, n=settings.examples, skip=settings.skip, seed=settings.seed)
    outcomes: list[Outcome] = []
    for basis in bases:
        for s, site in enumerate(basis.sites):
            splits = _scaled(activations(model, basis, s, corpus, where, of=settings.of))
            for part in _of_site(splits, settings):
                outcomes += [replace(o, basis=basis.name, site=site.name, concept=concept.name) for o in part]
    return outcomes


def chosen(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """The test outcomes at the site whose validation MCC is largest, per basis, concept, ranker, k and number of candidates."""
    best: dict[tuple[Any, ...], tuple[float, str]] = {}
    for o in outcomes:
        if o.split == "validation":
            value = float(o.mcc.value[0])
            if _key(o) not in best or value > best[_key(o)][0]:
                best[_key(o)] = (value, o.site)
    return [o for o in outcomes if o.split == "test" and best[_key(o)][1] == o.site]


def table(outcomes: Sequence[Outcome], *, confidence: float = 0.95) -> pd.DataFrame:
    """A row per outcome; `low` and `high` are the interval of MCC, over sequences; `chosen`: at the site chosen on validation."""
    at_best = set(map(id, chosen(outcomes)))
    rows = []
    for o in outcomes:
        ends, rank_ends = interval(o.mcc, confidence), interval(o.auroc, confidence)
        rows.append({
            "basis": o.basis, "site": o.site, "concept": o.concept, "ranker": o.ranker, "k": o.k, "candidates": o.candidates,
            "split": o.split, "mcc": float(o.mcc.value[0]), "auroc": float(o.auroc.value[0]), "low": float(ends.low[0]),
            "high": float(ends.high[0]), "auroc_low": float(rank_ends.low[0]), "auroc_high": float(rank_ends.high[0]),
            "chosen": id(o) in at_best, "units": " ".join(map(str, o.units)), "sequences": len(o.mcc.left_out),
        })  # fmt: skip
    return pd.DataFrame(rows)


def _key(o: Outcome) -> tuple[Any, ...]:
    return o.basis, o.concept, o.ranker, o.k, o.candidates


Splits = tuple[Examples, Examples, Examples]


def _scaled(splits: Splits) -> Splits:
    """By ten times the training tokens' standard deviation (at least 1e-3), not centred, as seed work does."""
    scale = 10 * np.maximum(splits[0].x.std(0), 1e-3)
    train, validation, test = (replace(part, x=part.x / scale) for part in splits)
    return train, validation, test


def _of_site(splits: Splits, settings: Probing) -> list[list[Outcome]]:
    train, width = splits[0], splits[0].x.shape[1]
    drawn = tuple(draws_of(part.sequence, settings.resamples, settings.seed) for part in splits[1:])
    every = np.arange(width)
    outcomes = []
    for ranker in settings.rankers:
        outcomes += _sparse(splits, drawn, ranker, [every], settings)
        if settings.candidates is not None and settings.candidates < width:
            rng = np.random.default_rng(settings.seed)
            subsets = [np.sort(rng.permutation(width)[: settings.candidates]) for _ in range(settings.subsets)]
            outcomes += _sparse(splits, drawn, ranker, subsets, settings)
    dense = fitted(train.x, train.y, settings.seed).decision_function
    outcomes.append(_judged(splits, drawn, dense, Outcome("", "", "", DENSE, width, width, "", (), *_BLANK)))
    outcomes.append(
        _judged(splits, drawn, _direction(train), Outcome("", "", "", DIRECTION, width, width, "", (), *_BLANK))
    )
    return outcomes


def _sparse(
    splits: Splits, drawn: tuple[Draws, ...], ranker: str, subsets: Sequence[Int[np.ndarray, " m"]], settings: Probing
) -> list[list[Outcome]]:
    """Per k its outcomes, averaged over the subsets of the units that there were to choose from."""
    train = splits[0]
    by_k: dict[int, list[list[Outcome]]] = {}
    for subset in subsets:
        for k, support in supports(ranker, train.x[:, subset], train.y, settings.ks, seed=settings.seed).items():
            units = subset[support]
            model = fitted(train.x[:, units], train.y, settings.seed)

            def decide(
                x: Float[np.ndarray, "n width"], model: Any = model, units: Any = units
            ) -> Float[np.ndarray, " n"]:
                return model.decision_function(x[:, units])

            named = tuple(units.tolist()) if len(subsets) == 1 else ()
            blank = Outcome("", "", "", ranker, k, len(subset), "", named, *_BLANK)
            by_k.setdefault(k, []).append(_judged(splits, drawn, decide, blank))
    return [[_mean([draw[i] for draw in draws]) for i in range(2)] for draws in by_k.values()]


def _judged(splits: Splits, drawn: tuple[Draws, ...], decide: Any, blank: Outcome) -> list[Outcome]:
    outcomes = []
    for name, part, draws in zip(("validation", "test"), splits[1:], drawn, strict=True):
        decision = decide(part.x)
        outcomes.append(
            replace(blank, split=name, mcc=mcc(part.y, decision, draws), auroc=auroc(part.y, decision, draws))
        )
    return outcomes


def _mean(outcomes: Sequence[Outcome]) -> Outcome:
    def mean(name: str) -> Estimate:
        parts: list[Estimate] = [getattr(o, name) for o in outcomes]
        n = len(parts)
        return Estimate(
            value=sum((part.value for part in parts), np.zeros(1)) / n,
            replicates=sum((part.replicates for part in parts), np.zeros_like(parts[0].replicates)) / n,
            left_out=sum((part.left_out for part in parts), np.zeros_like(parts[0].left_out)) / n,
            strata=parts[0].strata,
        )

    return replace(outcomes[0], mcc=mean("mcc"), auroc=mean("auroc"))


def _direction(train: Examples) -> Any:
    """The projection on the difference of the class means, 0 halfway between them."""
    high, low = train.x[train.y].mean(0), train.x[~train.y].mean(0)
    return lambda x: (x - (high + low) / 2) @ (high - low)


_NONE = np.zeros(0)
_BLANK = (Estimate(_NONE, np.zeros((0, 0)), np.zeros((0, 0)), ()),) * 2


def check_installed() -> None:
    """Raises `InputError` without scikit-learn."""
    from importlib.util import find_spec

    if find_spec("sklearn") is None:
        raise InputError("probing needs scikit-learn: pip install 'neuron_vs_sae[probing]'")
