"""The package's face: what each folder exports is what it holds, type checkers see it, and objects say what they are."""

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import toys
from mutants import ROOT

import neuron_vs_sae as nvs
from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.core.lookup import known

PACKAGE = ROOT / "neuron_vs_sae"
FOLDERS = ("bases", "attribution", "tasks", "metrics", "ablation")


def exported(file: Path) -> list[str]:
    """What a type checker sees: `from m import x as x` under TYPE_CHECKING."""
    (block,) = [node for node in ast.parse(file.read_text()).body if isinstance(node, ast.If) and not node.orelse][:1]
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    assert all(alias.asname == alias.name for node in imports for alias in node.names)
    return [alias.name for node in imports for alias in node.names]


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_exports_what_its_files_hold(folder: str) -> None:
    assert sorted(exported(PACKAGE / "catalog" / folder / "__init__.py")) == sorted(
        name.replace("-", "_") for name in known(folder)
    )
    assert set(dir(getattr(nvs, folder))) == {name.replace("-", "_") for name in known(folder)}


@pytest.mark.parametrize("package", [nvs, nvs.plots], ids=["nvs", "plots"])
def test_a_package_exports_what_it_lists(package: Any) -> None:
    assert sorted(exported(Path(package.__file__))) == sorted(package.__all__) == sorted(dir(package))
    for name in package.__all__:
        assert getattr(package, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonesuch'"):
        _ = package.nonesuch


def test_a_function_keeps_its_name_after_its_file_was_imported() -> None:
    """Python would leave the file under the name of its function."""
    script = (
        "import neuron_vs_sae.catalog.attribution.relp, neuron_vs_sae as nvs; "
        "from neuron_vs_sae.catalog.bases.sae import sae; "
        "print(nvs.attribution.relp.__name__, nvs.attribution.relp_ah.__name__, nvs.bases.sae is sae)"
    )
    ended = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stdout.split() == ["relp", "relp_ah", "True"]


def test_importing_a_folder_of_functions_is_light() -> None:
    folders = [*(f"neuron_vs_sae.catalog.{folder}" for folder in FOLDERS), "neuron_vs_sae.report.plots"]
    script = (
        f"import sys, {', '.join(folders)}; print({{'torch', 'plotly', 'sae_lens', 'pandas'}} & sys.modules.keys())"
    )
    ended = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "set()"


RIGHT = """\
import neuron_vs_sae as nvs
model = nvs.load_model("default")
pairs = nvs.pairs(model, [{"clean": "a", "corrupt": "b", "answer": " c", "foil": " d"}])
more = nvs.tasks.from_file(model, "pairs.csv", columns=nvs.Columns(clean="text"))
basis = nvs.bases.sae(model, "RELEASE", select=nvs.Selection(layers="0-3"), shelf=nvs.Shelf())
scores = nvs.attribution.relp_ah(model, basis, pairs, pairing="unpaired")
curve = nvs.evaluate(model, basis, scores, more)
figure = nvs.plots.curves(nvs.load("folder"), task="pairs")
"""
WRONG = """\
nvs.attribution.relp(1, 2, 3, nonsense=True)
nvs.attribution.relp(model, basis, pairs, pairing="both")
nvs.attribution.nonesuch
nvs.nonesuch
nvs.bases.sae(model, site="hook_mlp_out")
nvs.bases.pca(model)
nvs.tasks.from_file(model)
nvs.tasks.world(model, n="ten")
nvs.metrics.kl(1)
nvs.pairs(model, [1])
nvs.Columns(format="nonsense")
nvs.plots.curves(scores)
"""


def test_a_type_checker_finds_wrong_calls_and_no_others(tmp_path: Path) -> None:
    file = tmp_path / "calls.py"
    file.write_text(RIGHT + WRONG)
    ended = subprocess.run(
        [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, str(file)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    errors = [item for item in json.loads(ended.stdout)["generalDiagnostics"] if item["severity"] == "error"]
    first = RIGHT.count("\n")
    assert {item["range"]["start"]["line"] for item in errors} == set(range(first, first + WRONG.count("\n"))), errors
    assert any("nonsense" in item["message"] and item["range"]["start"]["line"] == first for item in errors)


# What an object says of itself.


def test_objects_say_what_they_are_in_a_few_lines(llama: Any, evident: nvs.Result) -> None:
    pairs = toys.pairs()
    basis = nvs.bases.sae(llama, toys.saes())
    scores = nvs.attribution.random(llama, basis, pairs)
    texts = [repr(thing) for thing in (pairs, basis, nvs.bases.transcoder(llama, toys.transcoders()), scores, evident)]
    assert all(1 < len(text.splitlines()) <= 6 for text in texts)
    assert "PromptPairs 'toy': 5 pairs of 6 tokens, BOS included" in texts[0]
    assert pairs.clean_text[0] in texts[0]
    assert "tags: case; dropped: 0" in texts[0]
    assert "Basis 'sae': 20 units at 2 sites" in texts[1]
    assert "blocks.1.hook_mlp_out: 10 units of 8 dimensions, with an error" in texts[1]
    assert "read from blocks.0.ln2.hook_normalized" in texts[2]
    assert f"{len(scores.index)} nodes at 2 sites, 6 positions" in texts[3]
    assert scores.top(1).names[0] in texts[3].splitlines()[1]
    assert evident.study.key in texts[4]
    assert "methods: relp, activation_patching, random" in texts[4]
    wide = nvs.Basis("wide", basis.sites * 3, basis.dictionaries * 3, members=(basis,) * 3)
    assert repr(wide).splitlines()[-1].strip() == "and 2 more sites"


# Pairs from rows in memory.


def test_rows_in_memory_are_pairs(checkpoint: Path) -> None:
    model = nvs.load_model(checkpoint)
    row = {
        "clean": "ann saw a cat",
        "corrupt": "bob saw a cat",
        "answer": " she",
        "foil": " he",
        "animal": "cat",
        "n": 1,
    }
    pairs = nvs.pairs(model, iter([row, {**row, "clean": "eve saw a cat"}]), name="mine")
    assert (pairs.name, len(pairs), pairs.positions) == ("mine", 2, 5)
    assert pairs.tags == ({"animal": "cat", "n": "1"},) * 2
    assert nvs.pairs(model, [row], prepend_bos=False).positions == 4
    with pytest.raises(
        InputError, match=r"row 1 of task 'pairs': 'foil' must be there, as text; it has clean, corrupt"
    ):
        nvs.pairs(model, [row, {key: row[key] for key in ("clean", "corrupt", "answer")}])
    with pytest.raises(InputError, match=r"row 0 of task 'pairs': 'answer' must be there, as text; this is 3"):
        nvs.pairs(model, [{**row, "answer": 3}])
    with pytest.raises(InputError, match=r"row 1 of task 'pairs': clean and corrupt prompt have 5 and 6 tokens"):
        nvs.pairs(model, [row, {**row, "corrupt": "bob saw a a cat"}])
    kept = nvs.pairs(model, [row, {**row, "corrupt": "bob saw a a cat"}], drop=True)
    assert kept.dropped == (("clean and corrupt prompt differ in length", 1),)
    with pytest.raises(InputError, match="task 'pairs' has no pairs"):
        nvs.pairs(model, [])
