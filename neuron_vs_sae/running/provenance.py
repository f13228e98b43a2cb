"""What produced a result's numbers: hashes of inputs, versions, commits; and whether a folder's study is the same."""

import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from neuron_vs_sae.catalog.dictionaries.sources import SAE_FILES
from neuron_vs_sae.core.errors import FolderError, InputError
from neuron_vs_sae.core.lookup import paths
from neuron_vs_sae.core.reading import check_regular, exists
from neuron_vs_sae.models.names import model_commit
from neuron_vs_sae.models.presets import located
from neuron_vs_sae.running.machine import Machine
from neuron_vs_sae.studies.record import LAYOUT, read_record
from neuron_vs_sae.studies.spec import CommonSpec, looks_like_file

_NUMBERS_COME_FROM = ("neuron_vs_sae", "torch", "transformer-lens", "sae-lens")


def identify(spec: CommonSpec) -> dict[str, str]:
    """What the study reads: a hash of every local input, by the name it was given, and the versions of the code behind the numbers.

    Only what names a source is looked for on the disk: a folder that bears a task's or a site's name is none of it. Of a model's
    folder the files that lie in it count, of a folder of SAEs their configurations and weights: results may lie below either.
    Raises `InputError` for a task's file that is not there, and for one that cannot be read.
    """
    versions = {package: version(package) for package in _NUMBERS_COME_FROM}
    return versions | {name: _digest(name, files) for name, files in inputs_of(spec).items()}


def inputs_of(spec: CommonSpec) -> dict[str, list[Path]]:
    """The files that the study reads, by the name of the file or folder that it is given. Raises `InputError` as `identify` does."""
    files = {text: [Path(text)] for text in (*spec.task, *spec.eval_task) if looks_like_file(text)}
    for file in files:
        if not exists(Path(file)):
            raise InputError(f"{file} cannot be read: there is no such file")
    files |= {str(path): [path] for path in spec.read if exists(path) and not path.is_dir()}
    folder = located(spec.model)
    if exists(folder) and folder.is_dir():
        files[spec.model] = [path for path in folder.iterdir() if not path.is_dir()]
    for text in spec.basis:
        for place, below in _places(paths("bases", text)).items():
            both = [path.with_name(name) for path in below for name in SAE_FILES]  # where one of them is named
            files[place] = [path for path in dict.fromkeys(both) if exists(path)]
    for text in (*spec.task, *spec.eval_task):
        if not looks_like_file(text):
            files |= _places(paths("tasks", text))
    return files


def _places(given: Sequence[str]) -> dict[str, list[Path]]:
    """The files of every file or folder among these, by its name; sources may be joined by `+`."""
    named = [part for text in given for part in dict.fromkeys((text, *text.split("+"))) if part]
    there = {text: located(text) for text in named if exists(located(text))}
    return {
        text: [f for f in place.rglob("*") if not f.is_dir()] if place.is_dir() else [place]
        for text, place in there.items()
    }


def check_out(spec: CommonSpec, folder: Path) -> None:
    """Raises `InputError` where results would lie among the files that the study reads, and so make it another study."""
    out, model = folder.resolve(), located(spec.model)
    sources = [
        path for text in (*spec.task, *spec.eval_task) if not looks_like_file(text) for path in paths("tasks", text)
    ]
    within = [source for source in sources if out.is_relative_to(Path(source).resolve())]
    if within or out == model.resolve():
        raise InputError(
            f"results in {folder} (--out) would lie among the files of {[*within, spec.model][0]}, which the study reads: choose "
            "another folder"
        )


def identity(spec: CommonSpec, inputs: dict[str, str]) -> str:
    """16 hexadecimal digits that identify a study and everything it reads."""
    text = json.dumps([LAYOUT, spec.key, sorted(inputs.items())])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _digest(name: str, files: Sequence[Path]) -> str:
    """The SHA-256 of the files' names, within the folder of that name, and contents."""
    digest = hashlib.sha256()
    place = located(name)
    for file in sorted(files):
        check_regular(file)
        digest.update(os.fsencode(file.relative_to(place) if file.is_relative_to(place) else file.name))
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
