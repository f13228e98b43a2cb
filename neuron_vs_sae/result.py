"""Results on disk: one folder per study, written whole or not at all, that says what made every number."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from filelock import FileLock, Timeout
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from neuron_vs_sae.bootstrap import band, interval
from neuron_vs_sae.curve import Curve
from neuron_vs_sae.errors import FolderError
from neuron_vs_sae.nodes import NodeIndex, NodeScores, bits
from neuron_vs_sae.resampling import Draws, Groups, draw, independent
from neuron_vs_sae.statistics import estimates
from neuron_vs_sae.study import Study, make_study

# One curve is what has one value of each of these.
CURVE = ["task", "basis", "method", "seed", "ablation", "errors"]

SUMMARY = [
    "model", "task", "basis", "site", "method", "ablation", "errors", "positions", "rank_by", "metric", "n_discovery",
    "n_eval", "size", "n_units", "n_error_nodes", "n_total", "fraction", "bits", "f_model", "f_empty", "f_circuit",
    "f_complement", "faithfulness", "completeness", "faithfulness_low", "faithfulness_high", "completeness_low",
    "completeness_high", "seed",
]  # fmt: skip

# What a finished folder holds, beside `study.json`.
FILES = (
    "curves.parquet", "scores.safetensors", "prompts.parquet", "stability.parquet", "summary.csv", "per_curve.csv",
    "verdicts.csv", "verdicts_across_tasks.csv", "stability.csv", "circuits.csv", "table.md", "table.tex", "curves.html",
    "curves.pdf", "report.html",
)  # fmt: skip
UNFINISHED = ".unfinished"
_PARTIAL = ".partial"


@dataclass(frozen=True, eq=False)
class Result:
    """A finished study: its record (`study.json`), per-prompt values (`curves.parquet`) and one row per size.

    `curves` has one row per task x basis x method x seed x ablation x errors x run x size x prompt, `run` being whole, empty
    (no size), circuit, complement or change (`Curve.change`, not a value of the metric).
    """

    folder: Path
    record: dict[str, Any]
    curves: pd.DataFrame
    summary: pd.DataFrame

    @property
    def study(self) -> Study:
        return Study(**self.record["study"])

    @property
    def stability(self) -> pd.DataFrame:
        """How much circuits agree: a row per comparison and size (`stability.py` says which). Raises `FolderError`."""
        return _table(self.folder / "stability.parquet")

    def scores(self, **values: str | int) -> NodeScores:
        """The scores of the one discovery with these values: `result.scores(task="...", basis="...", method="relp")`.

        Of several seeds the study's first, where none is named. Raises `KeyError` where it is not one.
        """
        values = {"seed": self.study.seed[0], **values}
        with safe_open(self.folder / "scores.safetensors", "pt") as file:
            described: dict[str, Any] = json.loads(file.metadata()["index"])
            found = [label for label, one in described.items() if values.items() <= one.items()]
            if len(found) != 1:
                raise KeyError(
                    f"{len(found)} discoveries match {values}; one is expected. There are: {list(described)}"
                )
            values_of_nodes = file.get_tensor(found[0])
        order = described[found[0]]["nodes"]
        index = NodeIndex(tuple(order["sites"]), tuple(order["widths"]), order["positions"], order["basis"])
        return NodeScores(index, values_of_nodes)

    def curve(self, **values: str | int) -> Curve:
        """The one curve with these values: `result.curve(task="...", basis="...", method="relp")`.

        Of several seeds the study's first, where none is named. Raises `KeyError` where it is not one.
        """
        values = {"seed": self.study.seed[0], **values}
        rows = rows_with(self.curves, **{column: value for column, value in values.items() if column in CURVE})
        found = [rows for _, rows in each_curve(rows)] if values.keys() <= set(CURVE) else []
        if len(found) != 1:
            options = {column: self.curves[column].unique().tolist() for column in CURVE}
            raise KeyError(f"{len(found)} curves match {values}; one is expected. There are: {options}")
        return to_curve(found[0])


def load(folder: Path | str) -> Result:
    """The result in a folder. Raises `FolderError` where there is none, or it is unfinished or damaged."""
    folder = Path(folder)
    record = read_record(folder)
    if record is None or not record["finished"]:
        state = "holds no study" if record is None else "holds a study that is not finished"
        raise FolderError(f"{folder} {state}: run the study's `nvs compare` (again) to the end first")
    curves = _table(folder / "curves.parquet")
    return Result(folder, record, curves, summarise(curves, Study(**record["study"])))


def _table(file: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(file)
    except (OSError, ValueError) as error:  # pyarrow's errors are ValueErrors
        raise FolderError(f"{file} is missing or damaged ({error}): run the study again with --overwrite") from error


def read_record(folder: Path) -> dict[str, Any] | None:
    """`study.json`, or None. Raises `FolderError` where it is no record of a study of this version."""
    file = folder / "study.json"
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
        if make_study(record["study"], "it").key != record["key"] or not {"inputs", "finished"} <= record.keys():
            raise ValueError("its settings are not those of its key, or it is incomplete")
        return record
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise FolderError(
            f"{file} is damaged or of another version ({type(error).__name__}: {error}): choose another folder (--out), or "
            "pass --overwrite to replace what is there"
        ) from error


def clear(folder: Path) -> None:
    """Remove what a study has left in the folder, finished or not, and nothing else."""
    for name in ("study.json", *FILES):
        (folder / name).unlink(missing_ok=True)
    if (folder / UNFINISHED).exists():
        shutil.rmtree(folder / UNFINISHED)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """The folder for one run alone. Raises `FolderError` when another run has it, or it cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock")
        lock.acquire(timeout=0)
    except Timeout:
        raise FolderError(
            f"another run is writing to {folder}: wait for it, or choose another folder (--out)"
        ) from None
    except OSError as error:
        raise FolderError(
            f"cannot write to {folder}: {error.strerror or error}. Choose another folder (--out)"
        ) from error
    try:
        for leftover in folder.glob(f".*{_PARTIAL}"):  # of a run that was killed while it wrote
            leftover.unlink()
        yield
    finally:
        lock.release()


