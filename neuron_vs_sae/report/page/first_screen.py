"""What a reader sees first: title, question, what it was measured on, and a warning about the answer, if any."""

from collections.abc import Iterable

from neuron_vs_sae.report.cases import ranked
from neuron_vs_sae.report.names import (
    basis_name,
    basis_names,
    factor_name,
    level_name,
    listed,
    setting_name,
    task_names,
    with_role,
)
from neuron_vs_sae.report.robust_tables import FACTORS, RobustTables, confirmatory, flagged, of_pair
from neuron_vs_sae.studies.result import Result
from neuron_vs_sae.studies.rows import rows_with


def tasks(result: Result) -> list[str]:
    """The tasks' names, in the order in which every figure lists them."""
    return list(task_names(result.summary["task"]).values())


def title(result: Result) -> str:
    """`MLP neurons or SAE features? Circuits of default on two hop and ioi`."""
    names = basis_names(result.study.basis)
    neurons, trained = (with_role(result.study.basis, role) for role in ("neurons", "trained"))
    compared = [names[basis] for basis in (*neurons[:1], *trained[:1])] if neurons and trained else []
    head = f"{' or '.join(compared)}? Circuits of " if compared else "Circuits of "
    return f"{head}{result.summary['model'].iloc[0]} on {listed(tasks(result))}"


def question(result: Result) -> str:
    """What was asked, in which bases, and what was held fixed."""
    names = basis_names(result.study.basis)
    return (
        f"Which basis gives the sparser faithful circuits? One pipeline found and judged circuits in {listed(names.values())}, "
        "on the same prompts. The basis is the only thing that changes."
    )


def chips(result: Result, compared: RobustTables | None) -> dict[str, str]:
    """The conditions of the study, in few words each."""
    study, first = result.study, result.summary.iloc[0]
    methods = ranked(list(study.method))[0]
    conditions = {
        "model": f"{first['model']}, {study.dtype}",
        "prompts": f"{first['n_discovery']} to find circuits, {first['n_eval']} others to judge them, per task",
        "method": listed(level_name("method", method) for method in methods),
        "ablation": listed(level_name("ablation", ablation) for ablation in study.ablation),
        "error nodes": listed(level_name("errors", policy) for policy in study.errors),
        "metric": listed(level_name("metric", metric) for metric in study.metric),
        **({"seeds": f"{listed(map(str, study.seed))} (figures show {study.seed[0]})"} if len(study.seed) > 1 else {}),
    }
    pairs = confirmatory(result)
    if compared is not None and pairs:
        rows = of_pair(compared.specifications, pairs[0])
        conditions["specifications"] = f"{len(rows[list(FACTORS)].drop_duplicates())} per task and dictionary"
    return conditions


def warning(result: Result, compared: RobustTables | None) -> str:
    """What the controls take away from the wins of neurons and of dictionaries, and which dictionaries have none; empty where nothing
    is to be said."""
    if compared is None:
        return ""
    names, said = basis_names(result.study.basis), []
    for a, b in confirmatory(result):
        rows = of_pair(compared.specifications, (a, b))
        for winner, loser, verdict in ((b, a, "b better"), (a, b, "a better")):
            wins = rows_with(rows, verdict=verdict)
            if unbeaten := sum(flagged(wins)):
                control = listed(_controls(wins.loc[flagged(wins), "control"]))
                said.append(
                    f"In {unbeaten} of the {len(wins)} specifications, of all tasks, in which {names[winner]} win against {names[loser]}, "
                    f"they do not beat {control}."
                )
        if not any(rows_with(rows, verdict="b better")["control"]) and len(rows_with(rows, verdict="b better")):
            said.append(
                f"No untrained dictionary was run beside {names[b]}: a win of theirs does not show what was learned."
            )
    return " ".join(said)


def _controls(cells: Iterable[str]) -> list[str]:
    """The controls that these cells of `control` name, as in a sentence."""
    specs = dict.fromkeys(control for cell in cells for control in cell.split("; ") if control)
    return list(dict.fromkeys(basis_name(control).control for control in specs))


def conventions_varied(result: Result) -> str:
    """What the comparison was made under every combination of, and what was held fixed, in a sentence."""
    study = result.study
    several = {
        "errors": study.errors,
        "ablation": study.ablation,
        "method": ranked(list(study.method))[0],
        "metric": study.metric,
    }
    varied = [factor_name(name) for name, values in several.items() if len(values) > 1]
    fixed = [
        f"{setting_name(name)} ({level_name(name, values[0])})" for name, values in several.items() if len(values) == 1
    ]
    held = f", with {listed(fixed)} held fixed" if fixed else ""
    return f"So each was made under every combination of {listed([factor_name('size_measure'), *varied])}{held}."
