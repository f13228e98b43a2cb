"""Every architecture on both of transformer-lens' backends: transformers' numbers, and whole studies."""

import copy
import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import toys
from checkpoints import BRIDGED, CONFIGS, D_MODEL, checkpoint
from covering import ALL
from transformers import AutoModelForCausalLM, AutoTokenizer

import neuron_vs_sae as nvs
from neuron_vs_sae.analyses.circuits.evaluation import engine_for
from neuron_vs_sae.execution import replacement
from neuron_vs_sae.execution.splice import gradients, run
from neuron_vs_sae.models.loading import load_model

BACKENDS = ("hooked", "bridge")
every_kind = pytest.mark.parametrize("kind", CONFIGS)
both = pytest.mark.parametrize("backend", BACKENDS)

ROUNDING = 1e-4  # float32, other order of sums


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Any:
    root = tmp_path_factory.mktemp("models")
    return functools.cache(lambda kind: checkpoint(root / kind, kind))


@pytest.fixture(scope="module")
def models(folders: Any) -> Any:
    return functools.cache(lambda kind, backend: load_model(folders(kind), backend=backend))


def pairs(n: int = 4) -> nvs.PromptPairs:
    """Prompts of lengths 7, 6, 5, ...: padded on the right, and the padding is not a token of its own."""
    return toys.pairs(n, positions=7, lengths=[7 - i for i in range(n)])


def theirs(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder).eval()


@both
@every_kind
def test_the_logits_of_padded_prompts_are_transformers_with_and_without_padding(
    kind: str, backend: str, folders: Any, models: Any
) -> None:
    prompts, hf = pairs(), theirs(folders(kind))
    ours = run(models(kind, backend), prompts.clean, prompts.length)
    mask = prompts.real.long()
    with torch.no_grad():
        padded = hf(prompts.clean, attention_mask=mask).logits
        for i, length in enumerate(prompts.length.tolist()):
            alone = hf(prompts.clean[i : i + 1, :length]).logits[0, -1]
            assert torch.allclose(ours[i], alone, atol=ROUNDING)
            assert torch.allclose(ours[i], padded[i, length - 1], atol=ROUNDING)


@both
@every_kind
def test_relps_forward_pass_is_the_models(kind: str, backend: str, models: Any) -> None:
    model, prompts = models(kind, backend), pairs()
    rules = replacement.rules(model)
    replaced = run(model, prompts.clean, prompts.length, [*rules.edits, *rules.observers])
    assert torch.equal(replaced, run(model, prompts.clean, prompts.length))


@pytest.mark.parametrize("kind", BRIDGED)
def test_relps_forward_pass_is_the_models_where_the_bridge_alone_knows_it(kind: str, models: Any) -> None:
    model, prompts = models(kind, "bridge"), pairs()
    rules = replacement.rules(model)
    replaced = run(model, prompts.clean, prompts.length, [*rules.edits, *rules.observers])
    assert torch.equal(replaced, run(model, prompts.clean, prompts.length))


@every_kind
def test_both_backends_give_the_same_scores_and_curves(kind: str, models: Any) -> None:
    """Scores are of about 0.1 to 1, in float32."""
    prompts, (hooked, bridge) = toys.pairs(2), (models(kind, backend) for backend in BACKENDS)
    for basis in (nvs.bases.residual, nvs.bases.attention, nvs.bases.mlp_neurons):
        if (kind, basis) == ("mixtral", nvs.bases.mlp_neurons):
            continue
        one, other = (nvs.attribution.relp(model, basis(model, layers="1"), prompts) for model in (hooked, bridge))
        assert float(one.values.abs().max()) > 0.01
        assert torch.allclose(one.values, other.values, atol=ROUNDING)
        one, other = (
            nvs.evaluate(model, basis(model, layers="1"), one, prompts, sizes=[5], ablation="zero_site")
            for model in (hooked, bridge)
        )
        assert torch.allclose(one.circuit, other.circuit, atol=ROUNDING)


