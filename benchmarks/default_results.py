"""The default study run in full, as `results/default/`: its page, tables, figures and provenance; and what the README shows of it.

    python benchmarks/default_results.py                    # runs the study, about two minutes on 2 cores
    python benchmarks/default_results.py --from nvs-results # of a folder in which it has been run
    python benchmarks/default_results.py --smoke            # a small study, into a temporary folder; nothing else is touched

What is left out of `results/default/` (per-prompt values, scores of every node: tens of MB) the same command makes again.
"""

import argparse
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd

import neuron_vs_sae as nvs
from neuron_vs_sae.report.paper_figures import save, sizes
from neuron_vs_sae.report.words import verdict
from neuron_vs_sae.studies.evidence import evidence
from neuron_vs_sae.studies.study import make_study, with_defaults

ROOT = Path(__file__).parents[1]
HERE = ROOT / "results" / "default"
KEPT = (
    "study.json", "report.html", "table.md", "table.tex", "summary.csv", "per_curve.csv", "verdicts.csv",
    "verdicts_across_tasks.csv", "curves.pdf",
)  # fmt: skip
BEGIN, END = "<!-- made by benchmarks/default_results.py -->", "<!-- end -->"
FIGURE = "![Nodes for 80 % of faithfulness, by task and basis](results/default/sizes.png)"
SMOKE: dict[str, Any] = {
    "task": "world:ioi,template=0",
    "basis": ["mlp_neurons", "sae"],
    "method": "relp",
    "examples": 40,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--from", dest="folder", type=Path, help="a finished folder of the default study")
    parser.add_argument("--smoke", action="store_true", help="a small study, into a temporary folder")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        study = make_study(with_defaults(SMOKE if chosen.smoke else {}))
        found = nvs.load(chosen.folder) if chosen.folder else nvs.compare(study, Path(temporary) / "study")
        if found.study != study:
            raise SystemExit(f"{chosen.folder} holds another study than the default: run `nvs compare` without options")
        out = Path(temporary) / "kept" if chosen.smoke else HERE
        keep(found, out)
        text = told(found)
        print(text)
        if not chosen.smoke:
            readme = ROOT / "README.md"
            readme.write_text(placed(readme.read_text(encoding="utf-8"), text), encoding="utf-8")


def keep(found: nvs.Result, out: Path) -> None:
    """The files that a reader wants, and the main figure: nodes that 80 % of faithfulness needs, by task and basis."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    for name in KEPT:
        shutil.copy(found.folder / name, out / name)
    save(sizes(found), out / "sizes.png")


def told(found: nvs.Result) -> str:
    """The verdict on neurons against the model's SAEs, as the page says it: with the method, the margin and on how many tasks.

    `found` has a `folder` with verdicts.csv, the `summary` and the `study`.
    """
    head, *pairs = verdict(found, evidence(found.folder).verdicts, pd.DataFrame())
    chosen = [
        line
        for line in pairs
        if line.startswith(("faithfulness, mlp_neurons against sae:", "completeness, mlp_neurons against sae:"))
    ]
    first, study = found.summary.iloc[0], found.study
    curves: Any = pd.read_csv(found.folder / "per_curve.csv")
    curves = curves[
        (curves["method"] == study.method[0]) & curves["size_at_level"].notna() & (curves["seed"] == study.seed[0])
    ]
    nodes: dict[str, list[int]] = {}
    for row in curves.to_dict("records"):
        of = nodes.setdefault(str(row["basis"]), [0, 0])
        of[0] += int(row["error_nodes_at_level"])
        of[1] += int(row["size_at_level"])
    errors = [f"{error} of {size} ({basis})" for basis, (error, size) in nodes.items() if error]
    return (
        f"{head} {' '.join(_sentence(line) for line in chosen)} (Areas over log size on {int(first['n_eval'])} held-out prompts a task; better: the "
        f"{found.study.confidence:.0%} interval of the difference excludes 0, and so does Holm's test; equivalent: within {found.study.margin}.) In the figure a node may be an error node, "
        f"which stands for all that a dictionary misses at a site and position: they are {', '.join(errors)} of the nodes that it shows, over all tasks. "
        "A test bed with a known world, not a sample of language models: what holds here may not hold elsewhere."
    )


def _sentence(line: str) -> str:
    return line[0].upper() + line[1:]


def placed(readme: str, text: str) -> str:
    """The README with the text between its marks."""
    before, _, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise SystemExit(f"README.md lacks the marks {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{FIGURE}\n\n{text}\n\n{END}{after}"


if __name__ == "__main__":
    main()
