"""What differs between two results is named, and nothing else is."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Run
from verdicts import verdicts

import neuron_vs_sae as nvs
from neuron_vs_sae.core import files
from neuron_vs_sae.studies.differences import differences, told


def test_a_result_is_like_itself_wherever_it_ran(evident: Any) -> None:
    record = copy.deepcopy(evident.record)
    record["provenance"] |= {"started": "2020-01-01T00:00:00+00:00", "batch_size": 1, "platform": "elsewhere"}
    found = differences(evident, replace(evident, record=record))
    assert found.alike
    assert "Numbers: the same in all 6 curves that both have" in told(found)
    assert "Settings: the same" in told(found)


def test_settings_and_what_made_them_are_named(evident: Any) -> None:
    record = copy.deepcopy(evident.record)
    record["study"]["confidence"] = 0.9
    record["provenance"]["versions"]["torch"] = "0"
    found = differences(evident, replace(evident, record=record))
    assert [(d.what, d.a, d.b) for d in found.settings] == [("confidence", "0.95", "0.9")]
    assert [(d.what, d.b) for d in found.provenance] == [("versions torch", "0")]
    assert not found.alike


def test_the_largest_difference_of_a_curve_and_changed_sizes_are_told(evident: Any) -> None:
    summary = evident.summary.copy()
    relp = (summary["method"] == "relp") & (summary["basis"] == "mlp_neurons")
    summary.loc[relp & (summary["size"] == 1), "faithfulness"] += 0.25
    summary.loc[relp & (summary["size"] == 5), "faithfulness"] -= 100
    summary.loc[relp, "f_model"] += 0.5
    found = differences(evident, replace(evident, summary=summary))
    changed = found.numbers[found.numbers["faithfulness"] > 0]
    assert changed["faithfulness"].tolist() == [pytest.approx(100)]
    assert changed["f_model"].tolist() == [pytest.approx(0.5)]
    assert changed["completeness"].tolist() == [0]
    before = evident.curve(basis="mlp_neurons", method="relp").size_at(0.8)
    if before == 5:
        assert [d.a for d in found.sizes] == ["5"]
    assert "(1 of 6 curves differ)" in told(found)


def test_how_much_two_rankings_share_is_told_where_scores_differ(evident: Any, tmp_path: Path) -> None:
    scores = files.read_tensors(evident.folder / "scores.safetensors")
    label = min(scores, key=lambda one: len(scores[one]))
    n = len(scores[label])
    k = min(100, n // 2)
    values = torch.arange(n, 0, -1, dtype=torch.float64)
    for name, changed in (("a", values), ("b", values.roll(k // 2))):
        (tmp_path / name).mkdir()
        files.write_tensors(tmp_path / name / "scores.safetensors", {**scores, label: changed}, {})
    found = differences(replace(evident, folder=tmp_path / "a"), replace(evident, folder=tmp_path / "b"))
    (row,) = found.rankings.to_dict("records")
    top = min(100, n)
    expected = len(set(range(top)) & {(i + k // 2) % n for i in range(top)})  # the largest were moved up by k // 2
    assert row == {"discovery": label, "shared": expected, "of": top}
    assert f"{label}: {expected} of {top}" in told(found)
    assert not found.alike


def test_curves_and_verdicts_that_only_one_has_are_named(evident: Any, tmp_path: Path) -> None:
    fewer = evident.summary[evident.summary["method"] != "random"]
    for name, verdict in (("a", "a better"), ("b", "undecided")):
        (tmp_path / name).mkdir()
        verdicts(evident, {("faithfulness", "nodes"): verdict}).to_csv(tmp_path / name / "verdicts.csv", index=False)
    found = differences(replace(evident, folder=tmp_path / "a"), replace(evident, folder=tmp_path / "b", summary=fewer))
    assert [(d.a, d.b) for d in found.curves] == [("there", "absent")] * 2
    assert [(d.a, d.b) for d in found.verdicts] == [("a better", "undecided")]


def test_the_commands_print_and_end_as_they_should(evident: Any, run: Run, tmp_path: Path) -> None:
    folder = evident.folder
    assert run("compare-results", folder, folder).status == 0
    table = run("table", folder, "--columns", "basis,n_total", "--format", "csv", "--method", "relp")
    assert (table.status, table.out.splitlines()[0]) == (0, "basis,n_total")
    assert run("table", folder, "--columns", "nonesuch").status == 2
    assert run("table", folder, "--format", "nonesuch").status == 2
    cited = run("cite", folder)
    assert (cited.status, cited.out[:25]) == (0, "@software{neuron_vs_sae,\n")
    exported = run("export", folder, "--out", tmp_path / "out")
    assert exported.status == 0
    assert all(Path(line).exists() for line in exported.out.splitlines())
    drawn = run("figures", folder, "--out", tmp_path / "figures", "--format", "png")
    assert [Path(line).name for line in drawn.out.splitlines()] == ["curves-1.png", "sizes.png"]
    assert run("figures", folder, "--format", "docx").status == 2
    assert run("export", folder, "--format", "docx").status == 2
    assert run("cite", tmp_path).status == 2


def test_two_results_that_differ_end_with_one(evident: Any, run: Run, tmp_path: Path) -> None:
    import shutil

    other = tmp_path / "other"
    shutil.copytree(evident.folder, other)
    text = (other / "study.json").read_text()
    (other / "study.json").write_text(text.replace('"device": "cpu"', '"device": "cuda"'))
    ended = run("compare-results", evident.folder, other)
    assert ended.status == 1
    assert "  device: cpu | cuda" in ended.out
    assert nvs.load(other).record["provenance"]["device"] == "cuda"
