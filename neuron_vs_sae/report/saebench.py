"""Results in SAEBench's schema: one JSON file per SAE basis, for tools that read SAEBench's evaluations."""

import json
import re
import uuid
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field

from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.core.files import write_json
from neuron_vs_sae.studies.per_curve import per_curve
from neuron_vs_sae.studies.result import Result
from neuron_vs_sae.studies.rows import rows_with

EVAL = "neuron_vs_sae_circuit"
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "neuron_vs_sae")
_SHOWN: dict[str, Any] = {"ui_default_display": True}


class Metrics(BaseModel):
    """One curve: a category of `eval_result_metrics`, flat."""

    model_config = ConfigDict(extra="forbid")

    area_faithfulness: float | None = Field(
        None,
        title="Area under faithfulness",
        description="Mean faithfulness over log circuit size; 1 is the model.",
        json_schema_extra=_SHOWN,
    )
    area_completeness: float | None = Field(
        None,
        title="Area under completeness",
        description="Mean over log size of the faithfulness of what is left without the circuit; lower is better, 0 is complete.",
        json_schema_extra=_SHOWN,
    )
    size_at_level: float | None = Field(
        None,
        title="Nodes for 80 %",
        description="Size at which the ranking first reaches a faithfulness of 0.8; absent where it does not.",
        json_schema_extra=_SHOWN,
    )
    error_nodes_at_level: float | None = Field(
        None,
        title="Error nodes among them",
        description="How many of those nodes stand for what the dictionary misses.",
    )
    bits_at_level: float | None = Field(
        None, title="Bits for 80 %", description="log2 of the number of circuits of that size."
    )
    n_total: float = Field(title="Nodes", description="Nodes that a circuit could have.")
    f_model: float = Field(title="F(M)", description="The metric's mean over prompts, in the whole model.")
    f_empty: float = Field(title="F(empty)", description="The same with every node ablated.")
    n_eval: float = Field(title="Prompts", description="Evaluation prompts.")


class Detail(BaseModel):
    """One curve at one size."""

    model_config = ConfigDict(extra="forbid")

    task: str = Field(title="Task", description="Where the prompts come from.")
    method: str = Field(title="Method", description="Attribution method that ranked the nodes.")
    ablation: str = Field(title="Ablation", description="The value of what is not kept.")
    errors: str = Field(title="Error policy", description="What error nodes are.")
    seed: int = Field(title="Seed", description="Of splits, draws and bootstrap.")
    size: int = Field(title="Size", description="Nodes in the circuit, error nodes among them.")
    n_error_nodes: int = Field(title="Error nodes", description="Error nodes in the circuit.")
    fraction: float = Field(title="Fraction", description="Size as a share of all nodes.")
    bits: float = Field(title="Bits", description="log2 of the number of circuits of that size.")
    f_circuit: float = Field(title="F(C)", description="The metric's mean with only the circuit kept.")
    f_complement: float = Field(title="F(complement)", description="The same with only the circuit ablated.")
    faithfulness: float = Field(title="Faithfulness", description="(F(C) - F(empty)) / (F(M) - F(empty)).")
    completeness: float = Field(title="Completeness", description="The same of the complement; lower is better.")
    faithfulness_low: float | None = Field(None, title="Faithfulness, low", description="Lower end of its interval.")
    faithfulness_high: float | None = Field(None, title="Faithfulness, high", description="Upper end.")
    completeness_low: float | None = Field(None, title="Completeness, low", description="Lower end of its interval.")
    completeness_high: float | None = Field(None, title="Completeness, high", description="Upper end.")


