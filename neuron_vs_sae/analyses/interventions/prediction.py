"""Which cheap number foretells what steering a unit does: its score, what it says, or how often it is active."""

from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.stats import spearmanr

from neuron_vs_sae.analyses.interventions.doses import Handle, changes_at
from neuron_vs_sae.analyses.interventions.outcomes import outcomes
from neuron_vs_sae.analyses.interventions.subjects import places, subject
from neuron_vs_sae.analyses.units.scores import output_score
from neuron_vs_sae.analyses.units.selection import Units
from neuron_vs_sae.analyses.units.vocabulary import direct_lens
from neuron_vs_sae.catalog.attribution.attribution_patching import attribution_patching
from neuron_vs_sae.catalog.corpora import Corpus
from neuron_vs_sae.core.basis import Basis
from neuron_vs_sae.core.conventions import Engine
from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.core.pairs import PromptPairs
from neuron_vs_sae.execution.changes import Changes
from neuron_vs_sae.execution.splice import home, precision, read

PREDICTORS = ("node_score", "output_score", "density")


def measured_effects(
    model: Any,
    basis: Basis,
    units: Units,
    discovery: PromptPairs,
    pairs: PromptPairs,
    corpus: Corpus,
    *,
    dose: float = 0.5,
    engine: Engine = "fast",
) -> pd.DataFrame:
    """A row per unit: `effect`, the mean |change of the metric| of the pairs' clean prompts when the unit alone is added at that relative norm to the last
    token, and the predictors: |score| by attribution patching on discovery pairs, output score (Gur-Arieh et al. 2025), and the share of the corpus's
    tokens at which its |value| is above a tenth of its largest. Units that are silent on the corpus are left out.
    """
    like = torch.zeros(0, dtype=precision(model), device=home(model))
    everything = Handle(units.at, *[tuple(like.new_ones(len(at)) for at in units.at)] * 2)
    largest, density = _activity(model, basis, everything, corpus)
    prompt = pairs.clean[0, : int(pairs.length[0])]
    said = direct_lens(model, basis, units, 20).top
    spoken = output_score(model, basis, units, 10 * largest.cpu(), said.cpu(), prompt)
    scores = attribution_patching(model, basis, discovery, positions="pooled").by_site()
    node = torch.cat([by_unit[0][at] for (by_unit, _), at in zip(scores, units.at, strict=True)]).abs()
    of = subject(model, basis, pairs.clean, pairs.length, places(pairs, "answer"))
    runs: list[Changes] = [(None,) * len(basis.sites)]
    for s, unit in zip(units.site.tolist(), units.unit.tolist(), strict=True):
        alone = tuple(
            torch.tensor([unit]) if i == s else torch.zeros(0, dtype=torch.long) for i in range(len(basis.sites))
        )
        handle = Handle(alone, *[tuple(like.new_ones(len(at)) for at in alone)] * 2)
        runs.append(changes_at(model, basis, handle, "add", dose, of, measure="norm"))
    metric = outcomes(model, basis, pairs, runs, engine=engine)["metric"]
    table = pd.DataFrame({
        "unit": units.names, "effect": (metric[1:] - metric[0]).abs().mean(1).numpy(), "node_score": node.numpy(),
        "output_score": spoken.double().numpy(), "density": density.numpy(),
    })  # fmt: skip
    return table.loc[largest.cpu().numpy() > 0].reset_index(drop=True)


def correlations(
    table: pd.DataFrame, *, resamples: int = 1000, confidence: float = 0.95, seed: int = 0
) -> pd.DataFrame:
    """Spearman's rank correlation of `effect` with every predictor over units, with a percentile interval over resampled units."""
    if len(table) < 4:
        raise InputError(
            f"{len(table)} units are active on the corpus: a rank correlation needs four or more (--predict)"
        )
    rng = np.random.default_rng(seed)
    draws = rng.integers(0, len(table), (resamples, len(table)))
    tail = (1 - confidence) / 2
    rows = []
    for name in PREDICTORS:
        x, y = table[name].to_numpy(), table["effect"].to_numpy()
        replicates = [_spearman(x[draw], y[draw]) for draw in draws]
        low, high = np.nanquantile(replicates, [tail, 1 - tail]) if not np.isnan(replicates).all() else (np.nan, np.nan)
        rows.append(
            {"predictor": name, "spearman": _spearman(x, y), "low": float(low), "high": float(high), "n": len(table)}
        )
    return pd.DataFrame(rows)


def _spearman(x: np.ndarray, y: np.ndarray) -> float:
    """NaN where one of the two does not vary."""
    return float("nan") if np.ptp(x) == 0 or np.ptp(y) == 0 else float(np.asarray(spearmanr(x, y))[0])


def _activity(model: Any, basis: Basis, handle: Handle, corpus: Corpus) -> tuple[torch.Tensor, torch.Tensor]:
    """Per unit its largest |value| on the corpus, and the share of tokens above a tenth of it."""
    parts: list[torch.Tensor] = []
    for batch in corpus.batches(16):
        tokens, length, real = (x.to(home(model)) for x in (batch.tokens, batch.length, batch.real))
        seen = read(model, tokens, length, basis.hooks)
        columns = []
        for site, dictionary, units in zip(basis.sites, basis.dictionaries, handle.units, strict=True):
            if len(units):
                columns.append(dictionary.encode_some(site.view(seen[site.reads]), units.to(home(model)))[real])
        parts.append(torch.cat(columns, 1).abs())
    values = torch.cat(parts)
    largest = values.amax(0)
    return largest, (values > 0.1 * largest).double().mean(0).cpu()
