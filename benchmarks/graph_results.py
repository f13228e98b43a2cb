"""Graphs of the embedded default: remainder-merged frontiers of all bases, edges against exact effects, supernodes; `results/graphs/`.

python benchmarks/graph_results.py                  # traces 40 prompts of three tasks in six bases: about fifteen minutes
python benchmarks/graph_results.py --from FOLDER    # of a folder in which the study below has been run
python benchmarks/graph_results.py --smoke          # two prompts, into a temporary folder; nothing else is touched
"""

import argparse
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import neuron_vs_sae as nvs
from neuron_vs_sae.analyses.graphs.grouping import (
    activity,
    at_random,
    by_correlation,
    by_directions,
    split_half,
    telling_groups,
)
from neuron_vs_sae.analyses.graphs.profiles import Profiles
from neuron_vs_sae.core import files
from neuron_vs_sae.report.graph_figures import frontier
from neuron_vs_sae.report.names import basis_names
from neuron_vs_sae.report.paper_style import save
from neuron_vs_sae.running import runner
from neuron_vs_sae.statistics.bootstrap import interval, ratio
from neuron_vs_sae.statistics.resampling import draw, independent
from neuron_vs_sae.studies.graph_verdicts import SCORES, frontiers
from neuron_vs_sae.studies.graphs import GraphsResult, load
from neuron_vs_sae.studies.spec import make_spec
from neuron_vs_sae.studies.tracing import TraceStudy

ROOT = Path(__file__).parents[1]
HERE = ROOT / "results" / "graphs"
STUDY: dict[str, Any] = {
    "model": "default", "task": ["world:agreement_nounpp", "world:two_hop,template=0", "world:ioi,template=0"], "index": "0-39",
    "basis": ["mlp_neurons", "mlp_outputs", "sae", "transcoder", "rotation", "random_sae"], "examples": 100, "resamples": 2000,
}  # fmt: skip
SMALL = {
    "task": ["world:ioi,template=0"],
    "index": "0-1",
    "basis": ["mlp_neurons", "sae"],
    "nodes": 20,
    "sizes": "5,20",
}
GROUPS, PROMPTS, NODES = (20, 50, 100), 200, 200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--from", dest="folder", type=Path, help="a finished folder of the study")
    parser.add_argument("--smoke", action="store_true", help="two prompts, into a temporary folder")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        study = make_spec(TraceStudy, {**STUDY, **(SMALL if chosen.smoke else {})})
        result = load(chosen.folder) if chosen.folder else runner.run(study, Path(temporary) / "study")
        if result.study != study:
            raise SystemExit(f"{chosen.folder} holds another study than that of this script")
        out = Path(temporary) / "kept" if chosen.smoke else HERE
        keep(result, out)
        if not chosen.smoke:
            shutil.copy(
                out / f"frontier-{result.table['task'].iloc[0]}.png", ROOT / "docs" / "_static" / "graph_frontier.png"
            )
        groups = supernodes_table(12 if chosen.smoke else PROMPTS, (2,) if chosen.smoke else GROUPS)
        files.write(out / "supernodes.csv", lambda file: groups.to_csv(file, index=False))
        files.write_text(out / "graphs.md", page(result, groups))


def keep(result: GraphsResult, out: Path) -> None:
    """The frontier's rows with intervals, the verdicts, the record, and a figure per task."""
    out.mkdir(parents=True, exist_ok=True)
    for name in ("study.json", "verdicts.csv"):
        shutil.copy(result.folder / name, out / name)
    rows = frontier_rows(result)
    files.write(out / "frontier.csv", lambda file: rows.to_csv(file, index=False))
    for task in dict.fromkeys(result.table["task"]):
        save(frontier(result, task), out / f"frontier-{task}.png")


def frontier_rows(result: GraphsResult) -> pd.DataFrame:
    """A row per task, basis, score and size: the mean over prompts (of faithfulness a ratio of means) with its interval."""
    rows = []
    for task, table in result.table.groupby("task", sort=False):
        for score in SCORES:
            for basis, curve in frontiers(table, score).items():
                draws = draw(independent(len(curve.whole)), result.study.resamples, result.study.seed[0])
                top, bottom = (curve.circuit - curve.empty).T.numpy(), (curve.whole - curve.empty)[:, None].numpy()
                estimate = ratio(top, bottom, draws)
                ends = interval(estimate, result.study.confidence)
                for i, k in enumerate(curve.sizes):
                    rows.append(
                        {
                            "task": task,
                            "basis": basis,
                            "score": score,
                            "k": k,
                            "value": estimate.value[i],
                            "low": ends.low[i],
                            "high": ends.high[i],
                        }
                    )
    return pd.DataFrame(rows)


def supernodes_table(n: int, ks: tuple[int, ...]) -> pd.DataFrame:
    """A row per basis, number of groups and way of grouping: how well each state of `world:two_hop` is told by its best group.

    Groups are made, and each state's is chosen, on every second prompt; AUROC is on the others.
    """
    model = nvs.load_model("default")
    pairs = nvs.tasks.world(model, source="two_hop", n=n, part="evaluation")
    states, chosen_on = [tags["state"] for tags in pairs.tags], np.arange(len(pairs)) % 2 == 0
    rows = []
    for basis in (nvs.bases.mlp_neurons(model), nvs.bases.sae(model), nvs.bases.transcoder(model)):
        graphs = [
            nvs.trace(model, basis, pairs.take([i]), nodes=min(NODES, 4 * n), targets="logits")
            for i in range(len(pairs))
        ]
        prompts = [nvs.profiles(graph) for graph in graphs]
        half = [prompt for prompt, mine in zip(prompts, chosen_on, strict=True) if mine]
        for k in ks:
            rows += told_by(basis, prompts, half, states, chosen_on, k)
    return pd.DataFrame(rows)


