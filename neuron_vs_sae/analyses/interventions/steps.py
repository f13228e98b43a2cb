"""An intermediate step of a task: which prompts have which value of it, from which token on, and which units carry each value."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.stats import rankdata
from torch import Tensor

from neuron_vs_sae.analyses.interventions.ranking import delta_gradient
from neuron_vs_sae.core.basis import Basis
from neuron_vs_sae.core.errors import InputError, check_choice
from neuron_vs_sae.core.pairs import PromptPairs
from neuron_vs_sae.execution.splice import gradients, home, precision, read

Way = Literal["answer", "word", "auroc"]
"""How a value's units are found: by (value - donor's) x gradient of the answer; by value x gradient of the logit of the value's own
word; or by how well they tell its prompts from the others'."""
WAYS: tuple[Way, ...] = ("answer", "word", "auroc")


@dataclass(frozen=True, eq=False)
class Steps:
    """Per pair the value of the step in the clean and in the corrupt prompt, and the first position at which the two differ."""

    latent: str
    clean: tuple[str, ...]
    corrupt: tuple[str, ...]
    first: Int[Tensor, " batch"]


def steps_of(pairs: PromptPairs, latent: str, answers: dict[str, str]) -> Steps:
    """The step that a tag of the pairs names; `answers` says which value an answer belongs to (`answers_of`).

    A tag is the clean prompt's: the corrupt prompt's value is that of its answer. Raises `InputError` for a latent that the task lacks, for an
    answer of no value, and for pairs that do not differ in it.
    """
    check_latent(pairs, latent)
    clean = tuple(tags[latent] for tags in pairs.tags)
    corrupt = []
    for text, foil in zip(pairs.corrupt_text, pairs.foil_text, strict=True):
        if foil not in answers:
            raise InputError(
                f"no pair tells the {latent} of the answer {foil!r} ({text!r}): give more discovery pairs (--examples)"
            )
        corrupt.append(answers[foil])
    same = [i for i, (a, b) in enumerate(zip(clean, corrupt, strict=True)) if a == b]
    if same:
        raise InputError(
            f"pair {same[0]} of task '{pairs.name}' has the same {latent} ({clean[same[0]]!r}) in both prompts: there is nothing to swap"
        )
    first = (pairs.clean != pairs.corrupt).int().argmax(1)
    return Steps(latent, clean, tuple(corrupt), first)


def check_latent(pairs: PromptPairs, latent: str) -> None:
    """Raises `InputError`, listing the task's tags, for a latent that is none of them."""
    known = sorted({key for tags in pairs.tags for key in tags})
    if any(latent not in tags for tags in pairs.tags):
        raise InputError(
            f"task '{pairs.name}' has no latent {latent!r}; its tags are: {', '.join(known) or 'none'} (--swap)"
        )


def answers_of(latent: str, *several: PromptPairs) -> dict[str, str]:
    """Which value of the latent each clean answer belongs to. Raises `InputError` where an answer goes with two."""
    value_of: dict[str, str] = {}
    for pairs in several:
        check_latent(pairs, latent)
        for answer, tags in zip(pairs.answer_text, pairs.tags, strict=True):
            if value_of.setdefault(answer, tags[latent]) != tags[latent]:
                raise InputError(
                    f"the answer {answer!r} of task '{pairs.name}' goes with {latent} {value_of[answer]!r} and with {tags[latent]!r}: the "
                    "latent does not follow from it, so the corrupt prompts' values are not known"
                )
    return value_of


def with_known_donor(pairs: PromptPairs, answers: dict[str, str]) -> list[int]:
    """The pairs whose corrupt prompt has an answer of a known value. Raises `InputError` where none has."""
    kept = [i for i, foil in enumerate(pairs.foil_text) if foil in answers]
    if not kept:
        raise InputError(
            f"no pair of task '{pairs.name}' has a donor of a known value: give more discovery pairs (--examples)"
        )
    return kept


@dataclass(frozen=True, eq=False)
class Prompts:
    """Prompts of known values with every unit's value in them: clean and corrupt ones of some pairs, one after the other."""

    tokens: Int[Tensor, "batch pos"]
    length: Int[Tensor, " batch"]
    first: Int[Tensor, " batch"]
    value: tuple[str, ...]
    units: tuple[Float[Tensor, "batch pos _"], ...]

    def key(self, i: int) -> tuple[int, int]:
        """What prompts of one template share: how long they are, and where the step is first known."""
        return int(self.length[i]), int(self.first[i])


def prompts_of(model: Any, basis: Basis, pairs: PromptPairs, steps: Steps, batch_size: int = 64) -> Prompts:
    """Both prompts of every pair."""
    tokens, length = torch.cat([pairs.clean, pairs.corrupt]), torch.cat([pairs.length, pairs.length])
    parts: list[tuple[Tensor, ...]] = []
    for rows in torch.arange(len(tokens)).split(batch_size):
        seen = read(model, tokens[rows].to(home(model)), length[rows].to(home(model)), basis.hooks)
        with torch.no_grad():
            parts.append(basis.features(seen).units)
    units = tuple(torch.cat(columns) for columns in zip(*parts, strict=True))
    return Prompts(tokens, length, torch.cat([steps.first] * 2), (*steps.clean, *steps.corrupt), units)


