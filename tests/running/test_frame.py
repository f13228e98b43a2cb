"""A second analysis, whole, in one page: what it takes to add one, and what the frame gives it for nothing."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pandas as pd
import pytest
import torch
import typer
from jaxtyping import Float
from pydantic import Field
from torch import Tensor
from typer.testing import CliRunner

import neuron_vs_sae as nvs
from neuron_vs_sae.cli.commands import run_study
from neuron_vs_sae.cli.options import Given, study_command
from neuron_vs_sae.core import files
from neuron_vs_sae.core.errors import FolderError, InputError
from neuron_vs_sae.execution.splice import read
from neuron_vs_sae.models.loading import load_model
from neuron_vs_sae.running import analyses, finishing, runner
from neuron_vs_sae.running.checks import check
from neuron_vs_sae.studies.analysis import Analysis
from neuron_vs_sae.studies.cells import Cell, CellFiles, Outcome, Step
from neuron_vs_sae.studies.loaded import Loaded
from neuron_vs_sae.studies.record import finished_record, read_record, read_table
from neuron_vs_sae.studies.spec import CommonSpec, make_spec

# The folder in `analyses/`: a function of a model, a basis and pairs.


def active_units(model: Any, basis: nvs.Basis, pairs: nvs.PromptPairs, above: float) -> Float[Tensor, " batch"]:
    """How many units of each clean prompt's last token lie above a value."""
    units = basis.features(read(model, pairs.clean, pairs.length, basis.hooks)).units
    return torch.stack([(at_site[:, -1] > above).sum(-1) for at_site in units]).sum(0).double()


# The file in `studies/`.


class ActiveStudy(CommonSpec):
    analysis: ClassVar[str] = "active"
    command: ClassVar[str] = "active"

    above: float = Field(0.0, description="units count where they are larger")


@dataclass(frozen=True, eq=False)
class Active:
    folder: Path
    record: dict[str, Any]
    study: ActiveStudy
    values: pd.DataFrame


def cells(study: ActiveStudy) -> tuple[Cell, ...]:
    return tuple(Cell.of(task=t, seed=s, basis=b) for t in study.task for s in study.seed for b in study.basis)


def steps(loaded: Loaded[ActiveStudy], cell: Cell) -> Sequence[Step]:
    task, text = loaded.task(str(cell["task"]), int(cell["seed"])), str(cell["basis"])

    def compute(_: CellFiles) -> Outcome:
        values = active_units(loaded.model, loaded.basis(task, text), task.evaluation, loaded.spec.above)
        names = {"task": task.name, "seed": task.seed, "basis": text}
        return Outcome(
            {"active": pd.DataFrame({"prompt": range(len(values)), "value": values.numpy()}).assign(**names)}
        )

    return (Step("count", compute),)


def assemble(loaded: Loaded[ActiveStudy], finished: Mapping[Cell, CellFiles], folder: Path) -> None:
    tables = [finished[cell].table("count", "active") for cell in cells(loaded.spec)]
    files.write_table(folder / "active.parquet", pd.concat(tables, ignore_index=True))


def load(folder: Path) -> Active:
    record, study = finished_record(folder, ActiveStudy)
    return Active(folder, record, study, read_table(folder / "active.parquet"))


def summarise(found: Active) -> None:
    means = found.values.groupby(["task", "basis"], sort=False)["value"].mean().reset_index()
    files.write(found.folder / "active.csv", lambda file: means.to_csv(file, index=False))


ACTIVE = Analysis(
    spec=ActiveStudy, files=("active.parquet", "active.csv", "active.md"), cells=cells, steps=steps, assemble=assemble, load=load,
    summarise=summarise, seconds=lambda loaded, cells: 0.1 * len(cells),
)  # fmt: skip


# The function in `report/`, and the line of the table.


def write_report(found: Active) -> None:
    files.write_text(found.folder / "active.md", pd.read_csv(found.folder / "active.csv").to_string())


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "active_analysis", sys.modules[__name__])
    entry = analyses.Entry("active_analysis:ACTIVE", "active_analysis:write_report")
    monkeypatch.setitem(analyses.ANALYSES, "active", entry)


# The lines in `cli/`.


