"""Models, SAEs and prompts small enough to know: random weights in float64, and the trained assets where they are."""

import json
import os
import sys
from collections.abc import Callable
from functools import partialmethod
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import toys
from filelock import FileLock
from tqdm.auto import tqdm

# Toys are too small to share among threads, and waiting for each other costs more than the work.
torch.set_num_threads(1)

ASSETS = Path(os.environ["NVS_ASSETS"]) if os.environ.get("NVS_ASSETS") else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what cannot run, with the reason that ends the skip; the longest tests begin first, so that no worker waits."""
    skipped = {}
    if ASSETS is None:
        skipped["assets"] = pytest.mark.skip(reason="set NVS_ASSETS to the folder of trained models, SAEs and tasks")
    if config.getoption("jaxtyping_packages"):
        skipped["unchecked"] = pytest.mark.skip(reason="the type checker refuses the call before the package does")
    for item in items:
        for name in skipped.keys() & item.keywords.keys():
            item.add_marker(skipped[name])
    items.sort(key=lambda item: "long" not in item.keywords)


def pytest_sessionfinish() -> None:
    """Write what was called, where that is recorded."""
    if "checking" in sys.modules and "CHECKED_CALLS" in os.environ:
        sys.modules["checking"].write(Path(os.environ["CHECKED_CALLS"]))


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of this run's workers together."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


Once = Callable[[str, Callable[[], Any]], Any]
"""(name, make) to what `make` gives."""


@pytest.fixture(scope="session")
def once(shared_folder: Path) -> Once:
    """What `make` gives, in JSON's types: made by the first worker that asks for that name, read by the others."""

    def get(name: str, make: Callable[[], Any]) -> Any:
        file = shared_folder / f"{name}.json"
        with FileLock(f"{file}.lock"):
            if not file.exists():
                file.write_text(json.dumps(make()))
        return json.loads(file.read_text())

    return get


@pytest.fixture(scope="session")
def assets() -> Path:
    """The assets' folder (tests that use it are marked `assets`)."""
    assert ASSETS is not None
    return ASSETS


@pytest.fixture(scope="session", params=list(toys.MODELS))
def model(request: pytest.FixtureRequest) -> Any:
    """Every toy architecture."""
    return toys.model(request.param)


@pytest.fixture(scope="session")
def llama() -> Any:
    """The bias-free toy: RMSNorm, rotary, grouped-query attention, gated SiLU MLP."""
    return toys.model("llama")


@pytest.fixture(scope="session")
def gpt2() -> Any:
    """The biased toy: LayerNorm, learned positions, plain GELU MLP."""
    return toys.model("gpt2")


@pytest.fixture(scope="session")
def stories(assets: Path) -> Any:
    """The trained stories260K, in float32."""
    from neuron_vs_sae.models.loading import load_model

    return load_model(assets / "models" / "stories260K")


