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

import neuron_vs_sae as nvs
from neuron_vs_sae.report.paper_figures import forest, save
from neuron_vs_sae.report.robust_tables import robust_tables
from neuron_vs_sae.report.words import answers
from neuron_vs_sae.studies.study import make_study, with_defaults

ROOT = Path(__file__).parents[1]
HERE = ROOT / "results" / "default"
KEPT = (
    "study.json", "report.html", "table.md", "table.tex", "summary.csv", "per_curve.csv", "verdicts.csv",
    "verdicts_across_tasks.csv", "robustness.csv", "specifications.parquet", "curves.pdf",
)  # fmt: skip
BEGIN, END = "<!-- made by benchmarks/default_results.py -->", "<!-- end -->"
FIGURE = "![Difference in area under faithfulness, by task, dictionary and error policy](results/default/answer.png)"
LIMIT = "A test bed with a known world, not a sample of language models: what holds here may not hold elsewhere."
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
    """The files that a reader wants, and the answer's figure."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    for name in KEPT:
        shutil.copy(found.folder / name, out / name)
    save(forest(found), out / "answer.png")


def told(found: nvs.Result) -> str:
    """The page's two sentences on neurons and the first trained dictionary, and what they do not show."""
    first = answers(found, robust_tables(found.folder))[0]
    return " ".join([*first.sentences, LIMIT])


def placed(readme: str, text: str) -> str:
    """The README with the text between its marks."""
    before, _, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise SystemExit(f"README.md lacks the marks {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{FIGURE}\n\n{text}\n\n{END}{after}"


if __name__ == "__main__":
    main()
