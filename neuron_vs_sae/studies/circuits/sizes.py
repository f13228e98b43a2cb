"""Which circuits a study asks for: their sizes, and the nodes that they may choose from."""

from dataclasses import replace

from neuron_vs_sae.analyses.circuits import stability
from neuron_vs_sae.analyses.circuits.evaluation import roles
from neuron_vs_sae.analyses.circuits.folds import Choice
from neuron_vs_sae.catalog.references import constants
from neuron_vs_sae.core.basis import Basis
from neuron_vs_sae.core.conventions import ErrorPolicy
from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.core.nodes import NodeIndex, log_sizes, mib_sizes
from neuron_vs_sae.core.pairs import PromptPairs
from neuron_vs_sae.studies.loaded import Loaded
from neuron_vs_sae.studies.study import Study


def sizes_of(study: Study, total: int, basis: str) -> tuple[int, ...]:
    """The study's sizes for a basis of `total` nodes. Raises `InputError` for one beyond them."""
    sizes: set[int] = set()
    for size in study.sizes:
        grids = {"all": (total,), "log": log_sizes(total), "mib": mib_sizes(total)}
        chosen = grids[size] if size in grids else (int(size),)
        if max(chosen) > total:
            raise InputError(
                f"a circuit of {max(chosen)} nodes is asked for (--sizes), and basis {basis!r} has {total}: ask for at "
                f"most {total}, or 'all'"
            )
        sizes.update(chosen)
    return tuple(sorted(sizes))


def index_of(study: Study, basis: Basis, pairs: PromptPairs) -> NodeIndex:
    """The order of the basis's nodes on these pairs."""
    return basis.index(None if study.positions == "pooled" else pairs.positions)


def choice_of(study: Study, text: str, basis: Basis, index: NodeIndex, errors: ErrorPolicy) -> Choice:
    """How circuits are chosen under an error policy, where the ablation takes nothing constant from the model: all sizes."""
    among, _ = roles(basis, index, errors, (None,) * len(basis.sites))
    return Choice(among, sizes_of(study, int(among.sum()), text), study.rank_by)


def shown_for_stability(choice: Choice) -> Choice:
    """The same at the sizes at which stability is shown."""
    return replace(choice, sizes=stability.sizes_told(choice.sizes, int(choice.among.sum())))


def alike(loaded: Loaded[Study], basis: Basis, index: NodeIndex, ablation: str | None) -> list[list[ErrorPolicy]]:
    """The study's error policies, in groups whose circuits are the same on this basis, in the order of the study.

    A policy says which nodes a circuit may choose from and which are kept in every run (`roles`), and nothing else: where
    no dictionary loses anything, all policies say the same. `ablation`: None for what does not depend on it.
    """
    removed = (None,) * len(basis.sites) if ablation is None else constants(ablation, loaded.model, basis)
    groups: list[list[ErrorPolicy]] = []
    policies: tuple[ErrorPolicy, ...] = loaded.spec.errors
    parts = {errors: roles(basis, index, errors, removed) for errors in policies}
    for errors in policies:
        chosen, kept = parts[errors]
        for group in groups:
            same_chosen, same_kept = parts[group[0]]
            if bool((chosen == same_chosen).all()) and bool((kept == same_kept).all()):
                group.append(errors)
                break
        else:
            groups.append([errors])
    return groups
