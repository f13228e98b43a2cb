"""What is collected of a corpus is what a plain loop over all of its tokens finds, and shards of it merge exactly."""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import tables
import torch
import toys
from texts import BOS, text

import neuron_vs_sae as nvs
from neuron_vs_sae.analyses.units import collecting
from neuron_vs_sae.analyses.units.collecting import Collection, Keeping, collect, merge, merged, scout
from neuron_vs_sae.analyses.units.queues import equal, lottery
from neuron_vs_sae.analyses.units.selection import Units, drawn, named
from neuron_vs_sae.catalog.corpora import Corpus, from_tokens

pytestmark = pytest.mark.checked

KEEPING = Keeping(top=4, per_quantile=2, negatives=3, window=2, silent=0.2, sink=2.5, batch_size=3, seed=5)
BASES = [
    case
    for case in tables.BASES
    if case.name in {"mlp_neurons", "sae", "sae topk", "transcoder", "rotation", "sae hook_z per head"}
]


def by_loop(
    model: Any, basis: nvs.Basis, units: Units, corpus: Corpus, limit: float
) -> list[dict[tuple[int, int], float]]:
    """Per unit its value at every (context, position) that counts, one context at a time."""
    values: list[dict[tuple[int, int], float]] = [{} for _ in range(len(units))]
    for number, context in enumerate(corpus.read()):
        tokens = torch.tensor([context.tokens])
        _, cache = model.run_with_cache(tokens)
        for u, (s, unit) in enumerate(zip(units.site.tolist(), units.unit.tolist(), strict=True)):
            y = basis.sites[s].view(cache[basis.sites[s].reads])[0]
            norms = sorted(float(y[p].norm()) for p in range(1, len(context.tokens)))
            median = norms[(len(norms) - 1) // 2]  # the lower one of two, as torch's
            for p in range(1, len(context.tokens)):
                if float(y[p].norm()) <= limit * median:
                    values[u][number, p] = float(basis.dictionaries[s].encode(y[None])[0, p, unit])
    return values


@pytest.mark.parametrize("case", BASES, ids=lambda case: case.name)
def test_what_is_collected_is_what_a_loop_over_all_tokens_finds(case: tables.BasisCase, llama: Any) -> None:
    basis, corpus = tables.make(case, llama), text()
    units = drawn(basis, 6, seed=1)
    got = collect(llama, basis, units, corpus, keeping=KEEPING)
    values = by_loop(llama, basis, units, corpus, KEEPING.sink)
    rows = [context.tokens for context in corpus.read()]
    draws = lottery(KEEPING.seed, torch.arange(len(rows)), corpus.length)
    sinks = sum(len(row) - 1 for row in rows) - len(values[0])
    assert got.contexts == len(rows)
    assert got.counted.tolist() == [len(v) for v in values]
    for u, here in enumerate(values):
        assert got.moments[:, u].tolist() == pytest.approx(
            [sum(v**p for v in here.values()) / len(here) for p in (1, 2, 3, 4)], rel=1e-5, abs=1e-6
        )
        for s, sign in enumerate((1, -1)):
            row = s * len(units) + u
            limit = float(got.ranges[s, u])
            strong = {place: sign * v for place, v in here.items() if sign * v > 0}
            assert got.histogram[s, u].tolist() == [
                sum(i < min(v / limit * 50, 50) <= i + 1 for v in strong.values()) for i in range(50)
            ]
            assert float(got.density(0.1)[s, u]) == pytest.approx(
                sum(v > 0.1 * limit for v in strong.values()) / len(here)
            )
            best: dict[int, tuple[float, int]] = {}
            for (context, position), v in sorted(strong.items()):
                if v > best.get(context, (0.0, 0))[0]:
                    best[context] = (v, position)
            kept = places(got.top, row)
            # By value: two texts that begin alike have one value up to rounding.
            assert len({context for context, _ in kept}) == len(kept)
            assert [strong[place] for place in kept] == pytest.approx(
                sorted((v for v, _ in best.values()), reverse=True)[: KEEPING.top], rel=1e-9
            )
            for q in range(10):
                inside = [place for place, v in strong.items() if q < min(v / limit * 10, 10) <= q + 1]
                inside.sort(key=lambda place: (float(draws[place]), place))
                assert places(got.quantiles, row * 10 + q) == inside[: KEEPING.per_quantile]
    assert sinks > 0 or case.name != "mlp_neurons"


def places(slots: Any, group: int) -> list[tuple[int, int]]:
    filled = slots.filled[group]
    return list(zip(slots.context[group][filled].tolist(), slots.position[group][filled].tolist(), strict=True))


def test_a_window_shows_the_tokens_and_values_around_its_place(llama: Any) -> None:
    basis, corpus = nvs.bases.mlp_neurons(llama), text()
    units = named(basis, ["blocks.1.mlp.hook_post/3"])
    got = collect(llama, basis, units, corpus, keeping=KEEPING)
    rows = [context.tokens for context in corpus.read()]
    for slots in (got.top, got.quantiles, got.negatives):
        for g, i in slots.filled.nonzero().tolist():
            context, position = int(slots.context[g, i]), int(slots.position[g, i])
            inside = [p for p in range(position - 2, position + 3) if 0 <= p < len(rows[context])]
            assert slots.tokens[g, i][slots.inside[g, i]].tolist() == [rows[context][p] for p in inside]
            _, cache = llama.run_with_cache(torch.tensor([rows[context]]))
            there = cache["blocks.1.mlp.hook_post"][0, inside, 3]
            torch.testing.assert_close(slots.values[g, i][slots.inside[g, i]], there, rtol=1e-9, atol=1e-9)


def test_nothing_in_a_negative_window_is_above_the_limit_and_a_sample_of_all_such_places_is_kept(llama: Any) -> None:
    basis, corpus = nvs.bases.sae(llama, source=toys.saes()), text()
    units = drawn(basis, 4, seed=3)
    many = replace(KEEPING, negatives=500, sink=1e9)
    everything = collect(llama, basis, units, corpus, keeping=many)
    rows = [context.tokens for context in corpus.read()]
    draws = lottery(many.seed, torch.arange(len(rows)), corpus.length)
    values = by_loop(llama, basis, units, corpus, 1e9)
    for u, here in enumerate(values):
        s, unit = int(units.site[u]), int(units.unit[u])
        limit = many.silent * float(everything.ranges[0, u])
        at_bos = basis.dictionaries[s].encode(llama.run_with_cache(torch.tensor([[BOS]]))[1][basis.sites[s].reads])[
            0, 0, unit
        ]

        def quiet(context: int, position: int, here: Any = here, limit: float = limit, bos: Any = at_bos) -> bool:
            around = range(max(position - 2, 0), min(position + 3, len(rows[context])))
            return all((here[context, p] if p else float(bos)) <= limit for p in around)

        expected = sorted((place for place in here if quiet(*place)), key=lambda place: float(draws[place]))
        assert places(everything.negatives, u) == expected
        few = collect(llama, basis, units, corpus, keeping=replace(many, negatives=3))
        assert places(few.negatives, u) == expected[:3]


def same(a: Collection, b: Collection) -> bool:
    """Bit for bit."""
    counts = all(
        torch.equal(getattr(a, name), getattr(b, name)) for name in ("counted", "histogram", "powers", "ranges")
    )
    slots = all(equal(getattr(a, name), getattr(b, name)) for name in ("top", "quantiles", "negatives"))
    return counts and slots and a.spans == b.spans


@pytest.mark.parametrize("cuts", [(9,), (1, 2, 22), (5, 11, 13, 17)])
@pytest.mark.parametrize("name", ["mlp_neurons", "sae topk"])
def test_shards_merge_to_the_whole_bit_for_bit_in_any_order_and_wherever_they_are_cut(
    name: str, cuts: tuple[int, ...], gpt2: Any
) -> None:
    basis = tables.make(next(case for case in tables.BASES if case.name == name), gpt2)
    corpus, units = text(), drawn(basis, 8)
    ranges = scout(gpt2, basis, units, corpus, KEEPING)
    whole = collect(gpt2, basis, units, corpus, keeping=KEEPING, ranges=ranges)
    edges = [0, *cuts, 23]
    shards = [
        collect(gpt2, basis, units, corpus, keeping=KEEPING, ranges=ranges, start=start, stop=stop)
        for start, stop in pairwise(edges)
    ]
    assert same(merged(shards), whole)
    assert same(merged(shards[::-1]), whole)
    if len(shards) > 2:
        assert same(merge(shards[0], merged(shards[1:])), merge(merged(shards[:-1]), shards[-1]))


def test_another_batch_size_keeps_the_same_windows(llama: Any) -> None:
    basis, corpus = nvs.bases.mlp_neurons(llama), text()
    units = drawn(basis, 5)
    few, many = (collect(llama, basis, units, corpus, keeping=replace(KEEPING, batch_size=size)) for size in (2, 50))
    for group in range(10):
        assert places(few.top, group) == places(many.top, group)
    assert few.histogram.tolist() == many.histogram.tolist()


def test_a_loud_token_is_left_out_as_a_sink_and_its_context_alone_decides() -> None:
    y = torch.ones(2, 5, 3)
    y[0, 2] = 30.0
    y[1] *= 100.0
    real = torch.tensor([[False, True, True, True, True], [False, True, True, True, False]])
    sinks = collecting._sinks(y, real, 10.0)
    assert sinks.tolist() == [[False, False, True, False, False], [False] * 5]


def test_the_draw_of_a_place_depends_on_nothing_else_and_is_uniform() -> None:
    one = lottery(7, torch.arange(100, 120), 64)
    assert torch.equal(one[3:5, :10], lottery(7, torch.tensor([103, 104]), 10))
    assert not torch.equal(one, lottery(8, torch.arange(100, 120), 64))
    many = lottery(0, torch.arange(500), 200).flatten()
    assert len(many.unique()) == len(many)
    # Ten counts of mean 10,000 and standard deviation 95.
    assert (many.histc(10, 0, 1) - 10_000).abs().max() < 4 * 95


def test_wrong_units_shards_and_corpora_are_refused(llama: Any) -> None:
    basis, corpus = nvs.bases.mlp_neurons(llama), text()
    for name, message in [
        ("blocks.7.mlp.hook_post/3", "has no site"),
        ("blocks.1.mlp.hook_post/12", "units 0 to 11"),
        ("3", "SITE/NUMBER"),
        ("blocks.1.mlp.hook_post/error@3", "no unit"),
    ]:
        with pytest.raises(nvs.InputError, match=message):
            named(basis, [name])
    units = drawn(basis, 3)
    whole = collect(llama, basis, units, corpus, keeping=KEEPING)
    with pytest.raises(nvs.InputError, match="in both"):
        merge(whole, whole)
    other = collect(llama, basis, drawn(basis, 3, seed=9), corpus, keeping=KEEPING)
    with pytest.raises(nvs.InputError, match="another names"):
        merge(whole, other)
    with pytest.raises(nvs.InputError, match="no text"):
        collect(llama, basis, units, corpus, keeping=KEEPING, ranges=whole.ranges, start=23)
    with pytest.raises(nvs.InputError, match="no context"):
        from_tokens("nothing", [])


def test_units_of_a_circuit_are_named_once_and_error_nodes_are_left_out(llama: Any) -> None:
    basis = nvs.bases.sae(llama, source=toys.saes())
    names = [
        "blocks.1.hook_mlp_out/4@2",
        "blocks.0.hook_mlp_out/error@1",
        "blocks.1.hook_mlp_out/4@5",
        "blocks.0.hook_mlp_out/9",
    ]
    assert named(basis, names).names == ("blocks.0.hook_mlp_out/9", "blocks.1.hook_mlp_out/4")
