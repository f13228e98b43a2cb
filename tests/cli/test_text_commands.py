"""The commands on running text: what they write, and what they refuse, from one line to a finished folder."""

import json
from pathlib import Path

import pandas as pd
import pytest
from conftest import Run


@pytest.fixture(scope="module")
def text_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("text") / "text.txt"
    words = [
        "ann",
        "eve",
        "sue",
        "mia",
        "bob",
        "dan",
        "max",
        "leo",
        "saw",
        "met",
        "a",
        "cat",
        "dog",
        "hen",
        "he",
        "she",
    ]
    file.write_text(" ".join(words[(7 * i + i * i // 5) % 16] for i in range(400)))
    return file


UNITS = {"basis", "unit", "sign", "density", "maximum", "top_tokens", "bottom_tokens"}
WINDOWS = {"unit", "sign", "rank", "quantile", "context", "position", "tokens", "values"}


def test_units_are_shown_with_their_windows(run: Run, checkpoint: Path, text_file: Path, sae_folder: Path) -> None:
    ended = run(
        "units", "--model", checkpoint, "--basis", "mlp_neurons", "--basis", f"sae:{sae_folder}", "--corpus", text_file, "--unit",
        "blocks.0.mlp.hook_post/3", "--unit", "blocks.1.hook_mlp_out/2", "--context-length", 16, "--contexts", 20, "--examples", 4,
        "--window", 3, "--out", "out",
    )  # fmt: skip
    assert ended.status == 0, ended.err
    units, windows = pd.read_csv("out/units.csv"), pd.read_parquet("out/windows.parquet")
    assert set(units) >= UNITS
    assert set(windows) >= WINDOWS
    assert set(units["unit"]) == {"blocks.0.mlp.hook_post/3", "blocks.1.hook_mlp_out/2"}
    assert windows.loc[windows["kind"] == "top"].groupby(["unit", "sign"]).size().max() == 4
    assert max(map(len, windows["tokens"])) == 7
    assert "<article" in Path("out/units.html").read_text()
    assert len(list(Path("out/neuronpedia").glob("*.json"))) >= 2
    assert json.loads(Path("out/study.json").read_text())["finished"] is True


def test_the_lens_is_a_table_by_layer_and_position(run: Run, checkpoint: Path) -> None:
    ended = run("lens", "--model", checkpoint, "--prompt", "ann saw a cat", "--top", 3, "--out", "out")
    assert ended.status == 0, ended.err
    table = pd.read_csv("out/lens.csv")
    assert {"layer", "site", "position", "rank", "token", "probability"} <= set(table)
    assert len(table) == 2 * 5 * 3
    assert table.groupby(["layer", "position"])["probability"].apply(lambda p: p.is_monotonic_decreasing).all()


def test_fidelity_is_a_table_by_size_with_verdicts(run: Run, checkpoint: Path, text_file: Path) -> None:
    ended = run(
        "fidelity", "--model", checkpoint, "--basis", "mlp_neurons", "--basis", "rotation", "--corpus", text_file, "--sizes", "1,4,99",
        "--context-length", 16, "--contexts", 10, "--resamples", 200, "--out", "out",
    )  # fmt: skip
    assert ended.status == 0, ended.err
    table, verdicts = pd.read_csv("out/fidelity.csv"), pd.read_csv("out/verdicts.csv")
    assert {"basis", "site", "m", "explained_variance", "ce_score", "bits"} <= set(table)
    assert table.groupby("basis")["m"].unique().map(list).to_dict() == {
        "mlp_neurons": [1, 4, 24],
        "rotation": [1, 4, 16],
    }
    whole = table.loc[table["m"].isin([24, 16])]
    assert whole["explained_variance"].tolist() == pytest.approx([1.0] * 4, abs=1e-5)
    assert len(verdicts) == 2 * 2
    assert set(verdicts["verdict"]) <= {"a better", "b better", "equivalent", "undecided"}


def test_probes_are_a_table_by_concept_with_verdicts(run: Run, checkpoint: Path, text_file: Path) -> None:
    pytest.importorskip("sklearn", reason="pip install '.[probing]'")
    ended = run(
        "probe", "--model", checkpoint, "--basis", "mlp_neurons", "--basis", "rotation", "--corpus", text_file, "--concept", "prefix:m",
        "--k", "1,2", "--context-length", 8, "--contexts", 60, "--resamples", 100, "--subsets", 2, "--out", "out",
    )  # fmt: skip
    assert ended.status == 0, ended.err
    table, verdicts = pd.read_csv("out/probing.csv"), pd.read_csv("out/verdicts.csv")
    assert {"basis", "site", "concept", "ranker", "k", "split", "mcc", "auroc", "low", "high"} <= set(table)
    assert set(table["site"]) == {"blocks.0.hook_mlp_out", "blocks.1.hook_mlp_out"}
    assert set(verdicts["specification"]) == {"full width", "equal candidates"}
    assert set(verdicts["size"].astype(str)) == {"1", "2", "all"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["units", "--unit", "blocks.9.mlp.hook_post/3"], "any of the units asked for"),
        (["units", "--unit", "blocks.0.mlp.hook_post/99"], "units 0 to 23"),
        (["units", "--unit", "3"], "SITE/NUMBER"),
        (["units", "--corpus", "nowhere.txt"], "no file"),
        (["units", "--corpus", "empty.txt"], "has no text"),
        (["units", "--corpus", "binary.txt"], "not text"),
        (["units", "--context-length", "99"], "this model reads"),
        (["fidelity", "--sizes", "a"], "whole numbers"),
        (["lens"], "give a text"),
        (["lens", "--prompt", "ann", "--site", "hook_mlp_out"], "residual stream"),
    ],
)
def test_wrong_input_is_refused_in_one_message(
    options: list[str], message: str, run: Run, checkpoint: Path, text_file: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "binary.txt").write_bytes(b"\0\1\2" * 9)
    common = [] if options[0] == "lens" else ["--basis", "mlp_neurons", "--context-length", 16]
    common += [] if options[0] == "lens" or "--corpus" in options else ["--corpus", text_file]
    ended = run(options[0], "--model", checkpoint, *common, *options[1:], "--out", "out")
    assert ended.status == 2
    assert message in ended.err.replace("\n", " ")