def told_by(
    basis: nvs.Basis, prompts: list[Profiles], half: list[Profiles], states: list[str], chosen_on: Any, k: int
) -> list[dict[str, Any]]:
    """The rows of one number of groups."""
    groups = nvs.supernodes(half, k=k)
    ways = {
        "supernodes": groups, "random, same sizes": at_random(groups, 0), "write vectors": by_directions(basis, groups, half, 0),
        "co-occurrence": by_correlation(groups, half, 0),
    }  # fmt: skip
    rows = []
    for name, way in ways.items():
        table, unknown = activity(way, prompts)
        tellings = telling_groups(table, states, chosen_on)
        counted = sum(t.n for t in tellings)
        rows.append({
            "basis": basis.name, "groups": k, "grouping": name, "units": len(way.keys), "coverage": way.coverage, "unsupported": way.unsupported,
            "held_out_unknown": float(unknown[~chosen_on].mean()), "states": len(tellings), "mean_auroc": float(np.mean([t.auroc for t in tellings] or [np.nan])),
            "prompts_at_95": sum(t.n for t in tellings if t.auroc >= 0.95) / max(counted, 1),
            "split_half_ari": halves_agree(half, groups) if name == "supernodes" else float("nan"),
        })  # fmt: skip
    return rows


def halves_agree(half: list[Profiles], groups: nvs.Supernodes) -> float:
    try:
        return split_half(half, groups, min_support=2, seed=0)
    except nvs.InputError:  # half of the prompts are too few for as many groups
        return float("nan")


def page(result: GraphsResult, groups: pd.DataFrame) -> str:
    """What the tables say, in words and Markdown."""
    names, table = basis_names(list(result.study.basis)), result.table
    lines = [
        "# Graphs of the embedded default",
        "",
        "Made by `benchmarks/graph_results.py`; a test bed with a known world, not a sample of language models.",
        "",
    ]
    lines += [
        "## Scores over size",
        "",
        "Units that a graph does not hold count as error. Mean over prompts; intervals in `frontier.csv`, comparisons in `verdicts.csv`.",
    ]
    sizes = sorted(set(table.loc[~table["pruned"], "k"]))
    for task, rows in table.groupby("task", sort=False):
        lines += [
            "",
            f"### {task}, {rows['index'].nunique()} prompts",
            "",
            "replacement / completeness / faithfulness of the same units in the model (errors ablated, counterfactual)",
            "",
        ]
        lines += [f"| basis | {' | '.join(f'{k} units' for k in sizes)} |", "|---|" + "---:|" * len(sizes)]
        curves = {score: frontiers(rows, score) for score in SCORES}
        for basis in result.study.basis:
            cells = [
                " / ".join(f"{float(curves[score][basis].faithfulness[i]):.2f}" for score in SCORES)
                for i in range(len(sizes))
            ]
            lines.append(f"| {names[basis]} | {' | '.join(cells)} |")
    verdicts = pd.read_csv(result.folder / "verdicts.csv")
    mine = verdicts.loc[verdicts["family"] == "confirmatory"]
    if len(mine):
        lines += ["", "### Neurons against trained dictionaries: area over log size", ""]
        lines += [
            "| task | against | score | size | difference | interval | p (Holm) | verdict |",
            "|---|---|---|---|---:|---|---:|---|",
        ]
        for row in mine.to_dict("records"):
            better = {"a better": "neurons better", "b better": f"{names[row['basis_b']]} better"}.get(
                row["verdict"], row["verdict"]
            )
            lines.append(
                f"| {row['task']} | {names[row['basis_b']]} | {row['score'].removeprefix('area_')} | {row['size_measure']} | {row['difference']:+.3f} | [{row['low']:+.3f}, {row['high']:+.3f}] | {row['p_holm']:.3g} | {better} |"
            )
    lines += [
        "",
        "## Edges against exact direct effects",
        "",
        "Rank correlation of 200 edges per graph with what silencing their sources on direct paths does; mean over graphs, and the least.",
        "",
    ]
    lines += ["| basis | norms and patterns held | least | all live | least |", "|---|---:|---:|---:|---:|"]
    graphs = table.drop_duplicates("slug")
    for basis, rows in graphs.groupby("basis", sort=False):
        ends = [f"{rows[column].mean():.3f} | {rows[column].min():.3f}" for column in ("spearman", "spearman_live")]
        lines.append(f"| {names[str(basis)]} | {' | '.join(ends)} |")
    lines += [
        "",
        "## Supernodes on two_hop",
        "",
        "Groups are made, and each state's group is chosen, on every second prompt; AUROC is on the others. A state told by random groups of the same sizes as",
        "well is told by single units, not by the grouping: read each row against its control.",
        "",
    ]
    lines += [
        "| basis | groups | grouping | mean AUROC | prompts whose state is told at .95 | coverage | unknown on held-out prompts | split-half ARI |",
        "|---|---:|---|---:|---:|---:|---:|---:|",
    ]
    for row in groups.to_dict("records"):
        agree = "" if np.isnan(row["split_half_ari"]) else f"{row['split_half_ari']:.2f}"
        lines.append(
            f"| {names.get(row['basis'], row['basis'])} | {row['groups']} | {row['grouping']} | {row['mean_auroc']:.3f} | {row['prompts_at_95']:.2f} | {row['coverage']:.2f} | {row['held_out_unknown']:.2f} | {agree} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
