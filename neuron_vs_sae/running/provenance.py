"""What produced a result's numbers: hashes of inputs, versions, commits; and whether a folder's study is the same."""

import hashlib
import json
import platform
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from neuron_vs_sae.core.errors import FolderError, InputError
from neuron_vs_sae.core.lookup import parse
from neuron_vs_sae.models.names import model_commit
from neuron_vs_sae.models.presets import located
from neuron_vs_sae.running.machine import Machine
from neuron_vs_sae.studies.record import LAYOUT, read_record
from neuron_vs_sae.studies.spec import CommonSpec, looks_like_file

_NUMBERS_COME_FROM = ("neuron_vs_sae", "torch", "transformer-lens", "sae-lens")


def identify(spec: CommonSpec) -> dict[str, str]:
    """What the study reads: a hash of every local input, by the name it was given, and the versions of the code behind the numbers.

    Raises `InputError` for a task's file that is not there.
    """
    files = [text for text in (*spec.task, *spec.eval_task) if looks_like_file(text)]
    for file in files:
        if not Path(file).is_file():
            raise InputError(f"{file} cannot be read: there is no such file")
    named = [parse("tasks", text) for text in (*spec.task, *spec.eval_task) if text not in files]
    options = [
        value for part in (*named, *(parse("bases", text) for text in spec.basis)) for value in part.options.values()
    ]
    versions = {package: version(package) for package in _NUMBERS_COME_FROM}
    named_here = [part for text in options for part in dict.fromkeys((text, *text.split("+")))]  # sources joined by +
    places = {text: located(text) for text in (spec.model, *files, *named_here)}
    return versions | {text: _digest(place) for text, place in places.items() if place.exists()}


def identity(spec: CommonSpec, inputs: dict[str, str]) -> str:
    """16 hexadecimal digits that identify a study and everything it reads."""
    text = json.dumps([LAYOUT, spec.key, sorted(inputs.items())])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    files = [path] if path.is_file() else sorted(f for f in path.rglob("*") if f.is_file())
    for file in files:
        digest.update(str(file.relative_to(path)).encode())
        with file.open("rb") as stream:
            while chunk := stream.read(1 << 22):
                digest.update(chunk)
    return digest.hexdigest()


def provenance(spec: CommonSpec, model: Any, machine: Machine) -> dict[str, Any]:
    """When and with what the study is run: versions, code revision, the hub's commit of the model where it is known, device, dtype, threads."""
    packages = (*_NUMBERS_COME_FROM, "transformers", "numpy", "scipy")
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {p: version(p) for p in packages},
        "code": _revision(),
        "model_commit": model_commit(spec.model, spec.revision),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": str(next(model.parameters()).device),
        "dtype": str(model.cfg.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "batch_size": machine.batch_size,
    }


def _revision() -> str | None:
    """The package's git commit, followed by `+` where files differ from it; None outside a checkout."""
    here = Path(__file__).parent
    try:
        commit = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, timeout=10, check=True
        )
        status = subprocess.run(
            ["git", "status", "--porcelain", "."], cwd=here, capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return commit.stdout.strip() + ("+" if status.stdout.strip() else "")


def resumable(folder: Path, spec: CommonSpec, inputs: dict[str, str], files: Sequence[str]) -> dict[str, Any] | None:
    """The record of this study in the folder, None where there is none yet; `files` are what a finished one holds.

    Raises `FolderError` for another study's, or for such files without a record.
    """
    record = read_record(folder, type(spec))
    if record is None:
        foreign = [name for name in files if (folder / name).exists()]
        if foreign:
            raise FolderError(
                f"{folder} holds {', '.join(foreign)} without the study that made them (study.json): choose another folder "
                "(--out), or pass --overwrite to replace them"
            )
        return None
    mine, theirs = spec.model_dump(mode="json"), record["study"]
    differing = [name for name in mine if mine[name] != theirs.get(name)]
    for name in sorted({*inputs, *record["inputs"]}):
        if inputs.get(name) != record["inputs"].get(name):
            differing.append(f"the {'version' if name in _NUMBERS_COME_FROM else 'contents'} of {name}")
    if differing:
        raise FolderError(
            f"{folder} holds another study (it differs in: {', '.join(differing)}): choose another folder (--out), "
            "or pass --overwrite to replace it"
        )
    return record


def check_the_same_commits(folder: Path, begun: dict[str, Any], now: dict[str, Any]) -> None:
    """Raises `FolderError` where a study would go on with another model or other SAEs than it began with: a branch of the hub moves."""
    before, after = _commits(begun), _commits(now)
    for name in before:
        if before[name] != after.get(name):
            raise FolderError(
                f"{folder} holds this study unfinished, begun with commit {before[name]} of {name}; the hub's is now {after.get(name)}. "
                "Pin the one you want (--revision, or revision= of a basis), choose another folder (--out), or pass --overwrite"
            )


def _commits(record: dict[str, Any]) -> dict[str, Any]:
    """The hub's commit of the model and of every SAE, by what it is called in messages."""
    of_bases = {
        f"{task}/{basis}, {part['name']}": part.get("commit")
        for task, bases in record["bases"].items()
        for basis, facts in bases.items()
        for part in facts.get("saes", facts.get("like", []))
    }
    return {"the model": record["provenance"]["model_commit"], **of_bases}
