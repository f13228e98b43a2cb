"""A second, deliberately naive implementation of the package's numbers: the oracle of its tests.

It shares no code with the package: one prompt at a time, plain loops and masks, nothing clever. Float64 needs
a float64 model and float64 autoencoders.

A site reads one activation and writes one, each flattened to [pos, d], as decode(encode(read)) + error.
A node is (site, position, unit): the site's place in the list of sites, the unit's index or "error"; position
is None in position-free circuits. A score is the estimated drop in the metric if the node alone were ablated,
mean over pairs; positive: the node helps.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import gelu, relu, silu

Node = tuple[int, int | None, int | str]
Scores = dict[Node, float]


class Pair(NamedTuple):
    """Clean and corrupt tokens [1, pos], and the two next tokens to compare."""

    clean: Tensor
    corrupt: Tensor
    answer: int
    foil: int


class Site(NamedTuple):
    """Where a basis reads and writes, and how; `error`: whether its error vector is a node of its own."""

    read: str
    write: str
    encode: Callable[[Tensor], Tensor]
    decode: Callable[[Tensor], Tensor]
    error: bool = True


class Features(NamedTuple):
    """Units [pos, width] and error vectors [pos, d] of one site on one prompt, or gradients of the two."""

    units: Tensor
    error: Tensor


Sites, Pairs = Sequence[Site], Sequence[Pair]


def raw_site(hook: str, error: bool = False) -> Site:
    """Every coordinate of the activation is a unit; the error vector is zero."""
    return Site(hook, hook, lambda x: x, lambda units: units, error)


def sae_site(model: Any, sae: Any) -> Site:
    """A sae-lens autoencoder or transcoder, at the hooks it was trained on."""
    read = sae.cfg.metadata.hook_name
    write = getattr(sae.cfg.metadata, "hook_name_out", None) or read
    if not sae.hook_z_reshaping_mode:
        return Site(read, write, sae.encode, sae.decode)
    heads = model.cfg.n_heads, model.cfg.d_head
    sae.encode(torch.zeros(1, *heads, dtype=sae.dtype, device=sae.device))  # decode needs the size of a head
    by_head = (lambda x: sae.encode(x.unflatten(-1, heads)), lambda units: sae.decode(units).flatten(-2))
    return Site(read, write, *by_head)


# Functions of a run's last logits, the pair, and the full model's last logits on the clean prompt.
METRICS: dict[str, Callable[[Tensor, Pair, Tensor], Tensor]] = {
    "logit_difference": lambda run, pair, full: run[pair.answer] - run[pair.foil],
    "answer_logit": lambda run, pair, full: run[pair.answer],
    "probability": lambda run, pair, full: run.softmax(-1)[pair.answer],
    "log_probability": lambda run, pair, full: run.log_softmax(-1)[pair.answer],
    "minus_kl": lambda run, pair, full: -kl(full, run),
}


def kl(full: Tensor, run: Tensor) -> Tensor:
    """KL(full || run) in nats, summed over the vocabulary."""
    return (full.softmax(-1) * (full.log_softmax(-1) - run.log_softmax(-1))).sum()


def metric_of(model: Any, metric: str, pair: Pair) -> Callable[[Tensor], Tensor]:
    full = last_logits(model, pair.clean).detach()
    return lambda run: METRICS[metric](run, pair, full)


# --- runs of the model


def flat(activation: Tensor) -> Tensor:
    return activation[0].reshape(activation.shape[1], -1)  # [1, pos, ...] -> [pos, d]


def last_logits(model: Any, tokens: Tensor, hooks: Sequence[tuple[str, Callable]] = ()) -> Tensor:
    logits = model.run_with_hooks(tokens, fwd_hooks=list(hooks))[0, -1]
    return logits if logits.dtype == torch.float64 else logits.float()


@torch.enable_grad()
def observe(
    model: Any, sites: Sites, tokens: Tensor, loss: Callable | None = None, embedding: Tensor | None = None
) -> tuple[list[Features], list[Features]]:
    """Features of every site and, given a loss, its gradients; `embedding` replaces the token embeddings."""
    seen, probes = {}, {}

    def probe(activation: Tensor, hook: Any) -> Tensor:
        seen[hook.name] = flat(activation).detach().clone()
        probes[hook.name] = torch.zeros_like(activation).requires_grad_()
        return activation + probes[hook.name]

    hooks = [("hook_embed", lambda activation, hook: activation if embedding is None else embedding)]
    hooks += [(name, probe) for name in {site.read for site in sites} | {site.write for site in sites}]
    last = last_logits(model, tokens, hooks)
    observed = []
    for site in sites:
        units = site.encode(seen[site.read]).detach()
        observed.append(Features(units, seen[site.write] - site.decode(units).detach()))
    if loss is None:
        return observed, []
    gradients = dict(zip(probes, torch.autograd.grad(loss(last), list(probes.values())), strict=True))
    return observed, [through_decoder(s, f, flat(gradients[s.write])) for s, f in zip(sites, observed, strict=True)]


@torch.enable_grad()
def through_decoder(site: Site, values: Features, gradient: Tensor) -> Features:
    """The gradients of units and error, from that of the activation they are decoded to."""
    units = values.units.clone().requires_grad_()
    return Features(torch.autograd.grad((site.decode(units) * gradient).sum(), units)[0], gradient)


def features(model: Any, sites: Sites, tokens: Tensor) -> list[Features]:
    return observe(model, sites, tokens)[0]


Edit = Callable[[Features], Features]  # what a site would write -> what it is to write


def edited_logits(model: Any, sites: Sites, tokens: Tensor, edits: Sequence[Edit], hooks: Any = ()) -> Tensor:
    """Last logits of one run in which every site writes its edited units and error."""
    hooks = list(hooks)
    for site, edit in zip(sites, edits, strict=True):
        hooks += edit_hooks(site, edit)
    return last_logits(model, tokens, hooks)


def edit_hooks(site: Site, edit: Edit) -> list[tuple[str, Callable]]:
    live = []

    def read(activation: Tensor, hook: Any) -> None:
        live.append(site.encode(flat(activation)))

    def write(activation: Tensor, hook: Any) -> Tensor:
        new = edit(Features(live[-1], flat(activation) - site.decode(live[-1])))
        return (site.decode(new.units) + new.error).reshape(activation.shape)

    return [(site.read, read), (site.write, write)]


# --- attribution: every method is written for one pair, and called with a list of pairs


def mean_over_pairs(method: Callable[..., Scores]) -> Callable[..., Scores]:
    @wraps(method)
    def over_pairs(model: Any, sites: Sites, pairs: Pairs, *args: Any, **options: Any) -> Scores:
        per_pair = [method(model, sites, pair, *args, **options) for pair in pairs]
        return {node: mean([scores[node] for scores in per_pair]) for node in per_pair[0]}

    return over_pairs


def ends(model: Any, sites: Sites, pair: Pair, paired: bool) -> tuple[list[Features], list[Features]]:
    """Features on the clean and on the corrupt prompt; unpaired, the latter are zero."""
    clean = features(model, sites, pair.clean)
    corrupt = features(model, sites, pair.corrupt)
    return clean, corrupt if paired else [each(torch.zeros_like, f) for f in clean]


def each(f: Callable[..., Tensor], *values: Features) -> Features:
    return Features(f(*(x.units for x in values)), f(*(x.error for x in values)))


def average(values: Sequence[Features]) -> Features:
    return each(lambda *x: sum(x) / len(x), *values)


def contracted(sites: Sites, a: Sequence, b: Sequence, grads: Sequence) -> Scores:
    """(a - b) . gradient: one number per unit and one per error vector."""
    parts = [each(lambda a, b, grad: (a - b) * grad, *three) for three in zip(a, b, grads, strict=True)]
    return named(sites, [(part.units, part.error.sum(-1)) for part in parts])


def named(sites: Sites, values: Sequence[tuple[Tensor, Tensor]]) -> Scores:
    """Nodes with their values, given as [pos, width] and [pos] for each site."""
    scores = {}
    for s, (units, errors) in enumerate(values):
        for p, row in enumerate(units.tolist()):
            scores |= {(s, p, u): value for u, value in enumerate(row)}
            if sites[s].error:
                scores[s, p, "error"] = errors[p].item()
    return scores


@mean_over_pairs
def attribution_patching(
    model: Any, sites: Sites, pair: Pair, metric: str = "logit_difference", at: str = "clean",
    paired: bool = True,
) -> Scores:  # fmt: skip
    """(v(x) - v(x')) . gradient at x ("clean") or at x' ("corrupt"); unpaired: v(x') = 0, error(x') = 0."""
    _, grads = observe(model, sites, getattr(pair, at), metric_of(model, metric, pair))
    return contracted(sites, *ends(model, sites, pair, paired), grads)


def points(n: int, schedule: str) -> list[float]:
    """Shares of the way from clean (0) to corrupt (1)."""
    return [(j + {"left": 0.0, "midpoint": 0.5, "right": 1.0}[schedule]) / n for j in range(n)]


def between(a: Any, b: Any, share: float) -> Any:
    return (1 - share) * a + share * b


@mean_over_pairs
@torch.enable_grad()
def integrated_gradients(
    model: Any, sites: Sites, pair: Pair, metric: str = "logit_difference", n: int = 10,
    schedule: str = "left", paired: bool = True,
) -> Scores:  # fmt: skip
    """(v(x) - v(x')) . mean gradient while one whole site moves to its value on x', the others live."""
    loss, (clean, corrupt) = metric_of(model, metric, pair), ends(model, sites, pair, paired)
    grads = []
    for site, start, end in zip(sites, clean, corrupt, strict=True):
        steps = []
        for share in points(n, schedule):
            point = each(lambda a, b, share=share: between(a, b, share).requires_grad_(), start, end)
            last = edited_logits(model, [site], pair.clean, [lambda live, point=point: point])
            steps.append(Features(*torch.autograd.grad(loss(last), list(point))))
        grads.append(average(steps))
    return contracted(sites, clean, corrupt, grads)


def along_embeddings(
    model: Any, sites: Sites, pair: Pair, metric: str, shares: Sequence[float], paired: bool
) -> list[tuple[list[Features], list[Features]]]:
    """Features and gradients while the token embeddings move from x to x', or to zero if unpaired."""
    start, end = model.W_E[pair.clean].detach(), model.W_E[pair.corrupt].detach() if paired else 0.0
    loss = metric_of(model, metric, pair)
    return [observe(model, sites, pair.clean, loss, between(start, end, share)) for share in shares]


@mean_over_pairs
def integrated_gradients_inputs(
    model: Any, sites: Sites, pair: Pair, metric: str = "logit_difference", n: int = 10,
    schedule: str = "left", paired: bool = True,
) -> Scores:  # fmt: skip
    """(v(x) - v(x')) . mean gradient along the embedding path; unpaired: a path to zero, and v(x') = 0."""
    steps = along_embeddings(model, sites, pair, metric, points(n, schedule), paired)
    grads = [average([gradients[s] for _, gradients in steps]) for s in range(len(sites))]
    return contracted(sites, *ends(model, sites, pair, paired), grads)


@mean_over_pairs
def conductance(
    model: Any, sites: Sites, pair: Pair, metric: str = "logit_difference", n: int = 10, paired: bool = True
) -> Scores:
    """Sum over steps j = 1..n of (v_{j-1} - v_j) . gradient at j, along the embedding path."""
    steps = along_embeddings(model, sites, pair, metric, [j / n for j in range(n + 1)], paired)
    parts = [contracted(sites, steps[j - 1][0], *steps[j]) for j in range(1, n + 1)]
    return {node: sum(part[node] for part in parts) for node in parts[0]}


@mean_over_pairs
def activation_patching(
    model: Any, sites: Sites, pair: Pair, nodes: Sequence[Node], metric: str = "logit_difference",
    direction: str = "noising", paired: bool = True,
) -> Scores:  # fmt: skip
    """m(x) - m(x; v := v(x')) noising, m(x'; v := v(x)) - m(x') denoising: one run for each node.

    A position-free node is patched at all positions in that one run.
    """
    loss, (clean, corrupt) = metric_of(model, metric, pair), ends(model, sites, pair, paired)
    by_direction = {"noising": (pair.clean, corrupt, 1), "denoising": (pair.corrupt, clean, -1)}
    into, source, sign = by_direction[direction]
    scores = {}
    for s, p, u in nodes:
        everything = set(all_nodes(model, [sites[s]], into))
        patched = unpooled({(0, p, u)}, into.shape[1])
        others = under_policy(everything, [sites[s]], into.shape[1], "keep") - patched
        before = loss(last_logits(model, into))
        after = loss(circuit_logits(model, [sites[s]], into, others, [Ablated(source[s])], bare=False))
        scores[s, p, u] = sign * (before - after).item()
    return scores


@mean_over_pairs
def delta(model: Any, sites: Sites, pair: Pair, paired: bool = True) -> Scores:
    """|v(x) - v(x')|; for an error vector the length of the difference."""
    changes = [each(torch.sub, a, b) for a, b in zip(*ends(model, sites, pair, paired), strict=True)]
    return named(sites, [(change.units.abs(), change.error.norm(dim=-1)) for change in changes])


# --- RelP: the gradient of a replacement model, which is written out here from the weights


class Rules(NamedTuple):
    """What the replacement model's gradients leave out."""

    norm: bool = True  # the scale of a normalisation is a constant
    act: bool = True  # act(g) is g times a constant
    half: bool = True  # a product of two branches gives each half of its gradient
    attention: bool = False  # the attention pattern is a constant
    gate: bool = False  # the activated gate is a constant
    stabiliser: float = 1e-6  # act(g) / (g +- this)


PLAIN = Rules(norm=False, act=False, half=False)
RELP = {
    "relp-ah": Rules(attention=True),
    "relp": Rules(),
    "relp-no-half": Rules(half=False),
    "relp-no-gate": Rules(half=False, gate=True),
}


@mean_over_pairs
def relp(
    model: Any, sites: Sites, pair: Pair, rules: Rules = RELP["relp"], metric: str = "logit_difference",
    paired: bool = True,
) -> Scores:  # fmt: skip
    """(v(x) - v(x')) . gradient of the replacement model at x."""
    clean, corrupt = ends(model, sites, pair, paired)
    _, _, by_name = replacement(model, pair, [site.write for site in sites], rules, metric)
    grads = [through_decoder(site, f, by_name[site.write]) for site, f in zip(sites, clean, strict=True)]
    return contracted(sites, clean, corrupt, grads)


@torch.enable_grad()
def replacement(
    model: Any, pair: Pair, hooks: Iterable[str], rules: Rules, metric: str = "logit_difference"
) -> tuple[float, dict[str, Tensor], dict[str, Tensor]]:
    """At x: the metric, and by hook activations and gradients [pos, d]. The logits must be the model's."""
    _, seen = replacement_logits(model, pair.clean, rules, {})
    probes = {name: torch.zeros_like(seen[name]).requires_grad_() for name in hooks}
    last, seen = replacement_logits(model, pair.clean, rules, probes)
    tolerance = 1e-9 if last.dtype == torch.float64 else 1e-4
    torch.testing.assert_close(last, last_logits(model, pair.clean), rtol=tolerance, atol=tolerance)
    value = metric_of(model, metric, pair)(last)
    gradients = torch.autograd.grad(value, list(probes.values()))
    return value.item(), {k: x.detach() for k, x in seen.items()}, dict(zip(probes, gradients, strict=True))


def replacement_logits(
    model: Any, tokens: Tensor, rules: Rules, probes: dict[str, Tensor]
) -> tuple[Tensor, dict[str, Tensor]]:
    """Last logits, and activations [pos, d] by hook; `probes` are added to the activations of their hooks."""
    cfg, seen = model.cfg, {}
    unsupported = (cfg.use_local_attn, cfg.use_qk_norm, cfg.use_normalization_before_and_after, cfg.attn_only)
    assert not any((*unsupported, cfg.attn_scores_soft_cap > 0, cfg.output_logits_soft_cap > 0))

    def tap(name: str, x: Tensor) -> Tensor:
        seen[name] = x + probes[name] if name in probes else x
        return seen[name]

    x = tap("hook_embed", model.W_E[tokens[0]])
    if cfg.positional_embedding_type == "standard":
        x = x + tap("hook_pos_embed", model.W_pos[: len(x)])
    for layer, block in enumerate(model.blocks):
        at, attn, mlp = f"blocks.{layer}.", block.attn, block.mlp
        x = tap(at + "hook_resid_pre", x)
        z = tap(at + "attn.hook_z", torch.cat(heads(attn, normalised(block.ln1, x, rules), rules), -1))
        attn_out = tap(at + "hook_attn_out", z @ attn.W_O.flatten(0, 1) + attn.b_O)
        middle = x if cfg.parallel_attn_mlp else tap(at + "hook_resid_mid", x + attn_out)
        post = tap(at + "mlp.hook_post", neurons(mlp, normalised(block.ln2, middle, rules), rules))
        mlp_out = tap(at + "hook_mlp_out", post @ mlp.W_out + mlp.b_out)
        x = tap(at + "hook_resid_post", (x + attn_out if cfg.parallel_attn_mlp else middle) + mlp_out)
    return (normalised(model.ln_final, x, rules) @ model.W_U + model.b_U)[-1], seen


def normalised(norm: Any, x: Tensor, rules: Rules) -> Tensor:
    if {"LN": True, "LNPre": True, "RMS": False, "RMSPre": False}[norm.cfg.normalization_type]:
        x = x - x.mean(-1, keepdim=True)
    scale = (x.pow(2).mean(-1, keepdim=True) + norm.cfg.eps).sqrt()
    x = x / (scale.detach() if rules.norm else scale)
    return x * getattr(norm, "w", 1.0) + getattr(norm, "b", 0.0)


def heads(attn: Any, x: Tensor, rules: Rules) -> list[Tensor]:
    """What every head mixes from the values, [pos, d_head] each."""
    future = torch.ones(len(x), len(x), dtype=torch.bool, device=x.device).triu(1)
    mixed = []
    for h in range(attn.cfg.n_heads):
        q = rotated(attn, x @ attn.W_Q[h] + attn.b_Q[h])
        k = rotated(attn, x @ attn.W_K[h] + attn.b_K[h])
        pattern = (q @ k.T / attn.attn_scale).masked_fill(future, -math.inf).softmax(-1)
        mixed.append((pattern.detach() if rules.attention else pattern) @ (x @ attn.W_V[h] + attn.b_V[h]))
    return mixed


def rotated(attn: Any, x: Tensor) -> Tensor:
    """Rotary position embedding of the first rotary_dim coordinates, or nothing at all."""
    if attn.cfg.positional_embedding_type == "standard":
        return x
    assert attn.cfg.positional_embedding_type == "rotary"
    assert not attn.cfg.rotary_adjacent_pairs
    first, second = x[:, : attn.cfg.rotary_dim].chunk(2, -1)
    cos, sin = (table[: len(x)].chunk(2, -1)[0] for table in (attn.rotary_cos, attn.rotary_sin))
    turned = [first * cos - second * sin, second * cos + first * sin]
    return torch.cat([*turned, x[:, attn.cfg.rotary_dim :]], -1)


def neurons(mlp: Any, x: Tensor, rules: Rules) -> Tensor:
    """hook_post, with the value that the model gives it and the gradient that the rules do."""
    act = {"silu": silu, "relu": relu, "gelu": gelu, "gelu_new": lambda g: gelu(g, approximate="tanh")}[mlp.cfg.act_fn]
    gated = mlp.cfg.gated_mlp
    g = x @ mlp.W_gate if gated else x @ mlp.W_in + mlp.b_in
    branch = act(g)
    if rules.gate and gated:
        branch = act(g).detach()
    elif rules.act:
        branch = g * (act(g) / torch.where(g < 0, g - rules.stabiliser, g + rules.stabiliser)).detach()
    if not gated:
        return branch + (act(g) - branch).detach()
    up = x @ mlp.W_in
    product = branch * up
    if rules.half:
        product = 0.5 * branch * up.detach() + 0.5 * branch.detach() * up
    return product + (act(g) * up + mlp.b_in - product).detach()


# --- nodes and circuits


def all_nodes(model: Any, sites: Sites, tokens: Tensor) -> list[Node]:
    """Every node in order: by site, by position, by unit, the error node after its position's units."""
    return list(named(sites, [(f.units, f.error.sum(-1)) for f in features(model, sites, tokens)]))


def order(node: Node) -> tuple[int, int, float]:
    site, position, unit = node
    return site, -1 if position is None else position, math.inf if unit == "error" else unit


def top_k(scores: Scores, k: int, rank_by: str = "absolute") -> set[Node]:
    """The k nodes of largest |score|, or of largest score ("signed"); ties go to the first in order."""
    height = {"absolute": abs, "signed": float}[rank_by]
    return set(sorted(scores, key=lambda node: (-height(scores[node]), *order(node)))[:k])


def pooled(scores: Scores) -> Scores:
    """Position-free nodes (site, None, unit): scores summed over positions."""
    sums = {}
    for (s, _, u), score in scores.items():
        sums[s, None, u] = sums.get((s, None, u), 0.0) + score
    return sums


def unpooled(circuit: Iterable[Node], n_pos: int) -> set[Node]:
    """The circuit with every position-free node at each position."""
    return {(s, q, u) for s, p, u in circuit for q in (range(n_pos) if p is None else [p])}


class Ablated(NamedTuple):
    """What one site's ablated nodes write. A run that keeps no node also loses what is no node: `of_zero`, what the site writes for
    units at 0, and `bias` (hook, vector), what the layer adds after it."""

    value: Features
    of_zero: Tensor | None = None
    bias: tuple[str, Tensor] | None = None


def ablation_values(
    model: Any, sites: Sites, pairs: Pairs, kind: str = "mean", reference: Sequence[Tensor] = (),
    rows: Sequence[int] = (),
) -> list[list[Ablated]]:  # fmt: skip
    """What ablation writes, for each pair and each site.

    `reference`: the prompts to average or to draw from, by default the pairs' corrupt ones; `rows[i]`: which
    of them pair i takes under "resample".
    """
    seen = [features(model, sites, tokens) for tokens in reference or [pair.corrupt for pair in pairs]]

    def means(s: int) -> Features:
        return average([by_site[s] for by_site in seen])  # of prompts of one length

    def value(i: int, s: int, own: Features) -> Ablated:
        zero = each(torch.zeros_like, own)
        if kind == "zero_site":
            return Ablated(zero, sites[s].decode(zero.units).detach(), bias_of(model, sites[s]))
        return Ablated(
            {
                "mean": lambda: means(s),
                "mean_global": lambda: each(lambda x: x.mean(0, keepdim=True).expand_as(x), means(s)),
                "counterfactual": lambda: own,
                "resample": lambda: seen[rows[i]][s],
                "zero_units": lambda: zero,
            }[kind]()
        )

    own = [features(model, sites, pair.corrupt) for pair in pairs]
    return [[value(i, s, own[i][s]) for s in range(len(sites))] for i in range(len(pairs))]


def bias_of(model: Any, site: Site) -> tuple[str, Tensor] | None:
    """The bias that a layer would still add if this site wrote zero, and the hook where it shows."""
    before, _, after = site.write.rpartition(".hook_")
    if after not in ("post", "z"):
        return None
    block = model.blocks[int(before.split(".")[1])]
    bias = (block.mlp.b_out if after == "post" else block.attn.b_O).detach()
    return before.replace(".mlp", ".hook_mlp_out").replace(".attn", ".hook_attn_out"), bias


def under_policy(circuit: set[Node], sites: Sites, n_pos: int, errors: str) -> set[Node]:
    """The nodes that a run of this circuit keeps when errors are: nodes, keep, ablate or resid_only."""
    kept = set(circuit)
    for s, site in enumerate(sites):
        for p in range(n_pos):
            if errors == "keep":
                kept.add((s, p, "error"))
            elif errors == "ablate" or (errors == "resid_only" and "hook_resid" not in site.write):
                kept.discard((s, p, "error"))
            else:
                assert errors in ("nodes", "resid_only"), errors
    return kept


def is_node(site: Site, errors: str) -> bool:
    """Whether the site's error nodes are nodes that a circuit may hold."""
    return errors == "nodes" or (errors == "resid_only" and "hook_resid" in site.write)


@torch.no_grad()
def circuit_logits(
    model: Any, sites: Sites, tokens: Tensor, kept: set[Node], ablated: Sequence[Ablated], bare: bool
) -> Tensor:
    """Last logits of one run with all but `kept` ablated; what is kept is recomputed as the run goes. `bare`: it keeps no node."""
    edits, biases = [], []
    for s, (value, of_zero, bias) in enumerate(ablated):
        n_pos, width = value.units.shape
        units_kept = [[(s, p, u) in kept for u in range(width)] for p in range(n_pos)]
        error_kept = [[(s, p, "error") in kept] for p in range(n_pos)]
        masks = Features(*(torch.tensor(mask, device=tokens.device) for mask in (units_kept, error_kept)))
        less = of_zero if bare and of_zero is not None else 0.0

        def edit(live: Features, masks: Features = masks, value: Features = value, less: Any = less) -> Features:
            written = each(torch.where, masks, live, value)
            return Features(written.units, written.error - less)

        edits.append(edit)
        if bare and bias is not None:
            biases.append((bias[0], lambda x, hook, b=bias[1]: x - b))
    return edited_logits(model, sites, tokens, edits, biases)


def evaluate(
    model: Any, sites: Sites, pairs: Pairs, circuit: set[Node], ablated: Sequence[Sequence[Ablated]],
    errors: str = "nodes", metric: str = "logit_difference",
) -> dict[str, list[float]]:  # fmt: skip
    """The metric per prompt: of the whole model, with nothing kept, of the circuit, of its complement."""
    results = {"whole": [], "empty": [], "circuit": [], "complement": []}
    for pair, values in zip(pairs, ablated, strict=True):
        loss, n_pos = metric_of(model, metric, pair), pair.clean.shape[1]
        chosen = unpooled(circuit, n_pos)
        others = set(all_nodes(model, sites, pair.clean)) - chosen
        results["whole"].append(loss(last_logits(model, pair.clean)).item())
        for name, nodes in (("empty", set()), ("circuit", chosen), ("complement", others)):
            kept = under_policy(nodes, sites, n_pos, errors)
            bare = not any(unit != "error" or is_node(sites[s], errors) for s, _, unit in nodes)
            results[name].append(loss(circuit_logits(model, sites, pair.clean, kept, values, bare)).item())
    return results


# --- scores of circuits


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def faithfulness(results: dict[str, list[float]], run: str = "circuit") -> float:
    """(F(run) - F(empty)) / (F(M) - F(empty)) of means over prompts; NaN where the denominator is nothing."""
    whole, empty = mean(results["whole"]), mean(results["empty"])
    if abs(whole - empty) < 1e-6 * max(abs(whole), 1):
        return math.nan
    return (mean(results[run]) - empty) / (whole - empty)


def completeness(results: dict[str, list[float]]) -> float:
    return faithfulness(results, "complement")


def bits(n_nodes: int, k: int) -> float:
    """log2 of the number of circuits of k out of n nodes."""
    return math.log2(math.comb(n_nodes, k))


def trapezoid(x: Sequence[float], y: Sequence[float]) -> float:
    return sum((x[i + 1] - x[i]) * (y[i] + y[i + 1]) / 2 for i in range(len(x) - 1))


def auc_logk(sizes: Sequence[int], values: Sequence[float]) -> float:
    """Mean height over ln k of a curve at growing sizes; sizes below 1 are left out."""
    x, y = zip(*[(math.log(k), value) for k, value in zip(sizes, values, strict=True) if k >= 1], strict=True)
    return trapezoid(x, y) / (x[-1] - x[0])


FRACTIONS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


def cpr(faithfulnesses: Sequence[float], fractions: Sequence[float] = FRACTIONS) -> float:
    """Area under faithfulness against the fraction of nodes kept."""
    return trapezoid(fractions, faithfulnesses)


def cmd(faithfulnesses: Sequence[float], fractions: Sequence[float] = FRACTIONS) -> float:
    """Area between faithfulness and 1 against the fraction of nodes kept."""
    return trapezoid(fractions, [abs(1 - f) for f in faithfulnesses])
