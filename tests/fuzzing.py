"""A seeded fuzzer over task files, settings, command lines, model and SAE folders, result folders and caches.

A case is a valid study of which one part is spoilt. It must end with status 0 or 2, with one message, within a minute, leave nothing
behind where it is refused, and give no numbers but the right ones where its values were damaged.
"""

import json
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ground import Ended, command, copied, rows, run, tree
from hypothesis import strategies as st

Draw = Callable[[st.SearchStrategy[Any]], Any]

NUMBERS = st.sampled_from(
    [
        0,
        1,
        -1,
        2,
        7,
        100,
        1000,
        10**12,
        2**31,
        2**53,
        2**63,
        2**64,
        -(2**70),
        10**40,
        0.5,
        -0.0,
        1e308,
        float("nan"),
        float("inf"),
    ]
)
NAMES = st.sampled_from(
    ["", " ", ",", ":", "@", "=", "..", ".", "/", "/dev/null", "/dev/zero", "model", "saes", "pairs.jsonl", "results", "nowhere", "\u202ename",
     "\x1b[2J", "name\nsecond", "-", "--", "a" * 300, "a" * 5000, "true", "null", "mlp_neurons", "sae:", "sae:saes", "sae:nowhere",
     "sae:saes+saes", "sae:saes@hook_mlp_out,layers=9", "rotation,seed=-1", "rotation,seed=99999999999999999999", "pca,components=0",
     "random_sae:saes", "transcoder:saes", "world:ioi", "ioi", "from_file:pairs.csv", "relp", "relp,steps=0", "integrated_gradients,steps=0",
     "random,seed=x", "kl", "probability", "mean", "all", "log", "mib", "0", "1,5", "1,,5", "9" * 5000, "=cmd|' /C calc'!A0", "\udcff"]
)  # fmt: skip
TEXT = st.text(max_size=12)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT | NAMES.filter(lambda name: name.isprintable()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=4,
)
OPTIONS = (
    "--model", "--task", "--eval-task", "--basis", "--method", "--ablation", "--errors", "--metric", "--sizes", "--seed", "--examples",
    "--eval-examples", "--resamples", "--sign-flips", "--folds", "--confidence", "--margin", "--positions", "--pairing", "--rank-by",
    "--mean-source", "--split-by", "--cluster-by", "--stratify-by", "--attribution-metric", "--revision", "--dtype", "--backend",
    "--device", "--batch-size", "--max-memory", "--cache", "--cache-limit", "--engine", "--n-devices", "--config", "--no-such-option",
)  # fmt: skip


@dataclass
class Figures:
    """Per kind of case: how many there were, how they ended, and what was wrong."""

    cases: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    wrong: Counter[tuple[str, str]] = field(default_factory=Counter)
    slowest: float = 0.0


def spoil_bytes(draw: Draw, file: Path) -> None:
    """Cut, emptied, changed in a byte, written over, replaced by other text, removed, or made a folder or a pipe."""
    data = file.read_bytes() if file.is_file() else b""
    place = draw(st.integers(0, max(0, len(data) - 1)))
    how = draw(st.sampled_from(["cut", "empty", "flip", "junk", "json", "remove", "folder", "pipe", "end"]))
    file.unlink(missing_ok=True)
    if how == "folder":
        file.mkdir()
    elif how == "pipe":
        os.mkfifo(file)
    elif how == "flip" and data:
        file.write_bytes(data[:place] + bytes([data[place] ^ (1 << draw(st.integers(0, 7)))]) + data[place + 1 :])
    elif how != "remove":
        junk = draw(st.binary(max_size=40))
        text = json.dumps(draw(JSON)).encode()
        file.write_bytes(
            {"cut": data[:place], "empty": b"", "junk": data[:place] + junk, "json": text, "end": data + junk}.get(
                how, data
            )
        )


def spoil_json(draw: Draw, file: Path) -> None:
    """One key, at any depth, given another value, or taken away, or one that nobody knows added."""
    value = inner = json.loads(file.read_text(encoding="utf-8"))
    while True:
        keys = sorted(inner) if isinstance(inner, dict) else list(range(len(inner)))
        if not keys:
            break
        key = draw(st.sampled_from(keys))
        if isinstance(inner[key], (dict, list)) and inner[key] and draw(st.booleans()):
            inner = inner[key]
            continue
        if draw(st.booleans()):
            inner[key] = draw(JSON)
        else:
            del inner[key]
        break
    file.write_text(json.dumps(value), encoding="utf-8")


def spoil_row(draw: Draw, row: dict[str, Any]) -> None:
    """Text, types or tokens of one pair."""
    key = draw(st.sampled_from([*row, "new"]))
    how = draw(st.sampled_from(["value", "remove", "longer", "same", "bos", "unknown"]))
    if how == "remove":
        row.pop(key, None)
    elif how == "value":
        row[key] = draw(JSON)
    elif how == "same":
        row["corrupt"] = row["clean"]
    else:
        row[key] = str(row.get(key, "")) + {"longer": " w7", "bos": " <s>", "unknown": " \u4e2d"}[how]


def flip(draw: Draw, file: Path) -> None:
    """One bit of the file."""
    data = bytearray(file.read_bytes())
    data[draw(st.integers(0, len(data) - 1))] ^= 1 << draw(st.integers(0, 7))
    file.write_bytes(data)


def files_below(folder: str) -> list[Path]:
    return sorted(path for path in Path(folder).rglob("*") if path.is_file() and path.name != ".lock")


