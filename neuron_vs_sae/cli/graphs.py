"""`nvs graph`: commands on a finished folder of graphs."""

from pathlib import Path
from typing import Annotated

import typer

from neuron_vs_sae.cli import console
from neuron_vs_sae.core.errors import InputError


def serve(
    folder: Annotated[Path, typer.Argument(help="results of `nvs trace`")],
    port: Annotated[int, typer.Option(min=0, max=65535, help="port of 127.0.0.1 [0: a free one]")] = 8032,
    with_circuit_tracer: Annotated[
        Path | None,
        typer.Option(help="folder of circuit-tracer's page, to be served too: circuit_tracer/frontend/assets"),
    ] = None,
) -> None:
    """Serve graphs to this machine's browser, read-only, until interrupted."""
    from neuron_vs_sae.report.graph_server import HOST, server

    with server(folder, port, with_circuit_tracer) as running:
        console.say(f"http://{HOST}:{running.server_address[1]}/ (Ctrl-C ends it)", quiet=False)
        try:
            running.serve_forever()
        except KeyboardInterrupt:
            console.say("ended", quiet=False)


def figures(
    folder: Annotated[Path, typer.Argument(help="results of `nvs trace`")],
    out: Annotated[Path, typer.Option(help="folder for the figures")] = Path("figures"),
    form: Annotated[str, typer.Option("--format", help="pdf, png or svg")] = "pdf",
) -> None:
    """Write static figures: scores over size, the first graph of each task and basis, heads, supernodes."""
    from neuron_vs_sae.report.graph_figures import figures as drawn
    from neuron_vs_sae.report.paper_style import save
    from neuron_vs_sae.studies.graphs import load

    if form not in ("pdf", "png", "svg"):
        raise InputError(f"no figure format {form!r}; there are: pdf, png, svg")
    for name, figure in drawn(load(folder)):
        save(figure, out / f"{name}.{form}")
        typer.echo(out / f"{name}.{form}")


def add_to(app: typer.Typer) -> None:
    """Make them commands of `nvs graph`."""
    graph = typer.Typer(no_args_is_help=True, help="Look at finished graphs.")
    graph.command("serve")(serve)
    graph.command("figures")(figures)
    app.add_typer(graph, name="graph")
