"""Results: one folder per study that holds every value per prompt, and says what made every number."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from small_study import N_EVAL, SIZES

import neuron_vs_sae as nvs
from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.running.comparison import compare
from neuron_vs_sae.statistics.resampling import Clusters
from neuron_vs_sae.studies import result
from neuron_vs_sae.studies.rows import each_curve, to_clusters, to_curve, to_rows
from neuron_vs_sae.studies.study import make_study


def test_a_finished_folder_holds_these_files_and_no_others(fresh: nvs.Result) -> None:
    assert {f.name for f in fresh.folder.iterdir()} == {".lock", "study.json", *result.FILES}


def test_curves_have_a_row_per_run_size_and_prompt(fresh: nvs.Result) -> None:
    assert len(list(each_curve(fresh.curves))) == 4  # 2 bases x 2 error policies
    for names, rows in each_curve(fresh.curves):
        n_sizes = len(to_curve(rows).sizes)
        counts = rows["run"].value_counts().to_dict()
        assert counts == {
            "whole": N_EVAL,
            "empty": N_EVAL,
            "all": N_EVAL,
            "circuit": N_EVAL * n_sizes,
            "complement": N_EVAL * n_sizes,
            "change": N_EVAL * n_sizes,
        }, names
        assert not rows.duplicated(["run", "size", "prompt"]).any()
    assert fresh.curves["value"].notna().all()
    with_size = fresh.curves["run"].isin(["circuit", "complement", "change"])
    assert (fresh.curves["size"].notna() == with_size).all()  # what has no size has none, not 0 or -1


def test_the_summary_begins_with_the_columns_that_are_promised(fresh: nvs.Result) -> None:
    promised = (
        "model,task,basis,site,method,ablation,errors,positions,rank_by,metric,n_discovery,n_eval,size,n_units,"
        "n_error_nodes,n_total,fraction,bits,f_model,f_empty,f_circuit,f_complement,faithfulness,completeness,"
        "faithfulness_low,faithfulness_high,completeness_low,completeness_high,seed,"
    )
    assert (fresh.folder / "summary.csv").read_text().startswith(promised)
    table = pd.read_csv(fresh.folder / "summary.csv")
    assert len(table) == sum(len(to_curve(rows).sizes) for _, rows in each_curve(fresh.curves))
    assert set(table["size"]) >= set(SIZES)
    ends = table.groupby(["basis", "errors"])
    assert (ends["size"].max() == ends["n_scored"].max()).all()
    assert (table["n_units"] + table["n_error_nodes"] == table["size"]).all()


def test_every_row_says_the_conventions_that_made_it(fresh: nvs.Result) -> None:
    study = fresh.study
    said = {
        "model": "tiny", "task": "saw", "method": "relp", "ablation": "mean", "positions": study.positions,
        "rank_by": study.rank_by, "metric": study.metric[0], "n_discovery": 8, "seed": 0, "pairing": study.pairing,
        "attribution_metric": study.metric[0], "mean_source": study.mean_source, "dtype": study.dtype, "prepend_bos": True,
        "process_weights": False, "backend": "hooked", "split_by": "file", "n_overlap": 0, "key": study.key,
        "n_clusters": N_EVAL,
    }  # fmt: skip
    for table in (fresh.curves, fresh.summary, pd.read_csv(fresh.folder / "summary.csv")):
        for column, value in said.items():
            assert set(table[column]) == {value}, column
        assert set(table["site"]) == {"mlp.hook_post", "hook_mlp_out"}
    assert set(fresh.summary["n_eval"]) == {N_EVAL}
    assert set(fresh.summary["confidence"]) == {study.confidence}


def test_the_attribution_metric_is_the_one_that_was_differentiated(
    a_small_study: Any, tiny: Any, tmp_path: Path
) -> None:
    """Without a foil to speak of, unpaired attribution explains the answer's logit."""
    found = compare(a_small_study(pairing="unpaired"), tmp_path / "out", model=tiny)
    assert set(found.summary["attribution_metric"]) == {"answer_logit"}


def test_the_summary_is_derived_from_the_values_per_prompt(fresh: nvs.Result, sae_folder: Path) -> None:
    curve = fresh.curve(basis=f"sae:{sae_folder}", errors="nodes")
    rows = fresh.summary[(fresh.summary["basis"] == f"sae:{sae_folder}") & (fresh.summary["errors"] == "nodes")]
    assert curve.sizes == tuple(rows["size"])
    assert curve.faithfulness.tolist() == rows["faithfulness"].tolist()
    assert curve.completeness.tolist() == rows["completeness"].tolist()
    assert curve.bits == rows["bits"].tolist()
    assert curve.values == tuple(rows["values"])
    assert set(rows["n_scored"]) == {curve.n_scored}
    assert float(curve.faithfulness[0]) == pytest.approx(0, abs=1e-5)  # float32
    assert curve.all_nodes is not None
    assert curve.all_nodes.tolist() == pytest.approx(curve.whole.tolist(), abs=1e-4)
    assert curve.n_total == 2 * 5 * (20 + 1)  # layers, positions, units and the error node


