"""Models of GPT-2 small's shapes, pairs and dictionaries with random weights, and how long something takes."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from sae_lens import SAE, HookedSAETransformer
from torch.utils.flop_counter import FlopCounterMode
from transformer_lens import HookedTransformerConfig

import neuron_vs_sae as nvs
from neuron_vs_sae.core.pairs import PromptPairs
from neuron_vs_sae.execution import splice
from neuron_vs_sae.execution.memory import peak_bytes


@dataclass(frozen=True)
class Shape:
    layers: int
    d: int
    heads: int
    vocab: int
    width: int
    pairs: int
    positions: int
    differ_at: int
    sizes: tuple[int, ...]
    repeats: int


TOY = Shape(2, 32, 2, 200, 128, 4, 6, 2, (10, 100), 1)


def made_model(shape: Shape) -> Any:
    torch.manual_seed(0)
    config = HookedTransformerConfig(
        n_layers=shape.layers, d_model=shape.d, n_heads=shape.heads, d_head=shape.d // shape.heads, d_mlp=4 * shape.d,
        d_vocab=shape.vocab, n_ctx=shape.positions, act_fn="gelu_new", normalization_type="LN", device="cpu",
    )  # fmt: skip
    model = HookedSAETransformer(config)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.05)
    return nvs.prepare(model)


def made_pairs(shape: Shape) -> PromptPairs:
    generator = torch.Generator().manual_seed(0)
    clean = torch.randint(1, shape.vocab, (shape.pairs, shape.positions), generator=generator)
    corrupt = clean.clone()
    corrupt[:, shape.differ_at] = clean[:, shape.differ_at] % (shape.vocab - 1) + 1
    answer = torch.randint(1, shape.vocab - 1, (shape.pairs,), generator=generator)
    names = tuple(map(str, range(shape.pairs)))
    return PromptPairs(
        "random", clean, corrupt, torch.full((shape.pairs,), shape.positions), answer, answer + 1, names, names, names,
        names, tuple({} for _ in names), False,
    )  # fmt: skip


@torch.no_grad()
def made_saes(
    shape: Shape, model: Any, width: int, layers: int, transcoder: bool = False, active: float = 0.01
) -> list[SAE]:
    """JumpReLU SAEs (or transcoders) with random weights, a share `active` of whose units are active on random tokens."""
    writes = [f"blocks.{layer}.hook_mlp_out" for layer in range(layers)]
    reads = [hook.replace("hook_mlp_out", "ln2.hook_normalized") if transcoder else hook for hook in writes]
    tokens = torch.randint(shape.vocab, (4, shape.positions), generator=torch.Generator().manual_seed(1))
    seen = splice.read(model, tokens, torch.full((4,), shape.positions), reads)
    found = []
    for read, write in zip(reads, writes, strict=True):
        metadata = {"hook_name": read, "hook_name_out": write} if transcoder else {"hook_name": write}
        config = {"d_out": shape.d} if transcoder else {}
        architecture = "jumprelu_transcoder" if transcoder else "jumprelu"
        one = SAE.from_dict(
            {"architecture": architecture, "d_in": shape.d, "d_sae": width, "device": "cpu", "dtype": "float32",
             "apply_b_dec_to_input": False, "metadata": metadata, **config}
        )  # fmt: skip
        one.W_enc.normal_(std=shape.d**-0.5)
        one.W_dec.normal_(std=shape.d**-0.5)
        before = (seen[read][:, 1:].flatten(0, 1) @ one.W_enc).flatten()
        dict(one.named_parameters())["threshold"].fill_(before.kthvalue(int((1 - active) * len(before))).values)
        found.append(one)
    return found


def ranking(shape: Shape, basis: nvs.Basis) -> nvs.NodeScores:
    index = basis.index(shape.positions)
    scores = index.unflatten(torch.rand(len(index), generator=torch.Generator().manual_seed(0)))
    for s, (units, error) in enumerate(scores):
        first = shape.positions - 1 if s == shape.layers - 1 else shape.differ_at
        units[:first] = error[:first] = 0
    return nvs.NodeScores(index, index.flatten([u for u, _ in scores], [e for _, e in scores]))


def cpu(work: Callable[[], Any]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def medians(repeats: int, **work: Callable[[], Any]) -> dict[str, float]:
    """The median CPU seconds of each, taken in turns."""
    times: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(repeats):
        for name, one in work.items():
            times[name].append(cpu(one))
    return {name: statistics.median(found) for name, found in times.items()}


def products(work: Callable[[], Any]) -> int:
    """Multiplications and additions in the matrix products that the work does (`torch.utils.flop_counter`)."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def peak_gib(work: Callable[[], Any]) -> float:
    """The most that tensors made by the work hold at once."""
    return peak_bytes(work) / 2**30