def write(file: Path, put: Callable[[Path], Any]) -> None:
    """Have `put` write a temporary file beside `file`, then rename it: whole or not at all.

    Raises `FolderError` when the disk is full or the folder is not writable; nothing is left half-written.
    """
    temporary: Path | None = None
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.", suffix=_PARTIAL)
        os.close(handle)
        temporary = Path(name)
        put(temporary)
        os.chmod(temporary, 0o644)
        os.replace(temporary, file)
    except (OSError, SafetensorError) as error:
        raise FolderError(
            f"cannot write {file}: {getattr(error, 'strerror', None) or error}. What was finished before is kept: make room (or choose "
            "another folder with --out) and run the same command again"
        ) from error
    finally:
        if temporary is not None and temporary.exists():
            temporary.unlink()


def write_text(file: Path, text: str) -> None:
    write(file, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_json(file: Path, value: Any) -> None:
    write_text(file, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def write_table(file: Path, table: pd.DataFrame) -> None:
    write(file, lambda temporary: table.to_parquet(temporary, index=False))


def write_tensors(file: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    write(file, lambda temporary: save_file(tensors, temporary, metadata))


def read_tensors(file: Path) -> dict[str, Float[Tensor, " nodes"]]:
    return load_file(file)


def to_rows(curve: Curve, labels: dict[str, Any], groups: Groups | None = None) -> pd.DataFrame:
    """The curve as long rows: one per run, size and prompt, with `labels` (conventions included) in every row.

    `cluster` and `stratum` number the prompts' groups (default: every prompt is a cluster).
    """
    n = len(curve.whole)
    groups = groups or independent(n)
    parts = []
    for run, values in (("whole", curve.whole), ("empty", curve.empty)):
        parts.append(pd.DataFrame({"run": run, "prompt": range(n), "value": values.numpy()}))
    by_size = [("circuit", curve.circuit), ("complement", curve.complement), ("change", curve.change)]
    for run, values in [(run, values) for run, values in by_size if values is not None]:
        for size, error_nodes, row in zip(curve.sizes, curve.n_error_nodes, values.numpy(), strict=True):
            parts.append(
                pd.DataFrame({"run": run, "size": size, "n_error_nodes": error_nodes, "prompt": range(n), "value": row})
            )
    rows = pd.concat(parts, ignore_index=True)
    for column in ("size", "n_error_nodes"):
        rows[column] = rows[column].astype("Int64")
    rows["n_total"] = curve.n_total
    rows["cluster"], rows["stratum"] = groups.cluster[rows["prompt"]], groups.stratum[rows["prompt"]]
    rows["n_clusters"] = groups.n_clusters
    return pd.concat([pd.DataFrame({k: [v] * len(rows) for k, v in labels.items()}), rows], axis=1)


def to_curve(rows: pd.DataFrame) -> Curve:
    """The curve of the long rows of one task x basis x method x seed x ablation x errors."""

    runs: dict[Any, pd.DataFrame] = dict(iter(rows.groupby("run")))

    def one(run: str) -> Tensor:
        return torch.tensor(runs[run].sort_values("prompt")["value"].to_numpy(np.float64))

    def many(run: str) -> Tensor:
        table = runs[run].pivot(index="size", columns="prompt", values="value").sort_index()
        return torch.tensor(table.to_numpy(np.float64))

    kept = runs["circuit"].drop_duplicates("size").sort_values("size")
    return Curve(
        sizes=tuple(int(k) for k in kept["size"]),
        n_error_nodes=tuple(int(k) for k in kept["n_error_nodes"]),
        n_total=int(rows["n_total"].iloc[0]),
        whole=one("whole"),
        empty=one("empty"),
        circuit=many("circuit"),
        complement=many("complement"),
        change=many("change") if "change" in runs else None,
    )


def to_groups(rows: pd.DataFrame) -> Groups:
    """The clusters and strata of the prompts of one curve's rows."""
    prompts = dict(iter(rows.groupby("run")))["whole"].sort_values("prompt")
    return Groups(prompts["cluster"].to_numpy(np.int64), prompts["stratum"].to_numpy(np.int64))


def draws_of(curves: pd.DataFrame, resamples: int) -> Callable[[Groups], Draws]:
    """The draws of prompts in these groups: one set for all curves, by the study's (first) seed, so that all are paired."""
    seed = int(curves["seed"].iloc[0])
    known: dict[bytes, Draws] = {}

    def drawn(groups: Groups) -> Draws:
        key = groups.cluster.tobytes() + groups.stratum.tobytes()
        if key not in known:
            known[key] = draw(groups, resamples, seed)
        return known[key]

    return drawn


def each_curve(curves: pd.DataFrame) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    """The task, basis, method, seed, ablation and error policy of every curve, in the order of the rows, and its rows."""
    for _, rows in curves.groupby(CURVE, sort=False):
        yield {column: rows[column].iloc[0] for column in CURVE}, rows


def summarise(curves: pd.DataFrame, study: Study) -> pd.DataFrame:
    """One row per curve and size: F's, scores, intervals and bands, sizes, and every convention that made them."""
    tables = []
    drawn = draws_of(curves, study.resamples)
    for _, rows in each_curve(curves):
        curve = to_curve(rows)
        values = {"run", "size", "prompt", "value", "n_error_nodes", "n_total", "cluster", "stratum"}
        labels = {c: rows[c].iloc[0] for c in rows.columns if c not in values}
        columns = {
            "n_eval": len(curve.whole),
            "size": curve.sizes,
            "n_units": [k - e for k, e in zip(curve.sizes, curve.n_error_nodes, strict=True)],
            "n_error_nodes": curve.n_error_nodes,
            "n_total": curve.n_total,
            "fraction": curve.fraction,
            "bits": [bits(curve.n_total, k) for k in curve.sizes],
            "f_model": float(curve.whole.mean()),
            "f_empty": float(curve.empty.mean()),
            "f_circuit": curve.circuit.mean(1).numpy(),
            "f_complement": curve.complement.mean(1).numpy(),
            "faithfulness": curve.faithfulness.numpy(),
            "completeness": curve.completeness.numpy(),
            "confidence": study.confidence,
        }
        if curve.change is not None:
            columns["change"] = curve.change.mean(1).numpy()
        for score, estimate in estimates(curve, drawn(to_groups(rows))).items():
            pointwise, simultaneous = interval(estimate, study.confidence), band(estimate, study.confidence)
            columns[f"{score}_low"], columns[f"{score}_high"] = pointwise.low, pointwise.high
            columns[f"{score}_band_low"], columns[f"{score}_band_high"] = simultaneous.low, simultaneous.high
        tables.append(pd.DataFrame({**{k: [v] * len(curve.sizes) for k, v in labels.items()}, **columns}))
    summary = pd.concat(tables, ignore_index=True)
    return summary.reindex(columns=[*SUMMARY, *(c for c in summary.columns if c not in SUMMARY)])


def rows_with(table: pd.DataFrame, **values: Any) -> pd.DataFrame:
    """The rows that have these values: `rows_with(summary, method="relp", seed=0)`."""
    kept = np.ones(len(table), dtype=bool)
    for column, value in values.items():
        kept &= (table[column] == value).to_numpy(dtype=bool)
    return table.loc[kept]