Ranked = dict[str, list[tuple[int, int]]]
"""Per value its units (site, number), best first."""


def ranked_units(
    model: Any, basis: Basis, pairs: PromptPairs, steps: Steps, prompts: Prompts, way: Way, most: int
) -> Ranked:
    """At most `most` units of each value, found on these pairs: those with a positive score, best first; ties go to the earlier.

    Scores are summed over the positions from the step's first on and averaged over the prompts of that value.
    `auroc` ranks by |AUROC - 1/2| of that sum against all other values' prompts, and then by the difference of the means.
    Raises `InputError` where a value's word is not one token (`word`).
    """
    check_choice("way of finding units", way, Way)
    if way == "auroc":
        scores = _by_auroc(basis, prompts)
    else:
        per_prompt = (
            _by_answer(model, basis, pairs, steps, prompts) if way == "answer" else _by_word(model, basis, prompts)
        )
        scores = {}
        for value in dict.fromkeys(prompts.value):
            rows = [i for i, v in enumerate(prompts.value[: len(per_prompt[0])]) if v == value]
            if rows:
                scores[value] = torch.cat([table[rows].mean(0) for table in per_prompt])
    sites = torch.repeat_interleave(torch.arange(len(basis.sites)), torch.tensor([d.width for d in basis.dictionaries]))
    numbers = torch.cat([torch.arange(d.width) for d in basis.dictionaries])
    ranked: Ranked = {}
    for value, row in scores.items():
        order = torch.sort(row, descending=True, stable=True).indices[:most]
        ranked[value] = [(int(sites[i]), int(numbers[i])) for i in order.tolist() if row[i] > 0]
    return ranked


def known_at(prompts: Prompts) -> Float[Tensor, "batch pos"]:
    """1 from the step's first position to the answer's, else 0."""
    positions = torch.arange(prompts.tokens.shape[1])
    return ((positions >= prompts.first[:, None].cpu()) & (positions < prompts.length[:, None].cpu())).double()


def _summed(prompts: Prompts) -> list[Float[Tensor, "batch _"]]:
    known = known_at(prompts)
    return [(units.cpu().double() * known[..., None]).sum(1) for units in prompts.units]


def _by_answer(
    model: Any, basis: Basis, pairs: PromptPairs, steps: Steps, prompts: Prompts
) -> list[Float[Tensor, "batch _"]]:
    """Per site, of the clean prompts."""
    n, index = len(pairs), basis.index(pairs.positions)
    known = known_at(prompts)[:n]
    del steps
    tables: list[list[Tensor]] = [[] for _ in basis.sites]
    for rows in torch.arange(n).split(32):
        donor = [units[n + rows] for units in prompts.units]
        scores = delta_gradient(model, basis, pairs.batch(rows), donor)
        for i, row in zip(rows.tolist(), scores, strict=True):
            for s, (units, _) in enumerate(index.unflatten(row)):
                tables[s].append((units * known[i][:, None]).sum(0))
    return [torch.stack(table) for table in tables]


def _by_word(model: Any, basis: Basis, prompts: Prompts) -> list[Float[Tensor, "batch _"]]:
    values = list(dict.fromkeys(prompts.value))
    words = torch.tensor([_token(model, value) for value in values], device=home(model))
    own = torch.tensor([values.index(value) for value in prompts.value], device=home(model))
    known = known_at(prompts)
    tables: list[list[Tensor]] = [[] for _ in basis.sites]
    for rows in torch.arange(len(prompts.tokens)).split(32):

        def objective(logits: Tensor, rows: Tensor = rows) -> Float[Tensor, " batch"]:
            of_words = logits[:, words]
            return of_words.gather(1, own[rows][:, None])[:, 0] - of_words.mean(1)

        tokens, length = prompts.tokens[rows].to(home(model)), prompts.length[rows].to(home(model))
        _, slopes = gradients(model, tokens, length, basis.hooks, objective)
        for s, (site, dictionary) in enumerate(zip(basis.sites, basis.dictionaries, strict=True)):
            with torch.no_grad():
                pulled = dictionary.pull_back(site.view(slopes[site.writes]).to(precision(model)))
            tables[s].append(((prompts.units[s][rows] * pulled).cpu().double() * known[rows][..., None]).sum(1))
    return [torch.cat(table) for table in tables]


def _token(model: Any, value: str) -> int:
    ids = model.tokenizer(f" {value}", add_special_tokens=False)["input_ids"]
    if len(ids) != 1:
        raise InputError(
            f"{value!r} is {len(ids)} tokens, so there is no one logit of it: find units another way (--way)"
        )
    return ids[0]


def _by_auroc(basis: Basis, prompts: Prompts) -> dict[str, Float[Tensor, " units"]]:
    del basis
    x = torch.cat(_summed(prompts), 1).numpy()
    ranks = rankdata(x, axis=0)
    scores = {}
    for value in dict.fromkeys(prompts.value):
        inside = np.array([v == value for v in prompts.value])
        n, m = int(inside.sum()), int((~inside).sum())
        if n and m:
            area = (ranks[inside].sum(0) - n * (n + 1) / 2) / (n * m)
            apart = np.abs(x[inside].mean(0) - x[~inside].mean(0))
            scores[value] = torch.from_numpy(np.abs(area - 0.5) + 1e-9 * apart / (apart.max() + 1e-30))
    return scores
