"""Swapping an intermediate step: its units take the values that they have where the step is another, and the answer should follow.

Units are donor_row on discovery pairs and swapped in others. One outcome alone shows little: a swap has to beat its controls, what suppression
breaks a donor of the same value has to rescue, and units have to work for donors of another template.
Source: the question is that of Lindsey et al. 2025 ("On the biology of a large language model", the capital of the state containing Dallas).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from neuron_vs_sae.analyses.interventions.controls import one_earlier, randomised
from neuron_vs_sae.analyses.interventions.outcomes import outcomes
from neuron_vs_sae.analyses.interventions.sets import at_nodes, moved, towards, written_norm
from neuron_vs_sae.analyses.interventions.steps import (
    WAYS,
    Prompts,
    Ranked,
    Steps,
    Way,
    answers_of,
    check_latent,
    known_at,
    prompts_of,
    ranked_units,
    steps_of,
    with_known_donor,
)
from neuron_vs_sae.analyses.interventions.subjects import landed, places, site_norms, subject
from neuron_vs_sae.core.basis import Basis, Site
from neuron_vs_sae.core.conventions import Engine
from neuron_vs_sae.core.dictionary import Coordinates
from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.core.nodes import NodeIndex
from neuron_vs_sae.core.pairs import PromptPairs
from neuron_vs_sae.execution.changes import Change, Changes
from neuron_vs_sae.execution.splice import home, precision

SWAP_KS = (1, 2, 5, 10, 20, 50)
SWAPS = (
    "swap", "transfer", "equal_value", "suppress", "isolate", "random", "permuted", "negated", "wrong_position", "all_units",
    "mean_difference", "whole_site",
)  # fmt: skip
"""What is done to a prompt. `swap`: its value's and the donor's value's units take the donor's values. `transfer`: those of a donor with another
template. `equal_value`: those of a donor with the same value, which should change nothing (a rescue of what is suppressed). `suppress`: its value's units take their mean over
prompts. `isolate`: the same units are suppressed in another question, about another value, which should stay. Controls: the amounts in random
units (to the same norm), mixed up, turned round, or a token early. `all_units`: every unit is swapped; `whole_site`: and the error too. `mean_difference`: the dense
direction from value to value, at every site."""


@dataclass(frozen=True, eq=False)
class Swaps:
    """A row of `values` per prompt, way, k and what is done: `hit` is whether the answer of the donor's value is first, `kept` whether the prompt's
    own answer is, `relation` whether any value's answer is, `unchanged` whether the first token is the plain model's."""

    basis: str
    latent: str
    values: pd.DataFrame
    units: dict[Way, Ranked]


COLUMNS = ("prompt", "value", "donor", "way", "k", "units", "swap", "hit", "kept", "relation", "unchanged", "norm")


def swap(
    model: Any,
    basis: Basis,
    discovery: PromptPairs,
    pairs: PromptPairs,
    *,
    latent: str,
    k: Sequence[int] = SWAP_KS,
    ways: Sequence[Way] = WAYS,
    others: PromptPairs | None = None,
    engine: Engine = "fast",
) -> Swaps:
    """The step `latent` (a tag) swapped in the clean prompts of `pairs`, its units donor_row on `discovery`, the donors being the corrupt prompts.

    Pairs whose donor's answer no clean prompt has, so that its value is not known, are left out.
    Units are swapped at every position from the first at which donor and recipient differ. `others` are questions that have the latent too, for `isolate`
    (none: left out). Raises `InputError` for a latent that the task lacks, and for a k below 1.
    """
    if not k or min(k) < 1:
        raise InputError(f"k of {list(k)}: give numbers of units, 1 or more (--k)")
    answers = answers_of(latent, discovery, pairs)
    kept = with_known_donor(pairs, answers)
    discovery, pairs = discovery.take(with_known_donor(discovery, answers)), pairs.take(kept)
    discovered, steps = steps_of(discovery, latent, answers), steps_of(pairs, latent, answers)
    seen = prompts_of(model, basis, discovery, discovered)
    units: dict[Way, Ranked] = {
        way: ranked_units(model, basis, discovery, discovered, seen, way, max(k)) for way in ways
    }
    dense = sites_of(model, basis)
    job = _Job(
        model, basis, dense, pairs, seen, prompts_of(model, basis, pairs, steps), prompts_of(model, dense, discovery, discovered),
        prompts_of(model, dense, pairs, steps), None if others is None else _other_questions(model, basis, others, latent),
    )  # fmt: skip
    firsts = set(discovery.answer.tolist()) | set(pairs.answer.tolist()) | set(pairs.foil.tolist())
    rows: list[dict[str, Any]] = []
    for i in range(len(pairs)):
        rows += [
            row | {"prompt": kept[i]} for row in job.measured(i, [*job.plans(i, units, sorted(k))], firsts, engine)
        ]
    return Swaps(basis.name, latent, pd.DataFrame(rows, columns=list(COLUMNS)), units)


def sites_of(model: Any, basis: Basis) -> Basis:
    """The activations that a basis writes, as they are: the ceiling and the dense baseline of its units."""
    widths = {site: dictionary.d for site, dictionary in zip(basis.sites, basis.dictionaries, strict=True)}
    sites = {site.name: Site(site.layer, site.writes, site.writes, site.head) for site in basis.sites}
    by_name = {site.name: width for site, width in widths.items()}
    return Basis("sites", tuple(sites.values()), tuple(Coordinates(by_name[name], precision(model)) for name in sites))


def _other_questions(model: Any, basis: Basis, others: PromptPairs, latent: str) -> tuple[PromptPairs, Prompts]:
    check_latent(others, latent)
    values = tuple(tags[latent] for tags in others.tags)
    nowhere = torch.zeros(len(others), dtype=torch.long)
    return others, prompts_of(model, basis, others, Steps(latent, values, ("",) * len(others), nowhere))


@dataclass(frozen=True, eq=False)
class _Plan:
    """One run: of the prompt itself in its basis, of the prompt with its sites as they are, or of another question."""

    labels: dict[str, Any]
    changes: Changes
    of: Literal["basis", "sites", "other"] = "basis"
    prompt: int = 0


@dataclass(frozen=True, eq=False)
class _Job:
    """All that is known before a prompt is looked at: prompts with their units (`dense`: with their sites as they are)."""

    model: Any
    basis: Basis
    dense: Basis
    pairs: PromptPairs
    seen: Prompts
    own: Prompts
    seen_dense: Prompts
    own_dense: Prompts
    others: tuple[PromptPairs, Prompts] | None

    def plans(self, i: int, units: dict[Way, Ranked], ks: Sequence[int]) -> Iterator[_Plan]:
        own, n = self.own, len(self.pairs)
        index = self.basis.index(own.tokens.shape[1])
        draw = torch.Generator().manual_seed(i)
        value, donor = own.value[i], own.value[n + i]
        known = list(range(int(own.first[i]), int(own.length[i])))
        theirs, mine = ([table[row] for table in own.units] for row in (n + i, i))
        of = subject(
            self.model, self.basis, own.tokens[i : i + 1], own.length[i : i + 1], places(self.pairs.batch([i]), "all")
        )
        norms = [norm[0] for norm in site_norms(self.model, self.basis, of)]
        directions = self._directions()
        everything = _nodes(index, [(s, u) for s, width in enumerate(index.widths) for u in range(width)], known)
        labels = {"prompt": i, "value": value, "donor": donor}

        def plan(name: str, way: str, k: int, n_units: int, changes: Changes, norm: float, **more: Any) -> _Plan:
            return _Plan({**labels, "way": way, "k": k, "units": n_units, "swap": name, "norm": norm}, changes, **more)

        def amounts(nodes: Tensor, donor_values: Sequence[Tensor]) -> Tensor:
            return (at_nodes(index, donor_values) - at_nodes(index, mine))[nodes].double()

        def norm(nodes: Tensor, by: Tensor) -> float:
            return written_norm(index, nodes, by, norms, directions)

        yield plan(
            "all_units",
            "",
            0,
            sum(index.widths),
            towards(index, everything, theirs, 1.0),
            norm(everything, amounts(everything, theirs)),
        )
        yield from (
            _Plan({**labels, "way": "", "k": 0, "units": 0, "swap": name, "norm": float("nan")}, changes, "sites")
            for name, changes in self._whole(i, known)
        )
        same, transferred = self._donor(i, value, same_template=True), self._donor(i, donor, same_template=False)
        mean = self._means(i)
        for way, ranked in units.items():
            for k in ks:
                first, second = ranked.get(value, [])[:k], ranked.get(donor, [])[:k]
                chosen = list(dict.fromkeys([*first, *second]))
                nodes = _nodes(index, chosen, known)
                by = amounts(nodes, theirs)
                size = norm(nodes, by)
                yield plan("swap", way, k, len(chosen), towards(index, nodes, theirs, 1.0), size)
                yield plan("negated", way, k, len(chosen), towards(index, nodes, theirs, -1.0), size)
                for name in ("random", "permuted_across"):
                    at, moved_by = randomised(name, index, nodes, by, draw)
                    written = norm(at, moved_by)
                    moved_by = moved_by * (size / written if written else 0.0)
                    label = "random" if name == "random" else "permuted"
                    yield plan(label, way, k, len(chosen), moved(index, at, moved_by, mine), size)
                at, moved_by = one_earlier(index, nodes, by)
                yield plan("wrong_position", way, k, len(chosen), moved(index, at, moved_by, mine), norm(at, moved_by))
                for name, donor_row in (("equal_value", same), ("transfer", transferred)):
                    if donor_row is not None:
                        values, kept = self._aligned(i, donor_row, known)
                        places_ = _nodes(index, chosen, kept)
                        yield plan(
                            name,
                            way,
                            k,
                            len(chosen),
                            towards(index, places_, values, 1.0),
                            norm(places_, amounts(places_, values)),
                        )
                nodes = _nodes(index, first, known)
                yield plan(
                    "suppress", way, k, len(first), towards(index, nodes, mean, 1.0), norm(nodes, amounts(nodes, mean))
                )
                yield from self._isolated(i, value, first, labels | {"way": way, "k": k, "units": len(first)})

    def _directions(self) -> list[Float[Tensor, "_ _"]]:
        with torch.no_grad():
            return [
                landed(self.model, site, d.directions(torch.arange(d.width, device=home(self.model))))
                for site, d in zip(self.basis.sites, self.basis.dictionaries, strict=True)
            ]

    def _whole(self, i: int, known: Sequence[int]) -> Iterator[tuple[str, Changes]]:
        """Both ends of what a basis could do: the donor's whole sites, and the dense direction from value to value."""
        n, width = len(self.pairs), self.own.tokens.shape[1]
        at = torch.zeros(1, width, 1, dtype=torch.bool)
        at[0, known[0] : known[-1] + 1] = True
        swapped, shifted = [], []
        for s, table in enumerate(self.own_dense.units):
            every, where = torch.arange(table.shape[-1]), at.to(table.device)
            swapped.append(
                Change(every, where * table[n + i][None], -where.to(table).expand(1, width, len(every)).clone())
            )
            by = (self._mean_of(s, self.own.value[n + i]) - self._mean_of(s, self.own.value[i]))[None, None]
            shifted.append(Change(every, where * by, torch.zeros(1, width, len(every)).to(table)))
        yield "whole_site", tuple(swapped)
        yield "mean_difference", tuple(shifted)

    def _mean_of(self, s: int, value: str) -> Float[Tensor, " d"]:
        """The mean activation at a site where the step is known, over the discovery prompts of a value."""
        rows = [j for j, v in enumerate(self.seen_dense.value) if v == value]
        known = known_at(self.seen_dense)[rows].to(self.seen_dense.units[s])
        return torch.einsum("bp,bpd->d", known, self.seen_dense.units[s][rows]) / known.sum()

    def _donor(self, i: int, value: str, *, same_template: bool) -> int | None:
        """A discovery prompt of that value, with the prompt's template or with another; None where there is none."""
        for j, v in enumerate(self.seen.value):
            if v == value and (self.seen.key(j) == self.own.key(i)) == same_template:
                return j
        return None

    def _aligned(self, i: int, j: int, known: Sequence[int]) -> tuple[list[Float[Tensor, "pos _"]], list[int]]:
        """Discovery prompt j's values at prompt i's positions: first known token to first known token, the others counted from the answer
        back; positions that have no counterpart are left out."""
        length, first = int(self.own.length[i]), int(self.own.first[i])
        of = {first: int(self.seen.first[j])}
        for p in known[1:]:
            q = int(self.seen.length[j]) - (length - p)
            if q > of[first]:
                of[p] = q
        values = []
        for table in self.seen.units:
            target = table.new_zeros(self.own.tokens.shape[1], table.shape[-1])
            for p, q in of.items():
                target[p] = table[j, q]
            values.append(target)
        return values, sorted(of)

    def _means(self, i: int) -> list[Float[Tensor, "pos _"]]:
        """Every unit's mean over the discovery prompts of the same template (over all, where there is none), position by position."""
        rows = [j for j in range(len(self.seen.tokens)) if self.seen.key(j) == self.own.key(i)]
        tables = [
            table[rows].mean(0) if rows else table.mean((0, 1)).expand(table.shape[1:]) for table in self.seen.units
        ]
        width = self.own.tokens.shape[1]
        return [torch.nn.functional.pad(table, (0, 0, 0, max(0, width - len(table))))[:width] for table in tables]

    def _isolated(self, i: int, value: str, chosen: list[tuple[int, int]], labels: dict[str, Any]) -> Iterator[_Plan]:
        """The prompt's units set to their mean over the other questions, in one of those that is about another value."""
        if self.others is None:
            return
        pairs, prompts = self.others
        about = [j for j in range(len(pairs)) if prompts.value[j] != value]
        j = about[i % len(about)]
        rows = [r for r in range(len(pairs)) if int(prompts.length[r]) == int(prompts.length[j])]
        index = self.basis.index(prompts.tokens.shape[1])
        nodes = _nodes(index, chosen, list(range(int(pairs.bos), int(prompts.length[j]))))
        means = [table[rows].mean(0) for table in prompts.units]
        yield _Plan({**labels, "swap": "isolate", "norm": float("nan")}, towards(index, nodes, means, 1.0), "other", j)

    def measured(self, i: int, plans: list[_Plan], firsts: set[int], engine: Engine) -> Iterator[dict[str, Any]]:
        for kind, basis in (("basis", self.basis), ("sites", self.dense), ("other", self.basis)):
            for prompt in sorted({plan.prompt for plan in plans if plan.of == kind}):
                mine = [plan for plan in plans if plan.of == kind and plan.prompt == prompt]
                pairs = self.others[0] if kind == "other" and self.others else self.pairs
                pair = pairs.batch([prompt if kind == "other" else i])
                nothing: Changes = (None,) * len(basis.sites)
                top = outcomes(self.model, basis, pair, [nothing, *(plan.changes for plan in mine)], engine=engine)[
                    "top"
                ]
                for plan, token in zip(mine, top[1:, 0].long().tolist(), strict=True):
                    yield {
                        **plan.labels, "hit": token == int(pair.foil), "kept": token == int(pair.answer),
                        "relation": token in firsts, "unchanged": token == int(top[0, 0]),
                    }  # fmt: skip


def _nodes(index: NodeIndex, units: Sequence[tuple[int, int]], positions: Sequence[int]) -> Int[Tensor, " k"]:
    """These units at these positions, in node order."""
    columns = torch.tensor([columns for _, columns in index.shapes])
    starts = (columns * index.blocks).cumsum(0) - columns * index.blocks
    if not len(units) or not len(positions):
        return torch.zeros(0, dtype=torch.long)
    site, unit = torch.tensor(units).T
    at = torch.tensor(list(positions))
    return (starts[site][:, None] + at[None] * columns[site][:, None] + unit[:, None]).flatten().sort().values
