"""`nvs`: thin. A study's options are the fields of its settings; heavy packages are imported when a command needs them."""

import json
import os
import signal
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from neuron_vs_sae.cli import console, graphs as cli_graphs, results as cli_results
from neuron_vs_sae.cli.options import Given, study_command
from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.studies.given import check_text
from neuron_vs_sae.studies.intervening import HeadsStudy, PatchStudy, SelectivityStudy, SteerStudy
from neuron_vs_sae.studies.study import Study
from neuron_vs_sae.studies.text import FidelityStudy, LensStudy, ProbeStudy, UnitsStudy
from neuron_vs_sae.studies.tracing import TraceStudy

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # help texts hold [brackets]
    help="Circuits in the neuron basis and in SAE bases, found and judged by one pipeline.",
)


def main() -> None:
    """Entry point: exit status 0 done, 2 a usage or input error, 1 a failure; one message, no traceback.

    A request to end (SIGTERM, a scheduler's) is what Ctrl-C is: what is finished is kept.
    """
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        for number, argument in enumerate(sys.argv[1:], 1):
            check_text(f"argument {number} of the command line", argument)
        app()
    except InputError as error:
        console.fail(str(error), 2)
    except Exception as error:
        if os.environ.get("NVS_TRACEBACK"):
            raise
        console.fail(f"{type(error).__name__}: {error}\n(set NVS_TRACEBACK=1 for the traceback)", 1)
    finally:
        signal.signal(signal.SIGTERM, before)


def run_study(given: Given[Any], what: str) -> Any:
    """The result of the study of a command, run into its folder; `what` says beforehand what will be run."""
    console.say(f"{what}, into {given.out}", given.quiet or given.json)
    try:
        from neuron_vs_sae.running import runner

        return runner.run(given.study, given.out, machine=given.machine, overwrite=given.overwrite)
    except KeyboardInterrupt:
        console.fail("interrupted; what is finished is kept, and the same command goes on from there", 1)


@app.command("compare")
@study_command(Study)
def compare(given: Given[Study]) -> None:
    """Run a study: every task x basis x method x seed x ablation x error policy. Interrupted, it goes on where it stopped."""
    result = run_study(given, console.size_of(given.study))
    if given.json:
        print(result.summary.to_json(orient="records", double_precision=15))
    elif not given.quiet:
        console.show_circuits(result)


@app.command("units")
@study_command(UnitsStudy)
def units(given: Given[UnitsStudy]) -> None:
    """Show units: the texts they are active on, and the tokens they promote and suppress."""
    result = run_study(given, f"units of {', '.join(given.study.basis)} on {given.study.corpus}")
    console.show_table(
        result.units, ("basis", "unit", "sign", "density", "maximum", "top_tokens"), given.quiet, given.json
    )


@app.command("lens")
@study_command(LensStudy)
def lens(given: Given[LensStudy]) -> None:
    """Apply the logit lens: what the model would predict if it ended at each layer."""
    result = run_study(given, f"the lens at {given.study.site}")
    console.show_table(
        result.last_position, ("prompt", "layer", "rank", "token", "probability"), given.quiet, given.json
    )


@app.command("fidelity")
@study_command(FidelityStudy)
def fidelity(given: Given[FidelityStudy]) -> None:
    """Measure how much of an activation, and of the predictions, the largest units of each token keep."""
    result = run_study(given, f"fidelity of {', '.join(given.study.basis)} on {given.study.corpus}")
    console.show_table(
        result.table, ("basis", "site", "m", "explained_variance", "ce_score", "bits"), given.quiet, given.json
    )


@app.command("probe")
@study_command(ProbeStudy)
def probe(given: Given[ProbeStudy]) -> None:
    """Probe for concepts with a few units of each basis, chosen on training text and judged on other sequences."""
    result = run_study(given, f"probes of {', '.join(given.study.basis)} for {', '.join(given.study.concept)}")
    judged = result.scores.loc[result.scores["chosen"]]
    console.show_table(
        judged,
        ("basis", "site", "concept", "ranker", "k", "candidates", "mcc", "low", "high", "auroc"),
        given.quiet,
        given.json,
    )


@app.command("trace")
@study_command(TraceStudy)
def trace(given: Given[TraceStudy]) -> None:
    """Trace prompts: the graph of what each unit took from which other, in every basis, with how far it can be trusted."""
    result = run_study(
        given, f"graphs in {', '.join(given.study.basis)} of {', '.join((*given.study.task, *given.study.prompt))}"
    )
    console.show_table(
        result.table,
        ("basis", "prompt", "k", "replacement", "completeness", "faithfulness", "spearman"),
        given.quiet,
        given.json,
    )


