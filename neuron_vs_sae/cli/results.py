"""The commands of `nvs` that read finished results: tables, figures, export, citations, and what differs between two."""

from pathlib import Path
from typing import Annotated

import typer

from neuron_vs_sae.cli.console import show_text
from neuron_vs_sae.core.errors import InputError

Folder = Annotated[Path, typer.Argument(help="results of `nvs compare`")]
Only = Annotated[list[str] | None, typer.Option(help="only these; several allowed")]


def table(
    folder: Folder,
    columns: Annotated[str, typer.Option(help="columns by name, comma-separated [the usual ones]")] = "",
    form: Annotated[str, typer.Option("--format", help="markdown, latex or csv")] = "markdown",
    rows: Annotated[
        str, typer.Option(help="a row per curve (curves), curve and size (sizes), or verdict (verdicts)")
    ] = "curves",
    task: Only = None,
    method: Only = None,
    ablation: Only = None,
    errors: Only = None,
) -> None:
    """Print a table: columns chosen by name, as Markdown, LaTeX (booktabs, siunitx) or CSV."""
    from neuron_vs_sae.report import tables
    from neuron_vs_sae.running.finishing import mend
    from neuron_vs_sae.studies.evidence import evidence
    from neuron_vs_sae.studies.result import load

    mend(folder)
    given = {"task": task, "method": method, "ablation": ablation, "errors": errors}
    text = tables.table_of(
        load(folder),
        rows=rows,
        columns=[name.strip() for name in columns.split(",") if name.strip()],
        form=form,
        verdicts=evidence(folder).verdicts,
        **{name: values for name, values in given.items() if values},
    )
    show_text(text)


def figures(
    folder: Folder,
    out: Annotated[Path, typer.Option(help="folder for the figures")] = Path("figures"),
    form: Annotated[str, typer.Option("--format", help="pdf, png or svg")] = "pdf",
) -> None:
    """Write the figures for a paper, at column width: curves by task, and sizes."""
    from neuron_vs_sae.report import paper_figures
    from neuron_vs_sae.report.cases import cases
    from neuron_vs_sae.running.finishing import mend
    from neuron_vs_sae.studies.result import load

    if form not in ("pdf", "png", "svg"):
        raise InputError(f"no figure format {form!r}; there are: pdf, png, svg")
    mend(folder)
    result = load(folder)
    drawn = {
        f"curves-{i}": paper_figures.curves(result, task=task, ablation=ablation, errors=errors)
        for i, (task, ablation, errors) in enumerate(cases(result), 1)
    }
    for name, figure in {**drawn, "sizes": paper_figures.sizes(result)}.items():
        paper_figures.save(figure, out / f"{name}.{form}")
        show_text(f"{out / name}.{form}\n")


def export(
    folder: Folder,
    form: Annotated[str, typer.Option("--format", help="saebench")] = "saebench",
    out: Annotated[Path | None, typer.Option(help="where eval_results/ is made [the results' folder]")] = None,
) -> None:
    """Write a result in another tool's schema: SAEBench's, a JSON file per basis of SAEs."""
    from neuron_vs_sae.report import saebench
    from neuron_vs_sae.running.finishing import mend
    from neuron_vs_sae.studies.result import load

    if form != "saebench":
        raise InputError(f"no export format {form!r}; there is: saebench")
    mend(folder)
    for file in saebench.export(load(folder), folder if out is None else out):
        show_text(f"{file}\n")


def cite(folder: Folder) -> None:
    """Print the BibTeX of what a result used: this tool, model, dictionaries, tasks, methods, statistics."""
    from neuron_vs_sae.report import citation
    from neuron_vs_sae.studies.result import load

    show_text(citation.bibtex(load(folder)))


def compare_results(a: Folder, b: Annotated[Path, typer.Argument(help="other results")]) -> None:
    """Say what differs between two results: settings, what made them, numbers, sizes, verdicts. Exit status 1 where anything does."""
    from neuron_vs_sae.running.finishing import mend
    from neuron_vs_sae.studies import differences
    from neuron_vs_sae.studies.result import load

    for folder in (a, b):
        mend(folder)
    compared = differences.differences(load(a), load(b))
    show_text(f"{differences.told(compared)}\n")
    if not compared.alike:
        raise typer.Exit(1)


def add_to(app: typer.Typer) -> None:
    """Make them commands of `nvs`."""
    for name, command in (
        ("table", table), ("figures", figures), ("export", export), ("cite", cite), ("compare-results", compare_results),
    ):  # fmt: skip
        app.command(name)(command)
