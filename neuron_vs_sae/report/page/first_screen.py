"""What a reader sees first: title, question, what it was measured on, and what warns of the answer."""

from neuron_vs_sae.report.cases import ranked
from neuron_vs_sae.report.names import basis_name, basis_names, level_name, listed, task_names, with_role
from neuron_vs_sae.report.robust_tables import FACTORS, RobustTables, confirmatory, flagged, of_pair
from neuron_vs_sae.studies import result
from neuron_vs_sae.studies.rows import rows_with


def tasks(found: "result.Result") -> list[str]:
    """The tasks' names, in the order in which every figure lists them."""
    return list(task_names(found.summary["task"]).values())


def title(found: "result.Result") -> str:
    """`MLP neurons or SAE features? Circuits of default on two hop and ioi`."""
    names = basis_names(found.study.basis)
    neurons, trained = (with_role(found.study.basis, role) for role in ("neurons", "trained"))
    compared = [names[basis] for basis in (*neurons[:1], *trained[:1])] if neurons and trained else []
    head = f"{' or '.join(compared)}? Circuits of " if compared else "Circuits of "
    return f"{head}{found.summary['model'].iloc[0]} on {listed(tasks(found))}"


def question(found: "result.Result") -> str:
    """What was asked, in which bases, and what was held fixed."""
    names = basis_names(found.study.basis)
    return (
        f"Which basis gives the sparser faithful circuits? One pipeline found and judged circuits in {listed(names.values())}, "
        "on the same prompts. The basis is the only thing that changes."
    )


def chips(found: "result.Result", compared: RobustTables | None) -> dict[str, str]:
    """The conditions of the study, in few words each."""
    study, first = found.study, found.summary.iloc[0]
    methods = ranked(list(study.method))[0]
    told = {
        "model": f"{first['model']}, {study.dtype}",
        "prompts": f"{first['n_discovery']} to find circuits, {first['n_eval']} others to judge them, per task",
        "method": listed(level_name("method", method) for method in methods),
        "ablation": listed(level_name("ablation", ablation) for ablation in study.ablation),
        "error nodes": listed(level_name("errors", policy) for policy in study.errors),
    }
    pairs = confirmatory(found)
    if compared is not None and pairs:
        rows = of_pair(compared.specifications, pairs[0])
        told["specifications"] = f"{len(rows[list(FACTORS)].drop_duplicates())} per task and dictionary"
    return told


def warnings(found: "result.Result", compared: RobustTables | None) -> list[str]:
    """A sentence per dictionary that a control equals where it wins; and one where there is no such control."""
    if compared is None:
        return []
    names, shown = basis_names(found.study.basis), task_names(found.summary["task"])
    said = []
    for pair in confirmatory(found):
        rows = of_pair(compared.specifications, pair)
        wins = rows_with(rows, verdict="b better")
        equalled = wins.loc[flagged(wins)]
        if len(equalled):
            where = listed(shown[task] for task in dict.fromkeys(equalled["task"]))
            said.append(
                f"{_capital(basis_name(pair[1]).dictionary)}'s control does as well on {where}: in {len(equalled)} of the {len(wins)} "
                f"specifications that {names[pair[1]]} win, an untrained dictionary wins too."
            )
    return said


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