def application() -> typer.Typer:
    app = typer.Typer()

    @app.command("active")
    @study_command(ActiveStudy)
    def active(given: Given[ActiveStudy]) -> None:
        """Count active units."""
        found = run_study(given, f"{len(given.study.basis)} bases")
        if not given.quiet:
            typer.echo((found.folder / "active.md").read_text())

    return app


# What the frame gives for that.


@pytest.fixture(scope="module")
def tiny(checkpoint: Path) -> Any:
    return load_model(checkpoint)


@pytest.fixture
def settings(checkpoint: Path, task_files: tuple[Path, Path], sae_folder: Path) -> dict[str, Any]:
    return {
        "model": str(checkpoint), "task": str(task_files[0]), "examples": 4, "eval_examples": 5,
        "basis": ["mlp_neurons", f"sae:{sae_folder}"], "resamples": 100,
    }  # fmt: skip


@pytest.fixture
def study(settings: dict[str, Any]) -> ActiveStudy:
    return make_spec(ActiveStudy, settings)


def test_a_result_is_what_the_cells_gave_with_what_made_it(study: ActiveStudy, tiny: Any, tmp_path: Path) -> None:
    found = runner.run(study, tmp_path / "out", model=tiny)
    assert {file.name for file in found.folder.iterdir()} == {".lock", "study.json", *ACTIVE.files}
    assert len(found.values) == 2 * 5
    assert list(found.record["bases"]["saw"]) == list(study.basis)
    assert found.record["analysis"] == "active"
    assert found.record["finished"] is True
    saes = found.values.loc[found.values["basis"] == study.basis[1], "value"]
    assert set(saes) == {14 * 2.0}  # fourteen of twenty units are always active, in each of two layers


