"""What the embedded default's models do, measured: tasks, held-out composition, patched states, probes.

Every function takes the model, or a function from prompts to the logits after them, and draws its own sentences.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from neuron_vs_sae.default import language
from neuron_vs_sae.default.families import FAMILIES, HELD_OUT_CITIES, STATE_OF, TRAINED_CITIES, TWO_HOP
from neuron_vs_sae.default.tokenizer import ids
from neuron_vs_sae.default.words import STATES, State
from neuron_vs_sae.default.writing import Part, Sentence, write

Ask = Callable[[list[str]], Float[Tensor, "batch vocab"]]

# Tags that divide a family's pairs into kinds that are also reported one by one.
_KINDS = ("template", "hops", "series", "language", "case", "order", "pronoun")


def bar(family: str) -> float:
    """The share of pairs that must have the right sign on both prompts for a task to be shipped."""
    return 0.98 if family.startswith("agreement") else 0.95


def asker(model: Any) -> Ask:
    """Prompts to logits for a HookedTransformer, in float32."""

    @torch.no_grad()
    def ask(prompts: list[str]) -> Float[Tensor, "batch vocab"]:
        batch = model.tokenizer(prompts, padding=True, return_tensors="pt")
        ends = batch.attention_mask.sum(1) - 1
        at = torch.arange(len(prompts))
        return model(batch.input_ids, prepend_bos=False)[at, ends].float()

    return ask


def _ids(words: list[str]) -> Int[Tensor, " n"]:
    return torch.tensor([ids()[word.strip()] for word in words])


def measured_tasks(ask: Ask, n: int = 400, seed: int = 1) -> dict[str, dict[str, Any]]:
    """For each family on evaluation pairs: shares with the right sign of the logit difference on both prompts (`both`),
    with the answer as the most probable token after the clean prompt (`top1`), and `both` for each kind of pair."""
    found = {}
    for family in FAMILIES:
        rows = language.rows(family, "evaluation", n, seed)
        clean, corrupt = (ask([row[side] for row in rows]) for side in ("clean", "corrupt"))
        answer, foil = (_ids([row[side] for row in rows]) for side in ("answer", "foil"))
        at = torch.arange(len(rows))
        both = (clean[at, answer] > clean[at, foil]) & (corrupt[at, foil] > corrupt[at, answer])
        kinds: dict[str, list[bool]] = defaultdict(list)
        for row, right in zip(rows, both.tolist(), strict=True):
            for tag in _KINDS:
                if tag in row:
                    kinds[f"{tag}: {row[tag]}"].append(right)
        found[family] = {
            "both": both.float().mean().item(),
            "top1": (clean.argmax(-1) == answer).float().mean().item(),
            "pairs": len(rows),
            "kinds": {kind: sum(rights) / len(rights) for kind, rights in sorted(kinds.items())},
        }
    return found


def _two_hop(template: str, city: str) -> Sentence:
    return write(template, {"city": city, "answer": STATE_OF[city].capital}, {})


def two_hop_held_out(ask: Ask) -> dict[str, float]:
    """Share of *all* the questions about held-out cities whose most probable next token is the right capital, for each
    template and over `all`. No training text names such a city in a two-hop question."""
    found = {}
    for template in TWO_HOP:
        written = [_two_hop(template, city) for city in HELD_OUT_CITIES]
        answers = _ids([s.words[s.answer] for s in written])
        found[template] = (ask([s.prompt for s in written]).argmax(-1) == answers).float().mean().item()
    return {**found, "all": sum(found.values()) / len(found)}


@torch.no_grad()
def patched_states(model: Any, n: int = 200, seed: int = 1) -> dict[str, float]:
    """Share of held-out two-hop questions that are answered with the capital of *another* state when what some layers
    write (attention and MLP outputs) is replaced by its mean over the trained cities of that state, in that question.

    No city is copied in: the replacement knows the state alone. A name says which layers, and where: at the `city`, or at
    the words `after` it. `own state` replaces by the mean of the city's own state, and gives the answers that stay right.
    """
    draw = Random(f"patched states {seed}")
    template = TWO_HOP[0]
    chosen = [draw.choice(HELD_OUT_CITIES) for _ in range(n)]
    own = [STATE_OF[city] for city in chosen]
    other = [draw.choice([state for state in STATES if state != mine]) for mine in own]
    city = 1 + template.split().index("{city}")
    places = {"city": slice(city, city + 1), "after": slice(city + 1, None)}
    layers = range(model.cfg.n_layers)
    hooks = [f"blocks.{i}.{kind}" for i in layers for kind in ("hook_attn_out", "hook_mlp_out")]

    def tokens(cities: Sequence[str]) -> Int[Tensor, "batch pos"]:
        return model.tokenizer([_two_hop(template, c).prompt for c in cities], return_tensors="pt").input_ids

    _, cache = model.run_with_cache(tokens(TRAINED_CITIES), prepend_bos=False, names_filter=hooks)
    rows = {state: [i for i, c in enumerate(TRAINED_CITIES) if STATE_OF[c] == state] for state in STATES}
    means = {hook: {state: cache[hook][at].mean(0) for state, at in rows.items()} for hook in hooks}

    def answered(states: Sequence[State], some: range, place: str) -> float:
        def swap(value: Tensor, hook: Any) -> Tensor:
            theirs = torch.stack([means[hook.name][state] for state in states])
            value[:, places[place]] = theirs[:, places[place]]
            return value

        edits = [(hook, swap) for hook in hooks if int(hook.split(".")[1]) in some]
        logits = model.run_with_hooks(tokens(chosen), prepend_bos=False, fwd_hooks=edits)
        answers = _ids([state.capital for state in states])
        return (logits[:, -1].argmax(-1) == answers).float().mean().item()

    found = {}
    for some in (range(1), range(2), range(1, layers[-1]), range(layers[-1], layers[-1] + 1)):
        which = f"layer {some[0]}" if len(some) == 1 else f"layers {some[0]}-{some[-1]}"
        for place in places:
            found[f"{which}, {place}"] = answered(other, some, place)
    found["layers 0-1, after, own state"] = answered(own, range(2), "after")
    return found


# Latent variables that a linear probe is asked for: (families, latent).
PROBED = (
    (("agreement_nounpp",), "number"),
    (("agreement_nounpp",), "distractor_number"),
    (("agreement_rc",), "number"),
    (("agreement_rc",), "distractor_number"),
    (("two_hop",), "state"),
    (("two_hop",), "capital"),
    (("successor",), "series"),
    (("pronoun",), "gender"),
    (("addition",), "sum"),
    (("recall", "reasoning"), "hops"),
    (("recall", "reasoning"), "source"),
)


@torch.no_grad()
def probes(model: Any, n: int = 2000, seed: int = 1) -> dict[str, list[float]]:
    """Accuracy of a linear probe for each latent variable at the last token of the prompt, after the embedding and after
    each layer (`n_layers + 1` numbers).

    A ridge classifier on the residual stream, fitted on discovery pairs' sentences and tested on evaluation pairs': of
    other nouns (agreement), names and persons (pronoun), cities (two_hop), invented states (recall, reasoning), or other
    questions on the same words (successor, addition). Values that it was not fitted on are left out.
    """
    found = {}
    for families, name in PROBED:
        (x, y), (x_test, y_test) = (
            _states(model, families, name, part, n, seed) for part in ("discovery", "evaluation")
        )
        values = sorted(set(y))
        kept = [i for i, value in enumerate(y_test) if value in set(values)]
        target = torch.tensor([values.index(value) for value in y])
        expected = torch.tensor([values.index(y_test[i]) for i in kept])
        accuracies = []
        for layer in range(x.shape[0]):
            weights, bias = _ridge(x[layer], torch.nn.functional.one_hot(target, len(values)).float())
            predicted = (x_test[layer][kept] @ weights + bias).argmax(-1)
            accuracies.append((predicted == expected).float().mean().item())
        found[f"{'+'.join(families)}: {name} ({len(values)} values)"] = accuracies
    return found


def _states(
    model: Any, families: tuple[str, ...], name: str, part: Part, n: int, seed: int
) -> tuple[Float[Tensor, "layer n d"], list[str]]:
    """The residual stream at the last token of `n` prompts, and the latent there."""
    draw = Random(f"probe {families} {part} {seed}")
    written, values = [], []
    for i in range(n):
        sentence = language.pair(families[i % len(families)], draw, part).clean
        written.append(sentence.prompt)
        values.append(sentence.known()[sentence.answer][name])
    batch = model.tokenizer(written, padding=True, return_tensors="pt")
    at, ends = torch.arange(n), batch.attention_mask.sum(1) - 1
    hooks = ["blocks.0.hook_resid_pre", *(f"blocks.{layer}.hook_resid_post" for layer in range(model.cfg.n_layers))]
    _, cache = model.run_with_cache(batch.input_ids, prepend_bos=False, names_filter=hooks)
    return torch.stack([cache[hook][at, ends].float() for hook in hooks]), values


def _ridge(x: Float[Tensor, "n d"], y: Float[Tensor, "n k"]) -> tuple[Float[Tensor, "d k"], Float[Tensor, " k"]]:
    mean, scale = x.mean(0), x.std(0).clamp(min=1e-6)
    z = (x - mean) / scale
    weights = (
        torch.linalg.solve(z.T @ z + len(x) * 1e-3 * torch.eye(x.shape[1]), z.T @ (y - y.mean(0))) / scale[:, None]
    )
    return weights, y.mean(0) - mean @ weights
