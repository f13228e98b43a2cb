"""What `nvs` prints, and where: results on standard output, all else on standard error."""

import os
import sys
from typing import Any, NoReturn

from rich.console import Console
from rich.table import Table
from rich.text import Text

from neuron_vs_sae.studies.study import Study

# What is printed holds paths and names: none of it is markup.
OUT = Console(markup=False, emoji=False, highlight=False)
ERR = Console(markup=False, emoji=False, highlight=False, stderr=True)


def fail(message: str, status: int) -> NoReturn:
    """End with that status and one message."""
    ERR.print(Text.assemble(("nvs: ", "bold red"), message), soft_wrap=True)
    sys.exit(status)


def say(text: str, quiet: bool) -> None:
    """Say it beside the results; progress bars only to someone who watches."""
    if quiet or not sys.stderr.isatty():
        os.environ["TQDM_DISABLE"] = "1"
    if not quiet:
        ERR.print(text, soft_wrap=True)


def show_names(rows: list[tuple[str, str]]) -> None:
    """A line per name, for grep."""
    width = max(len(name) for name, _ in rows)
    for name, text in rows:
        OUT.print(f"{name:{width}}  {text}".rstrip(), soft_wrap=True)


def size_of(study: Study) -> str:
    """What the study multiplies: `2 discoveries (1 task x 2 bases x 1 method), 2 curves (x 1 ablation x 1 error policy)`."""
    names = ("task", "basis", "method", "seed", "ablation", "errors", "metric")
    n = {name: len(getattr(study, name)) for name in names}
    nouns = [("task", "tasks"), ("basis", "bases"), ("method", "methods")]
    nouns += [("seed", "seeds")] if n["seed"] > 1 else []
    product = " x ".join(_count(n[singular], singular, plural) for singular, plural in nouns)
    judged = [_count(n["ablation"], "ablation", "ablations"), _count(n["errors"], "error policy", "error policies")]
    judged += [_count(n["metric"], "metric", "metrics")] if n["metric"] > 1 else []
    discoveries = n["task"] * n["basis"] * n["method"] * n["seed"]
    curves = discoveries * n["ablation"] * n["errors"] * n["metric"]
    return (
        f"{_count(discoveries, 'discovery', 'discoveries')} ({product}), {_count(curves, 'curve', 'curves')} "
        f"(x {' x '.join(judged)})"
    )


def show_table(rows: Any, columns: tuple[str, ...], quiet: bool, as_json: bool, most: int = 40) -> None:
    """Some columns of a table, at most so many rows of it; as JSON all of it."""
    if as_json:
        print(rows.to_json(orient="records", double_precision=15))
    elif not quiet:
        table = Table(box=None, padding=(0, 2, 0, 0))
        for column in columns:
            table.add_column(column, overflow="fold")
        for row in rows.head(most).to_dict("records"):
            table.add_row(*(f"{row[c]:.3g}" if isinstance(row[c], float) else str(row[c]) for c in columns))
        OUT.print(table)
        if len(rows) > most:
            OUT.print(f"... and {len(rows) - most} rows more, in the folder's files")


def _count(n: int, singular: str, plural: str) -> str:
    return f"{n} {singular if n == 1 else plural}"


def show_circuits(found: Any) -> None:
    """A table per ablation and error policy, with a column per task where there are several; what all curves share is
    said once, above, and what they show below."""
    from neuron_vs_sae.report.labels import labels
    from neuron_vs_sae.report.tables import reading
    from neuron_vs_sae.studies.per_curve import per_curve

    curves, seeds = per_curve(found), found.study.seed
    curves = curves.loc[curves["seed"] == seeds[0]]
    first, names = found.summary.iloc[0], labels(found.study.basis)
    cases = [c for c in ("ablation", "errors", "metric") if c in curves]
    varying = {c for c in ("task", *cases, "method") if len(set(curves[c])) > 1}
    shared = [c for c in ("task", "ablation", "errors", "method", "metric", "positions") if c not in varying]
    OUT.print(f"{first['model']}: {', '.join(f'{c} {first[c]}' for c in shared)}")
    several = "task" in varying
    by = [*cases, "method"] if several else cases
    for _, rows in curves.groupby(by, sort=False):
        title = ", ".join(f"{c} {rows[c].iloc[0]}" for c in by if c in varying)
        table = Table(box=None, padding=(0, 2, 0, 0), title=title or None, title_justify="left", title_style="bold")
        (sizes_by_task if several else _one_task)(table, rows, names)
        OUT.print(table)
    _explain(several)
    OUT.print(
        f"{first['n_discovery']} prompt pairs for discovery, {first['n_eval']} others for these numbers, per task."
        + (f" Seed {seeds[0]} of {len(seeds)}: table.md has means and spread over seeds." if len(seeds) > 1 else "")
    )
    if text := reading(found, curves):
        OUT.print("\n" + text)
    OUT.print(
        f"\nIn {found.folder}: report.html (everything on one page), curves.html and curves.pdf (figures), table.md, table.tex, "
        "summary.csv, verdicts.csv, stability.csv, circuits.csv, curves.parquet, scores.safetensors, study.json"
    )


