"""What a study writes about how stable its circuits are."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import neuron_vs_sae as nvs
from neuron_vs_sae.analyses.circuits import stability
from neuron_vs_sae.core import files
from neuron_vs_sae.models.loading import load_model
from neuron_vs_sae.running.comparison import compare
from neuron_vs_sae.studies.study import Study, make_study


@pytest.fixture(scope="module")
def tiny(checkpoint: Path) -> Any:
    return load_model(checkpoint)


@pytest.fixture(scope="module")
def a_study(checkpoint: Path, task_files: tuple[Path, Path], sae_folder: Path) -> Callable[..., Study]:
    settings = {
        "model": str(checkpoint), "task": str(task_files[0]), "eval_task": str(task_files[1]), "examples": 12,
        "eval_examples": 4, "basis": ["mlp_neurons", f"sae:{sae_folder}"], "method": ["relp", "delta", "random"],
        "sizes": [1, 5, 20, "all"], "resamples": 100, "folds": 4,
    }  # fmt: skip
    return lambda **changed: make_study({**settings, **changed})


@pytest.fixture(scope="module")
def fresh(a_study: Callable[..., Study], tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> nvs.Result:
    return compare(a_study(), tmp_path_factory.mktemp("stability") / "out", model=tiny)


@pytest.mark.checked
def test_a_row_per_comparison_and_size_in_their_columns(fresh: nvs.Result, sae_folder: Path) -> None:
    rows = fresh.stability
    assert list(rows) == stability.COLUMNS
    assert list(pd.read_csv(fresh.folder / "stability.csv")) == stability.COLUMNS
    counts = rows.groupby(["basis", "against", "method", "other"], dropna=False).size()
    for basis in ("mlp_neurons", f"sae:{sae_folder}"):
        assert {(against, method) for against, method, _ in counts[basis].index} == {
            ("resamples", "relp"), ("resamples", "delta"), ("method", "relp"), ("method", "delta"),
        }  # fmt: skip
        assert counts[basis]["method"].index.tolist() == [("delta", "random"), ("relp", "delta"), ("relp", "random")]
    assert set(counts) == {3}  # sizes; all nodes are no choice
    resampled = rows[rows["against"] == "resamples"]
    assert (resampled["low"] <= resampled["high"]).all()
    assert (resampled["mean"] > resampled["chance"]).all()
    assert rows.loc[rows["against"] == "method", ["low", "core"]].isna().all(axis=None)
    assert set(rows["n_discovery"]) == {12}
    assert set(rows["key"]) == {fresh.study.key}


@pytest.mark.checked
def test_circuits_are_the_top_nodes_by_name(fresh: nvs.Result) -> None:
    nodes = pd.read_csv(fresh.folder / "circuits.csv")
    assert set(nodes["method"]) == {"relp", "delta"}
    for (basis, method), rows in nodes.groupby(["basis", "method"]):
        scores = fresh.scores(basis=str(basis), method=str(method))
        assert rows["node"].tolist() == scores.top(20).names
        assert rows["score"].to_numpy() == pytest.approx(scores.values[scores.top(20).nodes].numpy(), rel=1e-5)
        assert rows["size"].tolist() == [1] + [5] * 4 + [20] * 15
        assert rows["kept"].between(0, 1).all()
        one = fresh.stability.query("basis == @basis and method == @method and against == 'resamples' and size == 1")
        assert rows["kept"].iloc[0] == pytest.approx(float(one["mean"].iloc[0]))
        assert one["core"].iloc[0] == (rows["kept"].iloc[0] >= 0.95)


@pytest.mark.checked
def test_methods_are_compared_by_their_stored_scores(fresh: nvs.Result) -> None:
    one, other = (set(fresh.scores(basis="mlp_neurons", method=m).top(5).names) for m in ("relp", "delta"))
    row = fresh.stability.query(
        "basis == 'mlp_neurons' and method == 'relp' and against == 'method' and other == 'delta' and size == 5"
    ).iloc[0]
    assert row["mean"] == len(one & other) / 5
    assert (row["n_other"], row["n_shared"], row["n_total"], row["chance"]) == (12, 12, 240, 5 / 240)


STABILITY_FILES = ("stability.parquet", "stability.csv", "circuits.csv", "scores.safetensors", "curves.parquet")


def test_an_interrupted_study_ends_with_the_same_files(
    fresh: nvs.Result, a_study: Any, tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted between the scores of a method and the list of files that says they are whole."""
    write, begun = files.write_json, []

    def once(file: Path, *rest: Any) -> None:
        if begun:  # the record
            raise KeyboardInterrupt
        begun.append(file)
        write(file, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(files, "write_json", once)
        with pytest.raises(KeyboardInterrupt):
            compare(a_study(), tmp_path / "out", model=tiny)
    again = compare(a_study(), tmp_path / "out", model=tiny)
    for name in STABILITY_FILES:
        assert (again.folder / name).read_bytes() == (fresh.folder / name).read_bytes(), name


def test_one_fold_changes_no_score_and_leaves_resamples_out(
    fresh: nvs.Result, a_study: Any, tiny: Any, tmp_path: Path
) -> None:
    found = compare(a_study(folds=1), tmp_path / "out", model=tiny)
    scores = "scores.safetensors"
    assert (found.folder / scores).read_bytes() == (fresh.folder / scores).read_bytes()
    assert set(found.stability["against"]) == {"method"}
    assert pd.read_csv(found.folder / "circuits.csv").empty
    alone = compare(a_study(folds=1, method="relp"), tmp_path / "alone", model=tiny)
    assert alone.stability.empty
    assert list(alone.stability) == stability.COLUMNS


def test_templates_are_compared_with_all_the_others(a_study: Any, tiny: Any, task_files: Any, tmp_path: Path) -> None:
    """The template of a pair is its animal: three templates of four pairs each."""
    file = tmp_path / "saw.jsonl"
    file.write_text(task_files[0].read_text().replace('"animal"', '"template"'))
    study = a_study(task=str(file), basis="mlp_neurons", method="relp")
    found = compare(study, tmp_path / "out", model=tiny)
    rows = found.stability[found.stability["against"] == "template"]
    assert sorted(set(rows["other"])) == ["cat", "dog", "hen"]
    pairs = nvs.tasks.from_file(tiny, path=file)
    basis = nvs.bases.mlp_neurons(tiny)

    def top(keep: Callable[[str], bool]) -> list[str]:
        kept = [i for i, tags in enumerate(pairs.tags) if keep(tags["template"])]
        return nvs.attribution.relp(tiny, basis, pairs.take(kept)).top(20).names

    for animal in ("cat", "dog", "hen"):
        its, others = top(lambda t, animal=animal: t == animal), top(lambda t, animal=animal: t != animal)
        row = rows[(rows["other"] == animal) & (rows["size"] == 20)].iloc[0]
        assert row["mean"] == len(set(its) & set(others)) / 20
        assert (row["n_discovery"], row["n_other"], row["n_shared"]) == (8, 4, 0)


def test_every_error_policy_has_its_own_circuits(a_study: Any, tiny: Any, sae_folder: Path, tmp_path: Path) -> None:
    study = a_study(basis=f"sae:{sae_folder}", method="relp", errors=["nodes", "ablate"])
    rows = compare(study, tmp_path / "out", model=tiny).stability
    assert rows.groupby("errors")["n_total"].first().to_dict() == {"nodes": 210, "ablate": 200}
    assert (rows.loc[rows["errors"] == "ablate", ["error_nodes", "core_error_nodes"]] == 0).all(axis=None)
