"""The embedded default does what its cards say, from the shipped files, offline, and from a wheel."""

import json
import os
import socket
import subprocess
import sys
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import mutants
import pytest
import torch
from measure_default import asker, bar, measured_tasks, patched_states, probes, two_hop_held_out
from measure_dictionaries import dictionary_folders, measure_dictionaries, share_dead

import neuron_vs_sae as nvs
from neuron_vs_sae import default
from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.default.families import FAMILIES
from neuron_vs_sae.models.presets import presets
from neuron_vs_sae.report.console import console_table
from neuron_vs_sae.report.robust_tables import robust_tables
from neuron_vs_sae.studies.families import controls_of
from neuron_vs_sae.studies.findings import findings
from neuron_vs_sae.studies.multiverse import of_finding
from neuron_vs_sae.studies.per_curve import per_curve
from neuron_vs_sae.studies.robustness import judged, verdict_of
from neuron_vs_sae.studies.study import Study, with_defaults

HOME = Path(default.__file__).parent
MEASURED = json.loads((HOME / "measured.json").read_text(encoding="utf-8"))
CONTROLS = ("architectures/random_decoder", "architectures/random_model")


@cache
def model(name: str) -> Any:
    return nvs.load_model(name)


@cache
def tasks(name: str) -> dict[str, dict[str, Any]]:
    return measured_tasks(asker(model(name)), n=200, seed=7)


# What the models can do, on pairs of a seed that neither training nor the cards used.


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", default.NAMES)
def test_every_shipped_task_is_solved_on_both_prompts(name: str, family: str) -> None:
    found = tasks(name)[family]
    assert found["pairs"] >= 150
    assert found["both"] >= bar(family)


def test_an_untrained_model_solves_none_of_them() -> None:
    """So the bars cannot be passed by accident."""
    from transformer_lens import HookedTransformer

    twin = HookedTransformer(model("default").cfg)
    twin.set_tokenizer(model("default").tokenizer)
    assert max(task["both"] for task in measured_tasks(asker(twin.eval()), n=100).values()) < 0.6


@pytest.mark.parametrize("name", default.NAMES)
def test_held_out_two_hop_questions_are_answered_and_only_by_composition(name: str) -> None:
    found = two_hop_held_out(asker(model(name)))
    assert min(found.values()) >= 0.9
    assert found == pytest.approx(MEASURED[name]["two_hop_held_out"], abs=0.02)


@pytest.mark.parametrize("name", default.NAMES)
def test_swapping_what_the_lower_layers_write_moves_the_answer_to_the_other_states_capital(name: str) -> None:
    found = patched_states(model(name), n=60, seed=3)
    assert found["layers 0-1, after"] >= 0.9
    assert found["layers 0-1, after, own state"] >= 0.9
    assert found["layer 3, city"] <= 0.1  # a control: there is nothing left that could read it
    if name == "default-gpt2":  # where the middle layers write it; in the other model the first layer already has
        assert found["layers 1-2, after"] >= 0.9


@pytest.mark.parametrize("name", default.NAMES)
def test_linear_probes_find_the_latent_variables(name: str) -> None:
    found = probes(model(name), n=400, seed=3)
    for latent, accuracies in found.items():
        assert max(accuracies) >= 0.8, latent
    number = next(v for k, v in found.items() if k.startswith("agreement_nounpp: number"))
    assert number[0] < 0.65  # the last word before the verb says nothing of the noun's number
    assert number[-1] >= 0.98


# Dictionaries, from the shipped files.


@pytest.fixture(scope="session")
def numbers(once: Callable[[str, Callable[[], Any]], Any]) -> Callable[[str], dict[str, dict[str, Any]]]:
    """The numbers of every dictionary of a model, by its folder: on so much text that samples differ by less than
    the tolerances."""

    def measured(name: str) -> dict[str, dict[str, Any]]:
        folders = dictionary_folders(default.MODELS / name / "saes")
        return once(
            f"dictionaries of {name}", lambda: measure_dictionaries(model(name), folders, "tests", 16_000, 4_000)
        )

    return measured


@pytest.mark.long
@pytest.mark.parametrize("name", default.NAMES)
def test_dictionaries_meet_their_bars(name: str, numbers: Callable[[str], Any]) -> None:
    for folder, found in numbers(name).items():
        if folder in CONTROLS:
            continue
        assert found["explained_variance"] >= 0.9, folder
        assert found["ce_recovered"] >= 0.95, folder
        assert found["l0"] <= 24, folder


@pytest.mark.parametrize("name", default.NAMES)
def test_the_cards_numbers_are_those_of_the_shipped_files(name: str, numbers: Callable[[str], Any]) -> None:
    """On other text of the same world, so within the difference between two samples (which is large for what controls do
    to the loss)."""
    assert numbers(name).keys() == MEASURED[name]["dictionaries"].keys()
    for folder, found in numbers(name).items():
        stated = MEASURED[name]["dictionaries"][folder]
        for number, tolerance in (("explained_variance", 0.02), ("l0", 1.0), ("ce_recovered", 0.02), ("width", 0)):
            if folder not in CONTROLS or number != "ce_recovered":
                # A control's units are tuned to nothing in the text, and what is active varies more from text to text.
                share = 0.1 if folder in CONTROLS else 0.05
                assert found[number] == pytest.approx(stated[number], abs=tolerance, rel=share), (folder, number)


