"""Slots that do not exist: error nodes of sites where nothing is ever left over."""

import pytest
import torch

from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.core.nodes import NodeIndex, NodeScores

INDEX = NodeIndex(("blocks.0.mlp.hook_post", "blocks.2.hook_mlp_out"), (2, 1), positions=2, lossless=(True, False))
SCORES = NodeScores(INDEX, torch.tensor([1.0, 2.0, 0.0, 3.0, 4.0, 0.0, 5.0, -6.0, 7.0, 0.0], dtype=torch.float64))


def test_a_lossless_sites_error_slots_do_not_exist() -> None:
    assert INDEX.exists.tolist() == [True, True, False, True, True, False, True, True, True, True]
    assert NodeIndex(INDEX.sites, INDEX.widths, 2).exists.all()


def test_only_nodes_that_exist_are_stored_and_the_others_are_0_again() -> None:
    assert SCORES.stored.tolist() == [1, 2, 3, 4, 5, -6, 7, 0]
    again = NodeScores.from_stored(INDEX, SCORES.stored)
    assert torch.equal(again.values, SCORES.values)
    assert again.top(1).names == SCORES.top(1).names == ["blocks.2.hook_mlp_out/0@1"]
    with pytest.raises(InputError, match="9 scores are stored for 8 nodes"):
        NodeScores.from_stored(INDEX, torch.zeros(9, dtype=torch.float64))


def test_the_table_has_a_row_per_node_that_exists() -> None:
    table = SCORES.table()
    assert table.columns.tolist() == ["layer", "site", "position", "unit", "is_error", "score"]
    assert table["score"].tolist() == SCORES.stored.tolist()
    assert table["layer"].tolist() == [0] * 4 + [2] * 4
    assert table["position"].tolist() == [0, 0, 1, 1, 0, 0, 1, 1]
    assert table["is_error"].tolist() == [False] * 4 + [False, True, False, True]
    assert table["unit"].isna().tolist() == table["is_error"].tolist()
    assert table["unit"].dropna().tolist() == [0, 1, 0, 1, 0, 0]


def test_pooled_nodes_have_no_position() -> None:
    index = NodeIndex(("blocks.1.hook_resid_post",), (2,), positions=None)
    table = NodeScores(index, torch.ones(3, dtype=torch.float64)).table()
    assert table["position"].isna().all()
    assert len(table) == 3


def test_nodes_are_told_apart_by_site_and_block() -> None:
    parts = INDEX.at_sites(torch.tensor([9, 4, 0, 1, 7, 8]))
    plain = [[(block, units.tolist(), has_error) for block, units, has_error in part] for part in parts]
    assert plain == [[(0, [0, 1], False), (1, [1], False)], [(0, [], True), (1, [0], True)]]
