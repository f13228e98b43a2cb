"""Two thousand spoilt inputs in one process, then kills, full disks, two writers and memory limits: `make fuzz`.

python tests/robustness/fuzz.py --out results/robustness.md
python tests/robustness/fuzz.py --cases 100 --kills 5 --others 2
"""

import argparse
import contextlib
import itertools
import os
import random
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]

import torch  # noqa: E402
from fuzzing import KINDS, Figures, case  # noqa: E402
from ground import Ended, at, build, command, copied, run  # noqa: E402
from hypothesis import HealthCheck, given, seed, settings, strategies as st  # noqa: E402

from neuron_vs_sae.core import files  # noqa: E402
from neuron_vs_sae.report import circuits  # noqa: E402
from neuron_vs_sae.studies.result import Result  # noqa: E402

PARTS = ("model", "saes", "pairs.jsonl")
MEBIBYTE = 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--others", type=int, default=20, help="full disks, pairs of writers and memory limits, each")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=60, help="no further case is begun after so many")
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        ground = build(Path(temporary) / "ground")
        circuits.write_curves_pdf = without_figures
        figures = fuzzed(ground, Path(temporary), chosen.cases, chosen.seed, started + 60 * chosen.minutes)
        interrupted = {
            "killed at a random moment": endings(ground, Path(temporary), chosen.kills, chosen.seed, killed),
            "disk full at a random size": endings(ground, Path(temporary), chosen.others, chosen.seed, full_disk),
            "two writers at once": endings(ground, Path(temporary), chosen.others, chosen.seed, two_writers),
            "memory limited": endings(ground, Path(temporary), chosen.others, chosen.seed, short_of_memory),
        }
    text = page(figures, interrupted, chosen.seed, time.monotonic() - started)
    print(text)
    if chosen.out:
        chosen.out.write_text(text, encoding="utf-8")
    sys.exit(bool(figures.wrong or any(counts["wrong"] for counts in interrupted.values())))


def without_figures(result: Result) -> None:
    """`curves.pdf` is half the time of a small study, and no case is about it: it is empty."""
    files.write_text(result.folder / "curves.pdf", "")


class _TimeIsUp(KeyboardInterrupt):
    """Not an error of a case, so that hypothesis does not look into it."""


def fuzzed(ground: Path, folder: Path, cases: int, chosen_seed: int, until: float) -> Figures:
    """The cases, in this process; what is wrong is printed, and the next one follows."""
    figures, number = Figures(), itertools.count()

    @seed(chosen_seed)
    @settings(max_examples=cases, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def draw_one(data: st.DataObject) -> None:
        if time.monotonic() > until:
            raise _TimeIsUp
        try:
            case(data.draw, ground, folder / f"case{next(number)}", figures)
        except AssertionError as fault:
            print(fault, file=sys.stderr, flush=True)

    with contextlib.suppress(_TimeIsUp):
        draw_one()
    return figures


Interruption = Callable[[random.Random, float], Counter[str]]


def endings(ground: Path, folder: Path, times: int, chosen_seed: int, interrupt: Interruption) -> Counter[str]:
    """A study interrupted so often, each time finished afterwards by the same command; `wrong` where its numbers are not the right ones."""
    right = (ground / "results" / "curves.parquet").read_bytes()
    draw, counts = random.Random(chosen_seed), Counter({"times": times})
    with copied(ground, folder / "timed", *PARTS):
        seconds = _in_child(command("--out", "out")).seconds
    for i in range(times):
        with copied(ground, folder / f"{interrupt.__name__}{i}", *PARTS):
            counts += interrupt(draw, seconds)
            ended = _in_child(command("--out", "out"))
            left = list(Path("out").rglob("*.partial"))
            sound = ended.status == 0 and Path("out/curves.parquet").read_bytes() == right and not left
            counts["wrong"] += not sound
            if not sound:
                print(f"{interrupt.__name__}: status {ended.status}, {left}\n{ended.err}", file=sys.stderr, flush=True)
    return counts


def killed(draw: random.Random, seconds: float) -> Counter[str]:
    """SIGKILL, some time before the study would have ended, while the page is written too."""
    child = _begun(command("--out", "out"))
    time.sleep(draw.uniform(0, seconds))
    os.kill(child, signal.SIGKILL)
    return Counter({"in time": os.waitpid(child, 0)[1] == signal.SIGKILL})


def full_disk(draw: random.Random, seconds: float) -> Counter[str]:
    """The system refuses to write a file beyond a size, as it does on a full disk."""
    size = draw.randint(0, 60_000)
    ended = _in_child(command("--out", "out"), lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)))
    refused = ended.status == 2 and ended.err.count("nvs:") == 1
    return Counter({"refused": refused, "wrong": ended.status != 0 and not refused})


