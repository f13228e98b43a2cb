"""Whatever the command line is given that is wrong: exit status 2, one message, nothing printed, nothing left, and no waiting."""

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import Run

SITE = "blocks.0.hook_mlp_out"


@pytest.fixture
def arguments(checkpoint: Path, task_files: tuple[Path, Path], sae_folder: Path, tmp_path: Path) -> dict[str, Any]:
    """A small study that works, of files that may be changed."""
    shutil.copytree(checkpoint, tmp_path / "model")
    shutil.copytree(sae_folder, tmp_path / "saes")
    shutil.copy(task_files[0], tmp_path / "pairs.jsonl")
    return {"--model": "model", "--task": "pairs.jsonl", "--examples": 6, "--eval-examples": 2, "--basis": "sae:saes",
            "--sizes": "1,5", "--resamples": 100}  # fmt: skip


def refused(run: Run, given: dict[str, Any], part: str, command: str = "compare") -> None:
    before = sorted(path for path in Path.cwd().rglob("*"))
    out = ["--out", "out"] if command == "compare" else []
    ended = run(command, *(text for pair in given.items() for text in pair), *out)
    assert (ended.status, ended.out) == (2, ""), ended.err
    assert ended.err.count("nvs:") <= 1
    assert part in " ".join(ended.err.split()), ended.err
    assert "Traceback" not in ended.err
    assert sorted(path for path in Path.cwd().rglob("*")) == before


@pytest.mark.parametrize(
    ("flag", "value", "part"),
    [
        ("--batch-size", 10**12, "--batch-size"),
        ("--n-devices", 0, "--n-devices"),
        ("--max-memory", "nan", "--max-memory"),
        ("--max-memory", "inf", "--max-memory"),
        ("--cache-limit", "inf", "--cache-limit"),
        ("--cache-limit", "-1", "--cache-limit"),
        ("--seed", 2**64, "'seed' is beyond 2 ** 53"),
        ("--seed", "9" * 5000, "--seed"),
        ("--resamples", 10**12, "resamples (--resamples) of 2 prompts take about"),
        ("--sign-flips", 10**13, "sign flips (--sign-flips) of 2 prompts take about"),
        ("--sizes", "9" * 5000, "size '9999"),
        ("--examples", 2**52, "pairs"),
        ("--task", "pairs\udcff.jsonl", "argument 5 of the command line is not UTF-8"),
        ("--model", "m" * 5000, "is not a known model"),
        ("--basis", f"sae:{'s' * 5000}", "is neither a folder nor a release"),
        ("--task", f"{'t' * 5000}.jsonl", "there is no such file"),
        ("--config", ".", "it is a folder"),
        ("--config", "/dev/zero", "it is a pipe, a socket or a device"),
        ("--task", "from_file:/dev/zero", "it is a pipe, a socket or a device"),
        ("--task", "from_file:model", "it is a folder"),
        ("--cache", "pairs.jsonl", "a file, and a folder is expected"),
    ],
)  # fmt: skip
def test_a_value_that_no_study_can_have(flag: str, value: Any, part: str, run: Run, arguments: dict[str, Any]) -> None:
    refused(run, {**arguments, flag: value}, part)


@pytest.mark.parametrize("where", ["pairs.jsonl", "model/config.json", f"saes/{SITE}/cfg.json", "model/tokenizer.json"])
def test_a_pipe_in_place_of_a_file_is_refused_at_once(where: str, run: Run, arguments: dict[str, Any]) -> None:
    Path(where).unlink()
    os.mkfifo(where)
    started = time.monotonic()
    refused(run, arguments, "it is a pipe, a socket or a device")
    assert time.monotonic() - started < 5


