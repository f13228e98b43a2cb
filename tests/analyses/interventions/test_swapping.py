"""Intermediate steps: whose value a prompt has, which units carry it, and what swapping them does in a world where that is known."""

from dataclasses import replace
from typing import Any

import pytest
import tables
import torch
import toys

import neuron_vs_sae as nvs
from neuron_vs_sae.analyses.interventions.steps import (
    WAYS,
    Steps,
    answers_of,
    known_at,
    prompts_of,
    ranked_units,
    steps_of,
    with_known_donor,
)
from neuron_vs_sae.analyses.interventions.swapping import SWAPS, sites_of, swap
from neuron_vs_sae.core.errors import InputError


def with_steps(n: int = 8, seed: int = 0) -> nvs.PromptPairs:
    """Pairs whose answer is their value: token 5 for a, 6 for b, 7 for c; the corrupt prompt is of the next value."""
    pairs = toys.pairs(n, seed=seed)
    values = [i % 3 for i in range(n)]
    answer = torch.tensor([5 + v for v in values])
    foil = torch.tensor([5 + (v + 1) % 3 for v in values])
    return replace(
        pairs, answer=answer, foil=foil, answer_text=tuple("abc"[v] for v in values), foil_text=tuple("abc"[(v + 1) % 3] for v in values),
        tags=tuple({"value": "ABC"[v], "template": "t"} for v in values),
    )  # fmt: skip


def test_values_of_corrupt_prompts_are_those_of_their_answers() -> None:
    pairs = with_steps()
    answers = answers_of("value", pairs)
    assert answers == {"a": "A", "b": "B", "c": "C"}
    found = steps_of(pairs, "value", answers)
    assert found.clean[:4] == ("A", "B", "C", "A")
    assert found.corrupt[:4] == ("B", "C", "A", "B")
    assert found.first.tolist() == [1, 2] * 4  # where the toys' pairs differ
    assert with_known_donor(pairs, {"b": "B"}) == [0, 3, 6]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"latent": "state"}, "has no latent 'state'; its tags are: template, value"),
        ({"answer_text": ("a",) * 8}, "goes with value 'A' and with 'B'"),
        ({"foil_text": ("z",) * 8}, "has a donor of a known value"),
    ],
)
def test_latents_that_a_task_lacks_are_refused(change: dict[str, Any], message: str) -> None:
    pairs, latent = with_steps(), change.pop("latent", "value")
    model = toys.model("llama")
    with pytest.raises(InputError, match=message):
        swap(
            model,
            tables.make(tables.BASES[0], model),
            replace(pairs, **change),
            replace(pairs, **change),
            latent=latent,
            ways=("answer",),
        )


def test_a_planted_unit_of_a_value_is_found_by_auroc() -> None:
    """Unit 3 of the second site is large where the value is B, small elsewhere."""
    model = toys.model("llama")
    basis = tables.make(tables.BASES[0], model)
    pairs = with_steps(12)
    steps = steps_of(pairs, "value", answers_of("value", pairs))
    prompts = prompts_of(model, basis, pairs, steps)
    planted = prompts.units[1].clone()
    planted[..., 3] = torch.tensor([10.0 if v == "B" else 0.1 * i for i, v in enumerate(prompts.value)])[:, None]
    prompts = replace(prompts, units=(prompts.units[0], planted))
    found = ranked_units(model, basis, pairs, steps, prompts, "auroc", 3)
    assert found["B"][0] == (1, 3)


def test_known_positions_reach_from_the_first_difference_to_the_answer() -> None:
    model = toys.model("llama")
    basis = tables.make(tables.BASES[0], model)
    pairs = with_steps(2)
    prompts = prompts_of(model, basis, pairs, Steps("value", ("A", "B"), ("B", "C"), torch.tensor([2, 5])))
    assert known_at(prompts).tolist() == [[0, 0, 1, 1, 1, 1], [0, 0, 0, 0, 0, 1]] * 2


def test_whole_sites_of_a_cutting_basis_give_the_donors_answer() -> None:
    """All units of the residual stream at every token that differs: what the donor says, the swap says, for every pair."""
    model = toys.model("llama")
    basis = tables.make(next(c for c in tables.BASES if c.name == "residual"), model)
    pairs = with_steps(6)
    found = swap(
        model, basis, pairs, pairs, latent="value", k=(1, 4), ways=("answer", "auroc"), others=with_steps(5, seed=2)
    ).values
    assert set(found["swap"]) == set(SWAPS) - {"transfer"} | ({"transfer"} & set(found["swap"]))
    donors = model(pairs.corrupt)[:, -1].argmax(-1)
    hits = (donors == pairs.foil).tolist()
    for name in ("all_units", "whole_site"):
        assert found.loc[found["swap"] == name].sort_values("prompt")["hit"].tolist() == hits
    plain = model(pairs.clean)[:, -1].argmax(-1)
    kept = (plain == pairs.answer).tolist()
    same = found.loc[(found["swap"] == "whole_site") & found["unchanged"]]
    assert all(kept[i] == bool(k) for i, k in zip(same["prompt"], same["kept"], strict=True))


def test_random_controls_write_the_swaps_own_norm() -> None:
    model = toys.model("gpt2")
    basis = tables.make(tables.BASES[0], model)
    pairs = with_steps(6)
    found = swap(model, basis, pairs, pairs, latent="value", k=(3,), ways=("answer",)).values
    norms = found.pivot_table(index="prompt", columns="swap", values="norm")
    assert (norms["random"] - norms["swap"]).abs().max() < 1e-9
    assert (norms["swap"] <= norms["all_units"] + 1e-9).mean() > 0.5


@pytest.mark.checked
def test_swaps_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    class Words:
        padding_side = "right"

        def __call__(self, text: str, **_: Any) -> dict[str, list[int]]:
            return {"input_ids": [5 + "ABC".index(text.strip())]}

    model = toys.model("llama")
    monkeypatch.setattr(model, "tokenizer", Words(), raising=False)
    basis = tables.make(tables.BASES[4], model)
    pairs = with_steps(6)
    found = nvs.swap(model, basis, pairs, pairs, latent="value", k=(2,), ways=WAYS, others=with_steps(5, seed=2))
    assert set(found.values["way"]) == {"", *WAYS}
    assert [d.width for d in sites_of(model, basis).dictionaries] == [8, 8]
    with pytest.raises(InputError, match="1 or more"):
        nvs.swap(model, basis, pairs, pairs, latent="value", k=(0,))