def two_writers(draw: random.Random, seconds: float) -> Counter[str]:
    """The same study into the same folder from two processes: one writes it, the other is refused or finds it finished."""
    first = _begun(command("--out", "out"))
    time.sleep(draw.uniform(0, seconds / 2))
    second = _in_child(command("--out", "out"))
    status = os.waitstatus_to_exitcode(os.waitpid(first, 0)[1])
    refused = (second.status == 2) + (status == 2)
    return Counter({"refused": refused, "wrong": {status, second.status} - {0, 2} != set() or refused == 2})


def short_of_memory(draw: random.Random, seconds: float) -> Counter[str]:
    """The process may take a little more memory than it has."""
    with open("/proc/self/statm", encoding="ascii") as file:
        taken = int(file.read().split()[0]) * resource.getpagesize()
    limit = taken + draw.randint(0, 64) * MEBIBYTE
    ended = _in_child(command("--out", "out"), lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)))
    refused = ended.status in (1, 2) and ended.err.count("nvs:") == 1 and "Traceback" not in ended.err
    return Counter({"refused": refused, "wrong": ended.status != 0 and not refused})


def _begun(arguments: list[str], before: Callable[[], None] = lambda: None) -> int:
    """A process of its own that runs `nvs` with these arguments, and writes how it ended into `ended`."""
    child = os.fork()
    if child == 0:
        status = 70
        try:
            before()
            ended = run(arguments)
            status = 71 if ended.status is None else ended.status
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.getrlimit(resource.RLIMIT_FSIZE)[1],) * 2)
            os.write(2, b"") if status == 0 else Path(f"../{os.getpid()}").write_text(ended.err)
        except OSError:  # its disk is full: what it said is lost, and its status says the rest
            pass
        finally:
            os._exit(status)
    return child


def _in_child(arguments: list[str], before: Callable[[], None] = lambda: None) -> Ended:
    started = time.monotonic()
    child = _begun(arguments, before)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    said = Path(f"../{child}")
    text = said.read_text() if said.exists() else "nvs: (not kept)" if status == 2 else ""
    said.unlink(missing_ok=True)
    return Ended(status, "", text, time.monotonic() - started)


def page(figures: Figures, interrupted: dict[str, Counter[str]], chosen_seed: int, seconds: float) -> str:
    """The figures as Markdown."""
    total = {name: sum(count for (_, fault), count in figures.wrong.items() if fault == name) for name in _FAULTS}
    lines = [
        "# Robustness", "",
        f"Made by `make fuzz` (`tests/robustness/fuzz.py`, seed {chosen_seed}) in {seconds / 60:.0f} minutes on one core. A case is a study that works, one part of "
        "which is spoilt: a task file, the settings, the command line, a file of the model or of an SAE, a file of a finished result, an "
        "entry of a cache. It must end with status 0 or 2 and one message, within a minute, leave nothing where it was refused, and give no "
        "numbers but the right ones where its values were damaged.", "",
        f"{sum(figures.cases.values())} cases in one process: {', '.join(f'{count} {_FAULTS[name]}' for name, count in total.items())}; the slowest took {figures.slowest:.1f} s.", "",
        "| part that is spoilt | cases | refused | wrong |", "|---|---:|---:|---:|",
        *(f"| {kind} | {figures.cases[kind]} | {figures.refused[kind]} | {sum(n for (k, _), n in figures.wrong.items() if k == kind)} |" for kind in KINDS), "",
        "Studies that are interrupted, each finished afterwards by the same command. Right: the same bytes of `curves.parquet` as without an "
        "interruption, and no half-written file.", "",
        "| interruption | times | took effect | wrong |", "|---|---:|---:|---:|",
        *(f"| {name} | {n['times']} | {n['in time'] + n['refused']} | {n['wrong']} |" for name, n in interrupted.items()), "",
    ]  # fmt: skip
    return "\n".join(lines)


_FAULTS = {"traceback": "tracebacks", "silent": "silent", "hang": "hangs", "leftover": "leftovers"}


if __name__ == "__main__":
    with at(Path.cwd()):
        main()
