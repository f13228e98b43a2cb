"""Controls: bases without training, at the sites of the trained ones."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import toys

import neuron_vs_sae as nvs
from neuron_vs_sae.core.dictionary import Affine, split
from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.core.lookup import bound
from neuron_vs_sae.execution.splice import read


def affine(basis: nvs.Basis) -> list[Affine]:
    return [d for d in basis.dictionaries if isinstance(d, Affine)]


def activations(model: Any, pairs: nvs.PromptPairs, hook: str, *, bos: bool = True) -> torch.Tensor:
    """Those at the real tokens of clean and corrupt prompts, one after the other; with or without the first."""
    rows = []
    for tokens in (pairs.clean, pairs.corrupt):
        x = read(model, tokens, pairs.length, [hook])[hook].flatten(2)
        rows += [x[i, 0 if bos else 1 : n] for i, n in enumerate(pairs.length.tolist())]
    return torch.cat(rows)


def errors(basis: nvs.Basis, model: Any, pairs: nvs.PromptPairs) -> list[torch.Tensor]:
    features = basis.features(read(model, pairs.clean, pairs.length, basis.hooks))
    return list(features.errors)


# Rotation


@pytest.mark.parametrize("site", ["hook_mlp_out", "mlp.hook_post", "attn.hook_z"])
def test_a_rotation_is_orthogonal_and_loses_nothing(model: Any, site: str) -> None:
    basis = nvs.bases.rotation(model, site=site)
    assert all(d.lossless for d in basis.dictionaries)
    for d in affine(basis):
        assert torch.allclose(d.decoder @ d.decoder.T, torch.eye(d.d).double(), atol=1e-14)
        assert not d.offset.any()
    assert all(float(error.abs().max()) < 1e-13 for error in errors(basis, model, toys.pairs()))


def test_a_rotation_keeps_lengths_and_turns_nothing_into_itself(llama: Any) -> None:
    (first, _), x = affine(nvs.bases.rotation(llama)), torch.randn(1, 50, 8).double()
    units = first.encode(x)
    assert torch.allclose(units.norm(dim=-1), x.norm(dim=-1))
    assert float((units - x).norm(dim=-1).min()) > 1e-3


def test_rotations_differ_by_layer_and_seed_and_by_nothing_else(llama: Any) -> None:
    drawn = [d.decoder for seed in (0, 1, 2) for d in affine(nvs.bases.rotation(llama, seed=seed))]
    again = [d.decoder for d in affine(nvs.bases.rotation(llama, seed=0))]
    assert all(torch.equal(a, b) for a, b in zip(drawn, again, strict=False))
    assert all(float((a - b).norm()) > 1 for i, a in enumerate(drawn) for b in drawn[:i])
    (alone,) = affine(nvs.bases.rotation(llama, layers="1"))
    assert torch.equal(alone.decoder, again[1])


def test_rotations_are_spread_evenly(llama: Any) -> None:
    """Haar: entries of a d x d orthogonal matrix have mean 0 and variance 1/d (QR alone would give a biased diagonal)."""
    entries = torch.stack([d.decoder for seed in range(100) for d in affine(nvs.bases.rotation(llama, seed=seed))])
    spread = 1 / toys.D_MODEL**0.5
    mean, variance = entries.mean(0), entries.var(0)
    assert float(mean.abs().max()) < 4.5 * spread / 200**0.5  # 64 entries, each within 4.5 standard errors
    assert torch.allclose(variance, torch.full_like(variance, spread**2), rtol=0.45)


# Principal components


@pytest.mark.parametrize("site", ["hook_mlp_out", "mlp.hook_post", "attn.hook_z"])
def test_components_are_numpys_singular_vectors_in_falling_order_of_variance(model: Any, site: str) -> None:
    pairs = toys.pairs(8)
    basis = nvs.bases.pca(model, prompts=pairs, site=site)
    for hook, d in zip(basis.hooks, affine(basis), strict=True):
        x = activations(model, pairs, hook).numpy()
        _, s, vt = np.linalg.svd(x - x.mean(0), full_matrices=False)
        assert np.allclose(d.decoder @ d.decoder.T, np.eye(d.d), atol=1e-10)
        units = d.encode(torch.from_numpy(x)[None])[0].numpy()
        variance = units.var(0)
        assert (np.diff(variance) <= 1e-9).all()
        assert np.allclose(variance, s**2 / len(x), atol=1e-9)
        # Where variances are apart, the directions are the same but for their sign.
        apart = [i for i in range(len(s) - 1) if s[i] - s[i + 1] > 1e-3 * s[0]][:3]
        assert apart
        for i in apart:
            assert abs(d.decoder[i].numpy() @ vt[i]) == pytest.approx(1, abs=1e-4)


def test_all_components_lose_nothing_and_fewer_leave_the_least_error(llama: Any) -> None:
    pairs = toys.pairs(8)
    lost = []
    for components in range(1, toys.D_MODEL + 1):
        basis = nvs.bases.pca(llama, prompts=pairs, components=components)
        (first, _), x = affine(basis), activations(llama, pairs, basis.hooks[0])[None]
        assert first.width == components
        assert first.lossless == (components == toys.D_MODEL)
        lost.append(float((split(first, x, x)[1] ** 2).sum()))
        # What no component reaches is written as on average.
        assert torch.allclose(first.decode(first.encode(x)).mean((0, 1)), x.mean((0, 1)))
    assert lost[-1] < 1e-20
    singular = torch.linalg.svdvals(x[0] - x[0].mean(0))
    assert lost[:-1] == pytest.approx([float((singular[c:] ** 2).sum()) for c in range(1, toys.D_MODEL)])


@pytest.mark.parametrize("name", ["pca", "random_sae"])
def test_padding_is_not_fitted(llama: Any, name: str) -> None:
    """The same prompts in a wider table: more padding, and nothing else."""
    short = toys.pairs(4, positions=6, lengths=[4, 6, 3, 5])
    wide = toys.pairs(4, positions=9, lengths=[4, 6, 3, 5])
    wide.clean[:, :6], wide.corrupt[:, :6] = short.clean, short.corrupt
    source = {"source": toys.saes()} if name == "random_sae" else {}
    a, b = (affine(getattr(nvs.bases, name)(llama, prompts=p, **source)) for p in (short, wide))
    for one, other in zip(a, b, strict=True):
        assert torch.allclose(one.decoder, other.decoder, atol=1e-8)
        assert torch.allclose(one.offset, other.offset)


def test_batches_change_no_component(llama: Any) -> None:
    a, b = (affine(nvs.bases.pca(llama, prompts=toys.pairs(7), batch_size=n)) for n in (2, 64))
    assert all(torch.allclose(one.decoder, other.decoder, atol=1e-8) for one, other in zip(a, b, strict=True))


def test_impossible_numbers_of_components_are_refused(llama: Any) -> None:
    for components in (0, 9):
        with pytest.raises(InputError, match=f"components={components}: hook_mlp_out has 8 dimensions, so 1 to 8 comp"):
            nvs.bases.pca(llama, prompts=toys.pairs(), components=components)


# Random SAEs


SOURCES: dict[str, dict[str, Any]] = {
    "standard": {},
    "topk": {"architecture": "topk", "k": 2, "width": 40},
    "jumprelu, more units": {"architecture": "jumprelu", "width": 64},
    "layer_norm": {"normalize_activations": "layer_norm"},
}


@pytest.mark.parametrize("source", SOURCES)
def test_a_random_sae_has_the_sites_widths_and_mean_l0_of_the_trained_one(model: Any, source: str) -> None:
    saes, pairs = toys.saes(**SOURCES[source]), toys.pairs(20)
    trained, random = nvs.bases.sae(model, source=saes), nvs.bases.random_sae(model, source=saes, prompts=pairs)
    assert random.sites == trained.sites
    assert [d.width for d in random.dictionaries] == [d.width for d in trained.dictionaries]
    for hook, like, made, target in zip(
        random.hooks, trained.dictionaries, random.dictionaries, random.provenance["l0"], strict=True
    ):
        x = activations(model, pairs, hook, bos=False)[None]
        l0, expected = (float((d.encode(x) != 0).sum(-1).double().mean()) for d in (made, like))
        assert target == pytest.approx(expected)
        # Equal tokens pass the threshold together.
        assert l0 == pytest.approx(expected, abs=0.1)


@pytest.mark.assets
def test_a_random_sae_of_a_real_one_has_its_l0_and_explains_less(stories: Any, assets: Path) -> None:
    pairs = nvs.tasks.from_file(stories, path=assets / "tasks" / "stories260K" / "gender_pronoun_train.jsonl")
    pairs, source = pairs.take(range(100)), assets / "saes" / "stories260K" / "jumprelu"
    bases = [
        nvs.bases.sae(stories, source=source, select=nvs.Selection(site="hook_mlp_out")),
        nvs.bases.random_sae(stories, source=source, select=nvs.Selection(site="hook_mlp_out"), prompts=pairs),
    ]
    for hook, *both in zip(bases[0].hooks, *(affine(basis) for basis in bases), strict=True):
        x = activations(stories, pairs, hook, bos=False)[None]
        trained_l0, random_l0 = (float((d.encode(x) != 0).sum(-1).double().mean()) for d in both)
        assert random_l0 == pytest.approx(trained_l0, rel=0.02)
        trained_error, random_error = (float((split(d, x, x)[1] ** 2).sum()) for d in both)
        assert trained_error < 0.5 * random_error


@pytest.mark.checked
def test_its_directions_have_one_length_and_its_scale_is_the_least_squares_one(llama: Any) -> None:
    pairs = toys.pairs(20)
    basis = nvs.bases.random_sae(llama, source=toys.saes(width=40), prompts=pairs)
    for hook, d in zip(basis.hooks, affine(basis), strict=True):
        lengths = d.decoder.norm(dim=1)
        assert torch.allclose(lengths, lengths[0].expand(40))
        x = activations(llama, pairs, hook, bos=False)[None]
        assert torch.allclose(d.offset, x[0].mean(0))
        made = d.decode(d.encode(x)) - d.offset
        lost = [float(((x - d.offset - scale * made) ** 2).sum()) for scale in (1.0, 0.99, 1.01, 0.0)]
        assert min(lost) == lost[0]


def test_its_units_are_zero_or_above_one_threshold(llama: Any) -> None:
    pairs = toys.pairs(20)
    basis = nvs.bases.random_sae(llama, source=toys.saes(width=40, architecture="topk", k=4), prompts=pairs)
    for hook, d in zip(basis.hooks, affine(basis), strict=True):
        x = activations(llama, pairs, hook)[None]
        units = d.encode(x)
        pre = (x - d.offset) @ d.decoder.T / d.decoder[0].norm()
        assert torch.allclose(units[units != 0], pre[units != 0])
        assert float(pre[units != 0].min()) > float(pre[units == 0].max())


def test_random_saes_are_drawn_from_the_seed_and_differ_by_site(llama: Any) -> None:
    pairs = toys.pairs()

    def drawn(seed: int) -> list[torch.Tensor]:
        basis = nvs.bases.random_sae(llama, source=toys.saes(), prompts=pairs, seed=seed)
        return [d.decoder / d.decoder.norm(dim=1, keepdim=True) for d in affine(basis)]

    a, b, c = drawn(0), drawn(0), drawn(1)
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    assert all(float((x - y).norm()) > 1 for x, y in zip(a, c, strict=True))
    assert float((a[0] - a[1]).norm()) > 1


def test_batches_change_no_random_sae(llama: Any) -> None:
    a, b = (
        affine(nvs.bases.random_sae(llama, source=toys.saes(), prompts=toys.pairs(7), batch_size=n)) for n in (2, 64)
    )
    assert all(torch.allclose(x.decoder, y.decoder) for x, y in zip(a, b, strict=True))


@pytest.mark.checked
def test_a_random_sae_of_one_head_has_its_width(llama: Any) -> None:
    heads = [toys.sae("blocks.0.attn.hook_z", d=4, width=6, metadata={"hook_head_index": h}) for h in (0, 1)]
    basis = nvs.bases.random_sae(llama, source=heads, prompts=toys.pairs())
    assert [d.d for d in basis.dictionaries] == [4, 4]
    assert [site.head for site in basis.sites] == [0, 1]


def test_an_sae_that_is_never_active_still_has_a_random_counterpart(llama: Any) -> None:
    (dead,) = toys.saes()[:1]
    dead.b_enc.data -= 1e6
    (made,) = affine(nvs.bases.random_sae(llama, source=[dead], prompts=toys.pairs()))
    assert made.decoder.isfinite().all()


def test_fitted_controls_need_prompts(llama: Any, tmp_path: Path) -> None:
    toys.saes()[0].save_model(tmp_path)
    for text in ("pca", f"random_sae:{tmp_path}"):
        with pytest.raises(InputError, match=f"basis '{text.split(':')[0]}' needs prompts"):
            bound("bases", text)
    for text in ("pca,components=3", f"random_sae:{tmp_path}@hook_mlp_out,seed=3"):
        basis = bound("bases", text, prompts=toys.pairs(), batch_size=2)(llama)
        assert basis.name == text.split(":")[0].split(",")[0]


# All of them


@pytest.mark.parametrize("layers", ["2", "1-0", "x", "-1", "0-"])
def test_impossible_layers_are_refused(llama: Any, layers: str) -> None:
    if layers == "0-":
        assert nvs.bases.rotation(llama, layers=layers).hooks == ("blocks.0.hook_mlp_out",)
        return
    with pytest.raises(InputError, match=f"layers='{layers}'"):
        nvs.bases.rotation(llama, layers=layers)


def test_an_unknown_kind_of_site_is_refused_with_the_kinds_there_are(llama: Any) -> None:
    with pytest.raises(InputError, match=r"no hook 'blocks.0.mlp_out'; kinds of site it has: .*hook_mlp_out"):
        nvs.bases.rotation(llama, site="mlp_out")
