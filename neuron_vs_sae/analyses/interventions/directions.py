"""Directions to compare units with: the difference of means, a probe's, and the principal ones of many differences."""

from importlib.util import find_spec
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from neuron_vs_sae.analyses.interventions.handles import subspace
from neuron_vs_sae.core.basis import Basis, Site
from neuron_vs_sae.core.errors import InputError, check_choice
from neuron_vs_sae.core.pairs import PromptPairs
from neuron_vs_sae.execution.splice import home, read

Direction = Literal["mean_difference", "probe"]


def directions(model: Any, basis: Basis, pairs: PromptPairs, kind: Direction) -> Basis:
    """A basis of one unit at each place where `basis` writes: the dense counterpart of its units, from clean to corrupt prompts.

    `mean_difference`: of the activations at the answer's position; `probe`: the weights of a logistic regression that tells corrupt
    from clean ones there (scikit-learn's, standardised, C = 1). Raises `InputError` without scikit-learn, and where there is no difference.
    """
    check_choice("direction", kind, Direction)
    if kind == "probe" and find_spec("sklearn") is None:
        raise InputError("a probe's direction needs scikit-learn: pip install 'neuron_vs_sae[probing]'")
    sites = list({site.name: site for site in basis.sites}.values())
    rows = []
    for clean, corrupt in at_answers(model, sites, pairs):
        row = (corrupt - clean).mean(0) if kind == "mean_difference" else _probe(clean, corrupt)
        if not bool(row.any()):
            raise InputError(f"clean and corrupt prompts of '{pairs.name}' do not differ at {sites[len(rows)].name}")
        rows.append((row / row.norm())[None])
    return subspace(model, [_written(site) for site in sites], rows, kind)


def delta_directions(model: Any, basis: Basis, pairs: PromptPairs, n: int) -> Basis:
    """The first `n` principal directions of donor less recipient, at each place where `basis` writes, over prompts and positions.

    Right singular vectors of the differences, not centred: the first may be the mean difference. Fewer where they have a smaller rank.
    """
    if n < 1:
        raise InputError(f"{n} directions: give 1 or more (--directions)")
    sites = list({site.name: site for site in basis.sites}.values())
    hooks = [site.writes for site in sites]
    moved: list[list[Tensor]] = [[] for _ in sites]
    for batch in pairs.batches(64):
        length = batch.length.to(home(model))
        clean, corrupt = (read(model, tokens.to(home(model)), length, hooks) for tokens in (batch.clean, batch.corrupt))
        for s, site in enumerate(sites):
            difference = (site.view(corrupt[site.writes]) - site.view(clean[site.writes]))[batch.real.to(home(model))]
            moved[s].append(difference[difference.any(-1)])
    rows = []
    for s, parts in enumerate(moved):
        _, values, right = torch.linalg.svd(torch.cat(parts).double(), full_matrices=False)
        rank = int((values > 1e-9 * values[0]).sum()) if len(values) else 0
        if not rank:
            raise InputError(f"clean and corrupt prompts of '{pairs.name}' do not differ at {sites[s].name}")
        rows.append(right[: min(n, rank)])
    return subspace(model, [_written(site) for site in sites], rows, f"delta_directions of {n}")


def at_answers(
    model: Any, sites: list[Site], pairs: PromptPairs
) -> list[tuple[Float[Tensor, "batch d"], Float[Tensor, "batch d"]]]:
    """Per site the activations at the answer's position of clean and of corrupt prompts."""
    parts: list[list[tuple[Tensor, Tensor]]] = [[] for _ in sites]
    for batch in pairs.batches(64):
        length = batch.length.to(home(model))
        rows = torch.arange(len(batch), device=length.device)
        hooks = [site.writes for site in sites]
        both = [read(model, tokens.to(home(model)), length, hooks) for tokens in (batch.clean, batch.corrupt)]
        for s, site in enumerate(sites):
            clean, corrupt = (site.view(seen[site.writes])[rows, length - 1] for seen in both)
            parts[s].append((clean, corrupt))
    return [(torch.cat([a for a, _ in part]), torch.cat([b for _, b in part])) for part in parts]


def _probe(clean: Float[Tensor, "batch d"], corrupt: Float[Tensor, "batch d"]) -> Float[Tensor, " d"]:
    from sklearn.linear_model import LogisticRegression

    x = torch.cat([clean, corrupt])
    scale = x.std(0).clamp(min=1e-6)
    labels = [0] * len(clean) + [1] * len(corrupt)
    fitted = LogisticRegression(C=1.0, max_iter=1000).fit((x / scale).double().cpu().numpy(), labels)
    return torch.from_numpy(fitted.coef_[0]).to(x) / scale


def _written(site: Site) -> Site:
    """The same place, read where it is written."""
    return Site(site.layer, site.writes, site.writes, site.head)
