"""`nvs`: thin. Its options are the fields of `Study` and `Machine`; heavy packages are imported when a command needs them."""

import dataclasses
import inspect
import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, get_args, get_origin, get_type_hints

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from neuron_vs_sae.cli import results as cli_results
from neuron_vs_sae.core.conventions import Engine
from neuron_vs_sae.core.errors import InputError, check_choice
from neuron_vs_sae.running.machine import Machine
from neuron_vs_sae.studies.study import Study, load_config, make_study, with_defaults

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # help texts hold [brackets]
    help="Circuits in the neuron basis and in SAE bases, found and judged by one pipeline.",
)
# What is printed holds paths and names: none of it is markup.
_out = Console(markup=False, emoji=False, highlight=False)
_err = Console(markup=False, emoji=False, highlight=False, stderr=True)


def main() -> None:
    """Entry point: exit status 0 done, 2 a usage or input error, 1 a failure; one message, no traceback."""
    try:
        app()
    except InputError as error:
        _fail(str(error), 2)
    except Exception as error:
        if os.environ.get("NVS_TRACEBACK"):
            raise
        _fail(f"{type(error).__name__}: {error}\n(set NVS_TRACEBACK=1 for the traceback)", 1)


def _fail(message: str, status: int) -> NoReturn:
    _err.print(Text.assemble(("nvs: ", "bold red"), message), soft_wrap=True)
    sys.exit(status)


def _with_study_options(command: Any) -> Any:
    """`command(study_settings, machine_settings, **own)` with an option for every field of `Study` and of `Machine`."""
    own = list(inspect.signature(command).parameters.values())[2:]
    fields = []
    for name, field in Study.model_fields.items():
        kind, flag = _option_type(name, field.annotation), f"--{name.replace('_', '-')}"
        declared = f"{flag}/--no-{flag[2:]}" if kind == bool | None else flag
        option = typer.Option(
            declared, help=f"{field.description}{_choices(field)}{_default(field)}", show_default=False
        )
        annotation = Annotated[kind, option]
        fields.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation))

    for field in dataclasses.fields(Machine):
        kind, flag = _option_type(field.name, get_type_hints(Machine)[field.name]), f"--{field.name.replace('_', '-')}"
        told = f"{field.metadata['description']}{_told(field.default)}"
        option = typer.Option(flag, help=told, min=field.metadata.get("min"), show_default=False)
        annotation = Annotated[kind, option]
        fields.append(
            inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
        )

    def run(**given: Any) -> None:
        parts = [
            {name: value for name in names if (value := given.pop(name)) is not None}
            for names in (Study.model_fields, [field.name for field in dataclasses.fields(Machine)])
        ]
        command(*parts, **given)

    made: Any = run
    made.__name__, made.__doc__ = command.__name__, command.__doc__
    made.__signature__ = inspect.Signature([*fields, *own])
    return made


def _option_type(name: str, annotation: Any) -> Any:
    if name == "sizes":
        return str | None  # comma-separated
    if get_origin(annotation) is tuple:
        return (list[int] if name == "seed" else list[str]) | None
    kinds = [kind for kind in (annotation, *get_args(annotation)) if kind in (bool, int, float)]
    return (kinds[0] if kinds else str) | None


def _choices(field: Any) -> str:
    return f" ({', '.join(get_args(field.annotation))})" if get_origin(field.annotation) is Literal else ""


def _default(field: Any) -> str:
    return _told(None if field.is_required() else field.get_default())


def _told(default: Any) -> str:
    shown = ",".join(map(str, default)) if isinstance(default, tuple) else default
    return f" [{shown}]" if shown not in (None, "") else ""


Config = Annotated[Path | None, typer.Option(help="TOML file with these options as keys; flags override it")]
Out = Annotated[Path, typer.Option(help="folder for the results")]
Quiet = Annotated[bool, typer.Option("--quiet", help="no progress, no summary")]
Json = Annotated[bool, typer.Option("--json", help="print the outcome as JSON on standard output")]


def _study(settings: dict[str, Any], config: Path | None) -> Study:
    origin = str(config) if config else "the command line"
    if config and settings:
        origin += " with the command line's options"
    chosen = {**load_config(config), **settings} if config else with_defaults(settings)
    return make_study(chosen, origin)


def _say(text: str, quiet: bool) -> None:
    """Say it beside the results; progress bars only to someone who watches."""
    if quiet or not sys.stderr.isatty():
        os.environ["TQDM_DISABLE"] = "1"
    if not quiet:
        _err.print(text, soft_wrap=True)


