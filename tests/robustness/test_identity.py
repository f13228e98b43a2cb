"""A study is what it is told and what it reads: nothing that merely bears a name, or lies beside what is read, makes it another."""

import shutil
from pathlib import Path
from typing import Any

import pytest

import neuron_vs_sae as nvs
from neuron_vs_sae.core.errors import FolderError, InputError
from neuron_vs_sae.running.provenance import identify
from neuron_vs_sae.studies.study import make_study
from neuron_vs_sae.studies.text import CorpusSpec, UnitsStudy


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def study(**changed: Any) -> nvs.Study:
    return make_study({"model": "default", "task": "world:ioi", "basis": "mlp_neurons", **changed})


@pytest.mark.parametrize("name", ["ioi", "hook_mlp_out", "true", "0", "discovery"])
def test_a_folder_that_bears_a_tasks_or_an_options_name_is_not_read(name: str, here: Path) -> None:
    given = study(basis=["mlp_neurons,layers=0", "rotation@hook_mlp_out,seed=0", "sae@hook_mlp_out,any_model=true"])
    before = identify(given)
    (here / name).mkdir()
    (here / name / "notes.txt").write_text("mine")
    assert identify(given) == before


def test_an_empty_value_reads_nothing(here: Path) -> None:
    given = study(basis=["mlp_neurons,layers="], task="world:ioi,template=")
    before = identify(given)
    (here / "new.txt").write_text("mine")
    assert identify(given) == before


def test_results_below_a_models_or_saes_folder_change_nothing_of_them(
    here: Path, checkpoint: Path, sae_folder: Path, task_files: tuple[Path, Path]
) -> None:
    shutil.copytree(checkpoint, here / "model")
    shutil.copytree(sae_folder, here / "saes")
    given = make_study({
        "model": "model", "task": str(task_files[0]), "eval_task": str(task_files[1]), "examples": 8, "eval_examples": 6,
        "basis": ["mlp_neurons", "sae:saes"], "sizes": [1], "resamples": 100,
    })  # fmt: skip
    for out in ("model/results", "saes/results"):
        first = nvs.compare(given, out)
        assert nvs.compare(given, out).record["provenance"] == first.record["provenance"]  # loaded, not refused
    before = sorted(path.name for path in (here / "model").iterdir())
    with pytest.raises(InputError, match=r"results in model \(--out\) would lie among the files of model"):
        nvs.compare(given, "model")
    assert sorted(path.name for path in (here / "model").iterdir()) == before
    weights = next((here / "saes").rglob("cfg.json"))
    weights.write_text(weights.read_text() + " ")
    with pytest.raises(FolderError, match="differs in: the contents of saes"):
        nvs.compare(given, "model/results")


def test_results_in_a_datasets_folder_are_refused(here: Path) -> None:
    (here / "data").mkdir()
    with pytest.raises(InputError, match=r"would lie among the files of data, which the study reads"):
        nvs.compare(study(task="from_dataset:data"), "data/results")
    assert not (here / "data" / "results").exists()


def test_a_corpus_and_a_folder_of_circuits_are_part_of_what_is_read(here: Path) -> None:
    (here / "text.txt").write_text("ann saw a cat")
    (here / "results").mkdir()
    (here / "results" / "circuits.csv").write_text("task,basis,node\n")
    given = UnitsStudy(model="default", corpus="text.txt", circuit="results")
    before = identify(given)
    assert {"text.txt", "results/circuits.csv"} <= before.keys()
    (here / "text.txt").write_text("bob saw a cat")
    after = identify(given)
    assert {name for name in before if before[name] != after[name]} == {"text.txt"}
    (here / "results" / "circuits.csv").write_text("task,basis,node\n,,\n")
    assert identify(given)["results/circuits.csv"] != before["results/circuits.csv"]


def test_the_small_worlds_text_is_no_file(here: Path) -> None:
    (here / "world").write_text("mine")
    assert "world" not in identify(UnitsStudy(model="default"))
    assert CorpusSpec.model_fields["corpus"].default == "world"