@pytest.mark.long
@pytest.mark.parametrize("name", default.NAMES)
def test_fewer_than_a_tenth_of_the_units_are_dead(name: str, numbers: Callable[[str], Any]) -> None:
    """On as much text as the cards, for the dictionary of which they state the most."""
    stated = {k: d["dead"] for k, d in MEASURED[name]["dictionaries"].items() if k not in CONTROLS}
    worst = max(stated, key=stated.__getitem__)
    dead = share_dead(model(name), default.MODELS / name / "saes" / worst)
    assert dead < 0.1
    assert dead == pytest.approx(stated[worst], abs=0.01)
    for other, few in numbers(name).items():  # less text cannot show more units alive, but for chance
        assert few["dead"] >= MEASURED[name]["dictionaries"][other]["dead"] - 0.02, other


def test_trained_dictionaries_beat_the_controls_at_their_site(numbers: Callable[[str], Any]) -> None:
    found = numbers("default")
    trained = found["architectures/batchtopk"]
    for control in CONTROLS:
        assert found[control]["explained_variance"] < trained["explained_variance"] - 0.05


@pytest.mark.parametrize("name", default.NAMES)
def test_every_set_is_a_basis(name: str) -> None:
    folders = {Path(folder) for folder in MEASURED[name]["dictionaries"]}
    sets = {folder if folder.parent.name == "architectures" else folder.parent for folder in folders}
    for one in sorted(sets - {Path("transcoder")}):
        assert nvs.bases.sae(model(name), source=f"{name}/{one}").sites
    assert [site.layer for site in nvs.bases.transcoder(model(name)).sites] == [0, 1, 2, 3]
    for site in presets()[name].saes:
        basis = nvs.bases.sae(model(name), select=nvs.Selection(site=site))
        assert [s.writes for s in basis.sites] == [f"blocks.{layer}.{site}" for layer in range(4)]


def test_without_a_preset_a_source_is_asked_for(llama: Any) -> None:
    for name in ("sae", "transcoder"):
        with pytest.raises(
            InputError, match=rf"no preset with {name}s of model 'toy-llama': say which \(write {name}:FOLDER"
        ):
            getattr(nvs.bases, name)(llama)
    with pytest.raises(InputError, match="has no saes at hook_resid_mid; it has: hook_mlp_out, hook_resid_post"):
        nvs.bases.sae(model("default"), select=nvs.Selection(site="hook_resid_mid"))


# The package: its size, its tasks, its study; offline and from a wheel.


def test_the_data_is_small() -> None:
    sizes = [file.stat().st_size for file in HOME.rglob("*") if file.is_file() and file.suffix != ".pyc"]
    assert sum(sizes) < 25e6
    assert max(sizes) < 4e6


def test_the_default_study_names_what_there_is() -> None:
    study = Study(**with_defaults({}))
    assert len(study.task) >= 6
    assert {task.split(":")[1].split(",")[0] for task in study.task} <= FAMILIES.keys()
    for text in study.task:
        pairs = [
            nvs.tasks.world(model("default"), **_options(text), part=part, n=40) for part in ("discovery", "evaluation")
        ]
        assert len({side.positions for side in pairs}) == 1
        assert all(side.same_length for side in pairs)
        assert pairs[1].overlap(pairs[0]) == 0


def _options(text: str) -> dict[str, Any]:
    source, _, template = text.removeprefix("world:").partition(",template=")
    return {"source": source, "template": int(template) if template else None}