def test_a_curve_is_asked_for_by_name_and_must_be_one(fresh: nvs.Result) -> None:
    with pytest.raises(
        KeyError, match=r"2 curves match .*mlp_neurons.*; one is expected. There are: .*'errors': \['nodes', 'ablate'\]"
    ):
        fresh.curve(basis="mlp_neurons")
    with pytest.raises(KeyError, match="0 curves match"):
        fresh.curve(basis="residual", errors="nodes")
    with pytest.raises(KeyError, match="0 curves match"):
        fresh.curve(colour="blue")


def test_what_is_loaded_is_what_was_returned(fresh: nvs.Result) -> None:
    again = nvs.load(fresh.folder)
    pd.testing.assert_frame_equal(again.curves, fresh.curves)
    pd.testing.assert_frame_equal(again.summary, fresh.summary)
    assert again.study == fresh.study
    assert again.study.key == fresh.record["key"]


def test_what_is_stored_is_the_curve_that_was_measured(fresh: nvs.Result, tiny: Any) -> None:
    """Values per prompt, `change` among them, and the prompts' clusters, there and back."""
    curve = fresh.curve(basis="mlp_neurons", errors="nodes")
    clusters = Clusters(np.array([0, 1, 0, 1, 2, 2]), np.array([0, 1, 0, 1, 0, 0]))
    rows = to_rows(curve, {"basis": "mlp_neurons"}, clusters)
    again = to_curve(rows)
    for name in ("whole", "empty", "circuit", "complement", "change"):
        assert torch.equal(getattr(again, name), getattr(curve, name))
    assert to_clusters(rows).cluster.tolist() == clusters.cluster.tolist()
    assert to_clusters(rows).stratum.tolist() == clusters.stratum.tolist()
    assert set(rows["n_clusters"]) == {3}


def test_prompts_that_share_a_tag_are_drawn_together_when_asked(a_small_study: Any, tiny: Any, tmp_path: Path) -> None:
    found = compare(a_small_study(cluster_by="animal"), tmp_path / "out", model=tiny)
    tags = [
        json.loads(tag)["animal"]
        for tag in pd.read_parquet(found.folder / "prompts.parquet").query("split == 'evaluation'")["tags"]
    ]
    rows = found.curves[found.curves["run"] == "whole"]
    assert [tags.index(tag) for tag in tags] == [
        tags.index(tags[list(rows["cluster"]).index(c)]) for c in rows["cluster"]
    ]
    assert set(found.summary["n_clusters"]) == {len(set(tags))}
    assert set(found.summary["cluster_by"]) == {"animal"}
    with pytest.raises(InputError, match="has no tag 'lemma' \\(--cluster-by\\); its tags are: animal"):
        compare(a_small_study(cluster_by="lemma"), tmp_path / "other", model=tiny)
    assert not (tmp_path / "other" / "study.json").exists()


def test_the_summary_has_the_mean_change_and_bands_around_intervals(fresh: nvs.Result) -> None:
    table = fresh.summary
    curve = fresh.curve(basis="mlp_neurons", errors="nodes")
    rows = table[(table["basis"] == "mlp_neurons") & (table["errors"] == "nodes")]
    assert curve.change is not None
    assert rows["change"].tolist() == curve.change.mean(1).tolist()
    for score in ("faithfulness", "completeness"):
        assert (table[f"{score}_band_low"] <= table[f"{score}_low"]).all()
        assert (table[f"{score}_band_high"] >= table[f"{score}_high"]).all()


def test_scores_are_stored_with_the_order_of_their_nodes(fresh: nvs.Result, sae_folder: Path) -> None:
    tensors = load_file(fresh.folder / "scores.safetensors")
    with safe_open(fresh.folder / "scores.safetensors", "pt") as file:
        index = json.loads(file.metadata()["index"])
    assert set(tensors) == set(index) == {"saw/mlp_neurons/relp/0", f"saw/sae:{sae_folder}/relp/0"}
    nodes = index["saw/mlp_neurons/relp/0"].pop("nodes")
    assert index["saw/mlp_neurons/relp/0"] == {"task": "saw", "basis": "mlp_neurons", "method": "relp", "seed": 0}
    assert nodes.pop("basis").startswith("mlp_neurons ")
    assert nodes == {
        "sites": [f"blocks.{i}.mlp.hook_post" for i in (0, 1)],
        "widths": [24, 24],
        "positions": 5,
        "lossless": [True, True],
    }
    scores = fresh.scores(basis="mlp_neurons")
    assert torch.equal(scores.stored, tensors["saw/mlp_neurons/relp/0"])
    assert len(scores.stored) == 2 * 5 * 24  # neurons have no error nodes, and their slots are not stored
    assert len(scores.values) == 2 * 5 * 25
    assert not scores.values[~scores.index.exists].any()
    assert scores.index.positions == 5
    with pytest.raises(KeyError, match=r"2 discoveries match .*; one is expected. There are: .*mlp_neurons/relp/0"):
        fresh.scores(task="saw")


