"""Numbers worked by hand, on a two-layer model whose weights can be multiplied in the head.

No attention, no norm, no bias, ReLU. The clean prompt is one token with embedding (1, 2), the corrupt one (0, 1):

    clean    layer 0: pre (3, -1) -> neurons (3, 0), writes (3, 0), stream (4, 2)
             layer 1: pre (4, 2)  -> neurons (4, 2), writes (8, 2), stream (12, 4)     metric 12 - 4 = 8
    corrupt  layer 0: pre (1, -1) -> neurons (1, 0), writes (1, 0), stream (1, 1)
             layer 1: pre (1, 1)  -> neurons (1, 1), writes (2, 1), stream (3, 2)      metric  3 - 2 = 1

The metric's gradient is (1, -1) at the last stream and (1 + 2, -1 - 1) = (3, -2) at the middle one.
"""

import warnings
from dataclasses import replace
from typing import Any

import pytest
import torch
import toys
from torch import tensor
from transformer_lens import HookedTransformer, HookedTransformerConfig

import neuron_vs_sae as nvs
from neuron_vs_sae.models.loading import prepare


def build(gated: bool = False, **weights: list[list[float]]) -> Any:
    config = HookedTransformerConfig(
        n_layers=2, d_model=2, n_ctx=3, d_head=1, n_heads=1, d_mlp=2, d_vocab=5, act_fn="relu", normalization_type=None,
        gated_mlp=gated, dtype=torch.float64, device="cpu",
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        model = HookedTransformer(config)
    for name, parameter in model.named_parameters():
        parameter.data = tensor(weights[name]).double() if name in weights else torch.zeros_like(parameter)
    return prepare(model)


EMBEDDINGS = [[0, 0], [1, 2], [0, 1], [1, 1], [2, 1]]
TO_ANSWER_MINUS_FOIL = [[0, 0, 0, 1, 0], [0, 0, 0, 0, 1]]


@pytest.fixture(scope="module")
def plain() -> Any:
    return build(
        **{
            "embed.W_E": EMBEDDINGS,
            "unembed.W_U": TO_ANSWER_MINUS_FOIL,
            "blocks.0.mlp.W_in": [[1, 1], [1, -1]],
            "blocks.0.mlp.W_out": [[1, 0], [0, 1]],
            "blocks.1.mlp.W_in": [[1, 0], [0, 1]],
            "blocks.1.mlp.W_out": [[2, 0], [0, 1]],
        }
    )


@pytest.fixture(scope="module")
def gated() -> Any:
    """Layer 0 writes nothing; layer 1 has one neuron, relu(r[0]) * r[1], that writes to the answer's direction."""
    return build(
        gated=True,
        **{
            "embed.W_E": EMBEDDINGS,
            "unembed.W_U": TO_ANSWER_MINUS_FOIL,
            "blocks.1.mlp.W_gate": [[1, 0], [0, 0]],
            "blocks.1.mlp.W_in": [[0, 0], [1, 0]],
            "blocks.1.mlp.W_out": [[1, 0], [0, 0]],
        },
    )


def pairs_of(clean: list[list[int]], corrupt: list[list[int]], length: list[int] | None = None) -> nvs.PromptPairs:
    """Pairs of these tokens; the answer is token 3, the foil token 4."""
    n = len(clean)
    return replace(
        toys.pairs(n, 4),
        clean=tensor(clean),
        corrupt=tensor(corrupt),
        length=tensor(length or [len(row) for row in clean]),
        answer=torch.full((n,), 3),
        foil=torch.full((n,), 4),
    )


def one_pair() -> nvs.PromptPairs:
    return pairs_of([[1]], [[2]])


def by_site(scores: nvs.NodeScores) -> list[list[float]]:
    return [units[0].tolist() for units, _ in scores.by_site()]


@pytest.mark.parametrize("method", ["attribution_patching", "relp", "activation_patching", "integrated_gradients"])
def test_neuron_scores(plain: Any, method: str) -> None:
    """Changes (2, 0) and (3, 1) times gradients (3, .) and (2, -1). No ReLU switches, so every method is exact."""
    scores = getattr(nvs.attribution, method)(plain, nvs.bases.mlp_neurons(plain), one_pair())
    assert by_site(scores) == [pytest.approx([6, 0]), pytest.approx([6, -1])]


def test_output_and_stream_scores(plain: Any) -> None:
    pair = one_pair()
    outputs = nvs.attribution.attribution_patching(plain, nvs.bases.mlp_outputs(plain), pair)
    assert by_site(outputs) == [[2 * 3, 0], [6 * 1, 1 * -1]]
    stream = nvs.attribution.attribution_patching(plain, nvs.bases.residual(plain), pair)
    assert by_site(stream) == [[3 * 3, 1 * -2], [9 * 1, 2 * -1]]
    assert [sum(row) for row in by_site(stream)] == [7, 7], "a cutting site carries metric(clean) - metric(corrupt)"


def test_unpaired_scores_are_activation_times_gradient_of_the_answers_logit(plain: Any) -> None:
    scores = nvs.attribution.attribution_patching(plain, nvs.bases.mlp_neurons(plain), one_pair(), pairing="unpaired")
    # The answer's logit has gradient (1, 0) at the end and (3, 0) in the middle: 3 * 3 and 4 * 2.
    assert by_site(scores) == [[9, 0], [8, 0]]


def test_baselines(plain: Any) -> None:
    assert by_site(nvs.attribution.delta(plain, nvs.bases.mlp_neurons(plain), one_pair())) == [[2, 0], [3, 1]]


def test_a_circuit_of_one_neuron(plain: Any) -> None:
    """Two neurons tie at 6; the first one is kept. What is kept is recomputed: removing it changes layer 1's neurons.

    Empty:      layer 0 (1, 0), stream (2, 2); layer 1 (1, 1) writes (2, 1); stream (4, 3): 1.
    Circuit:    layer 0 (3, 0), stream (4, 2); layer 1 (1, 1) writes (2, 1); stream (6, 3): 3.
    Complement: layer 0 (1, 0), stream (2, 2); layer 1 live (2, 2) writes (4, 2); stream (6, 4): 2.
    """
    pair, basis = one_pair(), nvs.bases.mlp_neurons(plain)
    scores = nvs.attribution.relp(plain, basis, pair)
    assert scores.top(1).names == ["blocks.0.mlp.hook_post/0@0"]
    curve = nvs.evaluate(plain, basis, scores, pair, sizes=lambda n: [1], ablation="counterfactual")
    found = [float(x) for x in (curve.whole[0], curve.empty[0], curve.circuit[0, 0], curve.complement[0, 0])]
    assert found == [8, 1, 3, 2]
    assert curve.faithfulness.item() == pytest.approx(2 / 7)
    assert curve.completeness.item() == pytest.approx(1 / 7)


def test_a_useless_neuron_is_in_no_ranking(plain: Any) -> None:
    """I20. Scores (6, 0), (6, -1): third by size and by sign is the harmful neuron, and the useless one is nowhere."""
    scores = nvs.attribution.relp(plain, nvs.bases.mlp_neurons(plain), one_pair())
    units = ~scores.index.is_error
    for rank_by in ("absolute", "signed"):
        order = scores.order(rank_by=rank_by, among=units).tolist()
        assert [scores.index.name(node) for node in order][2:] == ["blocks.1.mlp.hook_post/1@0"]
    assert [scores.index.name(node) for node in scores.unscored(units).tolist()] == ["blocks.0.mlp.hook_post/1@0"]


def test_an_sae_with_one_unit_and_an_error(plain: Any) -> None:
    """At layer 1's output an SAE keeps the first coordinate: (8, 2) = 8 (1, 0) + (0, 2); corrupt (2, 1) = 2 (1, 0) + (0, 1).

    Scores: unit 6 * 1, error (0, 1) . (1, -1) = -1. The stream before it is (4, 2), live.
    Empty (2, 0) + (0, 1): 6 - 3 = 3. Circuit {unit} (8, 0) + (0, 1): 12 - 3 = 9. Complement (2, 0) + (0, 2): 6 - 4 = 2.
    """
    sae = toys.sae("blocks.1.hook_mlp_out", d=2, width=1)
    sae.W_enc.data, sae.W_dec.data = tensor([[1.0], [0.0]]).double(), tensor([[1.0, 0.0]]).double()
    sae.b_enc.data, sae.b_dec.data = torch.zeros(1).double(), torch.zeros(2).double()
    pair, basis = one_pair(), nvs.bases.sae(plain, source=[sae])
    scores = nvs.attribution.attribution_patching(plain, basis, pair)
    assert scores.values.tolist() == [6, -1]
    curve = nvs.evaluate(plain, basis, scores, pair, sizes=lambda n: [1], ablation="counterfactual")
    found = [float(x) for x in (curve.whole[0], curve.empty[0], curve.circuit[0, 0], curve.complement[0, 0])]
    assert found == [8, 3, 9, 2]
    assert curve.faithfulness.item() == pytest.approx(6 / 5)
    kept = nvs.evaluate(plain, basis, scores, pair, sizes=[0, 1], ablation="counterfactual", errors="keep")
    assert (kept.n_total, kept.empty.item()) == (1, 2), "the error (0, 2) stays: 6 - 4"
    gone = nvs.evaluate(plain, basis, scores, pair, sizes=[1], ablation="counterfactual", errors="ablate")
    assert gone.faithfulness.item() == pytest.approx(6 / 5), "the ceiling: the error is at (0, 1) in every run"


def test_mean_ablation_by_hand(plain: Any) -> None:
    """Corrupt prompts (0, 1) and (1, 1): layer 0's neurons 1 and 2, so 1.5 on average; layer 1's (1, 1) and (3, 1): (2, 1).

    Everything ablated on the clean (1, 2): stream (2.5, 2), then (2.5, 2) + (4, 1) = (6.5, 3): 3.5.
    """
    pairs = pairs_of([[1], [1]], [[2], [3]])
    basis = nvs.bases.mlp_neurons(plain)
    scores = nvs.attribution.random(plain, basis, pairs)
    for ablation in ("mean", "mean_global"):
        curve = nvs.evaluate(plain, basis, scores, pairs, sizes=[0], ablation=ablation)
        assert curve.empty.tolist() == [3.5, 3.5]
    swapped = nvs.evaluate(plain, basis, scores, pairs, sizes=[0], ablation="resample")
    own = nvs.evaluate(plain, basis, scores, pairs, sizes=[0], ablation="counterfactual")
    assert swapped.empty.tolist() == own.empty.flip(0).tolist(), "with two pairs, each draws the other"


@pytest.mark.parametrize(
    ("method", "stream"),
    [
        ("attribution_patching", [(1 + 2) * 1, (-1 + 1) * 1]),
        ("relp_no_half", [(1 + 2) * 1, (-1 + 1) * 1]),
        ("relp", [(1 + 1) * 1, (-1 + 0.5) * 1]),
        ("relp_no_gate", [(1 + 0) * 1, (-1 + 1) * 1]),
        ("integrated_gradients,midpoint", [(1 + 1.5) * 1, (-1 + 0.5) * 1]),
    ],
)
def test_a_gated_neuron(gated: Any, method: str, stream: list[float]) -> None:
    """h = relu(r0) r1 at clean stream (1, 2), corrupt (0, 1): slopes (2, 1), halved by RelP, (0, 1) with a constant gate.

    The stream's own gradient is (1, -1). On the path to corrupt the slope falls from (2, 1) to (1, 0); its midpoint
    (1.5, 0.5) gives 2.5 - 0.5 = 2, which is metric(clean) - metric(corrupt) = (1 + 2 - 2) - (0 + 0 - 1) exactly: the
    metric is quadratic there.
    """
    name, _, schedule = method.partition(",")
    options = {"schedule": "midpoint", "steps": 1} if schedule else {}
    pair = one_pair()
    basis = nvs.bases.residual(gated, layers="0")
    assert by_site(getattr(nvs.attribution, name)(gated, basis, pair, **options)) == [stream]


def test_padding_is_not_averaged(plain: Any) -> None:
    """`mean` at a position is over the prompts that reach it: one of two here, so it is that one's value."""
    pairs = pairs_of([[1, 1], [1, 4]], [[2, 3], [2, 4]], [2, 1])  # the last token of the second is padding
    basis = nvs.bases.mlp_neurons(plain)
    reference = nvs.ablation.mean(plain, basis, pairs, pairs, 0, 1)(torch.arange(2))
    # Token 2 has layer 0 neurons (1, 0), token 3 has (2, 0).
    assert reference.features.units[0].tolist() == [[[1, 0], [2, 0]]]
    pooled = nvs.ablation.mean_global(plain, basis, pairs, pairs, 0, 1)(torch.arange(2))
    assert pooled.features.units[0][0, 0, 0].item() == pytest.approx((1 + 2 + 1) / 3)
