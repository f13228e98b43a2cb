"""Which circuits a study asks for: their sizes, and the nodes that they may choose from."""

from dataclasses import replace

from jaxtyping import Bool
from torch import Tensor

from neuron_vs_sae.analyses.circuits import stability
from neuron_vs_sae.analyses.circuits.folds import Choice
from neuron_vs_sae.analyses.circuits.roles import always_kept, candidates
from neuron_vs_sae.core.basis import Basis
from neuron_vs_sae.core.conventions import ErrorPolicy
from neuron_vs_sae.core.nodes import NodeIndex
from neuron_vs_sae.core.pairs import PromptPairs
from neuron_vs_sae.core.sizes import size_grid
from neuron_vs_sae.studies.families import is_baseline
from neuron_vs_sae.studies.study import Study


def index_of(study: Study, basis: Basis, pairs: PromptPairs) -> NodeIndex:
    """The order of the basis's nodes on these pairs."""
    return basis.index(None if study.positions == "pooled" else pairs.positions)


def sizes_of(study: Study, method: str, index: NodeIndex) -> tuple[int | str, ...]:
    """The sizes that the study asks for of that method: of a baseline's circuits those of its own, where it has some, as far as the
    basis has units."""
    if not study.baseline_sizes or not is_baseline(method):
        return study.sizes
    most = int((~index.is_error).sum())
    return tuple(size for size in study.baseline_sizes if isinstance(size, str) or size <= most)


def choice_of(study: Study, text: str, basis: Basis, index: NodeIndex, errors: ErrorPolicy) -> Choice:
    """How circuits are chosen under an error policy, at the sizes of a ranking that scores every node.

    Raises `InputError` for a size beyond the basis.
    """
    among = candidates(basis, index, errors)
    total = int(among.sum())
    return Choice(among, size_grid(study.sizes, total, total, text).ranked, study.rank_by)


def shown_for_stability(choice: Choice) -> Choice:
    """The same at the sizes at which stability is shown."""
    return replace(choice, sizes=stability.sizes_told(choice.sizes, int(choice.among.sum())))


def alike(study: Study, basis: Basis, index: NodeIndex) -> list[list[ErrorPolicy]]:
    """The study's error policies, in sets whose circuits are the same on this basis, in the order of the study.

    A policy decides only which nodes a circuit may choose from and which are kept in every run: where no dictionary loses
    anything, all policies are the same.
    """
    sets: list[list[ErrorPolicy]] = []
    parts: dict[ErrorPolicy, tuple[Bool[Tensor, " nodes"], Bool[Tensor, " nodes"]]] = {
        errors: (candidates(basis, index, errors), always_kept(basis, index, errors)) for errors in study.errors
    }
    for errors, (chosen, kept) in parts.items():
        for members in sets:
            same_chosen, same_kept = parts[members[0]]
            if bool((chosen == same_chosen).all()) and bool((kept == same_kept).all()):
                members.append(errors)
                break
        else:
            sets.append([errors])
    return sets