MALFORMED: dict[str, Any] = {
    "a list": [],
    "text": "cfg",
    "null metadata": lambda cfg: {**cfg, "metadata": None},
    "metadata as text": lambda cfg: {**cfg, "metadata": "none"},
    "no architecture": lambda cfg: {k: v for k, v in cfg.items() if k != "architecture"},
    "an architecture that nobody knows": lambda cfg: {**cfg, "architecture": "cubist"},
    "an architecture that is a list": lambda cfg: {**cfg, "architecture": []},
    "a width of text": lambda cfg: {**cfg, "d_sae": "20"},
    "a negative width": lambda cfg: {**cfg, "d_sae": -20},
    "another width": lambda cfg: {**cfg, "d_sae": 21},
    "no width": lambda cfg: {**cfg, "d_in": None},
    "a hook that is a number": lambda cfg: {**cfg, "metadata": {**cfg["metadata"], "hook_name": 5}},
    "a hook that does not parse": lambda cfg: {**cfg, "metadata": {**cfg["metadata"], "hook_name": "blocks.x"}},
    "a hook of another layer": lambda cfg: {**cfg, "metadata": {**cfg["metadata"], "hook_name": "blocks.7.hook_mlp_out"}},
    "no hook": lambda cfg: {**cfg, "metadata": {**cfg["metadata"], "hook_name": None}},
    "a model that is a list": lambda cfg: {**cfg, "metadata": {**cfg["metadata"], "model_name": ["tiny"]}},
    "a dtype that nobody knows": lambda cfg: {**cfg, "dtype": "float17"},
    "a normalisation that nobody knows": lambda cfg: {**cfg, "normalize_activations": "maybe"},
    "a normalisation that is a number": lambda cfg: {**cfg, "normalize_activations": 3},
    "a top k of text": lambda cfg: {**cfg, "architecture": "topk", "k": "three"},
    "a top k below zero": lambda cfg: {**cfg, "architecture": "topk", "k": -1},
}  # fmt: skip


@pytest.mark.parametrize("how", MALFORMED)
def test_a_malformed_configuration_of_an_sae(how: str, run: Run, arguments: dict[str, Any]) -> None:
    file, change = Path("saes") / SITE / "cfg.json", MALFORMED[how]
    file.write_text(json.dumps(change(json.loads(file.read_text())) if callable(change) else change))
    refused(run, arguments, "")


def test_a_token_that_the_model_was_not_given(run: Run, arguments: dict[str, Any]) -> None:
    file = Path("model/tokenizer.json")
    tokenizer = json.loads(file.read_text())
    tokenizer["model"]["vocab"]["unicorn"] = 19
    file.write_text(json.dumps(tokenizer))
    lines = Path("pairs.jsonl").read_text().replace("cat", "unicorn")
    Path("pairs.jsonl").write_text(lines)
    refused(run, arguments, "has a token of number 19 ('unicorn'), and the model's vocabulary ends at 18")


@pytest.mark.parametrize("name", ["../../secret.safetensors", "/etc/passwd"])
def test_a_models_index_that_points_out_of_its_folder(name: str, run: Run, arguments: dict[str, Any]) -> None:
    index = {"metadata": {}, "weight_map": {"model.embed_tokens.weight": name}}
    Path("model/model.safetensors.index.json").write_text(json.dumps(index))
    refused(run, arguments, "is not in the model's folder")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ('{"clean": 1' + "0" * 5000 + "}", "row 1: not JSON"),
        ("[" * 100_000, "row 1: not JSON"),
        ('{"clean": "' + "a " * 1_000_000 + '"}', "row 1: it is longer than 1,048,576 bytes"),
        ("\n\n" + "x" * 20_000_000, "row 3: it is longer than 1,048,576 bytes"),
        ('{"clean": "ann saw a cat", "corrupt": "bob saw a cat", "answer": " she", "foil": " \\ud800"}', "half a character"),
        ("", "has no rows"),
    ],
)  # fmt: skip
def test_a_task_file_that_holds_what_no_pair_is(text: str, part: str, run: Run, arguments: dict[str, Any]) -> None:
    Path("pairs.jsonl").write_text(text)
    started = time.monotonic()
    refused(run, arguments, part)
    assert time.monotonic() - started < 5


def test_a_cache_works_from_the_command_line_and_stays_below_its_limit(
    run: Run, arguments: dict[str, Any], tmp_path: Path
) -> None:
    given = [text for pair in arguments.items() for text in pair]
    plain = run("compare", *given, "--out", "plain", "--quiet")
    cached = run("compare", *given, "--out", "cached", "--quiet", "--cache", "kept")
    again = run("compare", *given, "--out", "again", "--quiet", "--cache", "kept")
    assert (plain.status, cached.status, again.status) == (0, 0, 0), cached.err
    assert list((tmp_path / "kept").glob("*.safetensors"))
    summaries = {(tmp_path / out / "summary.csv").read_bytes() for out in ("plain", "cached", "again")}
    assert len(summaries) == 1
    (tmp_path / "kept" / "other").mkdir()
    (tmp_path / "kept" / "other" / "mine.bin").write_bytes(bytes(1 << 20))
    limit = (1 << 20) / 2**30
    assert run("compare", *given, "--seed", 1, "--out", "full", "--cache", "kept", "--cache-limit", limit).status == 0
    assert not list((tmp_path / "kept").glob("*.safetensors"))  # what is not the cache's counts, and stays
    assert (tmp_path / "kept" / "other" / "mine.bin").exists()
