"""Successor heads: heads whose output-value matrix takes what the first MLP makes of a token to the token that follows it in an order.

Source: Gould et al. 2023, "Successor heads" (arXiv 2312.09230): `M_h = W_U W_O W_V MLP0(LN(W_E))`, no attention pattern, raw weights. As here no layer's
norm lies between; a head's score counts how often the successor comes first among the tokens of its own list.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from neuron_vs_sae.catalog.tasks.successor import CYCLES, LISTS
from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.execution.splice import Edit, home, precision, read
from neuron_vs_sae.statistics.proportions import wilson

FIRST_MLP = "blocks.0.hook_mlp_out"


@dataclass(frozen=True, eq=False)
class Order:
    """Tokens in a familiar order. `cyclic`: the first follows the last."""

    name: str
    items: tuple[str, ...]
    tokens: Int[Tensor, " n"]
    cyclic: bool

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """(place, place of its successor)."""
        n = len(self.items)
        return [(i, (i + 1) % n) for i in range(n if self.cyclic else n - 1)]


def orders(model: Any, kinds: Sequence[str] = ()) -> list[Order]:
    """The lists of the task `successor` (or those kinds of it) as this tokenizer has them: written with a space before, without or in capitals,
    whichever gives the longest beginning of single tokens; numbers from 0 where there is a 0.

    Lists of fewer than three tokens are left out. Raises `InputError` for a kind that is not there, and where none is left.
    """
    unknown = [kind for kind in kinds if kind not in LISTS]
    if unknown:
        raise InputError(f"no order {unknown[0]!r}; there are: {', '.join(LISTS)}")
    if model.tokenizer is None:
        raise InputError("the model has no tokenizer, so no order can be written for it")
    known_orders = []
    for kind in kinds or LISTS:
        items = ("0", *LISTS[kind]) if kind == "numbers" else LISTS[kind]
        best: list[tuple[str, int]] = []
        for written in (lambda x: f" {x}", str, lambda x: f" {x.capitalize()}", str.capitalize):
            singles = _singles(model.tokenizer, items, written)
            if kind in CYCLES and len(singles) < len(items):
                continue
            best = max(best, singles, key=len)
        if len(best) >= 3:
            names, tokens = zip(*best, strict=True)
            known_orders.append(Order(kind, tuple(names), torch.tensor(tokens), kind in CYCLES))
    if not known_orders:
        raise InputError(f"of {', '.join(kinds or LISTS)} this tokenizer has no three items in a row as single tokens")
    return known_orders


def _singles(tokenizer: Any, items: Sequence[str], written: Any) -> list[tuple[str, int]]:
    """The longest run of items, from the first that is one token on, that are one known token each."""
    run: list[tuple[str, int]] = []
    for item in items:
        ids = tokenizer(written(item), add_special_tokens=False)["input_ids"]
        if len(ids) == 1 and ids[0] != tokenizer.unk_token_id and (not run or ids[0] not in {t for _, t in run}):
            run.append((item, ids[0]))
        elif run:
            break
    return run


@dataclass(frozen=True, eq=False)
class HeadScores:
    """Which successions each head gets right: `right[layer, head, i]`, pair i being of order `order[i]`."""

    right: Bool[Tensor, "layers heads n"]
    order: tuple[str, ...]

    def table(self, confidence: float = 0.95) -> pd.DataFrame:
        """A row per layer, head and order (and `all`): `score` with Wilson's interval over the `n` successions."""
        rows = []
        names = np.array(self.order)
        for layer, head in np.ndindex(*self.right.shape[:2]):
            for order in (*dict.fromkeys(self.order), "all"):
                right = self.right[layer, head].numpy()[(names == order) | (order == "all")]
                low, high = wilson(int(right.sum()), len(right), confidence)
                rows.append({
                    "layer": layer, "head": head, "order": order, "score": float(right.mean()), "low": low, "high": high, "n": len(right),
                })  # fmt: skip
        return pd.DataFrame(rows)

    def best(self, order: str = "all") -> tuple[int, int]:
        """(layer, head) of the highest score; the first of equals."""
        chosen = torch.tensor([order in (name, "all") for name in self.order])
        score = self.right[..., chosen].double().mean(-1)
        return divmod(int(score.flatten().argmax()), score.shape[1])


def heads(model: Any, kinds: Sequence[str] = ()) -> HeadScores:
    """The successor score of every head. Cost: a forward pass of one layer per token, and a matrix product per head.

    Raises `InputError` for a model whose first layer has no MLP, and as `orders` does.
    """
    lists = orders(model, kinds)
    right: list[Tensor] = []
    names: list[str] = []
    for order in lists:
        x = first_mlp(model, order.tokens)
        logits = through_heads(model, x, order.tokens)
        right.append(hits(logits, order))
        names += [order.name] * len(order.pairs)
    return HeadScores(torch.cat(right, -1), tuple(names))


def first_mlp(model: Any, tokens: Int[Tensor, " n"]) -> Float[Tensor, "n d"]:
    """`MLP0(LN(W_E))` of each token: what the first MLP writes when nothing but the token's embedding goes in."""
    return alone(model, tokens, [FIRST_MLP])[FIRST_MLP][:, 0]


def alone(model: Any, tokens: Int[Tensor, " n"], hooks: Sequence[str]) -> dict[str, Float[Tensor, "n 1 *d"]]:
    """The activations at hooks of the first layer, each token by itself, its attention and position embedding taken out."""
    known = model.hook_dict
    if FIRST_MLP not in known:
        raise InputError("the model's first layer has no MLP, and successor heads read what that makes of a token")
    nothing: list[Edit] = [
        (hook, torch.zeros_like) for hook in ("hook_pos_embed", "blocks.0.hook_attn_out") if hook in known
    ]
    rows = tokens.to(home(model))[:, None]
    return read(model, rows, torch.ones(len(rows), dtype=torch.long, device=rows.device), hooks, nothing)


def through_heads(model: Any, x: Float[Tensor, "n d"], tokens: Int[Tensor, " m"]) -> Float[Tensor, "layers heads n m"]:
    """The logits of some tokens that every head's output-value matrix gives to these vectors."""
    wide = precision(model)
    unembed = model.W_U[:, tokens.to(model.W_U.device)].detach().to(wide)
    by_layer = []
    for block in model.blocks:
        value, out = (matrix.detach().to(wide) for matrix in (block.attn.W_V, block.attn.W_O))
        by_layer.append(torch.einsum("nd,hde,hef,fm->hnm", x.to(wide), value, out, unembed))
    return torch.stack(by_layer)


def hits(logits: Float[Tensor, "*heads n n"], order: Order) -> Bool[Tensor, "*heads k"]:
    """Whether the successor comes first among the order's tokens, for every pair of it."""
    places, following = torch.tensor(order.pairs).T
    return (first(logits[..., places, :]) == following.to(logits.device)).cpu()


def first(logits: Float[Tensor, "*rows m"]) -> Int[Tensor, "*rows"]:
    """The place of the largest logit of each row, m where two are as large up to rounding (a millionth of the largest |logit|)."""
    two = logits.topk(2, dim=-1)
    apart = two.values[..., 0] - two.values[..., 1] > 1e-6 * logits.abs().amax(-1)
    return torch.where(apart, two.indices[..., 0], logits.shape[-1])