class EvalOutput(BaseModel):
    """SAEBench's output of one evaluation of one SAE (here: of one basis, which has an SAE per site)."""

    model_config = ConfigDict(extra="forbid", title="Circuits in a basis of SAE features")

    eval_type_id: str = Field(default=EVAL, title="Eval Type ID", description="The type of the evaluation")
    eval_config: dict[str, Any] = Field(
        title="Eval Config", description="The study: every choice that made the numbers."
    )
    eval_id: str = Field(
        title="ID", description="UUID of the study's key and the basis: the same whenever it is written."
    )
    datetime_epoch_millis: int = Field(
        ge=0, le=9_999_999_999_999, title="DateTime (epoch ms)", description="When the study was started."
    )
    eval_result_metrics: dict[str, Metrics] = Field(
        title="Result Metrics Categorized", description="A category per task, method, ablation and error policy."
    )
    eval_result_details: list[Detail] = Field(title="Result Details", description="Every curve at every size.")
    sae_bench_commit_hash: str = Field(
        title="SAE Bench Commit Hash", description="The commit of the code that ran, here neuron_vs_sae's."
    )
    sae_lens_id: str | None = Field(title="SAE Lens ID", description="The SAEs' ids, joined by +.")
    sae_lens_release_id: str | None = Field(title="SAE Lens Release ID", description="Their releases, joined by +.")
    sae_lens_version: str | None = Field(
        title="SAE Lens Version", description="The version of sae-lens that loaded them."
    )
    sae_cfg_dict: dict[str, Any] | None = Field(
        title="SAE Config Dict", description="What each SAE is, by its hook: architecture, width, hash."
    )
    eval_result_unstructured: Any | None = Field(
        None, title="Unstructured Results", description="What made the numbers: versions, device, dtype."
    )


def outputs(result: Result) -> dict[str, EvalOutput]:
    """The output of every basis of SAEs or transcoders, by its file's name `{release}_{sae id}_eval_results.json`.

    Raises `InputError` where the study has no such basis, or was run before records had a date.
    """
    started = result.record["provenance"].get("started")
    if started is None:
        raise InputError(f"the study in {result.folder} has no date in its record: run it again with --overwrite")
    files: dict[str, EvalOutput] = {}
    table = per_curve(result)
    for basis in result.study.basis:
        parts = result.bases.get(basis, {}).get("saes")
        if not parts:
            continue
        releases = "+".join(dict.fromkeys(str(part.get("release") or "custom") for part in parts))
        ids = "+".join(dict.fromkeys(str(part.get("id") or part["name"]) for part in parts))
        registered = all(part.get("release") for part in parts)
        name = f"{_file(releases)}_{_file(ids if registered else basis)}_eval_results.json"
        files[name] = EvalOutput(
            eval_config=result.record["study"],
            eval_id=str(uuid.uuid5(_NAMESPACE, f"{result.study.key}/{basis}")),
            datetime_epoch_millis=int(datetime.fromisoformat(started).timestamp() * 1000),
            eval_result_metrics=_metrics(rows_with(table, basis=basis)),
            eval_result_details=_details(rows_with(result.summary, basis=basis)),
            sae_bench_commit_hash=result.record["provenance"].get("code") or "unknown",
            sae_lens_id=ids if registered else None,
            sae_lens_release_id=releases if registered else None,
            sae_lens_version=result.record["provenance"]["versions"].get("sae-lens"),
            sae_cfg_dict={str(part["hook"]): part for part in parts},
            eval_result_unstructured=result.record["provenance"],
        )
    if not files:
        raise InputError(
            f"the study in {result.folder} has no basis of SAEs: its bases are {', '.join(result.study.basis)}"
        )
    return files


def export(result: Result, out: Path) -> list[Path]:
    """Write `eval_results/neuron_vs_sae_circuit/*.json` and the schema's own JSON below `out`; the files written."""
    files = {
        out / "eval_results" / EVAL / name: json.loads(output.model_dump_json())
        for name, output in outputs(result).items()
    }
    files[out / f"eval_output_schema_{EVAL}.json"] = EvalOutput.model_json_schema()
    for file, value in files.items():
        write_json(file, value)
    return list(files)


def _metrics(rows: pd.DataFrame) -> dict[str, Metrics]:
    metrics = {}
    varying = [
        "task",
        "method",
        "ablation",
        "errors",
        *(["seed"] if "seed" in rows and len(set(rows["seed"])) > 1 else []),
    ]
    for row in rows.to_dict("records"):
        values = {name: float(row[name]) for name in Metrics.model_fields if not pd.isna(row[name])}
        metrics["/".join(str(row[name]) for name in varying)] = Metrics(**values)
    return metrics


def _details(rows: pd.DataFrame) -> list[Detail]:
    return [
        Detail(**{name: row[name] for name in Detail.model_fields if not pd.isna(row[name])})
        for row in rows.to_dict("records")
    ]


def _file(text: str) -> str:
    """A file name as SAEBench writes it, without separators, and no longer than file systems allow."""
    clean = re.sub(r"[^A-Za-z0-9._+=@,-]+", "_", text)
    return clean if len(clean) <= 100 else f"{clean[:80]}-{uuid.uuid5(_NAMESPACE, text).hex[:12]}"
