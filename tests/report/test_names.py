"""Names in prose: every basis has one, and two things never share one."""

import pytest

from neuron_vs_sae.core.lookup import known
from neuron_vs_sae.report.names import basis_name, basis_names, factor_name, level_name, listed, task_names, with_role

SOURCED = {"sae", "transcoder", "random_sae"}


@pytest.mark.parametrize("kind", known("bases"))
def test_every_basis_of_the_catalog_has_a_name_in_plain_words(kind: str) -> None:
    name = basis_name(kind)
    assert "_" not in name.units
    assert name.role != "coordinates" or kind in {"mlp_outputs", "residual", "attention"}


def test_two_bases_of_a_kind_are_told_apart_and_one_is_not_burdened() -> None:
    names = basis_names(["mlp_neurons", "sae:default/main", "sae:default/sparser"])
    assert names == {
        "mlp_neurons": "MLP neurons",
        "sae:default/main": "SAE features (sae:main)",
        "sae:default/sparser": "SAE features (sae:sparser)",
    }
    assert with_role(names, "trained") == ["sae:default/main", "sae:default/sparser"]


def test_a_tasks_template_is_named_only_where_it_tells_tasks_apart() -> None:
    assert task_names(["two_hop.0", "ioi.0", "ioi.1", "sums"]) == {
        "two_hop.0": "two hop", "ioi.0": "ioi.0", "ioi.1": "ioi.1", "sums": "sums",
    }  # fmt: skip


def test_conventions_and_their_choices_are_said_in_words() -> None:
    assert factor_name("errors") == "how error nodes are treated"
    assert level_name("errors", "ablate") == "always ablated"
    assert level_name("method", "integrated_gradients,steps=20") == "integrated gradients (steps 20)"


def test_lists_are_read_aloud() -> None:
    assert [listed(words) for words in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == ["", "a", "a and b", "a, b and c"]
