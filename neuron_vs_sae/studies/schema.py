"""What a record and the tables of a finished folder must hold: types, keys, every run of every size and prompt, finite values."""

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from neuron_vs_sae.core.errors import FolderError
from neuron_vs_sae.studies.rows import CURVE
from neuron_vs_sae.studies.study import Study


def _file_name(name: str) -> str:
    if not name or Path(name).name != name:
        raise ValueError(f"{name!r} is no file of this folder")
    return name


_Digests = dict[Annotated[str, AfterValidator(_file_name)], str]


class _Part(BaseModel):
    """Whatever is said of a part of the record beside what is read of it."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)


class _Dictionary(_Part):
    name: str
    architecture: str
    hook: str | None
    hook_out: str | None
    width: int
    path: str | None = None
    release: str | None = None
    commit: str | None = None
    frozen_decoder: bool = False


class _Basis(_Part):
    sites: list[str]
    widths: list[int]
    active: list[float] | None = None
    explained_variance: list[float | None] | None = None
    saes: list[_Dictionary] = []
    like: list[_Dictionary] = []


class _Provenance(_Part):
    started: str
    versions: dict[str, str]
    code: str | None
    model_commit: str | None
    python: str
    platform: str
    device: str
    dtype: str
    threads: int
    batch_size: int


class _Record(_Part):
    layout: int
    analysis: str
    study: dict[str, Any]
    key: str
    inputs: dict[str, str]
    finished: bool
    primary: _Digests
    derived: _Digests
    provenance: _Provenance
    bases: dict[str, dict[str, _Basis]]
    seconds: float = 0.0


def check_record(record: dict[str, Any]) -> None:
    """Raises `ValueError`, saying which key holds what it should not, or is not there."""
    try:
        _Record(**record)
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None


_OF_A_SIZE = ("circuit", "complement", "change")
_TEXT = (*(column for column in CURVE if column != "seed"), "model", "site", "run", "key")
_WHOLE = ("seed", "prompt", "n_total", "n_scored", "cluster", "stratum", "n_clusters")
_PLACE = [*CURVE, "run", "tied", "size", "prompt"]


def check_curves(file: Path, table: pd.DataFrame, study: Study) -> None:
    """Raises `FolderError` where the table is no whole `curves.parquet` of the study: a column is lacking or of another type, a
    value is not finite, a row is there twice, or a run lacks a size or a prompt."""
    fault = _types(table) or _values(table) or _runs(table, study)
    if fault:
        raise FolderError(f"{file} is damaged: {fault}. The study's own `nvs compare --overwrite` computes it again")


def _types(table: pd.DataFrame) -> str:
    lacking = [
        name for name in (*_TEXT, *_WHOLE, "value", "size", "n_error_nodes", "values", "tied") if name not in table
    ]
    if lacking:
        return f"it has no column {lacking[0]!r}"
    if table.empty:
        return "it has no rows"
    wrong = [name for name in _TEXT if not all(isinstance(value, str) for value in table[name].unique())]
    wrong += [
        name for name in _WHOLE if not pd.api.types.is_integer_dtype(table[name]) or bool((table[name] < 0).any())
    ]
    wrong += [name for name in ("value", "values") if not pd.api.types.is_float_dtype(table[name])]
    wrong += [name for name in ("size", "n_error_nodes") if not pd.api.types.is_integer_dtype(table[name])]
    wrong += [] if pd.api.types.is_bool_dtype(table["tied"]) else ["tied"]
    return f"its column {wrong[0]!r} holds values of another type" if wrong else ""


def _values(table: pd.DataFrame) -> str:
    if not np.isfinite(table["value"].to_numpy(np.float64)).all():
        return "a value is not finite"
    if bool((table["run"].isin(_OF_A_SIZE) != table["size"].notna()).any()):
        return "a circuit has no size, or what has none has one"
    return "a row is there twice" if bool(table.duplicated(_PLACE).any()) else ""


def _runs(table: pd.DataFrame, study: Study) -> str:
    """That every curve of the study is there, with the same prompts in each of its runs and the same sizes in circuit and complement."""
    expected = len(study.task)
    for name in CURVE[1:]:
        values = {str(value) for value in getattr(study, name)}
        if {str(value) for value in table[name].unique()} != values:
            return f"its {name} is not the study's"
        expected *= len(values)
    by_size: Any = table.rename(columns={"size": "k"}).groupby([*CURVE, "run", "tied", "k"], sort=False, dropna=False)
    runs: Any = by_size["prompt"].agg(n="size", last="max").reset_index()
    curves = runs.groupby(CURVE, sort=False)
    if len(curves) != expected:
        return f"it holds {len(curves)} curves, and the study has {expected}"
    if bool((curves["n"].transform("first") != runs["n"]).any() or (runs["last"] + 1 != runs["n"]).any()):
        return "a run lacks a prompt"
    for _, of_curve in curves:
        by_run = {run: set(zip(rows["tied"], rows["k"], strict=True)) for run, rows in of_curve.groupby("run")}
        circuit = by_run.get("circuit", set())
        if (
            not {"whole", "empty", "circuit", "complement"} <= by_run.keys()
            or by_run["complement"] != circuit
            or by_run.get("change", circuit) != circuit
        ):
            return "a curve lacks a run, or a size of one"
    return ""