def test_a_model_with_other_words_is_refused(llama: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Reader:
        def get_vocab(self) -> dict[str, int]:
            return {"the": 0}

    monkeypatch.setattr(llama, "tokenizer", Reader())
    with pytest.raises(InputError, match="written in the vocabulary of the models 'default' and 'default-gpt2'"):
        nvs.tasks.world(llama, source="ioi")


COMPARE = (
    "compare", "--task", "world:agreement_nounpp", "--examples", "20", "--eval-examples", "12", "--method", "relp",
    "--sizes", "1,10,100,1000", "--resamples", "100", "--out", "out",
)  # fmt: skip


def refuse(*args: Any, **kwargs: Any) -> None:
    raise AssertionError("the network was used")


@pytest.mark.long
@pytest.mark.parametrize("name", default.NAMES)
def test_the_default_study_runs_without_a_network_or_a_hub(
    name: str, run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setattr(socket.socket, "connect", refuse)
    for call in ("create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, call, refuse)
    ended = run(*COMPARE, "--model", name)
    assert ended.status == 0, ended.err
    found = nvs.load(tmp_path / "out")
    assert found.record["study"]["model"] == name
    assert set(found.summary["basis"]) == set(Study(**with_defaults({})).basis)
    text = " ".join(ended.out.split())
    for sentence in console_table(found, per_curve(found), robust_tables(found.folder)).sentences:
        assert sentence in text


_INSTALLED = """
import socket, sys
def refuse(*args, **kwargs): raise AssertionError("the network was used")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
import neuron_vs_sae
print(neuron_vs_sae.__file__, file=sys.stderr)
from neuron_vs_sae.cli.commands import main
sys.argv = ["nvs", *sys.argv[1:]]
main()
"""


@pytest.mark.long
def test_a_wheel_holds_all_of_it_and_runs(tmp_path: Path) -> None:
    options = ["--no-deps", "--no-build-isolation", "--disable-pip-version-check", "--quiet"]
    pip = [sys.executable, "-m", "pip"]
    source = tmp_path / "source"
    _copy(source)
    subprocess.run(
        [*pip, "wheel", *options, "--wheel-dir", str(tmp_path), str(source)], check=True, capture_output=True
    )
    (wheel,) = tmp_path.glob("*.whl")
    shipped = {str(f.relative_to(HOME)) for f in HOME.rglob("*") if f.is_file() and f.suffix != ".pyc"}
    inside = {name.removeprefix("neuron_vs_sae/default/") for name in zipfile.ZipFile(wheel).namelist()}
    assert shipped <= inside
    site = tmp_path / "site"
    subprocess.run([*pip, "install", *options, "--target", str(site), str(wheel)], check=True, capture_output=True)
    environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub"), "PYTHONPATH": str(site)}
    command = [sys.executable, "-c", _INSTALLED, *COMPARE, "--basis", "sae", "--basis", "mlp_neurons"]
    ended = subprocess.run(
        command, cwd=tmp_path, env=os.environ | environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert str(site) in ended.stderr


def _copy(target: Path) -> None:
    """The project as it is packaged, without results and builds."""
    import shutil

    target.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(mutants.ROOT / name, target / name)
    shutil.copytree(
        mutants.ROOT / "neuron_vs_sae", target / "neuron_vs_sae", ignore=shutil.ignore_patterns("__pycache__")
    )


def test_training_text_never_asks_what_is_held_out() -> None:
    """The last line of defence for the claim of composition: in text of several training seeds."""
    from itertools import islice

    from neuron_vs_sae.default import language
    from neuron_vs_sae.default.families import HELD_OUT_CITIES, STATE_OF

    capital = {city: STATE_OF[city].capital for city in HELD_OUT_CITIES}
    for seed in ("0 0", "0 800", "0 1599"):
        for _, sentence in islice(language.sentences(seed), 2000):
            for city in capital.keys() & set(sentence.words):
                assert capital[city] not in sentence.words


def test_the_models_weights_are_in_half_precision_and_used_in_single() -> None:
    from safetensors import safe_open

    for file in HOME.rglob("*.safetensors"):
        with safe_open(file, "pt") as opened:
            assert {opened.get_tensor(key).dtype for key in opened.keys()} == {torch.float16}, file  # noqa: SIM118
    assert next(model("default").parameters()).dtype == torch.float32


def test_a_frozen_decoder_is_the_control_of_the_trained_saes_of_its_shape() -> None:
    """A study knows it by what its configuration says, not by its name."""
    bases = [f"sae:default/architectures/{kind}" for kind in ("jumprelu", "random_decoder", "random_model")]
    study = Study(model="default", task=("world:two_hop",), basis=("mlp_neurons", *bases))
    loaded = {text: nvs.bases.sae(model("default"), source=text.partition(":")[2]) for text in bases}
    made = {
        text: {
            "sites": [site.name for site in basis.sites],
            "widths": [dictionary.width for dictionary in basis.dictionaries],
            **basis.provenance,
        }
        for text, basis in loaded.items()
    }
    assert set(controls_of(study, {"bases": {"t": made}}, "t")) == {(bases[0], bases[1]), (bases[2], bases[1])}


def test_rotations_drawn_independently_are_never_called_better_than_one_another(tmp_path: Path) -> None:
    """Through the whole pipeline, on the default model: of 15 pairs at most 5 % may be, which is none."""
    study = Study(
        model="default", task=("world:successor,template=1",), basis=tuple(f"rotation,seed={i}" for i in range(6)),
        ablation=("mean", "counterfactual"), examples=40, eval_examples=40, resamples=500,
    )  # fmt: skip
    result = nvs.compare(study, tmp_path, model=model("default"))
    rows = []
    for [finding] in findings(result):
        a, b = finding.comparison.basis_a, finding.comparison.basis_b
        multiverse = of_finding(finding, "faithfulness")
        assert multiverse is not None
        # Each pair is a family of its own, so that no adjustment for the others hides a false verdict.
        row = {"basis_a": a, "basis_b": b, "score": "faithfulness", "family": f"{a} {b}"}
        rows.append({**row, **verdict_of(multiverse, "faithfulness", a, study)})
    verdicts = judged(rows, study)["verdict"].tolist()
    assert len(verdicts) == 15
    assert not {"a better", "b better"} & set(verdicts)