def _explain(several: bool) -> None:
    OUT.print(
        "nodes for 80 %: the smallest size run whose faithfulness is at least 0.8; lower is sparser, - is not reached. A node is a unit "
        "at a position, or what a dictionary misses there (an error node); *: half of them or more are error nodes."
        if several
        else "nodes for 80 %: nodes that reach a faithfulness of 0.8. Areas are means over log size: F of faithfulness, higher is "
        "sparser; C of completeness (what is left without the circuit), LOWER is better."
    )


def sizes_by_task(table: Table, rows: Any, names: dict[str, str]) -> None:
    """Nodes for 80 % under one method: a row per basis, a column per task."""
    from pandas import isna

    tasks = list(dict.fromkeys(rows["task"]))
    table.add_column("nodes for 80 %", no_wrap=True)
    for task in tasks:
        table.add_column(task.replace("_", " "), justify="right", overflow="fold")
    for basis, of_basis in rows.groupby("basis", sort=False):
        columns = zip(of_basis["task"], of_basis["size_at_level"], of_basis["error_nodes_at_level"], strict=True)
        sizes = {
            task: f"{size}{'*' if 2 * errors >= size > 0 else ''}" for task, size, errors in columns if not isna(size)
        }
        table.add_row(names[basis], *(sizes.get(task, "-") for task in tasks))


def _one_task(table: Table, rows: Any, names: dict[str, str]) -> None:
    """Nodes, nodes for 80 % and areas: a row per basis and method."""
    from neuron_vs_sae.report.tables import number

    methods = rows["method"].nunique() > 1
    table.add_column("basis", overflow="fold")
    if methods:
        table.add_column("method", overflow="fold")
    for column in ("nodes", "for 80 %", "area F", "area C"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in rows.to_dict("records"):
        areas = [number(row[c], 3) for c in ("area_faithfulness", "area_completeness")]
        which = [names[row["basis"]], *([row["method"]] if methods else [])]
        table.add_row(*which, str(row["n_total"]), number(row["size_at_level"]), *areas)


def show_check(report: dict[str, Any]) -> None:
    """What a study is made of, and what it will cost."""
    model = report["model"]
    OUT.print(
        f"model {model['name']}: {model['layers']} layers, {model['parameters']:,} parameters, {model['dtype']} on {model['device']}"
    )
    for task in report["tasks"]:
        OUT.print(
            f"task {task['task']}: {task['discovery']} + {task['evaluation']} pairs of {task['tokens']} tokens, "
            f"{'one BOS' if task['bos'] else 'no BOS'}; right on both prompts {task['accuracy']:.0%}, logit difference "
            f"{task['clean']:.2f} clean, {task['corrupt']:.2f} corrupt"
        )
        if task["dropped"] != "none":
            OUT.print(f"  left out for this tokenizer: {task['dropped']}")
        if task["accuracy"] < 0.5:
            OUT.print("  warning: the model fails at this task, so a circuit for it has little to explain")
    for basis in report["bases"]:
        OUT.print(f"basis {basis['basis']}{f' on {task}' if (task := basis['task']) else ''}:")
        seen = zip(basis["active"] or (), basis["explained_variance"] or (), strict=True)
        for site, width in zip(basis["sites"], basis["width"], strict=True):
            active, explained = next(seen, (None, None))
            facts = "" if active is None else f", {active:.1f} active, explained variance {explained:.3f}"
            OUT.print(f"  {site}: {width} units{facts}")
    OUT.print(
        f"estimated time {report['seconds']:.0f} s; peak memory {report['peak_gib']:.1f} GiB (both from a miniature)"
    )
