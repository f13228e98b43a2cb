"""What `nvs` prints, and where: results on standard output, all else on standard error."""

import logging
import os
import sys
import time
from typing import Any, NoReturn

from rich.console import Console
from rich.table import Table
from rich.text import Text

from neuron_vs_sae.report.escaping import in_terminal
from neuron_vs_sae.report.labels import labels
from neuron_vs_sae.studies.study import Study


class _Plain(Console):
    """What is printed holds paths and names: none of it is markup, and none of it commands the terminal."""

    def print(self, *objects: Any, **options: Any) -> None:
        super().print(*(in_terminal(each) if isinstance(each, str) else each for each in objects), **options)


OUT = _Plain(markup=False, emoji=False, highlight=False)
ERR = _Plain(markup=False, emoji=False, highlight=False, stderr=True)

_SECONDS_BETWEEN_LINES = 15


def fail(message: str, status: int) -> NoReturn:
    """End with that status and one message."""
    ERR.print(Text.assemble(("nvs: ", "bold red"), in_terminal(message)), soft_wrap=True)
    sys.exit(status)


def say(text: str, quiet: bool) -> None:
    """Print the text on standard error unless `quiet`, and then how far the study is: bars on a terminal, lines elsewhere."""
    watched = sys.stderr.isatty()
    if quiet or not watched:
        os.environ["TQDM_DISABLE"] = "1"
    progress = logging.getLogger("neuron_vs_sae.progress")
    progress.setLevel(logging.INFO if watched else logging.DEBUG)
    progress.handlers, progress.propagate = [] if quiet else [_Lines()], False
    if not quiet:
        ERR.print(text, soft_wrap=True)


class _Lines(logging.Handler):
    """Every line that says something, and now and then one on how far the study is; above the bar, where there is one."""

    def __init__(self) -> None:
        super().__init__()
        self.started = self.said = time.monotonic()

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm.auto import tqdm  # reads TQDM_DISABLE when it is imported

        now = time.monotonic()
        if record.levelno > logging.DEBUG:
            tqdm.write(in_terminal(record.getMessage()), file=sys.stderr)
        elif now - self.said >= _SECONDS_BETWEEN_LINES:
            self.said = now
            tqdm.write(f"{record.getMessage()}, {now - self.started:.0f} s", file=sys.stderr)


def show_text(text: str) -> None:
    """Text as it is where a program reads it, and with nothing that would command a terminal where a person does."""
    sys.stdout.write(in_terminal(text) if sys.stdout.isatty() else text)


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
            table.add_row(*(f"{row[c]:.3g}" if isinstance(row[c], float) else in_terminal(row[c]) for c in columns))
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
    title = in_terminal(shown.title)
    table = Table(box=None, padding=(0, 2, 0, 0), title=title, title_justify="left", title_style="bold")
    for place, header in enumerate(shown.headers):
        table.add_column(in_terminal(header), overflow="fold", justify="left" if place == 0 else "right")
    for row in shown.rows:
        table.add_row(*map(in_terminal, row))
    OUT.print(table)
    OUT.print(shown.note)
    for sentence in shown.sentences:
        OUT.print("\n" + sentence)
    OUT.print(f"\nThe page: {result.folder / 'report.html'} (beside it the tables, figures and per-prompt values)")


def show_check(report: dict[str, Any]) -> None:
    """What a study is made of, what it cannot decide, and what it will cost: a line per task and per basis."""
    model = report["model"]
    OUT.print(
        f"model {model['name']}: {model['layers']} layers, {model['parameters']:,} parameters, {model['dtype']} on {model['device']}\n"
    )
    tasks = _table("task", "pairs", "tokens", "right on both", "clean", "corrupt")
    for task in report["tasks"]:
        tasks.add_row(
            task["task"],
            f"{task['discovery']} + {task['evaluation']}",
            f"{task['tokens']}{' with BOS' if task['bos'] else ''}",
            f"{task['accuracy']:.0%}",
            f"{task['clean']:.2f}",
            f"{task['corrupt']:.2f}",
        )
    OUT.print(tasks)
    OUT.print("(pairs for discovery + evaluation; logit difference on clean and corrupt prompts)\n")
    bases = _table("basis", "sites", "units a site", "active", "explained variance")
    by_basis = _by_basis(report["bases"])
    short = labels(by_basis)
    for text, of_tasks in by_basis.items():
        bases.add_row(
            short[text],
            str(len(of_tasks[0]["sites"])),
            _range([n for basis in of_tasks for n in basis["width"]], "{:,.0f}"),
            _range([n for basis in of_tasks for n in basis["active"] or ()], "{:.1f}"),
            _range([n for basis in of_tasks for n in basis["explained_variance"] or ()], "{:.3f}"),
        )
    OUT.print(bases)
    OUT.print("(lowest to highest over sites and tasks)\n")
    for task in report["tasks"]:
        if task["dropped"] != "none":
            OUT.print(f"task {task['task']}: left out for this tokenizer: {task['dropped']}")
        if task["accuracy"] < 0.5:
            OUT.print(f"warning: the model fails at {task['task']}, so a circuit for it has little to explain")
    for limit in report["limits"]:
        OUT.print(f"note: {limit}", soft_wrap=True)
    if report["folder"]:
        OUT.print(report["folder"], soft_wrap=True)
    OUT.print(
        f"estimated time {report['seconds']:.0f} s; peak memory {report['peak_gib']:.1f} GiB (both from a miniature)"
    )


def _by_basis(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    by_basis: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_basis.setdefault(row["basis"], []).append(row)
    return by_basis


def _range(numbers: list[float], form: str) -> str:
    """The lowest and the highest, or the one where they look the same; nothing where there are none."""
    ends = [form.format(n) for n in (min(numbers), max(numbers))] if numbers else [""]
    return ends[0] if len(set(ends)) == 1 else " to ".join(ends)


def _table(*headers: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for place, header in enumerate(headers):
        table.add_column(header, overflow="fold", justify="left" if place == 0 else "right")
    return table
