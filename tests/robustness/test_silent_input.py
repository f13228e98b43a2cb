"""Input that would give a number that means nothing, or a copy of the right one, is refused before anything is written."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from conftest import Run
from sae_lens import SAE

import neuron_vs_sae as nvs
from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.studies.study import Study, make_study

SITE = "blocks.0.hook_mlp_out"


def permuted(sae: SAE) -> None:
    sae.W_dec.data = sae.W_dec.data[torch.randperm(len(sae.W_dec), generator=torch.Generator().manual_seed(0))]


def zeroed(sae: SAE) -> None:
    for parameter in sae.parameters():
        parameter.data.zero_()


def tenfold(sae: SAE) -> None:
    sae.W_dec.data *= 10


def random(sae: SAE) -> None:
    for parameter in sae.parameters():
        parameter.data = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))


SPOILT = {"permuted decoder": permuted, "zero weights": zeroed, "decoder x 10": tenfold, "random weights": random}


@pytest.fixture
def spoilt(sae_folder: Path, tmp_path: Path) -> Any:
    """A copy of the folder of SAEs whose weights have been spoilt in that way."""

    def make(how: str, **metadata: Any) -> Path:
        sae = SAE.load_from_disk(sae_folder / SITE)
        SPOILT[how](sae)
        sae.save_model(tmp_path / "spoilt" / SITE)
        file = tmp_path / "spoilt" / SITE / "cfg.json"
        cfg = json.loads(file.read_text())
        cfg["metadata"] |= metadata
        file.write_text(json.dumps(cfg))
        return tmp_path / "spoilt"

    return make


@pytest.fixture
def a_study(checkpoint: Path, task_files: tuple[Path, Path]) -> Any:
    settings = {"model": str(checkpoint), "task": str(task_files[0]), "eval_task": str(task_files[1]), "examples": 8,
                "eval_examples": 6, "basis": "mlp_neurons", "sizes": [1, 5], "resamples": 100}  # fmt: skip
    return lambda **changed: make_study({**settings, **changed})


@pytest.mark.parametrize("how", SPOILT)
def test_a_spoilt_sae_is_refused_by_compare_as_by_check(how: str, spoilt: Any, a_study: Any, tmp_path: Path) -> None:
    study = a_study(basis=["mlp_neurons", f"sae:{spoilt(how)}"])
    for use in (nvs.check, lambda study: nvs.compare(study, tmp_path / "out")):
        with pytest.raises(InputError, match=r"the sae at blocks.0.hook_mlp_out explains .*--accept-poor-sae"):
            use(study)
    assert not (tmp_path / "out").exists()


def test_a_poor_sae_that_is_accepted_is_spoken_of_in_every_table_and_on_the_page(
    spoilt: Any, a_study: Any, tmp_path: Path
) -> None:
    found = nvs.compare(
        a_study(basis=["mlp_neurons", f"sae:{spoilt('decoder x 10')}"], accept_poor_sae=True), tmp_path / "out"
    )
    (explained,) = found.bases[found.study.basis[1]]["explained_variance"]
    for name in ("table.md", "table.tex", "report.html"):
        text = (found.folder / name).read_text().replace("\\_", "_").replace("{-}", "-")
        assert "SAEs were accepted whatever they explain" in text, name
        assert f"explain {explained:.2f} of the variance" in text, name
    for name in ("summary.csv", "per_curve.csv", "verdicts.csv", "robustness.csv"):
        assert pd.read_csv(found.folder / name)["accept_poor_sae"].all(), name
    plain = nvs.compare(a_study(), tmp_path / "plain")
    assert not plain.summary["accept_poor_sae"].any()
    assert "SAEs were accepted" not in (plain.folder / "report.html").read_text()


def test_a_declared_control_may_explain_what_it_likes(spoilt: Any, a_study: Any, tmp_path: Path) -> None:
    control = spoilt("random weights", frozen_decoder=True)
    assert nvs.compare(a_study(basis=["mlp_neurons", f"sae:{control}"]), tmp_path / "out").record["finished"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"method": "integrated_gradients,steps=0"}, "a path has at least one step"),
        ({"method": "conductance,steps=-1"}, "a path has at least one step"),
        ({"attribution_metric": "kl"}, "the gradient of kl is zero at the clean prompt"),
        ({"method": "attribution_patching,grad_at=corrupt", "pairing": "unpaired"}, "needs the corrupt prompt"),
        ({"method": "random,seed=99999999999999999999"}, "seed='99999999999999999999' is wrong"),
        ({"basis": "rotation,seed=99999999999999999999"}, "seed='99999999999999999999' is wrong"),
    ],
)
def test_what_a_method_cannot_do_is_refused_before_anything_is_written(
    changed: dict[str, Any], message: str, a_study: Any, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        nvs.compare(a_study(**changed), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_pair_whose_prompts_are_the_same_is_refused_by_its_row(a_study: Any, tmp_path: Path) -> None:
    rows = [("ann saw a cat", "bob saw a cat"), ("ann saw a dog", "ann saw a dog")]
    lines = [json.dumps({"clean": a, "corrupt": b, "answer": " she", "foil": " he"}) for a, b in rows]
    (tmp_path / "pairs.jsonl").write_text("\n".join(lines))
    with pytest.raises(InputError, match=r"row 2 .*clean and corrupt prompt are the same \('ann saw a dog'\)"):
        nvs.compare(a_study(task=str(tmp_path / "pairs.jsonl")), tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("examples", True, "'examples' takes no switch: true was given"),
        ("seed", [0, True], "'seed' takes no switch"),
        ("confidence", True, "'confidence' takes no switch"),
        ("seed", 2**64, "'seed' is beyond 2 [*][*] 53"),
        ("seed", -(2**70), "'seed' is beyond 2 [*][*] 53"),
        ("folds", 10**4000, "'folds' is beyond 2 [*][*] 53"),
        ("sizes", "9" * 5000, "size '9{40}' is neither"),
        ("sizes", [2**60], "'sizes' is beyond 2 [*][*] 53"),
        ("margin", float("inf"), "'margin' is beyond"),
        ("task", "pairs\udcff.jsonl", "'task' is not UTF-8"),
        ("basis", ["mlp_neurons\0"], "'basis' holds a NUL"),
    ],
)
def test_a_setting_that_no_reader_could_hold_is_refused(name: str, value: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_study({"model": "gpt2", "task": "pairs.jsonl", "basis": "mlp_neurons", name: value})
    assert isinstance(
        make_study({"model": "gpt2", "task": "pairs.jsonl", "basis": "mlp_neurons", "seed": 2**53}), Study
    )


@pytest.mark.parametrize(
    "text", ["seed = " + "9" * 5000, "examples = true", "model = '\\u0000'", "\udcff", "a = [" * 2000]
)
def test_a_config_that_holds_what_no_setting_may_be_ends_with_two(text: str, run: Run, tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_bytes(text.encode("utf-8", "surrogateescape"))
    ended = run("compare", "--config", "study.toml", "--out", "out")
    assert (ended.status, ended.out, ended.err.count("nvs:")) == (2, "", 1)
    assert not (tmp_path / "out").exists()
