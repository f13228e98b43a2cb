"""How long whole studies take from the command line, and how much memory: the default study, and one on stories260K.

    python benchmarks/study_time.py --out results/study_time.md     # the second where NVS_ASSETS is set
    python benchmarks/study_time.py --smoke                         # one task, two bases, one method

Stated bounds on 2 cores: loading the default 3 seconds; the default study 120 seconds and 1.5 GiB, `--quick` 40 seconds and
`nvs check` 15 seconds, from start to end; stories260K (4 bases x 3 methods x 12 sizes x 100 evaluation pairs) two minutes. Writes the seconds, the memory, what ran, and on what machine.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

METHODS = ["relp", "attribution_patching", "integrated_gradients"]
SIZES = "0,1,2,5,10,20,50,100,200,500,1000,2000"
SMOKE = ["--task", "world:ioi,template=0", "--basis", "mlp_neurons", "--basis", "sae", "--method", "relp"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="one task, two bases, one method")
    parser.add_argument("--out", type=Path, help="Markdown file to write")
    chosen = parser.parse_args()
    studies = {"The default study": SMOKE} if chosen.smoke else {"The default study": [], "A first look": ["--quick"]}
    if "NVS_ASSETS" in os.environ and not chosen.smoke:
        studies["stories260K"] = stories(Path(os.environ["NVS_ASSETS"]))
    parts = [timed(title, arguments) for title, arguments in studies.items()]
    parts += [] if chosen.smoke else [checked()]
    text = "\n".join(["# Time of whole studies\n", machine(), loading(), *parts])
    if chosen.out is None:
        print(text)
    else:
        chosen.out.write_text(text, encoding="utf-8")


def stories(assets: Path) -> list[str]:
    """The study on stories260K."""
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


def timed(title: str, arguments: list[str]) -> str:
    """Run it; Markdown of the time, the memory and the command."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "neuron_vs_sae", "compare", *arguments, "--out", f"{folder}/out", "--quiet"]
        started = time.perf_counter()
        subprocess.run(command, check=True)
        seconds = time.perf_counter() - started
        record = json.loads((Path(folder) / "out" / "study.json").read_text(encoding="utf-8"))
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20  # of the largest child so far
    study = record["study"]
    shown = [Path(a).name if "/" in a and not a.startswith("sae:") else a for a in arguments]
    shown = [f"sae:.../{Path(a).name}" if a.startswith("sae:") else a for a in shown]
    return f"""## {title}

**{seconds:.0f} seconds** from start to end, {record["seconds"]:.0f} of them after imports; {peak:.1f} GiB at most. {
        ", ".join(f"{name} {len(study[name])}" for name in ("task", "basis", "method", "ablation", "errors"))
    }; {study["examples"]} discovery and {study["eval_examples"]} evaluation pairs, sizes {
        ", ".join(map(str, study["sizes"]))
    }, {record["provenance"]["threads"]} threads:

    {" ".join(["nvs compare", *shown])}
"""


def checked() -> str:
    """How long `nvs check` of the default study takes, how many lines it prints, and what it foretells."""
    started = time.perf_counter()
    said = subprocess.run(
        [sys.executable, "-m", "neuron_vs_sae", "check"], check=True, capture_output=True, text=True
    ).stdout.splitlines()
    seconds = time.perf_counter() - started
    return f"## `nvs check`\n\n**{seconds:.0f} seconds**, {len(said)} lines, the last: {said[-1]}\n"


_LOADING = """
import time, torch, transformer_lens, sae_lens, transformers, neuron_vs_sae as nvs
from neuron_vs_sae.catalog import bases
from neuron_vs_sae.models import loading as models
started = time.perf_counter()
nvs.bases.sae(nvs.load_model("default"))
print(time.perf_counter() - started)
"""


def loading() -> str:
    """How long the default's model, tokenizer and one set of SAEs take to load, the packages being imported."""
    ended = subprocess.run([sys.executable, "-c", _LOADING], check=True, capture_output=True, text=True)
    return f"Loading the default model, its tokenizer and one SAE per layer: {float(ended.stdout):.1f} seconds after imports.\n"


def machine() -> str:
    packages = ", ".join(f"{p} {version(p)}" for p in ("torch", "transformer-lens", "sae-lens"))
    return (
        f"Measured by `python benchmarks/study_time.py` on {os.cpu_count()} cores of {platform.machine()}, {packages}, Python "
        f"{platform.python_version()}.\n"
    )


if __name__ == "__main__":
    main()
