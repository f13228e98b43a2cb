"""What bases, tasks and conventions are called in sentences, tables and figures, by their specs."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from neuron_vs_sae.core.lookup import parse
from neuron_vs_sae.report.labels import labels

Role = Literal["neurons", "trained", "control", "coordinates"]


@dataclass(frozen=True)
class BasisName:
    """What a kind of basis is called: its units in the plural, the dictionary that they come from, and what it is for."""

    units: str
    dictionary: str
    role: Role

    @property
    def control(self) -> str:
        """As a control in a sentence: `a random rotation`, `an untrained SAE`."""
        if self.role != "control":
            return f"the control ({self.units})"
        return f"{'an' if self.dictionary[0] in 'aeiou' else 'a'} {self.dictionary}"


_BASES = {
    "mlp_neurons": BasisName("MLP neurons", "neuron basis", "neurons"),
    "mlp_outputs": BasisName("MLP outputs", "MLP output basis", "coordinates"),
    "residual": BasisName("residual stream", "residual stream basis", "coordinates"),
    "attention": BasisName("attention heads", "attention head basis", "coordinates"),
    "sae": BasisName("SAE features", "SAE", "trained"),
    "transcoder": BasisName("transcoder features", "transcoder", "trained"),
    "rotation": BasisName("random rotation", "random rotation", "control"),
    "pca": BasisName("principal components", "PCA", "control"),
    "random_sae": BasisName("untrained SAE", "untrained SAE", "control"),
}

_FACTORS = {
    "errors": "how error nodes are treated",
    "size_measure": "how size is counted",
    "ablation": "what an ablated node is set to",
    "method": "the attribution method",
    "metric": "the metric",
    "summary": "how a curve is summarised",
}
_HEADINGS = {
    "errors": "error nodes",
    "size_measure": "size measure",
    "ablation": "ablation",
    "method": "attribution",
    "metric": "metric",
    "summary": "summary",
}
_SETTINGS = {
    "errors": "the treatment of error nodes",
    "size_measure": "the size measure",
    "method": "the attribution method",
}
_LEVELS = {
    "errors": {
        "nodes": "ranked as nodes", "keep": "always kept", "ablate": "always ablated",
        "resid_only": "nodes in the residual stream only",
    },
    "size_measure": {
        "nodes": "nodes", "units": "units", "values": "values", "fraction": "share of the dictionary", "bits": "bits",
        "change": "norm of the change",
    },
    "ablation": {
        "mean": "mean", "mean_global": "mean over positions", "counterfactual": "counterfactual", "resample": "another prompt",
        "zero_units": "zero units", "zero_site": "zero site",
    },
    "method": {
        "relp": "RelP", "attribution_patching": "attribution patching", "integrated_gradients": "integrated gradients",
        "activation_patching": "activation patching", "conductance": "conductance", "delta": "activation difference",
        "random": "random ranking",
    },
    "metric": {"logit_difference": "logit difference", "answer_logit": "answer's logit", "kl": "KL divergence"},
}  # fmt: skip


def basis_name(basis: str) -> BasisName:
    """The name of a basis's kind; an unknown kind is named by its spec and has the role of coordinates."""
    kind = parse("bases", basis).name
    return _BASES.get(kind) or BasisName(f"{kind.replace('_', ' ')} units", f"{kind} basis", "coordinates")


def basis_names(bases: Iterable[str]) -> dict[str, str]:
    """`SAE features` by basis; several of one kind are told apart by their spec: `SAE features (sae:default/sparser)`."""
    bases = list(bases)
    units = {basis: basis_name(basis).units for basis in bases}
    counts = Counter(units.values())
    short = labels(bases)
    return {basis: name if counts[name] == 1 else f"{name} ({short[basis]})" for basis, name in units.items()}


def with_role(bases: Iterable[str], *roles: Role) -> list[str]:
    """The bases that have one of these roles, in their order."""
    return [basis for basis in bases if basis_name(basis).role in roles]


def task_names(tasks: Iterable[str]) -> dict[str, str]:
    """`two hop` for `two_hop.0`, whose template is left out unless another task has the same name then."""
    tasks = list(dict.fromkeys(tasks))
    short = {task: task.rpartition(".")[0] if task.rpartition(".")[2].isdecimal() else task for task in tasks}
    counts = Counter(short.values())
    return {task: (name if counts[name] == 1 and name else task).replace("_", " ") for task, name in short.items()}


def factor_name(factor: str) -> str:
    """A convention in a sentence: `how error nodes are treated`."""
    return _FACTORS.get(factor, factor.replace("_", " "))


def setting_name(factor: str) -> str:
    """A convention as a thing that is changed: `the treatment of error nodes`."""
    return _SETTINGS.get(factor, f"the {heading(factor)}")


def heading(factor: str) -> str:
    """A convention above its choices: `error nodes`."""
    return _HEADINGS.get(factor, factor.replace("_", " "))


def level_name(factor: str, level: str) -> str:
    """A choice of a convention: `always ablated`; a method's options stay as they were given."""
    if level in (known := _LEVELS.get(factor, {})):
        return known[level]
    if factor == "method":
        spec = parse("attribution", level)
        base = _LEVELS["method"].get(spec.name, spec.name.replace("_", " "))
        options = ", ".join(f"{name} {value}" for name, value in spec.options.items())
        return f"{base} ({options})" if options else base
    return level.replace("_", " ")


def listed(words: Iterable[str]) -> str:
    """`a`, `a and b`, `a, b and c`; empty for none."""
    *before, last = [*words] or [""]
    return f"{', '.join(before)} and {last}" if before else last
