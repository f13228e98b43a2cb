"""`nvs graph`: commands on a finished folder of graphs."""

from pathlib import Path
from typing import Annotated

import typer

from neuron_vs_sae.cli import console


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


def add_to(app: typer.Typer) -> None:
    """Make them commands of `nvs graph`."""
    graph = typer.Typer(no_args_is_help=True, help="Look at finished graphs.")
    graph.command("serve")(serve)
    # With a callback it stays a group though it has one command.
    graph.callback()(lambda: None)
    app.add_typer(graph, name="graph")
