"""Supernodes: planted groups are found again, what is not known is not grouped, and what a group tells is told on other prompts."""

import numpy as np
import pytest
import torch

import neuron_vs_sae as nvs
from neuron_vs_sae.analyses.graphs.grouping import (
    activity,
    at_random,
    auroc,
    by_correlation,
    by_directions,
    split_half,
    telling_groups,
)
from neuron_vs_sae.analyses.graphs.profiles import Key, Profiles, profiles
from neuron_vs_sae.analyses.graphs.supernodes import UNASSIGNED, affinity, groups_of_gap, supernodes
from neuron_vs_sae.analyses.graphs.trace import trace
from neuron_vs_sae.core.errors import InputError

SITE = "blocks.0.mlp.hook_post"


def planted(n: int = 12) -> list[Profiles]:
    """Three groups of four units, each made of one token and raising one target; prompt i shows groups i and i + 1 of 3."""
    prompts = []
    generator = torch.Generator().manual_seed(0)
    for i in range(n):
        keys: list[Key] = []
        rows = []
        for group in (i % 3, (i + 1) % 3):
            for unit in range(4):
                keys.append((SITE, 4 * group + unit, "+"))
                rows.append(group)
        place = torch.tensor(rows)
        noise = 0.05 * torch.randn(len(keys), 3, generator=generator, dtype=torch.float64)
        table = torch.eye(3, dtype=torch.float64)[place] + noise
        total = torch.where(place == i % 3, 3.0, 1.0).double()
        prompts.append(Profiles(tuple(keys), table, table, total, ("a", "b", "c"), (" x", " y", " z")))
    return prompts


@pytest.mark.checked
def test_planted_groups_are_found_again_and_named() -> None:
    groups = supernodes(planted())
    assert len(groups.labels) == 3
    for group in range(3):
        assert len({unit // 4 for _, unit, _ in groups.members(group)}) == 1
    assert sorted(groups.labels) == ["a → x", "b → y", "c → z"]
    assert (groups.coverage, groups.unsupported) == (1.0, 0.0)
    assert split_half(planted(), groups, min_support=1, seed=0) == 1.0


@pytest.mark.checked
def test_units_that_never_met_often_enough_are_left_unassigned() -> None:
    prompts = planted()
    lone: Key = (SITE, 99, "-")
    first = prompts[0]
    prompts[0] = Profiles(
        (*first.keys, lone), torch.cat([first.sources, first.sources[:1]]), torch.cat([first.uses, first.uses[:1]]),
        torch.cat([first.total, first.total[:1]]), first.tokens, first.targets,
    )  # fmt: skip
    groups = supernodes(prompts, k=3)
    assert groups.group[groups.keys.index(lone)] == UNASSIGNED
    mass = sum(float(p.total.sum()) for p in prompts)
    assert groups.coverage == pytest.approx(1 - 3 / mass)
    alike = affinity(prompts, 2)
    assert alike.likeness[alike.keys.index(lone)].max() == 0
    with pytest.raises(InputError, match=r"3 groups of 0 units that meet in at least 13 of 12 prompts"):
        supernodes(planted(), k=3, min_support=13)


def test_likeness_is_the_harmonic_mean_of_both_views() -> None:
    sources, uses = torch.tensor([[1.0, 0], [1, 1]]), torch.tensor([[1.0, 0], [1, 0]])
    keys: tuple[Key, ...] = ((SITE, 0, "+"), (SITE, 1, "+"))
    total = torch.ones(2)
    alike = affinity([Profiles(keys, sources, uses, total, ("a", "b"), ("x", "y"))], 1)
    cosine = 2**-0.5
    assert alike.likeness[0, 1] == pytest.approx(2 * cosine / (1 + cosine))
    opposite = affinity([Profiles(keys, sources, torch.tensor([[1.0, 0], [-1, 0]]), total, ("a", "b"), ("x", "y"))], 1)
    assert opposite.likeness[0, 1] == 0


@pytest.mark.checked
def test_a_group_tells_on_other_prompts_what_it_was_chosen_for_and_a_random_one_does_not() -> None:
    prompts = planted(30)
    values, chosen_on = [str(i % 3) for i in range(30)], np.arange(30) % 2 == 0
    groups = supernodes([p for p, mine in zip(prompts, chosen_on, strict=True) if mine])
    table, unknown = activity(groups, prompts)
    tellings = telling_groups(table, values, chosen_on)
    assert [t.value for t in tellings] == ["0", "1", "2"]
    assert all(t.auroc == t.chosen == 1 for t in tellings)
    assert not unknown.any()
    dealt = at_random(groups, 1)
    assert sorted(dealt.group) == sorted(groups.group)
    by_chance = telling_groups(activity(dealt, prompts)[0], values, chosen_on)
    assert np.mean([t.auroc for t in by_chance]) < 0.99
    assert len(by_correlation(groups, prompts, 0).labels) == 3


@pytest.mark.checked
def test_auroc_by_hand() -> None:
    assert auroc(np.array([1.0, 2, 3, 2]), np.array([False, False, True, True])) == (1 + 0.5 + 1 + 1) / 4


@pytest.mark.checked
def test_as_many_groups_as_the_gap_tells() -> None:
    blocks = np.kron(np.eye(4), np.ones((3, 3))) + 0.01
    assert groups_of_gap(blocks) == 4


@pytest.mark.checked
def test_profiles_add_up_to_values_and_totals() -> None:
    """Of a lossless basis with all units, tokens are all that a value is made of, and uses are totals."""
    import toys

    model = toys.model("llama")
    basis = nvs.bases.mlp_neurons(model)
    graph = trace(model, basis, toys.pairs(1), nodes=144)
    made_of = profiles(graph, node_threshold=1.0, edge_threshold=1.0)
    values: dict[Key, float] = {}
    for i, value in enumerate(graph.values[1:].tolist()):
        key: Key = (graph.sites[int(graph.site[i])], int(graph.unit[i]), "-" if value < 0 else "+")
        values[key] = values.get(key, 0.0) + value
    by_key = dict(zip(made_of.keys, made_of.sources.sum(1).tolist(), strict=True))
    assert set(by_key) <= set(values)
    pruned_away = 144 - int(graph.prune(node_threshold=1.0, edge_threshold=1.0).nodes[:144].sum())
    if not pruned_away:
        assert by_key == pytest.approx(values, abs=1e-9)
    assert made_of.uses.sum(1).tolist() == pytest.approx(made_of.total.tolist(), abs=1e-9)
    groups = supernodes([made_of, made_of], k=2)
    assert len(by_directions(basis, groups, [made_of], 0).labels) >= 1
