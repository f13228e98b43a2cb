"""Whole studies: before and after, as foretold, and what caches are worth. Wall-clock seconds, all threads, after imports."""

import contextlib
import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from shapes import TOY, Shape

import neuron_vs_sae as nvs
from neuron_vs_sae.execution.cache import Cache
from neuron_vs_sae.running.checks import check
from neuron_vs_sae.running.machine import Machine
from neuron_vs_sae.studies.study import make_study, with_defaults

SMALL = {"task": ("world:ioi,template=0",), "basis": ("mlp_neurons", "sae"), "method": ("relp",),
         "examples": 8, "eval_examples": 4, "sizes": (0, 10, 50), "resamples": 100}  # fmt: skip


def study_of(shape: Shape, **settings: Any) -> nvs.Study:
    return make_study(with_defaults({**(SMALL if shape is TOY else {}), **settings}), "the benchmark")


@contextlib.contextmanager
def threads() -> Iterator[None]:
    """As many as a study takes where nobody says otherwise."""
    before = torch.get_num_threads()
    torch.set_num_threads(os.cpu_count() or 1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def timed(work: Callable[[], Any]) -> tuple[float, float]:
    """(wall-clock seconds, CPU seconds)."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def whole(shape: Shape) -> str:
    """The default study as it is, as foretold, and as it was."""
    study = study_of(shape)
    with threads(), tempfile.TemporaryDirectory() as folder:
        foretold: list[float] = []
        looked = timed(lambda: foretold.append(check(study).seconds))
        started = time.perf_counter()
        model = nvs.load_model(study.model)
        loading = time.perf_counter() - started
        after = timed(lambda: nvs.compare(study, f"{folder}/after", model=model))

        def one_basis_at_a_time() -> None:
            for i, basis in enumerate(study.basis):
                alone = study_of(shape, basis=(basis,))
                nvs.compare(alone, f"{folder}/before{i}", machine=Machine(engine="exact"), model=model)

        before = timed(one_basis_at_a_time)
        now = nvs.load(f"{folder}/after").curves
        columns = ["task", "basis", "method", "run", "size", "prompt"]
        then = [nvs.load(f"{folder}/before{i}").curves for i in range(len(study.basis))]
        off = max(
            float(np.abs(both["value_x"] - both["value_y"]).max())
            for both in (now.merge(old, on=columns) for old in then)
        )
    guess = foretold[0] / after[0]
    reached = "met" if 0.5 <= guess <= 2 else "MISSED"
    return f"""## The default study

{len(study.task)} tasks, {len(study.basis)} bases, {len(study.method)} methods, {study.examples} + {study.eval_examples} pairs,
{os.cpu_count()} threads.

| | wall-clock s | CPU s |
|---|---:|---:|
| before: `--engine exact`, a pass of every method for each basis | {before[0]:.0f} | {before[1]:.0f} |
| after | {after[0]:.0f} | {after[1]:.0f} |
| `nvs check` | {looked[0]:.0f} | {looked[1]:.0f} |
| loading the model | {loading:.1f} | |

- {before[1] / after[1]:.1f} times fewer CPU seconds. (*Before* already shares corrupt and clean runs between the methods of a basis.)
- Largest difference between the two in any prompt's metric: {off:.1e} (where bases are scored apart, scores differ in rounding,
  so nodes of equal score may swap).
- `nvs check` foretold {foretold[0]:.0f} s: {guess:.2f} of what it took; target 0.5 to 2, **{reached}**."""


def caches(shape: Shape) -> str:
    """One task of the default study: sharing within the run taken away, there, and read from disk."""
    study = study_of(shape, task=("world:ioi,template=0",))
    model = nvs.load_model(study.model)
    with threads(), tempfile.TemporaryDirectory() as folder:
        disk = Machine(cache=Path(folder) / "cache")

        def compare(name: str, machine: Machine) -> tuple[float, float]:
            return timed(lambda: nvs.compare(study, f"{folder}/{name}", machine=machine, model=model))

        compare("warm", Machine())
        with patch.object(Cache, "get", lambda self, name, tokens, make: make()):
            none = compare("none", Machine())
        rows = {
            "nothing shared": none,
            "shared in memory (the default)": compare("memory", Machine()),
            "`--cache`, first run": compare("first", disk),
            "`--cache`, second run": compare("second", disk),
        }
        size = sum(file.stat().st_size for file in (Path(folder) / "cache").glob("*.safetensors")) / 2**20
    shown = "\n".join(f"| {name} | {wall:.1f} | {cpu:.1f} |" for name, (wall, cpu) in rows.items())
    return f"""## Caches

One task of the default study, {len(study.basis)} bases, {len(study.method)} methods.

| | wall-clock s | CPU s |
|---|---:|---:|
{shown}

What is kept takes {size:.0f} MiB on disk. It holds what the plain model gives: activations at the hooks that are read, and the
fast engine's run of the model. Units are not kept: encoding the few that a circuit lists is cheaper than reading all. The empty
circuit's run is not kept: it differs in rounding with those units. Peak memory so far {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB."""


STUDIES: dict[str, Any] = {"study": whole, "caches": caches}
