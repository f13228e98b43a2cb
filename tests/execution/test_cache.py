"""What the plain model gives is computed once for as long as it is shared, and comes back from disk bit for bit."""

import copy
import json
import warnings
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import toys

import neuron_vs_sae as nvs
from neuron_vs_sae.execution.cache import Cache, shared, sharing
from neuron_vs_sae.execution.splice import read
from neuron_vs_sae.running.machine import Machine

PAIRS = toys.pairs()
HOOKS = ["blocks.0.hook_mlp_out", "blocks.1.mlp.hook_post"]


def ones(n: int = 1000) -> dict[str, torch.Tensor]:
    return {"x": torch.ones(n)}


def never() -> dict[str, torch.Tensor]:
    raise AssertionError("it should have been there")


def activations(model: Any, hooks: list[str] = HOOKS) -> dict[str, torch.Tensor]:
    return read(model, PAIRS.clean, PAIRS.length, hooks)


def entries(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


def test_nothing_is_shared_unless_someone_says_for_how_long(gpt2: Any) -> None:
    calls: list[int] = []

    def make() -> dict[str, torch.Tensor]:
        calls.append(1)
        return ones()

    for _ in range(2):
        shared(gpt2, "x", PAIRS.clean, make)
    assert len(calls) == 2
    with sharing(gpt2):
        for _ in range(2):
            shared(gpt2, "x", PAIRS.clean, make)
        assert len(calls) == 3
    shared(gpt2, "x", PAIRS.clean, make)
    assert len(calls) == 4


def test_another_hook_prompt_or_model_is_computed_for_itself(gpt2: Any, llama: Any) -> None:
    with sharing(gpt2) as cache:
        first = activations(gpt2)
        assert (cache.computed, cache.found) == (2, 0)
        again = activations(gpt2, [*HOOKS, "hook_embed"])
        assert (cache.computed, cache.found) == (3, 2)
        assert all(again[hook] is first[hook] for hook in HOOKS)
        read(gpt2, PAIRS.corrupt, PAIRS.length, HOOKS)
        assert cache.computed == 5
        activations(llama)
        assert cache.computed == 5, "another model shares nothing"
        with gpt2.hooks(fwd_hooks=[(HOOKS[0], lambda x, hook: 2 * x)]):
            assert torch.equal(activations(gpt2)[HOOKS[0]], 2 * first[HOOKS[0]]), "nor does one with hooks of its own"


@pytest.mark.checked
def test_scores_and_curves_are_the_same_bit_for_bit_when_shared(gpt2: Any) -> None:
    basis = nvs.bases.sae(gpt2, source=toys.saes())

    def study() -> list[torch.Tensor]:
        found = []
        for method in ("relp", "conductance"):
            scores = getattr(nvs.attribution, method)(gpt2, basis, PAIRS)
            curves = [
                nvs.evaluate(gpt2, basis, scores, PAIRS, ablation=a, sizes=[0, 5, 50])
                for a in ("mean", "counterfactual")
            ]
            found += [scores.values, *(c.circuit for c in curves), *(c.complement for c in curves)]
        return found

    alone = study()
    with sharing(gpt2) as cache:
        assert all(torch.equal(a, b) for a, b in zip(alone, study(), strict=True))
        assert cache.found > cache.computed


def test_in_memory_the_least_recently_used_goes(gpt2: Any) -> None:
    cache = Cache(gpt2, None, 1.0)
    cache.room = 9000  # two of 4,000 bytes
    for name in ("a", "b", "a", "c"):
        cache.get(name, PAIRS.clean, ones)
    cache.get("a", PAIRS.clean, never)
    assert cache.computed == 3
    cache.get("b", PAIRS.clean, ones)
    assert (cache.computed, cache.bytes) == (4, 8000)


def test_what_is_on_disk_is_found_by_the_next_run_alone_if_weights_and_prompts_are_the_same(
    gpt2: Any, tmp_path: Path
) -> None:
    with sharing(gpt2, tmp_path) as cache:
        first = activations(gpt2)
    assert len(entries(tmp_path)) == cache.computed == 2
    with sharing(copy.deepcopy(gpt2), tmp_path) as cache:
        second = activations(cache.model)
        assert (cache.computed, cache.found) == (0, 2)
    assert all(torch.equal(first[hook], second[hook]) for hook in HOOKS)
    other = copy.deepcopy(gpt2)
    other.blocks[1].mlp.b_in.data[0] += 1e-9
    with sharing(other, tmp_path) as cache:
        activations(other)
        assert cache.computed == 2, "one weight changed in its ninth digit"


@pytest.mark.checked
@pytest.mark.parametrize("damage", ["cut", "flipped", "empty"])
def test_a_damaged_entry_is_computed_again_with_a_warning(damage: str, gpt2: Any, tmp_path: Path) -> None:
    with sharing(gpt2, tmp_path):
        first = activations(gpt2, HOOKS[:1])
    (file,) = entries(tmp_path)
    content = file.read_bytes()
    damaged = {"cut": content[:-8], "flipped": content[:-1] + bytes([content[-1] ^ 1]), "empty": b""}[damage]
    file.write_bytes(damaged)
    with (
        sharing(gpt2, tmp_path) as cache,
        pytest.warns(UserWarning, match=r"is damaged \(.*\): what it held is computed"),
    ):
        assert torch.equal(activations(gpt2, HOOKS[:1])[HOOKS[0]], first[HOOKS[0]])
    assert cache.computed == 1
    assert file.read_bytes() == content, "it is written again, whole"


def test_on_disk_it_stays_below_its_limit_and_the_least_recently_used_goes(gpt2: Any, tmp_path: Path) -> None:
    limit = 9000 / 2**30  # two of some 4,100 bytes

    def use(*names: str) -> int:
        with sharing(gpt2, tmp_path, limit):
            cache = Cache(gpt2, tmp_path, limit)
            for name in names:
                cache.get(name, PAIRS.clean, ones)
        return cache.computed

    assert use("a", "b") == 2
    assert use("a", "c") == 1
    assert sum(file.stat().st_size for file in entries(tmp_path)) <= 9000
    assert use("a", "c") == 0
    assert use("b") == 1


def test_runs_at_the_same_time_share_a_folder(gpt2: Any, tmp_path: Path) -> None:
    """Each of several threads has its own cache, writes and reads the same entries, and throws others out."""
    from concurrent.futures import ThreadPoolExecutor

    def one(seed: int) -> bool:
        cache = Cache(gpt2, tmp_path, 20000 / 2**30)
        good = True
        for i in range(20):
            n = (i * (seed + 1)) % 7
            value = cache.get(str(n), PAIRS.clean, lambda n=n: {"x": torch.full((1000,), float(n))})
            good &= bool((value["x"] == n).all())
        return good

    with warnings.catch_warnings(), ThreadPoolExecutor(4) as pool:
        warnings.simplefilter("error")  # no entry was ever seen half-written
        assert all(pool.map(one, range(4)))


def test_a_study_with_a_cache_gives_the_same_numbers_and_a_second_one_finds_everything(
    checkpoint: Path, task_files: tuple[Path, Path], tmp_path: Path
) -> None:
    study = nvs.Study(
        model=str(checkpoint), task=(str(task_files[0]),), eval_task=(str(task_files[1]),), basis=("mlp_neurons", "rotation"),
        method=("relp", "integrated_gradients"), examples=12, eval_examples=12, sizes=(0, 3), resamples=100,
    )  # fmt: skip
    cached = Machine(cache=tmp_path / "cache")
    tables = [nvs.compare(study, tmp_path / "0").curves, nvs.compare(study, tmp_path / "1", machine=cached).curves]
    kept = entries(tmp_path / "cache")
    tables.append(nvs.compare(study, tmp_path / "2", machine=cached).curves)
    assert entries(tmp_path / "cache") == kept != []
    pd.testing.assert_frame_equal(tables[0], tables[1])
    pd.testing.assert_frame_equal(tables[0], tables[2])
    keys = [json.loads((tmp_path / str(i) / "study.json").read_text())["key"] for i in range(3)]
    assert len(set(keys)) == 1, "a cache is no part of a study"
