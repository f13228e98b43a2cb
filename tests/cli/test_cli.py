"""The command line says in one message what is wrong and what to do, and gives what the functions give."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from conftest import Ended, Run
from settings import BASE, OTHER

import neuron_vs_sae as nvs
from neuron_vs_sae.cli import commands as cli
from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.core.lookup import known
from neuron_vs_sae.report.console import console_table
from neuron_vs_sae.report.robust_tables import robust_tables
from neuron_vs_sae.running import runner
from neuron_vs_sae.studies.study import Study, make_study


@pytest.fixture
def studies(monkeypatch: pytest.MonkeyPatch) -> list[Study]:
    """The studies that commands would have run; none is."""
    found: list[Study] = []

    def stand_in(study: Study, *args: Any, **kwargs: Any) -> None:
        found.append(study)
        raise InputError("not run")

    monkeypatch.setattr(runner, "run", stand_in)
    return found


@pytest.fixture
def arguments(checkpoint: Path, task_files: tuple[Path, Path], sae_folder: Path) -> list[Any]:
    """A small study that works."""
    return ["--model", checkpoint, "--task", task_files[0], "--eval-task", task_files[1], "--examples", 8, "--eval-examples", 6,
            "--basis", "mlp_neurons", "--basis", f"sae:{sae_folder}", "--sizes", "1,5,all", "--resamples", 100]  # fmt: skip


def as_flags(settings: dict[str, Any]) -> list[str]:
    flags = []
    for name, value in settings.items():
        flag = f"--{name.replace('_', '-')}"
        if isinstance(value, bool):
            flags.append(flag if value else f"--no-{flag[2:]}")
        elif name.endswith("sizes"):
            flags += [flag, ",".join(map(str, value))]
        else:
            for item in value if isinstance(value, list) else [value]:
                flags += [flag, str(item)]
    return flags


def as_toml(folder: Path, settings: dict[str, Any]) -> Path:
    file = folder / "study.toml"
    file.write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in settings.items()))
    return file


# Flags, files and fields are one set of names.


@pytest.mark.parametrize("field", OTHER)
def test_every_field_is_an_option_and_a_key_with_one_meaning(
    field: str, run: Run, studies: list[Study], tmp_path: Path
) -> None:
    settings = {**BASE, field: OTHER[field]}
    run("compare", *as_flags(settings))
    run("compare", "--config", as_toml(tmp_path, settings))
    flag, file = studies
    assert flag == file == make_study(settings)
    assert flag.key == file.key


def test_every_option_is_described_with_its_default(run: Run) -> None:
    for command in ("compare", "check"):
        text = " ".join(run(command, "--help").out.split())
        for name, field in Study.model_fields.items():
            assert f"--{name.replace('_', '-')} " in text
            assert " ".join((field.description or "").split())[:40] in text
        assert "(separate, pooled) [separate]" in text


def test_flags_override_the_file(run: Run, studies: list[Study], tmp_path: Path) -> None:
    file = as_toml(tmp_path, {**BASE, "seed": 3, "method": ["relp"], "process_weights": True, "sizes": [1]})
    run("compare", "--config", file, "--seed", 4, "--method", "delta", "--no-process-weights", "--basis", "residual")
    assert studies == [make_study({**BASE, "seed": 4, "method": "delta", "basis": "residual", "sizes": [1]})]


def test_what_is_not_given_is_left_to_the_file_and_then_to_the_default(
    run: Run, studies: list[Study], tmp_path: Path
) -> None:
    run("compare", "--config", as_toml(tmp_path, {**BASE, **OTHER}))
    run("compare", *as_flags(BASE))
    assert studies == [make_study({**BASE, **OTHER}), make_study(BASE)]


def test_nothing_given_is_the_default_study_and_what_is_given_replaces_it(run: Run, studies: list[Study]) -> None:
    run("compare")
    run("compare", "--model", "default-gpt2", "--method", "delta")
    whole, changed = studies
    assert (whole.model, len(whole.task), len(whole.basis)) == ("default", 6, 6)
    assert whole.errors == ("nodes", "keep", "ablate")
    assert changed == whole.model_copy(update={"model": "default-gpt2", "method": ("delta",)})


# Errors: one message on standard error, no traceback, and the status that says whose fault it is.


@pytest.mark.parametrize(
    ("given", "parts"),
    [
        (["compare", "--model", "gpt2"], ["the command line lacks 'task' (task name", "lacks 'basis'"]),
        (["compare", "--task", "world:cheese"], ["the small world has no task 'cheese'; there are: agreement_simple,"]),
        (["compare", "--task", "world:ioi,template=9"], ["task 'world:ioi' has no template 9; it has 0 to 2"]),
        (["compare", "--seed", "one"], ["Invalid value for '--seed'", "valid integer"]),
        (["compare", "--sede", "1"], ["No such option: --sede", "--seed"]),
        (["compare", "--batch-size", "0"], ["Invalid value for '--batch-size'", "1"]),
        (["compare", "--config", "none.toml"], ["config file none.toml cannot be read: No such file"]),
        (
            ["compare", *as_flags(BASE), "--basis", "neurons"],
            ["no basis 'neurons'; there are: attention, mlp_neurons,"],
        ),
        (["compare", *as_flags(BASE), "--metric", "loss"], ["no metric 'loss'; there are:"]),
        (["compare", *as_flags(BASE), "--positions", "all"], ["'positions': Input should be 'separate' or 'pooled'"]),
        (
            ["compare", *as_flags(BASE), "--examples", "0"],
            ["the command line, 'examples': Input should be greater than"],
        ),
        (["compare", *as_flags(BASE)], ["pairs.jsonl cannot be read: there is no such file"]),
        (["list", "cheeses"], ["nothing to list under 'cheeses'; there are: bases, methods, tasks,", "saes"]),
        (["list", "saes", "--model", "nonesuch"], ["no SAEs of model 'nonesuch'", "nvs list saes"]),
        (["list"], ["Missing argument"]),
        (["report"], ["Missing argument"]),
        (["report", "nowhere"], ["nowhere holds no study: run the study's `nvs compare`"]),
        (["cheese"], ["No such command 'cheese'"]),
    ],
)
def test_wrong_usage_ends_with_two_and_one_message(given: list[str], parts: list[str], run: Run) -> None:
    ended = run(*given)
    assert ended.status == 2
    for part in parts:
        assert part in ended.err
    assert ended.out == ""
    assert "Traceback" not in ended.err
    assert ended.err.count("nvs:") <= 1


def test_a_config_is_named_where_it_is_wrong(run: Run, tmp_path: Path) -> None:
    file = as_toml(tmp_path, {**BASE, "seed": -1})
    assert (
        f"{file}, 'seed': Input should be greater than or equal to 0 (given: -1)"
        in run("compare", "--config", file).err
    )
    ended = run("compare", "--config", file, "--examples", "2")
    assert f"{file} with the command line's options, 'seed'" in ended.err
    file.write_text("modle = 'gpt2'")
    assert f"{file} has no setting 'modle'; there are: model, dtype," in run("compare", "--config", file).err
    file.write_text("model")
    ended = run("compare", "--config", file)
    assert (ended.status, "is not TOML" in ended.err) == (2, True)


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"--model": "nonesuch-9b"}, "model 'nonesuch-9b' is not a known model"),
        ({"--model": "./nowhere"}, "model './nowhere' is "),
        ({"--basis": "sae:nowhere"}, "'nowhere' is neither a folder nor a release"),
        ({"--basis": "mlp_neurons,layers=9"}, "layers='9': the model has layers 0-1"),
        ({"--basis": "mlp_neurons,layer=1"}, "basis 'mlp_neurons' has no option 'layer'"),
        ({"--method": "relp,steps=2"}, "attribution method 'relp' has no option 'steps'"),
        ({"--sizes": "99999"}, "a circuit of 99999 nodes is asked for (--sizes)"),
        ({"--examples": "500"}, "500 pairs were requested from task 'saw', which has 12"),
        ({"--device": "abacus"}, "device 'abacus' (--device) cannot be used"),
        ({"--out": "/dev/null/out"}, "cannot write to /dev/null/out: Not a directory. Choose another folder (--out)"),
    ],
)
def test_input_that_is_wrong_ends_with_two_before_anything_is_written(
    change: dict[str, str], part: str, run: Run, arguments: list[Any], tmp_path: Path
) -> None:
    (flag, value), given = *change.items(), [*arguments, "--out", "out"]
    if flag == "--model":
        given[given.index(flag) + 1] = value
    ended = run("compare", *given, *([flag, value] if flag != "--model" else []))
    assert (ended.status, ended.out) == (2, "")
    assert part in ended.err
    assert "Traceback" not in ended.err
    assert not [f for f in tmp_path.rglob("*") if f.is_file() and f.name != ".lock"]


def test_a_failure_ends_with_one_and_its_name(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("boom [bold]at[/bold] /a[0]/b")

    monkeypatch.setattr(runner, "run", fails)
    ended = run("compare", *as_flags(BASE))
    assert (ended.status, ended.out) == (1, "")
    assert "nvs: RuntimeError: boom [bold]at[/bold] /a[0]/b\n(set NVS_TRACEBACK=1 for the traceback)\n" in ended.err
    assert "Traceback" not in ended.err
    monkeypatch.setenv("NVS_TRACEBACK", "1")
    monkeypatch.setattr(sys, "argv", ["nvs", "compare", *as_flags(BASE)])
    with pytest.raises(RuntimeError, match="boom"):
        cli.main()


def test_an_interruption_ends_with_one_and_says_that_nothing_is_lost(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "run", interrupted)
    ended = run("compare", *as_flags(BASE))
    assert ended.status == 1
    assert "nvs: interrupted; what is finished is kept, and the same command goes on from there" in ended.err


# What it prints.


def test_compare_says_what_it_will_do_and_shows_what_it_found(run: Run, arguments: list[Any], tmp_path: Path) -> None:
    ended = run("compare", *arguments, "--out", "out[red]")
    assert ended.status == 0
    said, *glimpses = ended.err.splitlines()
    assert (
        said == "2 discoveries (1 task x 2 bases x 1 method), 2 curves (x 1 ablation x 1 error policy), into out[red]"
    )
    assert [line.partition(":")[0] for line in glimpses] == ["saw, RelP"]
    lines = ended.out.splitlines()
    assert max(map(len, lines)) <= 80
    found = nvs.load(tmp_path / "out[red]")
    shown = console_table(found, nvs.tables.per_curve(found), robust_tables(found.folder))
    text = " ".join(ended.out.split())
    for part in (shown.title, shown.note, *shown.sentences, "The page: out[red]/report.html"):
        assert " ".join(part.split()) in text
    again = run("report", "out[red]")
    assert (again.status, again.out) == (0, ended.out)


def test_many_curves_are_one_table_of_eighty_columns(run: Run, arguments: list[Any]) -> None:
    several = ["--method", "relp", "--method", "random,seed=1", "--errors", "nodes", "--errors", "ablate"]
    ended = run("compare", *arguments, *several)
    assert ended.err.startswith(
        "4 discoveries (1 task x 2 bases x 2 methods), 8 curves (x 1 ablation x 2 error policies)"
    )
    lines = ended.out.splitlines()
    assert max(map(len, lines)) <= 80
    assert len([line for line in lines if line.startswith("saw ")]) == 1
    assert Path("nvs-results/study.json").exists()


def test_several_tasks_are_the_rows_of_the_table(run: Run) -> None:
    few = ["--examples", 12, "--eval-examples", 8, "--sizes", "1,100,all", "--resamples", 100]
    tasks = ["--task", "world:ioi,template=0", "--task", "world:agreement_rc"]
    bases = ["--basis", "mlp_neurons", "--basis", "mlp_outputs"]
    one = ("--ablation", "mean", "--errors", "nodes")
    ended = run("compare", *tasks, *bases, "--method", "relp", "--method", "delta", *one, *few)
    lines = ended.out.splitlines()
    assert max(map(len, lines)) <= 80
    table = nvs.tables.per_curve(nvs.load("nvs-results"))
    of_relp = table[table["method"] == "relp"]
    for task, words in (("ioi.0", ["ioi"]), ("agreement_rc", ["agreement", "rc"])):
        sizes = of_relp[of_relp["task"] == task].set_index("basis")["size_at_level"]
        shown = next(line.split() for line in lines if line.split()[: len(words)] == words)
        expected = [
            "-" if pd.isna(sizes[basis]) else f"{sizes[basis]:,.0f}" for basis in ("mlp_neurons", "mlp_outputs")
        ]
        assert shown[-2:] == expected, task


def test_json_is_the_summary_on_standard_output_alone(run: Run, arguments: list[Any]) -> None:
    ended = run("compare", *arguments, "--out", "out", "--json")
    assert (ended.status, ended.err) == (0, "")
    pd.testing.assert_frame_equal(
        pd.DataFrame(json.loads(ended.out)), nvs.load("out").summary, check_dtype=False, rtol=1e-12
    )


def test_quiet_is_quiet(run: Run, arguments: list[Any]) -> None:
    assert run("compare", *arguments, "--out", "out", "--quiet") == Ended(0, "", "")
    assert run("check", *arguments, "--quiet") == Ended(0, "", "")


def test_check_says_what_there_is_and_runs_and_writes_nothing(run: Run, arguments: list[Any], tmp_path: Path) -> None:
    ended = run("check", *arguments, "--json")
    assert (ended.status, ended.err) == (0, "")
    report = json.loads(ended.out)
    assert report["model"]["name"] == "tiny"
    assert (report["model"]["layers"], report["model"]["device"], report["model"]["dtype"]) == (2, "cpu", "float32")
    (task,) = report["tasks"]
    assert (task["task"], task["discovery"], task["evaluation"], task["tokens"], task["bos"]) == ("saw", 8, 6, 5, True)
    assert 0 <= task["accuracy"] <= 1
    neurons, saes = report["bases"]
    assert (neurons["width"], saes["width"]) == ([24, 24], [20, 20])
    assert neurons["explained_variance"] == [1, 1]
    assert max(saes["explained_variance"]) < 1
    assert all(0 < active <= 20 for active in saes["active"])
    assert report["seconds"] > 0
    assert report["peak_gib"] > 0
    assert not list(tmp_path.iterdir())
    text = " ".join(run("check", *arguments).out.split())
    for part in ("model tiny: 2 layers", "saw 8 + 6 5 with BOS", "mlp_neurons 2 24 24.0 1.000", "estimated time"):
        assert part in text


def test_check_says_what_compare_would_meet_in_the_folder_and_what_its_prompts_cannot_decide(
    run: Run, arguments: list[Any], tmp_path: Path
) -> None:
    out = ("--out", tmp_path / "out")
    assert run("compare", *arguments, *out, "--quiet").status == 0
    assert f"{out[1]} holds this study, finished: the same command loads it" in run("check", *arguments, *out).out
    other = " ".join(run("check", *arguments, *out, "--seed", "5", "--eval-examples", "5").out.split())
    assert "holds another study (it differs in: eval_examples, seed)" in other
    assert "has 5 evaluation clusters, whose sign flips give no p below 0.062" in other
    assert "differs" not in run("check", *arguments, *out, "--seed", "5", "--overwrite").out


def test_a_first_look_has_one_of_each_convention_and_a_folder_of_its_own(
    run: Run, arguments: list[Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    given = [*arguments, "--ablation", "zero_site", "--ablation", "mean", "--errors", "keep", "--errors", "ablate"]
    assert run("compare", *given, "--quick", "--quiet").status == 0
    study = nvs.load(tmp_path / "nvs-results-quick").study
    assert (study.ablation, study.errors, study.seed) == (("zero_site",), ("keep",), (0,))


def test_how_far_a_study_is_goes_to_a_file_as_lines_and_what_a_cell_shows_at_once(
    run: Run, arguments: list[Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("neuron_vs_sae.cli.console._SECONDS_BETWEEN_LINES", 0)
    said = run("compare", *arguments, "--out", tmp_path / "out").err.splitlines()
    assert [line for line in said if line.startswith("1 of 3 steps: ")]
    glimpses = [line for line in said if "specifications" in line]
    assert len(glimpses) == 1
    assert "MLP neurons better in" in glimpses[0]


def test_check_refuses_what_compare_would(run: Run, arguments: list[Any]) -> None:
    ended = run("check", *arguments, "--sizes", "99999")
    assert (ended.status, ended.out) == (2, "")
    assert "a circuit of 99999 nodes is asked for" in ended.err


@pytest.mark.parametrize(
    ("what", "folder"),
    [
        ("bases", "bases"),
        ("methods", "attribution"),
        ("tasks", "tasks"),
        ("ablations", "ablation"),
        ("metrics", "metrics"),
    ],
)
def test_list_gives_a_line_per_name(what: str, folder: str, run: Run) -> None:
    ended = run("list", what)
    assert (ended.status, ended.err) == (0, "")
    lines = [line.split(maxsplit=1) for line in ended.out.splitlines()]
    assert tuple(name for name, _ in lines if not name.startswith("world:")) == known(folder)
    assert all(text for _, text in lines)
    assert (what == "tasks") == ("world:two_hop" in {name for name, _ in lines})


def test_list_gives_models_and_saes(run: Run) -> None:
    models = run("list", "models").out.splitlines()
    assert [line.split()[0] for line in models[:3]] == ["FOLDER", "default", "default-gpt2"]
    assert any(line.split()[0] in {"gpt2", "openai-community/gpt2"} for line in models)
    saes = run("list", "saes", "--model", "gpt2").out.splitlines()
    assert any(line.startswith("gpt2-small-") for line in saes)
    assert len(saes) < len(run("list", "saes").out.splitlines())


# Processes.


def process(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=60, check=False,
                          env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "80"})  # fmt: skip


def test_help_and_wrong_usage_import_nothing_heavy() -> None:
    script = (
        "import sys\nfrom neuron_vs_sae.cli.commands import main\nsys.argv = ['nvs', *sys.argv[1:]]\n"
        "try:\n    main()\nfinally:\n    print(sorted({'torch', 'pandas', 'transformers', 'sae_lens', 'plotly'} & set(sys.modules)))"
    )
    for arguments, status in ((["--help"], 0), (["compare", "--help"], 0), (["compare", "--basis", "nope"], 2)):
        ended = process("-c", script, *arguments)
        assert (ended.returncode, ended.stdout.splitlines()[-1]) == (status, "[]"), ended.stderr


def test_a_study_runs_as_a_process_and_prints_nothing_but_json(arguments: list[Any], tmp_path: Path) -> None:
    ended = process("-m", "neuron_vs_sae", "compare", *map(str, arguments), "--out", str(tmp_path / "out"), "--json")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert json.loads(ended.stdout)[0]["model"] == "tiny"


def test_the_package_is_the_command() -> None:
    ended = process("-m", "neuron_vs_sae", "compare", "--model", "gpt2")
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert ended.stderr.startswith("nvs: the command line lacks 'task'")
    assert "Traceback" not in ended.stderr