@pytest.mark.parametrize("kind", ["mixtral", "olmoe"])
@pytest.mark.parametrize("gate", ["half", "full", "up_only"])
def test_both_backends_share_an_experts_product_alike(kind: str, gate: Any, models: Any) -> None:
    """One has a hook in every expert, the other none: the gradients of the embeddings are the same."""
    prompts, found = pairs(), []
    for backend in BACKENDS:
        model = models(kind, backend)
        rules = replacement.rules(model, gate=gate)
        _, slopes = gradients(
            model, prompts.clean, prompts.length, ["blocks.0.hook_resid_pre"],
            lambda logits: logits.gather(1, prompts.answer[:, None])[:, 0], rules.edits, rules.observers,
        )  # fmt: skip
        found.append(slopes["blocks.0.hook_resid_pre"])
    assert float(found[0].abs().max()) > 0.01
    assert torch.allclose(*found, atol=ROUNDING)


def test_experts_that_compute_something_else_are_refused(models: Any) -> None:
    prompts, model = pairs(), copy.deepcopy(models("mixtral", "bridge"))
    model.blocks[0].mlp.original_component.experts.forward = lambda y, *_: y * 0.5
    with pytest.raises(nvs.InputError, match="its experts do not compute what gated experts do"):
        nvs.attribution.relp(model, nvs.bases.residual(model), prompts, positions="pooled")


@every_kind
def test_the_fast_engine_gives_the_exact_ones_curves(kind: str, models: Any) -> None:
    model, prompts = models(kind, "hooked"), pairs()
    bases = [nvs.bases.mlp_outputs(model), nvs.bases.attention(model), nvs.bases.residual(model)]
    if kind != "mixtral":
        bases.append(nvs.bases.mlp_neurons(model))
    for basis in bases:
        assert engine_for(model, basis, "fast") == "fast"
        scores = nvs.attribution.attribution_patching(model, basis, prompts, positions="pooled")
        one, other = (
            nvs.evaluate(model, basis, scores, prompts, sizes=[0, 3, 20], ablation="mean_global", engine=engine)
            for engine in ("fast", "exact")
        )
        assert torch.allclose(one.circuit, other.circuit, atol=ROUNDING)
        assert torch.allclose(one.complement, other.complement, atol=ROUNDING)


def test_the_bridge_is_left_to_the_exact_engine(models: Any) -> None:
    model = models("llama", "bridge")
    assert engine_for(model, nvs.bases.mlp_outputs(model), "fast").startswith("exact")


@pytest.mark.parametrize(("kind", "backend"), [("mixtral", "hooked"), ("mixtral", "bridge"), ("qwen3_moe", "bridge")])
def test_with_attention_and_router_frozen_the_metric_is_conserved_on_a_mixture_of_experts(
    kind: str, backend: str, models: Any
) -> None:
    """I12: the sum over positions of <gradient, embedding> is the logit, where no part of the model has a bias."""
    model, prompts = models(kind, backend), pairs()

    def answer(logits: torch.Tensor) -> torch.Tensor:
        return logits.gather(1, prompts.answer[:, None])[:, 0]

    def total(rules: replacement.Rules) -> torch.Tensor:
        start = "blocks.0.hook_resid_pre"
        values, slopes = gradients(model, prompts.clean, prompts.length, [start], answer, rules.edits, rules.observers)
        return (values[start] * slopes[start]).sum((1, 2))

    expected = answer(run(model, prompts.clean, prompts.length))
    conserved = total(replacement.rules(model, freeze_attention=True))
    assert torch.allclose(conserved, expected, atol=1e-4)  # float32
    assert not torch.allclose(total(replacement.rules(model)), expected, atol=1e-2)
    if backend == "hooked":
        rules = replacement.rules(model, freeze_attention=True)
        routed = replacement.Rules(tuple(e for e in rules.edits if "expert_weights" not in e[0]), rules.observers)
        assert not torch.allclose(total(routed), expected, atol=1e-2)


@both
def test_a_mixture_of_experts_has_no_neurons_of_a_site(backend: str, models: Any) -> None:
    with pytest.raises(nvs.InputError, match=r"is a mixture of experts: .*Use mlp_outputs"):
        nvs.bases.mlp_neurons(models("mixtral", backend))


