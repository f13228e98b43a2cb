"""What a reader sees first: title, question, what it was measured on, and a warning about the answer, if any."""

from neuron_vs_sae.report.cases import ranked
from neuron_vs_sae.report.names import basis_names, level_name, listed, task_names, with_role
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
    }
    pairs = confirmatory(result)
    if compared is not None and pairs:
        rows = of_pair(compared.specifications, pairs[0])
        conditions["specifications"] = f"{len(rows[list(FACTORS)].drop_duplicates())} per task and dictionary"
    return conditions


def warning(result: Result, compared: RobustTables | None) -> str:
    """One sentence on the wins of dictionaries that do not beat their control; empty where there are none."""
    if compared is None:
        return ""
    names = basis_names(result.study.basis)
    counts = []
    for pair in confirmatory(result):
        wins = rows_with(of_pair(compared.specifications, pair), verdict="b better")
        if equalled := sum(flagged(wins)):
            counts.append(f"{equalled} of the {len(wins)} specifications that {names[pair[1]]} win")
    return f"A control does as well in {listed(counts)}." if counts else ""
