"""Tables and figures of a stored result: the same bytes again, names as text, a row or a line per curve."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from safetensors import safe_open
from safetensors.torch import load_file

import neuron_vs_sae as nvs
from neuron_vs_sae.core import files
from neuron_vs_sae.report.circuits import write_report
from neuron_vs_sae.running import finishing
from neuron_vs_sae.running.comparison import compare
from neuron_vs_sae.studies.circuits.analysis import CIRCUITS


def test_a_report_writes_the_same_bytes_again(fresh: nvs.Result) -> None:
    derived = ("summary.csv", "per_curve.csv", "table.md", "table.tex", "curves.pdf", "report.html")
    before = {name: (fresh.folder / name).read_bytes() for name in derived}
    for name in derived:
        (fresh.folder / name).unlink()
    finishing.report(fresh.folder)
    assert {name: (fresh.folder / name).read_bytes() for name in derived} == before


def test_the_table_has_a_row_per_curve_under_the_conventions(fresh: nvs.Result) -> None:
    text = (fresh.folder / "table.md").read_text()
    assert text.startswith("# Circuits of tiny\n")
    for said in ("8 pairs for discovery, 6 for evaluation", "metric logit_difference", "seed 0", fresh.study.key):
        assert said in text
    body = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith("| basis")]
    assert len(body) == 4
    assert {line.count("|") for line in body} == {14}
    assert [line.split(" | ")[0] for line in body] == ["| MLP neurons", "| SAE features"] * 2


def test_areas_of_a_curve_end_at_its_last_node_with_a_score(fresh: nvs.Result, sae_folder: Path) -> None:
    table = nvs.tables.per_curve(fresh).set_index(["basis", "errors"])
    for basis in ("mlp_neurons", f"sae:{sae_folder}"):
        curve, row = fresh.curve(basis=basis, errors="ablate"), table.loc[(basis, "ablate")]
        assert row["n_scored"] == curve.sizes[-1] <= row["n_total"] == curve.n_total
        assert row["area_faithfulness"] == curve.area(up_to=curve.n_scored)
        size = curve.size_at(0.8)
        assert pd.isna(row["size_at_level"]) if size is None else row["size_at_level"] == size
        assert row["size_at_level_low"] <= row["size_at_level_high"] or row["size_at_level_not_reached"] > 0
    assert table.loc[("mlp_neurons", "ablate"), "faithfulness_all_nodes"] == pytest.approx(1, abs=1e-4)
    assert table["cpr"].isna().all()  # MIB's sizes were not run


def test_mibs_scores_are_there_when_their_sizes_were_run(a_small_study: Any, tiny: Any, tmp_path: Path) -> None:
    found = compare(a_small_study(sizes="mib"), tmp_path / "out", model=tiny)
    table = nvs.tables.per_curve(found)
    assert table["cpr"][0] == found.curve().cpr()
    assert table["cmd"][0] == found.curve().cmd()


def _relabel(file: Path, task: str, basis: str) -> None:
    """The scores of the one dictionary basis, under these names."""
    with safe_open(file, "pt") as stored:
        index = json.loads(stored.metadata()["index"])
    (label,) = (one for one in index if "/sae:" in one)
    named = {**index[label], "task": task, "basis": basis}
    files.write_tensors(file, {label: load_file(file)[label]}, {"index": json.dumps({label: named})})


HOSTILE = "<script>alert('nvs')</script>|\"x\" & `[y](javascript:0)`\n# z"


def test_names_are_text_in_tables_and_figures_whatever_they_hold(fresh: nvs.Result, tmp_path: Path) -> None:
    basis = "sae:folder/<img src=x onerror=alert(1)>"
    tables = [table.assign(task=HOSTILE, model=HOSTILE, basis=basis) for table in (fresh.curves, fresh.summary)]
    tables = [table[table["site"] == "hook_mlp_out"] for table in tables]
    record = {**fresh.record, "study": {**fresh.record["study"], "basis": [basis]}}
    found = replace(fresh, folder=tmp_path, record=record, curves=tables[0], summary=tables[1])
    for name in ("scores.safetensors", "stability.parquet"):
        shutil.copy(fresh.folder / name, tmp_path)
    _relabel(tmp_path / "scores.safetensors", HOSTILE, basis)
    CIRCUITS.summarise(found)
    write_report(found)
    text, page = (tmp_path / "table.md").read_text(), (tmp_path / "report.html").read_text()
    inert = "&lt;script&gt;alert(&#x27;nvs&#x27;)&lt;/script&gt;"
    assert f"# Circuits of {inert}\\|&quot;x&quot; &amp; \\`\\[y\\](javascript:0)\\` # z\n" in text
    assert "<script>" not in text
    assert not [line for line in text.splitlines() if line.startswith("# z")]
    assert "<script>alert" not in page
    title = page[page.index("<title>") : page.index("</title>")]
    assert title.startswith("<title>Circuits of &lt;script&gt;alert(&#39;nvs&#39;)&lt;/script&gt;")
    assert "| SAE features |" in text
    # plotly would render what it decodes.
    assert "\\u003cscript\\u003ealert" not in page
    assert "\\u003cimg" not in page
    assert "sae:folder/&lt;img src=x onerror=alert(1)&gt;" in page  # in its settings
    assert page.count("<script") == page.count("</script>")


def test_bases_have_short_names_that_tell_them_apart() -> None:
    from neuron_vs_sae.report.labels import labels
    from neuron_vs_sae.report.plots import colours_of

    assert labels(["mlp_neurons", "sae:/a/b/c@hook_mlp_out,layers=1"]) == {
        "mlp_neurons": "mlp_neurons", "sae:/a/b/c@hook_mlp_out,layers=1": "sae:c@hook_mlp_out,layers=1"
    }  # fmt: skip
    assert list(labels(["sae:/a/x/c", "sae:/a/y/c", "sae:d"]).values()) == ["sae:x/c", "sae:y/c", "sae:d"]
    assert list(labels(["sae:/a/c", "sae:a/c"]).values()) == ["sae:/a/c", "sae:a/c"]
    colours = colours_of(["sae:a", "mlp_neurons", "sae:b", "pca"])
    assert len(set(colours.values())) == 4
    assert colours["mlp_neurons"] == colours_of(["mlp_neurons"])["mlp_neurons"]


def test_a_figure_draws_every_curve_its_band_and_the_models_level(fresh: nvs.Result) -> None:
    figure = nvs.plots.curves(fresh, task="saw", errors="ablate")
    lines = [trace for trace in figure.data if trace.mode == "lines+markers"]
    assert [line.name for line in lines[::2]] == ["MLP neurons · relp", "SAE features · relp"]
    assert len(figure.data) == 2 * len(lines) == 8
    rows = fresh.summary[(fresh.summary["basis"] == "mlp_neurons") & (fresh.summary["errors"] == "ablate")]
    assert list(lines[0].y) == rows["faithfulness"].tolist()[1:]  # a log axis has no size 0
    assert [shape.y0 for shape in figure.layout.shapes] == [1.0, 0.0]
    assert "6 prompts, 95% bootstrap intervals" in figure.layout.title.text
    with pytest.raises(
        KeyError, match=r"no curve of task 'saw' with ablation 'mean' and errors 'keep', seed 0; it has: .*'ablate'"
    ):
        nvs.plots.curves(fresh, task="saw", errors="keep")
