"""SAEBench's schema: its keys, types and file names, and the same bytes whenever it is written."""

import json
import uuid
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, Field

import neuron_vs_sae as nvs
from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.report.saebench import EvalOutput, export, outputs


class Expected(BaseModel):
    """What SAEBench's readers expect, written down apart from the package: these keys, no others, metrics one level deep."""

    model_config = ConfigDict(extra="forbid", strict=True)

    eval_type_id: str
    eval_config: dict[str, Any]
    eval_id: str
    datetime_epoch_millis: int = Field(ge=0, le=9_999_999_999_999)
    eval_result_metrics: dict[str, dict[str, float | None]]
    eval_result_details: list[dict[str, str | int | float | None]]
    sae_bench_commit_hash: str
    sae_lens_id: str | None
    sae_lens_release_id: str | None
    sae_lens_version: str | None
    sae_cfg_dict: dict[str, Any] | None
    eval_result_unstructured: Any | None


def test_there_is_a_file_per_basis_of_saes_and_it_is_in_the_schema(evident: Any, tmp_path: Path) -> None:
    *files, schema = export(evident, tmp_path)
    assert [file.parent for file in files] == [tmp_path / "eval_results" / "neuron_vs_sae_circuit"]
    assert files[0].name.startswith("custom_")
    assert files[0].name.endswith("_eval_results.json")
    read = Expected.model_validate_json(files[0].read_text())
    assert read.eval_type_id == "neuron_vs_sae_circuit"
    assert str(uuid.UUID(read.eval_id)) == read.eval_id
    assert read.eval_config == evident.record["study"]
    assert len(read.eval_result_metrics) == 3  # methods
    assert len(read.eval_result_details) == 3 * 5  # and sizes
    assert schema.name == "eval_output_schema_neuron_vs_sae_circuit.json"


def test_numbers_are_the_curves(evident: Any) -> None:
    (output,) = outputs(evident).values()
    curve = evident.curve(basis=evident.study.basis[1], method="relp")
    metrics = output.eval_result_metrics[f"{evident.summary['task'].iloc[0]}/relp/mean/nodes"]
    assert metrics.f_model == pytest.approx(float(curve.whole.mean()))
    assert metrics.size_at_level == curve.size_at(0.8)
    details = [row for row in output.eval_result_details if row.method == "relp"]
    assert [row.size for row in details] == list(curve.sizes)
    assert [row.faithfulness for row in details] == pytest.approx(curve.faithfulness.tolist())


def test_it_is_the_same_again(evident: Any, tmp_path: Path) -> None:
    first, second = (export(evident, tmp_path / name) for name in ("a", "b"))
    assert [f.read_bytes() for f in first] == [f.read_bytes() for f in second]


def test_the_schema_describes_every_field_and_says_what_to_show() -> None:
    schema = EvalOutput.model_json_schema()
    tables = [schema, *schema["$defs"].values()]
    for table in tables:
        for name, field in table["properties"].items():
            assert field["title"], name
            assert field["description"], name
    assert schema["$defs"]["Metrics"]["properties"]["area_faithfulness"]["ui_default_display"] is True
    assert json.dumps(schema)


def test_a_study_without_saes_or_a_date_is_refused(evident: Any) -> None:
    bases = {
        task: {text: facts for text, facts in of_task.items() if "saes" not in facts}
        for task, of_task in evident.record["bases"].items()
    }
    study = {**evident.record["study"], "basis": ["mlp_neurons"]}
    with pytest.raises(InputError, match="no basis of SAEs: its bases are mlp_neurons"):
        outputs(
            nvs.Result(
                evident.folder, {**evident.record, "bases": bases, "study": study}, evident.curves, evident.summary
            )
        )
    made = {k: v for k, v in evident.record["provenance"].items() if k != "started"}
    with pytest.raises(InputError, match="no date in its record"):
        outputs(nvs.Result(evident.folder, {**evident.record, "provenance": made}, evident.curves, evident.summary))
