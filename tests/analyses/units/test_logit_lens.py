"""The lens ends where the model does, and reads at every site what the model's own last steps make of it."""

from typing import Any

import pytest
import torch
import toys

import neuron_vs_sae as nvs
from neuron_vs_sae.analyses.units.logit_lens import lens

pytestmark = pytest.mark.checked

TOKENS = torch.tensor([0, 3, 5, 9, 2, 16, 4])


def test_the_lens_of_the_last_layer_is_the_models_output(model: Any) -> None:
    with torch.no_grad():
        output = model(TOKENS[None])[0].log_softmax(-1)
    torch.testing.assert_close(lens(model, TOKENS).log_probabilities[-1], output, rtol=0, atol=1e-9)


def test_the_soft_cap_is_applied_at_every_layer(model: Any) -> None:
    """Capped logits lie within 2 x cap of each other; the toy that has a cap would exceed it without."""
    cap = model.cfg.output_logits_soft_cap
    spread = lens(model, TOKENS).log_probabilities
    spread = spread.amax(-1) - spread.amin(-1)
    assert (cap is not None and cap > 0) == (model.cfg.model_name == "toy-gemma2")
    if cap and cap > 0:
        assert spread.max() < 2 * cap
        model.cfg.output_logits_soft_cap = -1.0
        try:
            wide = lens(model, TOKENS).log_probabilities
        finally:
            model.cfg.output_logits_soft_cap = cap
        assert (wide.amax(-1) - wide.amin(-1)).max() > 2 * cap


def test_what_enters_a_block_is_what_left_the_one_before(model: Any) -> None:
    before, after = (lens(model, TOKENS, site=f"hook_resid_{which}").log_probabilities for which in ("pre", "post"))
    torch.testing.assert_close(before[1], after[0])


def test_ranks_and_probabilities_are_those_of_the_sorted_tokens(llama: Any) -> None:
    found = lens(llama, TOKENS)
    tokens, probabilities = found.top(toys.VOCAB)
    torch.testing.assert_close(probabilities.sum(-1), torch.ones(2, 7, dtype=torch.float64))
    for token in (0, 8, 16):
        places = (tokens == token).nonzero()[:, 2].reshape(2, 7)
        assert torch.equal(found.ranks([token])[0], places)
        torch.testing.assert_close(found.probabilities([token])[0], probabilities.gather(-1, places[..., None])[..., 0])


def test_wrong_prompts_and_sites_are_refused(llama: Any) -> None:
    with pytest.raises(nvs.InputError, match="residual stream"):
        lens(llama, TOKENS, site="hook_mlp_out")
    with pytest.raises(nvs.InputError, match="empty"):
        lens(llama, "  ")
    with pytest.raises(nvs.InputError, match="17 tokens"):
        lens(llama, torch.ones(17, dtype=torch.long))
    with pytest.raises(nvs.InputError, match="no hook_resid_mid"):
        lens(toys.model("neox"), TOKENS, site="hook_resid_mid")