def test_a_finished_one_is_loaded_another_refused_and_a_report_written_again(
    study: ActiveStudy, settings: dict[str, Any], tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    found = runner.run(study, out, model=tiny)
    with pytest.raises(FolderError, match=r"holds another study \(it differs in: above\)"):
        runner.run(make_spec(ActiveStudy, {**settings, "above": 0.5}), out, model=tiny)
    with pytest.raises(FolderError, match="holds a study of active, not of circuits"):
        nvs.compare(nvs.Study(**settings), out, model=tiny)
    with pytest.raises(FolderError, match="holds a study of active, not of circuits"):
        nvs.load(out)
    text = (out / "active.md").read_bytes()
    (out / "active.md").unlink()
    assert isinstance(finishing.report(out), Active)
    assert (out / "active.md").read_bytes() == text
    monkeypatch.setattr(runner, "compute_step", None)
    pd.testing.assert_frame_equal(runner.run(study, out).values, found.values)


def test_a_cell_alone_writes_the_bytes_that_the_whole_study_does_in_any_order(
    study: ActiveStudy, tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = runner.run(study, tmp_path / "whole", model=tiny)
    first, second = runner.cells(study)
    places = [runner.compute(study, cell, tmp_path / "parts", model=tiny) for cell in (second, first.id)]
    assert all(place.has("count") for place in places)
    monkeypatch.setattr(runner, "compute_step", None)  # all that is left to do is to assemble
    parts = runner.run(study, tmp_path / "parts", model=tiny)
    for name in ACTIVE.files:
        assert (parts.folder / name).read_bytes() == (whole.folder / name).read_bytes(), name
    with pytest.raises(InputError, match=rf"the study has no cell 'nonesuch'; it has: {first.id} \("):
        runner.compute(study, "nonesuch", tmp_path / "parts", model=tiny)


def test_a_cell_alone_loads_only_what_it_needs(
    study: ActiveStudy, tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Loaded[Any]] = []
    monkeypatch.setattr(runner, "compute_cells", lambda analysis, loaded, *_: seen.append(loaded))
    runner.compute(study, runner.cells(study)[1], tmp_path, model=tiny)
    assert [text for _, text in seen[0].bases] == [study.basis[1]]


def test_a_step_is_believed_once_its_list_of_files_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place, outcome = CellFiles(tmp_path), Outcome({"a": pd.DataFrame({"x": [1]})}, {"t": torch.ones(2)})

    def never(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(files, "write_json", never)
        with pytest.raises(KeyboardInterrupt):
            place.write("step", outcome)
    assert len(list(tmp_path.iterdir())) == 2
    assert not place.has("step")
    place.write("step", outcome)
    assert place.has("step")
    assert place.table("step", "a")["x"].tolist() == [1]
    assert place.tensors("step")["t"].tolist() == [1, 1]


def test_a_cell_is_known_by_what_it_is_of() -> None:
    cell = Cell.of(task="a", seed=1)
    assert cell.id == Cell.of(task="a", seed=1).id
    assert (
        len({cell.id, Cell.of(task="a", seed=2).id, Cell.of(task="a", seed="1").id, Cell.of(basis="a", seed=1).id}) == 4
    )
    assert (cell.label, cell["seed"], cell.get("basis")) == ("a/1", 1, None)


def test_the_same_settings_of_two_analyses_are_two_studies(settings: dict[str, Any]) -> None:
    class Other(ActiveStudy):
        analysis: ClassVar[str] = "other"

    assert make_spec(Other, settings).key != make_spec(ActiveStudy, settings).key
    with pytest.raises(InputError, match="basis 'mlp_neurons' is given twice"):
        make_spec(ActiveStudy, {**settings, "basis": ["mlp_neurons", "mlp-neurons"]})
    with pytest.raises(InputError, match=r"the study has no setting 'below'; there are: model, .*above"):
        make_spec(ActiveStudy, {**settings, "below": 1})


def test_a_study_is_checked_whatever_it_asks(study: ActiveStudy) -> None:
    report = check(study)
    assert report.seconds == pytest.approx(0.2)
    assert [basis["basis"] for basis in report.bases] == list(study.basis)


@pytest.fixture
def arguments(settings: dict[str, Any]) -> list[str]:
    given = {**settings, "basis": settings["basis"][0]}
    return [part for name, value in given.items() for part in (f"--{name.replace('_', '-')}", str(value))]


def test_its_command_has_its_own_options_and_the_common_ones(arguments: list[str], tmp_path: Path) -> None:
    app, run = application(), CliRunner().invoke
    text = " ".join(run(app, ["--help"]).output.split())
    for option in (
        "--above",
        "--model",
        "--dtype",
        "--seed",
        "--config",
        "--out",
        "--overwrite",
        "--quiet",
        "--batch-size",
    ):
        assert f"{option} " in text, option
    out = tmp_path / "out"
    ended = run(app, [*arguments, "--above", "0.25", "--out", str(out)])
    assert (ended.exit_code, "mlp_neurons" in ended.output) == (0, True), ended.output
    assert json.loads((out / "study.json").read_text())["study"]["above"] == 0.25
    config = tmp_path / "study.toml"
    config.write_text("above = 0.5\n")
    assert run(app, [*arguments, "--config", str(config), "--out", str(tmp_path / "other"), "--quiet"]).exit_code == 0
    assert load(tmp_path / "other").study.above == 0.5
    wrong = run(app, [*arguments, "--seed", "-1"])
    assert isinstance(wrong.exception, InputError)


def test_a_study_without_tasks_has_bases_all_the_same(settings: dict[str, Any], tiny: Any, tmp_path: Path) -> None:
    class Untasked(ActiveStudy):
        task: tuple[str, ...] = ()

    def count(loaded: Loaded[Any], cell: Cell) -> Sequence[Step]:
        widths = [sum(d.width for d in loaded.basis(None, text).dictionaries) for text in loaded.spec.basis]
        return (Step("count", lambda _: Outcome({"active": pd.DataFrame({"value": widths})})),)

    study = make_spec(Untasked, {name: value for name, value in settings.items() if name != "task"})
    whole = Analysis(
        spec=Untasked, files=("active.parquet",), cells=lambda _: (Cell.of(part="all"),), steps=count, summarise=lambda _: None,
        assemble=lambda loaded, finished, folder: [files.write_table(folder / "active.parquet", f.table("count", "active")) for f in finished.values()],
        load=lambda folder: SimpleNamespace(
            record=read_record(folder, Untasked), table=read_table(folder / "active.parquet")
        ), seconds=lambda *_: 0.0,
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(vars(sys.modules[__name__]), "ACTIVE", whole)
        patch.setitem(vars(sys.modules[__name__]), "write_report", lambda _: None)
        assert runner.run(study, tmp_path / "out", model=tiny).table["value"].tolist() == [48, 40]
    record = json.loads((tmp_path / "out" / "study.json").read_text())
    assert list(record["bases"]) == [""]
