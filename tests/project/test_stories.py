"""Whole studies of the trained model through the command line: every basis, method, task and kind of site."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sae_lens import SAE

import neuron_vs_sae as nvs
from neuron_vs_sae.cli import commands as cli
from neuron_vs_sae.core.lookup import known

pytestmark = pytest.mark.assets

TASKS = ("gender_pronoun", "possessive", "number_pronoun", "closing_quote")
ROUNDING = 1e-4  # float32: whole and patched runs sum in another order


@pytest.fixture(scope="module")
def compare(assets: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., nvs.Result]:
    """`nvs compare` in this process on stories260K; what it wrote. Few resamples: intervals are tested elsewhere."""

    def run(tasks: tuple[str, ...], bases: list[str], *options: Any) -> nvs.Result:
        out = tmp_path_factory.mktemp("study") / "results"
        arguments = [
            "--model",
            assets / "models" / "stories260K",
            "--resamples",
            100,
            "--quiet",
            "--out",
            out,
            *options,
        ]
        for task in tasks:
            arguments += ["--task", assets / "tasks" / "stories260K" / f"{task}_train.jsonl"]
        for basis in bases:
            arguments += ["--basis", basis.replace("SAES", str(assets / "saes" / "stories260K"))]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["nvs", "compare", *map(str, arguments)])
            with pytest.raises(SystemExit) as ended:
                cli.main()
        assert not ended.value.code
        return nvs.load(out)

    return run


def many(flag: str, values: Any) -> list[str]:
    return [part for value in values for part in (flag, value)]


def summary(found: nvs.Result) -> pd.DataFrame:
    """`summary.csv` as it was written, where every curve has finite scores at every size."""
    table = pd.read_csv(found.folder / "summary.csv")
    scores = table[["f_model", "f_empty", "f_circuit", "f_complement", "faithfulness", "completeness"]]
    assert bool(np.isfinite(scores.to_numpy()).all())
    return table


def assert_ends(table: pd.DataFrame) -> None:
    """Nothing kept is F = 0, C = 1; every curve goes from there to its last node with a score; everything kept is the
    model (with error nodes among the nodes)."""
    curves = table.groupby(["basis", "method", "ablation", "errors"])
    assert (curves["size"].min() == 0).all()
    assert (curves["size"].max() == curves["n_scored"].min()).all()
    assert (table["n_scored"] <= table["n_total"]).all()
    nothing = table[table["size"] == 0]
    assert nothing["faithfulness"].to_numpy() == pytest.approx(0, abs=ROUNDING)
    assert nothing["completeness"].to_numpy() == pytest.approx(1, abs=ROUNDING)
    explained = (table["f_model"] - table["f_empty"]).abs().to_numpy()
    assert (table["f_all"] - table["f_model"]).abs().to_numpy() / explained == pytest.approx(0, abs=ROUNDING)


KINDS = ("hook_attn_out", "hook_mlp_out", "hook_resid_post")
SITES = [f"sae:SAES/jumprelu@{kind}" for kind in KINDS]
BASES = {
    "attention": "attention",
    "mlp_neurons": "mlp_neurons",
    "mlp_outputs": "mlp_outputs",
    "pca": "pca",
    "random_sae": "random_sae:SAES/jumprelu@hook_mlp_out",
    "residual": "residual",
    "rotation": "rotation",
    "sae": "sae:SAES/jumprelu@hook_mlp_out",
    "transcoder": "transcoder:SAES/transcoder",
}
# Few steps and, for exact patching, which is a run per node, one layer: that they run is what is tested here.
STEPS = {"integrated_gradients": 2, "integrated_gradients_inputs": 2, "conductance": 2}
METHODS = {
    name: f"{name},steps={STEPS[name]}" if name in STEPS else name
    for name in known("attribution")
    if name != "activation_patching"
}


@pytest.mark.parametrize("basis", known("bases"))
def test_every_method_runs_in_every_basis(basis: str, compare: Any) -> None:
    found = compare(
        ("gender_pronoun",), [BASES[basis]], *many("--method", METHODS.values()),
        "--examples", 6, "--eval-examples", 4, "--sizes", "0,20,all",
    )  # fmt: skip
    table = summary(found)
    assert set(table["method"]) == set(METHODS.values())
    assert_ends(table)


def test_exact_patching_runs_in_neurons_saes_and_transcoders(compare: Any) -> None:
    found = compare(
        ("gender_pronoun",), ["mlp_neurons,layers=2", "sae:SAES/jumprelu@hook_mlp_out,layers=2", BASES["transcoder"]],
        "--method", "activation_patching", "--method", "random", "--positions", "pooled",
        "--examples", 2, "--eval-examples", 4, "--sizes", "0,1,2,5,10,20,50,100,all",
    )  # fmt: skip
    table = summary(found)
    assert_ends(table)
    for basis in found.study.basis:
        reached = int(table.loc[table["basis"] == basis, "n_scored"].min())
        exact, chance = (
            found.curve(basis=basis, method=method).area(up_to=reached) for method in ("activation_patching", "random")
        )
        assert exact > chance + 0.15, basis  # measured: .51, .70, .69 against .21, .05, .03


@pytest.mark.parametrize("task", TASKS)
def test_relp_and_integrated_gradients_find_more_than_chance_and_change_do(task: str, compare: Any) -> None:
    """In area of faithfulness over log size, on outputs and on SAE units.

    Discovery and evaluation are split from one file, so that they share templates: a node is a unit at a position, and
    in the other file's templates the same word stands at another position. Measured over the four tasks and two bases:
    relp .31 to .57, integrated gradients .33 to .57, delta .12 to .40, random -.01 to .08. The smallest margins of the
    two over delta are .17, over random .28; asked for are about half of them.
    """
    found = compare(
        (task,), ["mlp_outputs", SITES[1]],
        *many("--method", ("relp", "integrated_gradients,steps=3", "delta", "random")),
        "--examples", 40, "--eval-examples", 16, "--sizes", "0,1,10,30,100,300,1000,3000,all",
    )  # fmt: skip
    table = summary(found)
    assert_ends(table)
    # One model and one ablation at one site: the basis changes neither F(M) nor F(empty).
    assert table[["f_model", "f_empty"]].agg(lambda values: values.max() - values.min()).max() < ROUNDING
    for basis in found.study.basis:
        relp, integrated, delta, random = (
            found.curve(basis=basis, method=method).area(up_to=int(table["n_scored"].min()))
            for method in found.study.method
        )
        assert min(relp, integrated) > delta + 0.08, basis
        assert min(relp, integrated) > random + 0.15, basis


def test_every_kind_of_site_and_all_at_once_give_a_curve_under_every_error_policy(compare: Any) -> None:
    found = compare(
        ("gender_pronoun",), [*SITES, "sae:SAES/jumprelu", BASES["transcoder"]],
        *many("--errors", ("nodes", "keep", "ablate", "resid_only")), "--examples", 10, "--eval-examples", 6,
        "--sizes", "0,200,all",
    )  # fmt: skip
    table = summary(found)
    assert_ends(table[table["errors"].isin(["nodes", "keep"])])
    positions = int(pd.read_parquet(found.folder / "prompts.parquet")["tokens"].iloc[0])
    for basis, sites in zip(found.study.basis, (5, 5, 5, 15, 1), strict=True):
        n_total = table[table["basis"] == basis].groupby("errors")["n_total"].first()
        assert n_total["nodes"] == sites * positions * (512 + 1)
        assert n_total["keep"] == n_total["ablate"] == sites * positions * 512
    assert set(table["site"]) == {*KINDS, "+".join(KINDS)}


def test_without_errors_the_whole_dictionary_is_the_model_with_every_sae_in_place(
    compare: Any, stories: Any, assets: Path
) -> None:
    """The reconstruction ceiling: errors=ablate at all units runs the model on reconstructions alone (zero_units), or
    on reconstructions plus the mean error of the corrupt prompts (mean)."""
    found = compare(
        ("gender_pronoun",), [SITES[1]], "--method", "random", "--errors", "ablate", "--sizes", "0,all",
        *many("--ablation", ("zero_units", "mean")), "--examples", 10, "--eval-examples", 10,
    )  # fmt: skip
    file = assets / "tasks" / "stories260K" / "gender_pronoun_train.jsonl"
    _, pairs = nvs.tasks.from_file(stories, path=file).split(10, 10, seed=found.study.seed[0])
    hooks = [f"blocks.{layer}.hook_mlp_out" for layer in range(5)]
    saes = {hook: SAE.load_from_disk(assets / "saes" / "stories260K" / "jumprelu" / hook) for hook in hooks}
    with torch.no_grad():
        _, cache = stories.run_with_cache(pairs.corrupt)
        mean = {hook: (cache[hook] - sae.decode(sae.encode(cache[hook]))).mean(0) for hook, sae in saes.items()}
        for ablation, offset in (("zero_units", dict.fromkeys(hooks, 0.0)), ("mean", mean)):
            spliced = [
                (hook, lambda x, hook, sae=sae, plus=offset[hook]: sae.decode(sae.encode(x)) + plus)
                for hook, sae in saes.items()
            ]
            last = stories.run_with_hooks(pairs.clean, fwd_hooks=spliced)[:, -1]
            rows = torch.arange(len(pairs))
            expected = last[rows, pairs.answer] - last[rows, pairs.foil]
            curve = found.curve(ablation=ablation)
            assert curve.all_nodes is not None
            assert curve.all_nodes.tolist() == pytest.approx(expected.tolist(), abs=10 * ROUNDING)
            assert 0.3 < float(curve.faithfulness[-1]) < 0.999


def test_pooled_positions_give_curves_of_units(compare: Any) -> None:
    found = compare(
        ("possessive",), ["mlp_neurons", "sae:SAES/standard"], *many("--method", ("relp", "random")),
        "--positions", "pooled", "--examples", 40, "--eval-examples", 20, "--sizes", "0,1,3,10,30,100,300,all",
    )  # fmt: skip
    table = summary(found)
    assert_ends(table)
    assert table.groupby("basis", sort=False)["n_total"].first().tolist() == [5 * 172, 5 * (512 + 1)]
    for basis in found.study.basis:
        relp, random = (found.curve(basis=basis, method=method).area(up_to=860) for method in ("relp", "random"))
        assert relp > random + 0.1, basis  # measured: .25 and .07 in neurons, .45 and .06 in SAE units
