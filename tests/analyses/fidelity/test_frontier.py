"""The frontier of fidelity against plain loops and runs of the model, and the laws of orthonormal bases."""

from typing import Any

import numpy as np
import pytest
import tables
import torch
import toys
from texts import BOS, text

import neuron_vs_sae as nvs
from neuron_vs_sae.analyses.fidelity.frontier import frontier
from neuron_vs_sae.analyses.fidelity.measures import area_weights, estimates, rows, size_at
from neuron_vs_sae.analyses.fidelity.written import at_mlp_out
from neuron_vs_sae.catalog.corpora import from_tokens
from neuron_vs_sae.statistics.resampling import draw, independent

SIZES = (0, 1, 3, 8, 20)
CORPUS = text(7)
CASES = [
    case
    for case in tables.BASES
    if case.name in {"mlp_outputs", "sae", "sae layer_norm", "transcoder", "rotation", "sae hook_z per head"}
]


def by_loop(model: Any, basis: nvs.Basis, s: int, m: int) -> tuple[float, float]:
    """(explained variance, cross-entropy score) of the m largest units at one site, token by token."""
    site, dictionary = basis.sites[s], basis.dictionaries[s]
    norms = dictionary.directions(torch.arange(dictionary.width)).norm(dim=1)
    xs, lost, nats = [], 0.0, {"model": 0.0, "zero": 0.0, "kept": 0.0}
    for context in CORPUS.read():
        tokens = torch.tensor([context.tokens])
        _, cache = model.run_with_cache(tokens)
        x, y = site.view(cache[site.writes])[0], site.view(cache[site.reads])[0]
        kept = x.clone()
        for p in range(1, len(context.tokens)):
            units = dictionary.encode(y[None, p : p + 1])[0, 0]
            largest = sorted(range(len(units)), key=lambda u: -abs(float(units[u]) * float(norms[u])))[:m]
            only = torch.zeros_like(units)
            only[largest] = units[largest]
            kept[p] = dictionary.decode(only)
            lost += float((x[p] - kept[p]).square().sum())
            xs.append(x[p])
        zero = torch.cat([x[:1], torch.zeros_like(x[1:])])
        for name, value in (("model", x), ("zero", zero), ("kept", kept)):
            hook = (site.writes, lambda a, hook, value=value: site.put(a, value[None]))
            with torch.no_grad():
                log_p = model.run_with_hooks(tokens, fwd_hooks=[hook])[0].log_softmax(-1)
            nats[name] -= sum(float(log_p[p, context.tokens[p + 1]]) for p in range(1, len(context.tokens) - 1))
    x = torch.stack(xs)
    variance = 1 - lost / float((x - x.mean(0)).square().sum())
    return variance, (nats["zero"] - nats["kept"]) / (nats["zero"] - nats["model"])


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_frontier_is_what_a_loop_over_tokens_gives(case: tables.BasisCase, gpt2: Any) -> None:
    basis = tables.make(case, gpt2)
    found = frontier(gpt2, basis, CORPUS, sizes=SIZES, batch_size=3)
    for s in (0, len(found) - 1):
        for i, m in enumerate(found[s].sizes):
            if m in (0, 3):
                variance, score = by_loop(gpt2, basis, s, m)
                assert float(found[s].explained_variance[i]) == pytest.approx(variance, rel=1e-6)
                assert float(found[s].ce_score[i]) == pytest.approx(score, rel=1e-5)


@pytest.mark.parametrize("name", ["mlp_outputs", "rotation", "pca", "mlp_neurons", "residual"])
def test_of_an_orthonormal_basis_more_units_explain_more_and_all_of_them_everything(name: str, llama: Any) -> None:
    basis = tables.make(next(case for case in tables.BASES if case.name == name), llama)
    for found in frontier(llama, basis, CORPUS):
        assert (found.explained_variance.diff() > -1e-12).all()
        assert float(found.explained_variance[-1]) == pytest.approx(1)
        assert float(found.ce_score[-1]) == pytest.approx(1)
        assert found.sizes[-1] == found.width


