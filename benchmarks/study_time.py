"""How long a whole study takes, from the command line: 4 bases x 3 methods x 12 sizes x 100 evaluation pairs.

    NVS_ASSETS=... python benchmarks/study_time.py --out results/study_time.md
    python benchmarks/study_time.py --smoke      # a random two-layer checkpoint, a minute at most, no assets

The stated bound is two minutes on 2 cores. Writes the seconds, what ran, and on what machine.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

METHODS = ["relp", "attribution_patching", "integrated_gradients"]
SIZES = "0,1,2,5,10,20,50,100,200,500,1000,2000"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="a random checkpoint instead of NVS_ASSETS")
    parser.add_argument("--out", type=Path, help="Markdown file to write")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        arguments = smoke(Path(folder)) if chosen.smoke else trained()
        command = [sys.executable, "-m", "neuron_vs_sae", "compare", *arguments, "--out", f"{folder}/out", "--quiet"]
        started = time.perf_counter()
        subprocess.run(command, check=True)
        seconds = time.perf_counter() - started
        table = (Path(folder) / "out" / "table.md").read_text(encoding="utf-8")
        record = json.loads((Path(folder) / "out" / "study.json").read_text(encoding="utf-8"))
    text = report(arguments, seconds, record, table)
    if chosen.out is None:
        print(text)
    else:
        chosen.out.write_text(text, encoding="utf-8")


def trained() -> list[str]:
    """The study on stories260K."""
    if "NVS_ASSETS" not in os.environ:
        sys.exit("set NVS_ASSETS to the folder of trained models, SAEs and tasks, or pass --smoke")
    assets = Path(os.environ["NVS_ASSETS"])
    tasks = assets / "tasks" / "stories260K"
    bases = ["mlp_neurons", "mlp_outputs", f"sae:{assets}/saes/stories260K/jumprelu@hook_mlp_out", "rotation"]
    return [
        *("--model", str(assets / "models" / "stories260K")),
        *("--task", str(tasks / "gender_pronoun_train.jsonl")),
        *("--eval-task", str(tasks / "gender_pronoun_test.jsonl")),
        *("--examples", "300", "--eval-examples", "100", "--sizes", SIZES),
        *(part for basis in bases for part in ("--basis", basis)),
        *(part for method in METHODS for part in ("--method", method)),
    ]


def smoke(folder: Path) -> list[str]:
    """The same kinds of basis and method on a random checkpoint and made-up pairs."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = ["<s>", "<unk>", *(f"w{i}" for i in range(30))]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", unk_token="<unk>").save_pretrained(
        folder / "m"
    )
    config = LlamaConfig(
        vocab_size=len(words), hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=32, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder / "m")
    rows = [
        {"clean": f"w{i} w{j} w3", "corrupt": f"w{i + 1} w{j} w3", "answer": " w4", "foil": " w5"}
        for i in range(0, 28, 2)
        for j in range(4)
    ]
    (folder / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    bases = ["mlp_neurons", "mlp_outputs", "pca", "rotation"]
    return [
        *("--model", str(folder / "m"), "--task", str(folder / "pairs.jsonl")),
        *("--examples", "20", "--eval-examples", "8"),
        *(part for basis in bases for part in ("--basis", basis)),
        *(part for method in METHODS for part in ("--method", method)),
    ]


def report(arguments: list[str], seconds: float, record: dict, table: str) -> str:
    """Markdown: the time, the command, the machine, and the study's own table."""
    study = record["study"]
    made = record["provenance"]
    packages = ", ".join(f"{p} {version(p)}" for p in ("torch", "transformer-lens", "sae-lens"))
    shown = [Path(a).name if "/" in a and not a.startswith("sae:") else a for a in arguments]
    shown = [f"sae:.../{Path(a).name}" if a.startswith("sae:") else a for a in shown]
    return f"""# Time of a whole study

**{seconds:.0f} seconds**, imports and loading included: {len(study["basis"])} bases, {len(study["method"])} methods,
{study["examples"]} discovery and {study["eval_examples"]} evaluation pairs, sizes {", ".join(map(str, study["sizes"]))}.

Measured by `python benchmarks/study_time.py` on {os.cpu_count()} cores of {platform.machine()}, {made["threads"]} threads,
{packages}, Python {platform.python_version()}. It ran

    nvs compare {" ".join(shown)}

and found:

{table.replace("# Circuits", "## Circuits", 1)}"""


if __name__ == "__main__":
    main()
