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
    """Print the text on standard error unless `quiet`; show progress bars only on a terminal."""
    if quiet or not sys.stderr.isatty():
        os.environ["TQDM_DISABLE"] = "1"
    if not quiet:
        ERR.print(text, soft_wrap=True)


def show_names(rows: list[tuple[str, str]]) -> None:
    """A line per name, fit for grep."""
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


def show_circuits(result: Any) -> None:
    """One table of neurons and trained dictionaries, the answer in sentences, and where the page is."""
    from neuron_vs_sae.report.console import console_table
    from neuron_vs_sae.report.robust_tables import robust_tables
    from neuron_vs_sae.studies.per_curve import per_curve

    shown = console_table(result, per_curve(result), robust_tables(result.folder))
    table = Table(box=None, padding=(0, 2, 0, 0), title=shown.title, title_justify="left", title_style="bold")
    for place, header in enumerate(shown.headers):
        table.add_column(header, overflow="fold", justify="left" if place == 0 else "right")
    for row in shown.rows:
        table.add_row(*row)
    OUT.print(table)
    OUT.print(shown.note)
    for sentence in shown.sentences:
        OUT.print("\n" + sentence)
    OUT.print(f"\nThe page: {result.folder / 'report.html'} (beside it the tables, figures and per-prompt values)")


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
