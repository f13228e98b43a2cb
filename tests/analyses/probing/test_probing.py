"""Selectors recover what is planted, supports are the best ones, and scores and their intervals are those of known data."""

from itertools import combinations
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import toys
from texts import text

import neuron_vs_sae as nvs

pytest.importorskip("sklearn", reason="pip install '.[probing]'")

from sklearn.metrics import matthews_corrcoef, roc_auc_score

from neuron_vs_sae.analyses.probing.concepts import Concept, concept
from neuron_vs_sae.analyses.probing.examples import activations, places
from neuron_vs_sae.analyses.probing.measures import auroc, draws_of, mcc
from neuron_vs_sae.analyses.probing.optimal import cut_support, exhaustive_support, optimal_support
from neuron_vs_sae.analyses.probing.probe import Probing, chosen, probe, table
from neuron_vs_sae.analyses.probing.ranking import RANKERS, supports
from neuron_vs_sae.catalog.corpora import Context, Corpus
from neuron_vs_sae.default.tokenizer import tokenizer as world_tokenizer
from neuron_vs_sae.statistics.bootstrap import interval

Data = tuple[np.ndarray, np.ndarray]


def planted(n: int = 600, width: int = 40, support: tuple[int, ...] = (3, 17, 29), seed: int = 0) -> Data:
    """A label that is the sign of a sum of some columns, and noise in all others."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, width)).astype(np.float32)
    y = x[:, list(support)].sum(1) + 0.1 * rng.normal(size=n) > 0
    return x, y


@pytest.mark.parametrize("ranker", [r for r in RANKERS if r != "random"])
def test_a_selector_recovers_the_planted_support(ranker: str) -> None:
    x, y = planted()
    assert set(supports(ranker, x, y, [3])[3].tolist()) == {3, 17, 29}


def test_random_units_are_no_better_than_chance() -> None:
    x, y = planted()
    drawn = [supports("random", x, y, [3], seed=seed)[3].tolist() for seed in range(200)]
    hits = sum(len({3, 17, 29} & set(units)) for units in drawn)
    # 200 x 3 x 3 / 40 = 45 in the mean, standard deviation 6.3
    assert abs(hits - 45) < 4 * 6.3


@pytest.mark.parametrize("k", [1, 2])
def test_supports_by_cuts_are_the_exhaustive_ones(k: int) -> None:
    """On labels that no single column explains, correlated columns among them."""
    for seed in range(3):
        x, y = planted(n=120, width=9, seed=seed, support=(1, 4, 6))
        x[:, 8] = x[:, 1] + 0.3 * x[:, 4]
        gamma = 1 / np.sqrt(len(y))
        best, cuts = (find(x, y, k, gamma=gamma) for find in (exhaustive_support, cut_support))
        assert cuts.is_optimal
        assert cuts.cost == pytest.approx(best.cost, rel=1e-3)
        assert cuts.columns.tolist() == best.columns.tolist()
        assert len(list(combinations(range(9), k))) <= 2000
        assert optimal_support(x, y, k).columns.tolist() == best.columns.tolist()


def test_more_units_never_cost_more() -> None:
    x, y = planted(n=150, width=10, support=(1, 4, 6))
    costs = [exhaustive_support(x, y, k, gamma=0.1).cost for k in (1, 2, 3)]
    assert costs == sorted(costs, reverse=True)


def test_scores_are_scikit_learns_and_so_is_every_resample() -> None:
    rng = np.random.default_rng(0)
    y, sequence = rng.random(200) < 0.4, np.repeat(np.arange(50), 4)
    decision = np.round(y + rng.normal(size=200), 1)  # with ties
    draws = draws_of(sequence, 20, 0)
    correlation, area = mcc(y, decision, draws), auroc(y, decision, draws)
    assert float(correlation.value[0]) == pytest.approx(matthews_corrcoef(y, decision > 0))
    assert float(area.value[0]) == pytest.approx(roc_auc_score(y, decision))
    for r in range(20):
        rows = np.repeat(np.arange(200), draws.counts[r, sequence].astype(int))
        assert float(correlation.replicates[r, 0]) == pytest.approx(matthews_corrcoef(y[rows], decision[rows] > 0))
        assert float(area.replicates[r, 0]) == pytest.approx(roc_auc_score(y[rows], decision[rows]))


def test_intervals_are_wider_where_tokens_of_a_sequence_agree() -> None:
    rng = np.random.default_rng(1)
    y, decision = rng.random(40) < 0.5, rng.normal(size=40)
    decision += y
    together = draws_of(np.repeat(np.arange(40), 5), 500, 0)
    apart = draws_of(np.arange(200), 500, 0)
    y, decision = np.repeat(y, 5), np.repeat(decision, 5)
    widths = [
        float(np.diff([*interval(mcc(y, decision, d)).low, *interval(mcc(y, decision, d)).high])[0])
        for d in (apart, together)
    ]
    assert widths[1] > 1.8 * widths[0]


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return text(60)


EVEN = Concept("even", lambda context, position: context.tokens[position] % 2 == 0)


def test_no_sequence_is_on_two_sides_and_classes_are_balanced(corpus: Corpus) -> None:
    where = places(corpus, Concept("three", lambda context, p: context.tokens[p] == 3), n=100)
    sides: dict[int, set[int]] = {}
    for sequence, split in zip(where.sequence, where.split, strict=True):
        sides.setdefault(sequence, set()).add(split)
    assert all(len(side) == 1 for side in sides.values())
    assert 0.2 <= sum(where.holds) / len(where.holds) <= 0.5
    rows = [context.tokens for context in corpus.read()]
    for (context, position), holds in zip(where.at, where.holds, strict=True):
        assert (rows[context][position] == 3) == holds
        assert position > 0


def test_values_at_places_are_the_units_there(corpus: Corpus, llama: Any) -> None:
    basis = nvs.bases.sae(llama, source=toys.saes())
    where = places(corpus, EVEN, n=50)
    plain = activations(llama, basis, 1, corpus, where, batch_size=7)
    scaled = activations(llama, basis, 1, corpus, where, of="contributions")
    norms = basis.dictionaries[1].decoder.norm(dim=1).numpy()  # type: ignore[attr-defined]
    rows = [context.tokens for context in corpus.read()]
    for split in range(3):
        mine = [at for at, s in zip(where.at, where.split, strict=True) if s == split]
        for i, (context, position) in enumerate(mine[:3]):
            _, cache = llama.run_with_cache(torch.tensor([rows[context]]))
            there = basis.dictionaries[1].encode(cache["blocks.1.hook_mlp_out"])[0, position].numpy()
            np.testing.assert_allclose(plain[split].x[i], there, rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(scaled[split].x[i], there * norms, rtol=1e-5, atol=1e-6)


def test_every_basis_is_probed_alike_and_the_site_is_chosen_on_validation(corpus: Corpus, llama: Any) -> None:
    bases = [nvs.bases.mlp_neurons(llama), nvs.bases.rotation(llama)]
    settings = Probing(
        ks=(1, 3), rankers=("mean_difference", "random"), candidates=8, subsets=3, resamples=100, examples=300
    )
    outcomes = probe(llama, bases, corpus, EVEN, settings)
    rows = table(outcomes)
    sparse = rows[~rows["ranker"].isin(["dense", "direction"])]
    # The neurons' 12 are probed whole and by eights, the rotation's 8 once.
    assert sparse.groupby("basis")["candidates"].unique().map(sorted).to_dict() == {
        "mlp_neurons": [8, 12],
        "rotation": [8],
    }
    assert set(rows["split"]) == {"validation", "test"}
    assert (rows["low"] <= rows["mcc"] + 1e-9).all()
    assert (rows["mcc"] <= rows["high"] + 1e-9).all()
    keys = ["basis", "ranker", "k", "candidates"]
    for key, mine in rows.groupby(keys):
        validation = mine[mine["split"] == "validation"].set_index("site")["mcc"]
        picked = [o for o in chosen(outcomes) if (o.basis, o.ranker, o.k, o.candidates) == key]
        assert len(picked) == 1
        assert validation[picked[0].site] == validation.max()
    again = table(probe(llama, bases, corpus, EVEN, settings))
    assert again.equals(rows)


def test_concepts_of_the_world_and_of_the_text_are_read_off_the_tokens() -> None:
    reader = SimpleNamespace(tokenizer=world_tokenizer())
    number = reader.tokenizer.get_vocab()
    words = ("The", "dog", "sees", "65", "Reno")
    latents = ({}, {"number": "singular", "state": "Ohio"}, {"number": "plural"}, {}, {"state": "Nevada"})
    context = Context(tuple(number.get(word, 3) for word in words), latents, (0,) * 5)
    made = Corpus("five words", 5, frozenset(), 0, lambda: iter([context]))

    def labels(name: str) -> list[bool | None]:
        found = concept(reader, made, name)
        return [found.label(context, p) for p in range(5)]

    assert labels("number") == [None, True, False, None, None]
    assert concept(reader, made, "number").name == "number=singular"
    assert labels("state=Nevada") == [None, False, None, None, True]
    assert labels("leading_capital") == [True, False, False, False, True]
    assert labels("all_digits") == [False, False, False, True, False]
    assert labels("suffix:og") == [False, True, False, False, False]
    for name, message in [
        ("nothing", "no concept 'nothing'.*number, state"),
        ("number=dual", "values are plural, singular"),
    ]:
        with pytest.raises(nvs.InputError, match=message):
            labels(name)


def test_what_cannot_be_probed_is_refused(corpus: Corpus, llama: Any) -> None:
    with pytest.raises(nvs.InputError, match=r"has one class.*holds at all"):
        places(corpus, Concept("always", lambda context, p: True))
    with pytest.raises(nvs.InputError, match="not defined anywhere"):
        places(corpus, Concept("never", lambda context, p: None))
    with pytest.raises(nvs.InputError, match=r"tokens of the \w+ split .*sequences"):
        places(text(3), EVEN)
    x, y = planted(n=60)
    with pytest.raises(nvs.InputError, match="no ranker 'best'"):
        supports("best", x, y, [1])
    with pytest.raises(nvs.InputError, match="at most 8 units"):
        supports("optimal", x, y, [9])
    with pytest.raises(nvs.InputError, match="1 or more"):
        supports("l1", x, y, [0])