@app.command("patch")
@study_command(PatchStudy)
def patch(given: Given[PatchStudy]) -> None:
    """Set units to their values in the corrupt prompt: how many flip the answer, against what the gradient foretells and against controls."""
    result = run_study(given, f"patches in {', '.join(given.study.basis)}")
    if given.json or not given.study.swap:
        columns = (
            "task",
            "basis",
            "select",
            "k",
            "alpha",
            "control",
            "predicted",
            "actual",
            "flip_rate",
            "low",
            "high",
        )
        console.show_table(result.table, columns, given.quiet, given.json)
    else:
        console.show_table(
            result.swapped, ("basis", "way", "k", "swap", "hit", "low", "high", "kept"), given.quiet, False
        )


@app.command("steer")
@study_command(SteerStudy)
def steer(given: Given[SteerStudy]) -> None:
    """Add to, scale, clamp or patch units by doses: the effect on a task against the side effects on neutral text."""
    result = run_study(given, f"doses in {', '.join(given.study.basis)}")
    columns = ("task", "basis", "kind", "dose", "norm", "effect", "low", "high", "kl", "cross_entropy")
    console.show_table(result.table, columns, given.quiet, given.json)


@app.command("heads")
@study_command(HeadsStudy)
def heads(given: Given[HeadsStudy]) -> None:
    """Score every head as a successor head, and look for the last digit in the units of the first MLP."""
    result = run_study(given, f"successor heads of {given.study.model}")
    pooled = result.heads.loc[result.heads["order"] == "all"].sort_values("score", ascending=False, kind="stable")
    console.show_table(pooled, ("layer", "head", "score", "low", "high", "n"), given.quiet, given.json)


@app.command("selectivity")
@study_command(SelectivityStudy)
def selectivity(given: Given[SelectivityStudy]) -> None:
    """Ablate the units of one task in another: recall against reasoning, at as many units and at as large a norm."""
    result = run_study(given, f"selectivity of {given.study.task_a} against {given.study.task_b}")
    columns = (
        "basis",
        "own",
        "matched",
        "size",
        "control",
        "k",
        "selectivity",
        "low",
        "high",
        "loss_own",
        "loss_other",
    )
    console.show_table(result.table, columns, given.quiet, given.json)


@app.command("check")
@study_command(Study)
def check(given: Given[Study]) -> None:
    """Validate everything that `nvs compare` would use, estimate what it will cost, and run nothing (--out is only looked at)."""
    console.say(console.size_of(given.study), given.quiet or given.json)
    from neuron_vs_sae.running.checks import check as look

    report = asdict(look(given.study, given.machine, None if given.overwrite else given.out))
    if given.json:
        print(json.dumps(report))
    elif not given.quiet:
        console.show_check(report)


@app.command("list")
def list_(
    what: Annotated[
        str, typer.Argument(metavar="[bases|methods|tasks|ablations|metrics|models|saes]", help="what to list")
    ],
    model: Annotated[str | None, typer.Option(help="with saes: only those trained on this model")] = None,
) -> None:
    """List what there is, by name."""
    folders = {
        "bases": "bases", "methods": "attribution", "tasks": "tasks", "ablations": "ablation", "metrics": "metrics",
    }  # fmt: skip
    if what in folders:
        from neuron_vs_sae.core.lookup import known, summary

        rows = [(name, summary(folders[what], name)) for name in known(folders[what])]
        if what == "tasks":
            from neuron_vs_sae.default.families import FAMILIES

            rows += [(f"world:{name}", family.about) for name, family in FAMILIES.items()]
    elif what == "models":
        from neuron_vs_sae.models.names import known_models

        rows = [("FOLDER", "any local Hugging Face checkpoint with config, safetensors and tokenizer"), *known_models()]
    elif what == "saes":
        from neuron_vs_sae.catalog.dictionaries.sources import known_releases

        rows = known_releases(model)
    else:
        raise InputError(f"nothing to list under {what!r}; there are: {', '.join([*folders, 'models', 'saes'])}")
    if not rows:
        raise InputError(f"sae-lens' registry has no SAEs of model {model!r}; `nvs list saes` shows all")
    console.show_names(rows)


@app.command("report")
def report(folder: Annotated[Path, typer.Argument(help="results of `nvs compare`")]) -> None:
    """Write the tables and figures of a finished study again, from its per-prompt values."""
    from neuron_vs_sae.running.finishing import report as rewrite

    result = rewrite(folder)
    if isinstance(result.study, Study):
        console.show_circuits(result)


cli_results.add_to(app)
cli_graphs.add_to(app)


if __name__ == "__main__":
    main()
