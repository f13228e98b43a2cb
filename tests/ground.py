"""What the fuzzer starts from: a small model, SAEs, a task, a finished study and a cache; and how a command is run and judged."""

import contextlib
import io
import json
import os
import shutil
import signal
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import toys
from checkpoints import D_MODEL, checkpoint

from neuron_vs_sae.cli import commands

LIMIT = 60
"""Seconds after which a command is taken to hang."""


@dataclass(frozen=True)
class Ended:
    """How a command ended: its status (None: it was stopped at `LIMIT`), what it printed, and how long it took."""

    status: int | None
    out: str
    err: str
    seconds: float


def build(folder: Path) -> Path:
    """`model`, `saes`, `pairs.jsonl`, `results` (a finished study of these) and `cache` (of that study), in the folder."""
    checkpoint(folder / "model", "llama")
    some = torch.eye(D_MODEL, 20)
    for layer in range(2):  # each coordinate by a unit that is shifted far enough to be active always
        hook = f"blocks.{layer}.hook_mlp_out"
        sae = toys.sae(hook, d=D_MODEL, width=20, seed=layer, dtype="float32").float()
        sae.W_enc.data, sae.W_dec.data = some.clone(), some.T.contiguous()
        sae.b_enc.data, sae.b_dec.data = (
            torch.where(torch.arange(20) < D_MODEL, 0.0, -1.0),
            torch.full((D_MODEL,), -30.0),
        )
        sae.save_model(folder / "saes" / hook)
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows()))
    with at(folder):
        for arguments in ([], ["--cache", "cache", "--overwrite"]):
            ended = run(command(*arguments))
            assert ended.status == 0, ended.err
    return folder


def rows() -> list[dict[str, Any]]:
    """Pairs of the model's words."""
    return [
        {"clean": f"w{a} w{b} w3", "corrupt": f"w{a + 9} w{b} w3", "answer": " w5", "foil": " w6", "second": f"w{b}"}
        for a in range(2, 6) for b in range(2, 9)
    ]  # fmt: skip


def command(*more: Any) -> list[str]:
    """The study of `results`, with further options."""
    given = ["compare", "--model", "model", "--task", "pairs.jsonl", "--examples", 8, "--eval-examples", 4, "--basis", "mlp_neurons",
             "--basis", "sae:saes", "--sizes", "1,5", "--resamples", 100, "--sign-flips", 1000, "--out", "results", "--quiet"]  # fmt: skip
    return [str(part) for part in (*given, *more)]


@contextlib.contextmanager
def at(folder: Path) -> Iterator[None]:
    """In that folder."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


@contextlib.contextmanager
def copied(ground: Path, folder: Path, *names: str) -> Iterator[None]:
    """In a folder of copies of these parts of the ground, which is removed afterwards."""
    folder.mkdir(parents=True)
    for name in names:
        (shutil.copytree if (ground / name).is_dir() else shutil.copy)(ground / name, folder / name)
    try:
        with at(folder):
            yield
    finally:
        shutil.rmtree(folder)


class _Hangs(BaseException):
    pass


def run(arguments: list[str]) -> Ended:
    """`nvs` with these arguments, in this process."""
    out, err, started = io.StringIO(), io.StringIO(), time.monotonic()
    status: int | None = None

    def stop(*_: Any) -> None:
        raise _Hangs

    before = sys.argv, signal.signal(signal.SIGALRM, stop), signal.getsignal(signal.SIGTERM)
    sys.argv = ["nvs", *arguments]
    signal.alarm(LIMIT)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                commands.main()
            except SystemExit as ended:
                status = int(ended.code or 0)
    except _Hangs:
        status = None
    finally:
        signal.alarm(0)
        sys.argv = before[0]
        signal.signal(signal.SIGALRM, before[1])
        signal.signal(signal.SIGTERM, before[2])
    return Ended(status, out.getvalue(), err.getvalue(), time.monotonic() - started)


def tree() -> dict[str, int]:
    """Every file and folder here, with the sizes of files; a lock is no file of anyone's."""
    return {
        str(path): path.lstat().st_size if path.is_file() else -1
        for path in sorted(Path().rglob("*"))
        if path.name != ".lock"
    }