@pytest.fixture(scope="module")
def saes(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A folder of SAEs at MLP outputs and heads' outputs, by an architecture's name."""

    @functools.cache
    def write(kind: str) -> Path:
        folder = tmp_path_factory.mktemp("saes") / kind
        for site in ("hook_mlp_out", "attn.hook_z"):
            d = D_MODEL if site == "hook_mlp_out" or kind not in ("gemma2", "gemma3", "qwen3") else 24
            for layer in range(CONFIGS[kind]().num_hidden_layers):
                hook = f"blocks.{layer}.{site}"
                toys.sae(hook, d=d, seed=layer, model_name=kind, dtype="float32").float().save_model(folder / hook)
        return folder

    return write


@pytest.fixture(scope="module")
def task_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("task") / "pairs.jsonl"
    rows = [
        f'{{"clean": "w{a} w{b} w3 w4", "corrupt": "w{a + 9} w{b} w3 w4", "answer": " w5", "foil": " w6"}}\n'
        for a in range(2, 9) for b in range(2, 9)
    ]  # fmt: skip
    file.write_text("".join(rows))
    return file


@both
@every_kind
def test_a_whole_study_runs(
    kind: str, backend: str, folders: Any, models: Any, saes: Any, task_file: Path, tmp_path: Path
) -> None:
    study = nvs.Study(
        model=str(folders(kind)), backend=backend, task=(str(task_file),), basis=("mlp_outputs", f"sae:{saes(kind)}"),
        method=("relp",), errors=("nodes", "ablate"), examples=4, eval_examples=3, sizes=(0, 10, "all"), resamples=100,
        accept_poor_sae=True,  # of random weights
    )  # fmt: skip
    found = nvs.compare(study, tmp_path / "results", model=models(kind, backend)).summary
    scores = found[["faithfulness", "completeness"]].to_numpy()
    assert bool(np.isfinite(scores).all())
    kept = found[found["errors"] == "nodes"]
    assert set(kept["basis"]) == set(study.basis)
    assert kept["f_all"].to_numpy() == pytest.approx(kept["f_model"].to_numpy(), abs=1e-3)


@pytest.mark.parametrize("kind", [kind for kind in CONFIGS if kind != "mixtral"])
def test_bfloat16_ranks_as_float32_does_on_every_architecture(kind: str, folders: Any, models: Any) -> None:
    """Of the 20 largest of 32 or 48 pooled scores of random weights, 19 or 20 were measured to be the same."""
    tops = []
    for model in (models(kind, "hooked"), load_model(folders(kind), dtype="bfloat16")):
        scores = nvs.attribution.relp(model, nvs.bases.mlp_outputs(model), pairs(), positions="pooled")
        assert scores.values.dtype == torch.float64
        tops.append(set(scores.values.abs().topk(20).indices.tolist()))
    assert len(tops[0] & tops[1]) >= 17


# Each tokenizer on each backend: what a prompt's tokens are is not the architecture's business.
@pytest.mark.assets
@pytest.mark.parametrize(
    ("kind", "backend"),
    [(kind, backend) for kind in CONFIGS for backend in BACKENDS if ALL or kind in ("gpt2", "pythia")],
)
def test_a_generated_task_runs_with_a_published_tokenizer(
    kind: str, backend: str, assets: Path, tmp_path: Path
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(assets / "tokenizers" / ("pythia" if kind == "pythia" else "gpt2"))
    folder = checkpoint(tmp_path / kind, kind, tokenizer)
    model = load_model(folder, backend=backend)
    text = "The keys to the cabinet"
    expected = tokenizer(text, add_special_tokens=False).input_ids
    assert model.tokenizer(text, add_special_tokens=False).input_ids == expected
    study = nvs.Study(
        model=str(folder), backend=backend, task=("agreement",), basis=("mlp_outputs",), examples=6, eval_examples=4,
        sizes=(0, 10, "all"), resamples=100,
    )  # fmt: skip
    summary = nvs.compare(study, tmp_path / "results", model=model).summary
    assert summary["f_all"].iloc[-1] == pytest.approx(summary["f_model"].iloc[-1], abs=1e-3)


@both
@every_kind
def test_graphs_conserve_in_every_architecture_on_both_backends(kind: str, backend: str, models: Any) -> None:
    """What flows into each of the largest MLP outputs, with biases, is its value: float32, relative to the largest. Values that are
    clipped (this OLMo's) are constants there, so what is cut off them is in the remainder, which every graph states."""
    model, pair = models(kind, backend), toys.pairs(1)
    graph = nvs.trace(model, nvs.bases.mlp_outputs(model), pair, nodes=10, attention="split")
    conserves = float(graph.remainder.abs().max()) < 1e-4 * float(graph.values.abs().max())
    assert conserves == (kind != "olmo")