def fresh(*more: Any) -> list[str]:
    """The study, into a folder that is not there."""
    return [*command(*more), "--out", "out"]


def of_task(draw: Draw) -> list[str]:
    pairs = rows()
    for _ in range(draw(st.integers(1, 2))):
        spoil_row(draw, pairs[draw(st.integers(0, len(pairs) - 1))])
    Path("pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs), encoding="utf-8")
    if draw(st.integers(0, 3)) == 0:
        spoil_bytes(draw, Path("pairs.jsonl"))
    return fresh()


def of_command(draw: Draw) -> list[str]:
    more: list[str] = []
    for option in draw(st.lists(st.sampled_from(OPTIONS), min_size=1, max_size=2)):
        more += [option, str(draw(NUMBERS | NAMES))]
    return fresh(*more) if draw(st.booleans()) else ["check", *fresh(*more)[1:-2]]


def of_settings(draw: Draw) -> list[str]:
    from neuron_vs_sae.studies.study import Study

    names = draw(st.lists(st.sampled_from([*Study.model_fields, "model_", ""]), min_size=1, max_size=3, unique=True))
    base = {
        "model": "model",
        "task": "pairs.jsonl",
        "basis": "mlp_neurons",
        "examples": 8,
        "eval_examples": 4,
        "sizes": "1,5",
        "resamples": 100,
    }
    lines = {**base, **{name: draw(JSON) for name in names}}
    Path("study.toml").write_text(
        "".join(f"{name} = {json.dumps(value)}\n" for name, value in lines.items()), encoding="utf-8"
    )
    if draw(st.integers(0, 4)) == 0:
        spoil_bytes(draw, Path("study.toml"))
    return ["compare", "--config", "study.toml", "--out", "out", "--quiet"]


def of_folder(folder: str) -> Callable[[Draw], list[str]]:
    def spoil(draw: Draw) -> list[str]:
        file = draw(st.sampled_from(files_below(folder)))
        if file.suffix == ".json" and draw(st.booleans()):
            spoil_json(draw, file)
        else:
            spoil_bytes(draw, file)
        return fresh()

    return spoil


def of_result(draw: Draw) -> list[str]:
    file = draw(st.sampled_from(files_below("results")))
    if file.name == "study.json" and draw(st.booleans()):
        spoil_json(draw, file)
    else:
        spoil_bytes(draw, file)
    return draw(
        st.sampled_from(
            [["table", "results", "--format", "csv"], ["report", "results"], ["cite", "results"], command()]
        )
    )


def of_cache(draw: Draw) -> list[str]:
    file = draw(st.sampled_from(files_below("cache")))
    flip(draw, file) if draw(st.booleans()) else file.write_bytes(file.read_bytes()[: draw(st.integers(0, 200))])
    return fresh("--cache", "cache")


KINDS: dict[str, tuple[Callable[[Draw], list[str]], tuple[str, ...]]] = {
    "task file": (of_task, ("model", "saes", "pairs.jsonl")),
    "command line": (of_command, ("model", "saes", "pairs.jsonl")),
    "settings": (of_settings, ("model", "saes", "pairs.jsonl")),
    "model folder": (of_folder("model"), ("model", "saes", "pairs.jsonl")),
    "SAE folder": (of_folder("saes"), ("model", "saes", "pairs.jsonl")),
    "result folder": (of_result, ("model", "saes", "pairs.jsonl", "results")),
    "cache": (of_cache, ("model", "saes", "pairs.jsonl", "cache")),
}


def faults(kind: str, ended: Ended, before: dict[str, int], ground: Path) -> list[str]:
    """What is wrong with how a case ended, in the words of the report: traceback, silent, hang, leftover."""
    wrong = []
    if ended.status is None:
        wrong.append("hang")
    elif ended.status not in (0, 2) or "Traceback" in ended.err:
        wrong.append("traceback")
    elif ended.status == 2 and (not ended.err.strip() or ended.err.count("nvs:") > 1 or ended.out):
        wrong.append("silent")
    after = tree()
    if [name for name in after if name.endswith(".partial")] or (
        ended.status == 2 and kind != "result folder" and after.keys() - before.keys()
    ):
        wrong.append("leftover")
    right = _numbers(ground / "results" / "curves.parquet")
    for out in ("out", "results"):
        curves = Path(out, "curves.parquet")
        if ended.status == 0 and kind in ("result folder", "cache") and curves.exists() and _numbers(curves) != right:
            wrong.append("silent")
    return wrong


def _numbers(curves: Path) -> bytes:
    import pandas as pd

    return pd.read_parquet(curves)["value"].to_numpy().tobytes()


def case(draw: Draw, ground: Path, folder: Path, figures: Figures) -> None:
    """One case, drawn, run and judged. Raises `AssertionError` where anything is wrong with it."""
    kind = draw(st.sampled_from(list(KINDS)))
    spoil, names = KINDS[kind]
    with copied(ground, folder, *names):
        arguments = spoil(draw)
        before = tree()
        ended = run(arguments)
        wrong = faults(kind, ended, before, ground)
    figures.cases[kind] += 1
    figures.refused[kind] += ended.status == 2
    figures.slowest = max(figures.slowest, ended.seconds)
    for fault in wrong:
        figures.wrong[kind, fault] += 1
    assert not wrong, (
        f"{kind}: {', '.join(wrong)}\n{arguments}\nstatus {ended.status} after {ended.seconds:.1f} s\n{ended.err[-3000:]}"
    )