def _machine(settings: dict[str, Any]) -> Machine:
    check_choice("engine", settings.get("engine", "fast"), Engine)
    return Machine(**settings)


def _size(study: Study) -> str:
    """What the study multiplies: `2 discoveries (1 task x 2 bases x 1 method), 2 curves (x 1 ablation x 1 error policy)`."""
    names = ("task", "basis", "method", "seed", "ablation", "errors")
    n = {name: len(getattr(study, name)) for name in names}
    nouns = [("task", "tasks"), ("basis", "bases"), ("method", "methods")]
    nouns += [("seed", "seeds")] if n["seed"] > 1 else []
    found = " x ".join(_count(n[one], one, many) for one, many in nouns)
    judged = (
        f"{_count(n['ablation'], 'ablation', 'ablations')} x {_count(n['errors'], 'error policy', 'error policies')}"
    )
    discoveries = n["task"] * n["basis"] * n["method"] * n["seed"]
    curves = discoveries * n["ablation"] * n["errors"]
    return (
        f"{_count(discoveries, 'discovery', 'discoveries')} ({found}), {_count(curves, 'curve', 'curves')} (x {judged})"
    )


def _count(n: int, one: str, many: str) -> str:
    return f"{n} {one if n == 1 else many}"


@app.command("compare")
@_with_study_options
def compare(
    settings: dict[str, Any],
    machine: dict[str, Any],
    *,
    config: Config = None,
    out: Out = Path("nvs-results"),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="replace what is in --out")] = False,
    quiet: Quiet = False,
    json_output: Json = False,
) -> None:
    """Run a study: every task x basis x method x seed x ablation x error policy. Interrupted, it goes on where it stopped."""
    study = _study(settings, config)
    _say(f"{_size(study)}, into {out}", quiet or json_output)
    from neuron_vs_sae.running.comparison import compare as run

    try:
        found = run(study, out, machine=_machine(machine), overwrite=overwrite)
    except KeyboardInterrupt:
        _fail("interrupted; what is finished is kept, and the same command goes on from there", 1)
    if json_output:
        print(found.summary.to_json(orient="records", double_precision=15))
    elif not quiet:
        _show(found)


@app.command("check")
@_with_study_options
def check(
    settings: dict[str, Any],
    machine: dict[str, Any],
    *,
    config: Config = None,
    quiet: Quiet = False,
    json_output: Json = False,
) -> None:
    """Validate everything that `nvs compare` would use, estimate what it will cost, and run nothing."""
    study = _study(settings, config)
    _say(_size(study), quiet or json_output)
    from dataclasses import asdict

    from neuron_vs_sae.running.checks import check as look

    report = asdict(look(study, _machine(machine)))
    if json_output:
        print(json.dumps(report))
    elif not quiet:
        _show_check(report)


@app.command("list")
def list_(
    what: Annotated[str, typer.Argument(help="bases, methods, tasks, ablations, metrics, models or saes")],
    model: Annotated[str | None, typer.Option(help="with saes: only those trained on this model")] = None,
) -> None:
    """What there is, by name."""
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
        from neuron_vs_sae.models.loading import known_models

        rows = [("FOLDER", "any local Hugging Face checkpoint with config, safetensors and tokenizer"), *known_models()]
    elif what == "saes":
        from neuron_vs_sae.catalog.dictionaries.sources import known_releases

        rows = known_releases(model)
    else:
        raise InputError(f"nothing to list under {what!r}; there are: {', '.join([*folders, 'models', 'saes'])}")
    if not rows:
        raise InputError(f"sae-lens' registry has no SAEs of model {model!r}; `nvs list saes` shows all")
    width = max(len(name) for name, _ in rows)
    for name, text in rows:
        _out.print(f"{name:{width}}  {text}".rstrip(), soft_wrap=True)  # a line each, for grep


@app.command("report")
def report(folder: Annotated[Path, typer.Argument(help="results of `nvs compare`")]) -> None:
    """Write the tables and figures of a finished study again, from its per-prompt values."""
    from neuron_vs_sae.running.comparison import report as rewrite

    _show(rewrite(folder))


cli_results.add_to(app)