def test_prompts_are_stored_as_they_were_used(fresh: nvs.Result) -> None:
    prompts = pd.read_parquet(fresh.folder / "prompts.parquet")
    assert prompts.groupby("split").size().to_dict() == {"discovery": 8, "evaluation": N_EVAL}
    assert set(prompts["tokens"]) == {5}
    first = prompts[prompts["split"] == "evaluation"].iloc[0]
    assert " met a " in first["clean"]
    assert json.loads(first["tags"])["animal"] in first["clean"]
    for row in prompts.to_dict("records"):
        beginning, *words = json.loads(row["clean_tokens"])
        assert (len(words) + 1, "".join(words)) == (row["tokens"], row["clean"].replace(" ", ""))
        assert beginning not in row["clean"]


def test_the_record_says_what_made_it(fresh: nvs.Result, checkpoint: Path, task_files: Any, sae_folder: Path) -> None:
    record = json.loads((fresh.folder / "study.json").read_text())
    assert record["finished"] is True
    assert record["seconds"] > 0
    made_by = record["provenance"]
    assert set(made_by) == {
        "started",
        "versions",
        "code",
        "python",
        "platform",
        "device",
        "dtype",
        "threads",
        "batch_size",
        "model_commit",
    }
    assert made_by["versions"]["torch"] == torch.__version__
    assert (made_by["device"], made_by["dtype"]) == ("cpu", "float32")
    read = {str(checkpoint), *map(str, task_files), str(sae_folder)}
    assert set(record["inputs"]) == {"neuron_vs_sae", "torch", "transformer-lens", "sae-lens", *read}
    assert all(len(record["inputs"][name]) == 64 for name in read)  # SHA-256
    assert list(record["bases"]) == ["saw"]
    assert list(record["bases"]["saw"]) == ["mlp_neurons", f"sae:{sae_folder}"]
    basis = record["bases"]["saw"][f"sae:{sae_folder}"]
    assert (basis["sites"], basis["widths"]) == (["blocks.0.hook_mlp_out", "blocks.1.hook_mlp_out"], [20, 20])
    assert len(basis["saes"][0]["sha256"]) == 64


def test_seeds_of_random_scores_make_curves_of_their_own(a_small_study: Any, tiny: Any, tmp_path: Path) -> None:
    study = a_small_study(method=["random", "random,seed=0", "random,seed=1"], sizes=[5])
    found = compare(study, tmp_path / "out", model=tiny)
    values = [found.curve(method=method).circuit for method in study.method]
    assert torch.equal(values[0], values[1])
    assert not torch.equal(values[0], values[2])


@pytest.mark.assets
def test_on_a_trained_model_attribution_beats_chance_and_both_bases_start_from_one_empty_circuit(
    stories: Any, assets: Path, tmp_path: Path
) -> None:
    tasks = assets / "tasks" / "stories260K"
    saes = f"sae:{assets}/saes/stories260K/jumprelu@hook_mlp_out"
    study = make_study({
        "model": str(assets / "models" / "stories260K"), "task": str(tasks / "gender_pronoun_train.jsonl"),
        "eval_task": str(tasks / "gender_pronoun_test.jsonl"), "examples": 40, "eval_examples": 20,
        "basis": ["mlp_neurons", saes], "method": ["relp", "random"], "sizes": [0, 200, "all"], "resamples": 200,
    })  # fmt: skip
    found = compare(study, tmp_path / "out", model=stories)
    assert found.summary["f_empty"].max() == pytest.approx(found.summary["f_empty"].min(), abs=1e-3)  # float32
    for basis in study.basis:
        relp, random = (found.curve(basis=basis, method=method) for method in study.method)
        for curve in (relp, random):
            assert curve.faithfulness[0] == pytest.approx(0, abs=1e-4)
            assert curve.all_nodes is not None
            assert curve.all_nodes.tolist() == pytest.approx(curve.whole.tolist(), abs=1e-3)
            assert (curve.sizes[1], curve.sizes[-1]) == (200, curve.n_scored)
        assert random.n_scored == random.n_total  # whose curve therefore ends at all nodes
        assert random.faithfulness[-1] == pytest.approx(1, abs=1e-4)
        assert relp.faithfulness[1] > random.faithfulness[1] + 0.3