WORDS = ("ann", "eve", "sue", "mia", "bob", "dan", "max", "leo", "saw", "met", "a", "cat", "dog", "hen", "he", "she")


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    """A fast tokenizer with a token per word, `<s>` being BOS."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: i for i, word in enumerate(("<unk>", "<s>", "</s>", *WORDS))}
    whole_words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    whole_words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=whole_words, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


@pytest.fixture(scope="session")
def checkpoint(tokenizer: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face folder: a random Llama of two layers and width 16 with that tokenizer."""
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("models") / "tiny"
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=32, initializer_range=0.5,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def task_files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Pairs of that vocabulary as JSON lines, and others that share no prompt with them."""
    folder = tmp_path_factory.mktemp("tasks")
    girls, boys = WORDS[:4], WORDS[4:8]

    def write(name: str, verb: str) -> Path:
        rows = [
            {"clean": f"{girl} {verb} a {animal}", "corrupt": f"{boy} {verb} a {animal}", "answer": " she", "foil": " he",
             "animal": animal}
            for girl, boy in zip(girls, boys, strict=True)
            for animal in ("cat", "dog", "hen")
        ]  # fmt: skip
        file = folder / name
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return file

    return write("saw.jsonl", "saw"), write("met.jsonl", "met")


@pytest.fixture(scope="session")
def sae_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SAEs for `checkpoint`, at the MLP output of each layer, in sae-lens' own format: fourteen of its sixteen
    coordinates, each by a unit that is shifted far enough to be active always; six units are dead."""
    folder = tmp_path_factory.mktemp("saes") / "mlp_out"
    some = torch.eye(16, 20) * (torch.arange(20) < 14)
    for layer in range(2):
        hook = f"blocks.{layer}.hook_mlp_out"
        sae = toys.sae(hook, d=16, width=20, seed=layer, dtype="float32").float()
        sae.W_enc.data, sae.W_dec.data = some.clone(), some.T.contiguous()
        sae.b_enc.data = torch.where(torch.arange(20) < 14, 0.0, -1.0)
        sae.b_dec.data = -30.0 * some.sum(1)
        sae.save_model(folder / hook)
    return folder


# What a careless format would take for markup, in a name that a file can have.
HOSTILE = "<img src=x onerror=alert(1)>&%_$x^2$\"'{}#~`|[y](z)\\*\u05d0\u05d1\u202e\U0001f600"


@pytest.fixture(scope="session")
def evident(checkpoint: Path, task_files: tuple[Path, Path], sae_folder: Path, shared_folder: Path) -> Any:
    """A finished study with exact effects and chance, whose task, tags and SAEs have hostile names: run by the first worker
    that asks, loaded by the others. Not to be written to."""
    from neuron_vs_sae.studies.result import load

    folder = shared_folder / "hostile"
    with FileLock(f"{folder}.lock"):
        if not (folder / "results" / "study.json").exists():
            _run_hostile_study(folder, checkpoint, task_files, sae_folder)
    return load(folder / "results")


def _run_hostile_study(folder: Path, checkpoint: Path, task_files: tuple[Path, Path], sae_folder: Path) -> None:
    import shutil

    from neuron_vs_sae.running.comparison import compare
    from neuron_vs_sae.studies.study import make_study

    folder.mkdir()
    train, test = folder / f"{HOSTILE}.jsonl", folder / "test.jsonl"
    for source, file in zip(task_files, (train, test), strict=True):
        rows = [{**json.loads(line), HOSTILE: HOSTILE} for line in source.read_text().splitlines()]
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    saes = folder / f"saes {HOSTILE}"
    shutil.copytree(sae_folder, saes)
    study = make_study({
        "model": str(checkpoint), "task": str(train), "eval_task": str(test), "examples": 8, "eval_examples": 6,
        "basis": ["mlp_neurons", f"sae:{saes}"], "method": ["relp", "activation_patching", "random"], "sizes": [0, 1, 5, 50, "all"],
        "resamples": 100,
    })  # fmt: skip
    compare(study, folder / "results")


class Ended(NamedTuple):
    status: int
    out: str
    err: str


Run = Callable[..., Ended]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """`nvs` with these arguments, in this process and an empty folder, in a terminal of 80 columns."""
    monkeypatch.setenv(
        "TQDM_DISABLE", "1"
    )  # the command sets it; tqdm reads it when it is imported, which it is by now
    monkeypatch.setattr(tqdm, "__init__", partialmethod(tqdm.__init__, disable=True))
    monkeypatch.chdir(tmp_path)
    from neuron_vs_sae.cli import commands as cli
    from neuron_vs_sae.cli.console import ERR, OUT

    for console in (OUT, ERR):
        monkeypatch.setattr(console, "width", 80)

    def nvs_(*arguments: Any) -> Ended:
        monkeypatch.setattr(sys, "argv", ["nvs", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return Ended(int(ended.value.code or 0), *capsys.readouterr())

    return nvs_