def _show(found: Any) -> None:
    """A table per ablation and error policy, with a column per task where there are several; what all curves share is
    said once, above, and what they show below."""
    from neuron_vs_sae.report.labels import labels
    from neuron_vs_sae.report.robust_tables import robust_tables
    from neuron_vs_sae.report.words import answers
    from neuron_vs_sae.studies.per_curve import per_curve

    curves, seeds = per_curve(found), found.study.seed
    curves = curves.loc[curves["seed"] == seeds[0]]
    first, names = found.summary.iloc[0], labels(found.study.basis)
    cases = ("ablation", "errors")
    varying = {c for c in ("task", *cases, "method") if len(set(curves[c])) > 1}
    shared = [c for c in ("task", *cases, "method", "metric", "positions") if c not in varying]
    _out.print(f"{first['model']}: {', '.join(f'{c} {first[c]}' for c in shared)}")
    several = "task" in varying
    for _, rows in curves.groupby([*cases, "method"] if several else list(cases), sort=False):
        title = ", ".join(f"{c} {rows[c].iloc[0]}" for c in (*cases, *(["method"] if several else [])) if c in varying)
        table = Table(box=None, padding=(0, 2, 0, 0), title=title or None, title_justify="left", title_style="bold")
        (_sizes_by_task if several else _one_task)(table, rows, names)
        _out.print(table)
    _out.print(
        "nodes for 80 %: the smallest size run whose faithfulness is at least 0.8; lower is sparser, - is not reached. A node is a unit "
        "at a position, or what a dictionary misses there (an error node); *: half of them or more are error nodes."
        if several
        else "nodes for 80 %: nodes that reach a faithfulness of 0.8. Areas are means over log size: F of faithfulness, higher is "
        "sparser; C of completeness (what is left without the circuit), LOWER is better."
    )
    _out.print(
        f"{first['n_discovery']} prompt pairs for discovery, {first['n_eval']} others for these numbers, per task."
        + (f" Seed {seeds[0]} of {len(seeds)}: table.md has means and spread over seeds." if len(seeds) > 1 else "")
    )
    for answer in answers(found, robust_tables(found.folder)):
        _out.print("\n" + " ".join(answer.sentences))
    _out.print(
        f"\nIn {found.folder}: report.html (everything on one page), curves.pdf (figures), table.md, table.tex, "
        "summary.csv, verdicts.csv, stability.csv, circuits.csv, curves.parquet, scores.safetensors, study.json"
    )


def _sizes_by_task(table: Table, rows: Any, names: dict[str, str]) -> None:
    """Nodes for 80 % under one method: a row per basis, a column per task."""
    from pandas import isna

    tasks = list(dict.fromkeys(rows["task"]))
    table.add_column("nodes for 80 %", no_wrap=True)
    for task in tasks:
        table.add_column(task.replace("_", " "), justify="right", overflow="fold")
    for basis, theirs in rows.groupby("basis", sort=False):
        found = zip(theirs["task"], theirs["size_at_level"], theirs["error_nodes_at_level"], strict=True)
        sizes = {
            task: f"{size}{'*' if 2 * errors >= size > 0 else ''}" for task, size, errors in found if not isna(size)
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


def _show_check(report: dict[str, Any]) -> None:
    model = report["model"]
    _out.print(
        f"model {model['name']}: {model['layers']} layers, {model['parameters']:,} parameters, {model['dtype']} on {model['device']}"
    )
    for task in report["tasks"]:
        _out.print(
            f"task {task['task']}: {task['discovery']} + {task['evaluation']} pairs of {task['tokens']} tokens, "
            f"{'one BOS' if task['bos'] else 'no BOS'}; right on both prompts {task['accuracy']:.0%}, logit difference "
            f"{task['clean']:.2f} clean, {task['corrupt']:.2f} corrupt"
        )
        if task["dropped"] != "none":
            _out.print(f"  left out for this tokenizer: {task['dropped']}")
        if task["accuracy"] < 0.5:
            _out.print("  warning: the model fails at this task, so a circuit for it has little to explain")
    for basis in report["bases"]:
        _out.print(f"basis {basis['basis']} on {basis['task']}:")
        for site, width, active, explained in zip(
            basis["sites"], basis["width"], basis["active"], basis["explained_variance"], strict=True
        ):
            _out.print(f"  {site}: {width} units, {active:.1f} active, explained variance {explained:.3f}")
    _out.print(
        f"estimated time {report['seconds']:.0f} s; peak memory {report['peak_gib']:.1f} GiB (both from a miniature)"
    )


if __name__ == "__main__":
    main()