def test_neurons_seen_at_the_mlps_output_are_the_same_neurons(model: Any) -> None:
    neurons = nvs.bases.mlp_neurons(model)
    seen = at_mlp_out(model, neurons)
    tokens = torch.tensor([[0, 3, 5, 9]])
    _, cache = model.run_with_cache(tokens)
    for site, dictionary in zip(seen.sites, seen.dictionaries, strict=True):
        units = dictionary.encode(cache[site.reads])
        torch.testing.assert_close(units, cache[f"blocks.{site.layer}.mlp.hook_post"])
        torch.testing.assert_close(dictionary.decode(units), cache[site.writes])
    stays = model.cfg.model_name == "toy-gemma2"
    assert seen.kind == ("mlp.hook_post" if stays else "hook_mlp_out")


def test_the_number_of_carriers_is_that_of_equal_contributions(llama: Any) -> None:
    """A dictionary of k copies of one active unit has k carriers at every token."""
    made = toys.sae("blocks.0.hook_mlp_out", width=5)
    made.W_enc.data.zero_()
    made.b_enc.data = torch.tensor([2.0, 2.0, 2.0, -1.0, -1.0], dtype=torch.float64)
    made.W_dec.data = made.W_dec.data / made.W_dec.data.norm(dim=1, keepdim=True)
    found = frontier(llama, nvs.bases.sae(llama, source=[made]), CORPUS, sizes=[1])[0]
    assert found.effective_units == pytest.approx(3)


def test_padding_and_batch_size_change_nothing(llama: Any) -> None:
    basis = nvs.bases.sae(llama, source=toys.saes())
    one, many = (frontier(llama, basis, CORPUS, sizes=SIZES, batch_size=size)[1] for size in (1, 7))
    torch.testing.assert_close(one.ce_kept, many.ce_kept)
    torch.testing.assert_close(one.lost, many.lost)


def test_rows_carry_what_the_frontier_says_with_intervals_around_it(llama: Any) -> None:
    found = frontier(llama, nvs.bases.rotation(llama), CORPUS, sizes=SIZES)[0]
    table = rows(found, resamples=300)
    assert table["m"].tolist() == [0, 1, 3, 8]
    assert table["bits"].tolist() == pytest.approx([0, 3, np.log2(56), 0], abs=1e-9)
    for name in ("explained_variance", "ce_score"):
        assert table[name].tolist() == pytest.approx(getattr(found, name).tolist())
        assert (table[f"{name}_low"] <= table[name] + 1e-9).all()
        assert (table[f"{name}_high"] >= table[name] - 1e-9).all()


def test_bases_of_one_corpus_are_compared_context_by_context(llama: Any) -> None:
    """A basis less itself is zero in every resample."""
    found = frontier(llama, nvs.bases.rotation(llama), CORPUS, sizes=SIZES)[0]
    draws = draw(independent(7), 200, 0)
    difference = estimates(found, draws)["ce_score"] - estimates(found, draws)["ce_score"]
    assert not difference.replicates.any()


def test_the_size_at_a_level_lies_between_the_sizes_around_it() -> None:
    sizes, values = (0, 1, 10, 100), np.array([0.0, 0.2, 0.6, 1.0])
    assert size_at(sizes, values, 0.8) == pytest.approx(10**1.5)
    assert size_at(sizes, values, 0.6) == pytest.approx(10)
    assert size_at(sizes, values, 0.1) == 1
    assert np.isnan(size_at(sizes, np.array([0.0, 0.2, 0.3, 0.4]), 0.8))


def test_an_area_is_the_mean_over_log_size() -> None:
    sizes = (0, 1, 10, 100)
    assert float(area_weights(sizes, 1, 100) @ [9.0, 0.0, 1.0, 1.0]) == pytest.approx(0.75)
    assert float(area_weights(sizes, 1, 10) @ [9.0, 0.0, 1.0, 1.0]) == pytest.approx(0.5)
    # From 10^.5 to 10^1.5 a line that rises by 1 a decade until 10, and is flat after it.
    assert float(area_weights(sizes, 3, 30) @ np.array([0, 0, 1, 1])) == pytest.approx(
        np.trapezoid([np.log10(3), 1, 1], np.log10([3, 10, 30])) / 1.0
    )
    with pytest.raises(nvs.InputError, match="span it"):
        area_weights(sizes, 1, 200)


def test_nothing_to_keep_is_refused(llama: Any) -> None:
    basis = nvs.bases.rotation(llama)
    with pytest.raises(nvs.InputError, match="changes no prediction"):
        frontier(llama, basis, from_tokens("one word", [[BOS, 3], [BOS, 4]], special=[BOS]), sizes=[1])
    with pytest.raises(nvs.InputError, match="0 or more"):
        frontier(llama, basis, CORPUS, sizes=[-1])
