"""Text stays text wherever it is shown; long inputs take what they should; a request to end is obeyed and loses nothing."""

import json
import os
import shlex
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import toys
from conftest import Run
from filelock import FileLock

import neuron_vs_sae as nvs
from neuron_vs_sae.catalog.bases import random_sae as control
from neuron_vs_sae.catalog.dictionaries import diagnosis
from neuron_vs_sae.catalog.rows.records import LONGEST_ROW, records
from neuron_vs_sae.cli.console import ERR, OUT, show_text
from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.core.tokenizing import tokenize
from neuron_vs_sae.report.again import commands
from neuron_vs_sae.report.escaping import in_terminal

ESCAPE = "\x1b]0;owned\x07\x1b[2Jname\u202e\x9b31m"


@pytest.mark.parametrize(
    ("field", "value"),
    [("code", "0123abcd\nrm -rf ~"), ("code", "$(rm -rf ~)"), ("code", "x\nrm -rf ~+"), ("device", "cpu; rm -rf ~"),
     ("batch_size", "64; rm -rf ~"), ("neuron_vs_sae", "1.0\nrm -rf ~")],
)  # fmt: skip
def test_the_commands_that_reproduce_a_result_hold_no_one_elses_command(field: str, value: str) -> None:
    made_by = {"versions": {"neuron_vs_sae": "1.0"}, "code": "0123abcd", "device": "cpu", "batch_size": 64}
    made_by |= {"versions": {field: value}} if field == "neuron_vs_sae" else {field: value}
    found: Any = SimpleNamespace(record={"provenance": made_by})
    text = commands(found)
    programs = [shlex.split(line, comments=True)[:1] for line in text.splitlines()]
    assert [program for program in programs if program] in (
        [["git"], ["pip"], ["nvs"]],
        [["pip"], ["nvs"]],
    )
    assert not [word for line in text.splitlines() for word in shlex.split(line, comments=True) if word in ("rm", ";")]


def test_a_name_commands_no_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    assert in_terminal(ESCAPE) == "[U+001B]]0;owned[U+0007][U+001B][2Jname[U+202E][U+009B]31m"
    assert in_terminal("two\nlines\tof text") == "two\nlines\tof text"
    for stream in (OUT, ERR):
        stream.print(ESCAPE)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    show_text(ESCAPE)
    shown = capsys.readouterr()
    assert "\x1b" not in shown.out + shown.err
    assert run("table", ESCAPE).err.count("\x1b") == 0


def test_a_line_longer_than_any_pair_is_refused_without_being_read(tmp_path: Path) -> None:
    file = tmp_path / "long.jsonl"
    with file.open("wb") as stream:
        stream.truncate(20_000_000)  # a line of twenty million NULs
    started = time.monotonic()
    with pytest.raises(InputError, match=rf"row 1: it is longer than {LONGEST_ROW:,} bytes"):
        list(records(file, "auto"))
    assert time.monotonic() - started < 1


def test_the_tokenizer_is_given_a_thousand_rows_at_a_time(tokenizer: Any) -> None:
    """One call for all keeps gigabytes of a file of 100,000 rows: 2.4, where this takes .25."""
    sizes: list[int] = []

    class Counting:
        def __getattr__(self, name: str) -> Any:
            return getattr(tokenizer, name)

        def __call__(self, texts: list[str], **options: Any) -> Any:
            sizes.append(len(texts))
            return tokenizer(texts, **options)

    row = {"clean": "ann saw a cat", "corrupt": "bob saw a cat", "answer": " she", "foil": " he"}
    rows = [{**row, "clean": f"ann saw a cat {i}", "corrupt": f"bob saw a cat {i}"} for i in range(3000)]
    assert len(tokenize(Counting(), rows)) == 3000
    assert len(sizes) == 3
    assert max(sizes) <= 4 * 1024


@pytest.mark.parametrize(("positions", "seen", "searched"), [(6, 32, 32), (100, 20, 5), (600, 3, 1), (5000, 1, 1)])
def test_of_long_prompts_an_sae_is_looked_at_on_some(positions: int, seen: int, searched: int) -> None:
    class Prompts(SimpleNamespace):
        def __len__(self) -> int:
            return 40

        def take(self, rows: range) -> range:
            return rows

    prompts: Any = Prompts(positions=positions)
    assert len(diagnosis._first(prompts, 32, diagnosis._SEEN)) == seen
    assert len(diagnosis._first(prompts, seen, diagnosis._SEARCHED)) == searched


def test_the_search_for_a_wrong_site_says_what_it_looked_at(llama: Any) -> None:
    made = toys.sae("blocks.0.hook_mlp_out", seed=0)
    made.W_dec.data *= 100
    basis = nvs.bases.sae(llama, source=[made])
    with pytest.raises(InputError, match=r"Other places were tried on the 32 tokens of the first 8 of the prompts"):
        diagnosis.reconstruction(llama, basis, toys.pairs(8, 4))


def test_a_control_is_calibrated_on_no_more_tokens_than_memory_holds(
    llama: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [toys.sae("blocks.0.hook_mlp_out", seed=0)]
    pairs = toys.pairs(8, 5)
    some = pairs.take([0, 4])
    expected = nvs.bases.random_sae(llama, source=made, prompts=some)
    monkeypatch.setattr(sys.modules[control.__module__], "_TOKENS", 20)  # two of eight pairs of ten tokens
    limited = nvs.bases.random_sae(llama, source=made, prompts=pairs)
    assert limited.provenance["l0"] == expected.provenance["l0"]
    y = torch.ones(1, toys.D_MODEL, dtype=torch.float64)
    assert torch.equal(limited.dictionaries[0].encode(y), expected.dictionaries[0].encode(y))


def test_a_request_to_end_is_obeyed_with_one_message_and_loses_nothing(
    checkpoint: Path, task_files: tuple[Path, Path], tmp_path: Path
) -> None:
    script = textwrap.dedent("""
        import os, signal, sys
        from neuron_vs_sae.running import runner
        compute, begun = runner.compute_step, []

        def stopped(step, place):
            if begun:
                os.kill(os.getpid(), signal.SIGTERM)
            begun.append(step)
            compute(step, place)

        if sys.argv.pop(1) == "stop":
            runner.compute_step = stopped
        from neuron_vs_sae.cli.commands import main
        main()
    """)
    given = ["compare", "--model", checkpoint, "--task", task_files[0], "--eval-task", task_files[1], "--examples", 8,
             "--eval-examples", 6, "--basis", "mlp_neurons", "--sizes", "1,5", "--resamples", 100, "--out", tmp_path / "out"]  # fmt: skip

    def ended(how: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-c", script, how, *map(str, given)], env={**os.environ, "OMP_NUM_THREADS": "1"},
                              capture_output=True, text=True, timeout=120, check=False)  # fmt: skip

    stopped = ended("stop")
    assert stopped.returncode == 1
    assert "nvs: interrupted; what is finished is kept" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    assert len(list((tmp_path / "out" / ".unfinished").rglob("scores.json"))) == 1
    assert json.loads((tmp_path / "out" / "study.json").read_text())["finished"] is False
    FileLock(tmp_path / "out" / ".lock").acquire(timeout=0).lock.release()
