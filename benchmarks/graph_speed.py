"""How long graphs take, and how much memory: on the default, on GPT-2 small's shapes, over widths, and on a long prompt.

python benchmarks/graph_speed.py          # writes results/graphs/speed.md; CPU seconds on one thread
python benchmarks/graph_speed.py --smoke  # small shapes, written nowhere
"""

import argparse
import platform
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from shapes import TOY, Shape, made_model, made_pairs, made_saes, medians, peak_gib

import neuron_vs_sae as nvs
from neuron_vs_sae.analyses.graphs.contributions import rows_of
from neuron_vs_sae.analyses.graphs.prompt import prompt_of
from neuron_vs_sae.analyses.graphs.selection import selected
from neuron_vs_sae.analyses.graphs.targets import targets_of
from neuron_vs_sae.execution.cut import cut, through
from neuron_vs_sae.execution.replacement import rules

GPT2 = Shape(12, 768, 12, 50257, 8192, 1, 16, 5, (), 3)
_ACTIVE = 32
"""Units active per token where the width grows."""
HERE = Path(__file__).parents[1] / "results" / "graphs" / "speed.md"


def needed(model: Any, basis: nvs.Basis, pair: nvs.PromptPairs, nodes: int) -> Any:
    """The backward passes of a graph's rows and nothing else, as work; what is chosen is chosen beforehand."""
    prompt, replaced = prompt_of(model, pair), rules(model, freeze_attention=True)
    with through(model, basis, prompt.tokens, replaced) as run:
        explained = targets_of(model, basis, prompt, "metric", None, run)
        chosen = selected(basis, run, explained, nodes, None)

    def work() -> None:
        with cut(model, basis, prompt.tokens, replaced) as run:
            for part in rows_of(basis, run, explained, chosen):
                run.backward(part.quantity, part.cotangents, (*run.probes, *run.embedding_probes))

    return work


def of_shape(shape: Shape, nodes: int, repeats: int) -> list[str]:
    """Rows of the table: neurons and a transcoder at every layer."""
    model, pair = made_model(shape), made_pairs(shape)
    bases = [
        nvs.bases.mlp_neurons(model),
        nvs.bases.transcoder(model, source=made_saes(shape, model, shape.width, shape.layers, transcoder=True)),
    ]
    rows = []
    for basis in bases:

        def graph(basis: nvs.Basis = basis) -> nvs.Graph:
            return nvs.trace(model, basis, pair, nodes=nodes)

        backward = needed(model, basis, pair, nodes)
        graph()
        seconds = medians(repeats, graph=graph, backward=backward)
        rows.append(
            f"| {shape.layers} x {shape.d}, {basis.name} | {shape.positions} | {nodes} | {seconds['graph']:.2f} | {seconds['backward']:.2f} | "
            f"{seconds['graph'] / seconds['backward']:.2f} | {peak_gib(graph):.2f} |"
        )
    return rows


def of_default(nodes: int, repeats: int) -> list[str]:
    """Rows of the table: the embedded default."""
    model = nvs.load_model("default")
    pair = nvs.tasks.world(model, source="two_hop", n=4, part="evaluation").take([0])
    rows = []
    for basis in (nvs.bases.mlp_neurons(model), nvs.bases.sae(model), nvs.bases.transcoder(model)):

        def graph(basis: nvs.Basis = basis) -> nvs.Graph:
            return nvs.trace(model, basis, pair, nodes=nodes)

        backward = needed(model, basis, pair, nodes)
        graph()
        seconds = medians(repeats, graph=graph, backward=backward)
        rows.append(
            f"| default, {basis.name} | {pair.positions} | {nodes} | {seconds['graph']:.2f} | {seconds['backward']:.2f} | "
            f"{seconds['graph'] / seconds['backward']:.2f} | {peak_gib(graph):.2f} |"
        )
    return rows


def over_widths(shape: Shape, widths: tuple[int, ...], nodes: int, repeats: int) -> list[str]:
    """Rows: a transcoder of each width at every layer; beside the graph, encoding the prompt once with each dictionary, thrice per unit of it."""
    model, pair = made_model(shape), made_pairs(shape)
    rows = []
    for width in widths:
        saes = made_saes(shape, model, width, shape.layers, transcoder=True, active=_ACTIVE / width)
        basis = nvs.bases.transcoder(model, source=saes)
        y = torch.randn(1, shape.positions, shape.d)

        def graph(basis: nvs.Basis = basis) -> nvs.Graph:
            return nvs.trace(model, basis, pair, nodes=nodes)

        def encodes(basis: nvs.Basis = basis, y: torch.Tensor = y) -> None:
            for dictionary in basis.dictionaries:
                dictionary.encode(y)

        graph()
        seconds = medians(repeats, graph=graph, encodes=encodes)
        rows.append(f"| {width:,} | {seconds['graph']:.2f} | {seconds['encodes']:.3f} | {peak_gib(graph):.2f} |")
    return rows


def long_prompt(positions: int, nodes: int) -> str:
    """A model of the default's architecture, random, with a context of so many tokens: one graph of its neurons."""
    from transformer_lens import HookedTransformer, HookedTransformerConfig

    torch.manual_seed(0)
    like = nvs.load_model("default").cfg
    names = (
        "n_layers",
        "d_model",
        "n_heads",
        "d_head",
        "d_mlp",
        "d_vocab",
        "act_fn",
        "normalization_type",
        "positional_embedding_type",
        "rotary_dim",
        "gated_mlp",
        "final_rms",
    )
    config = HookedTransformerConfig(**{name: getattr(like, name) for name in names}, n_ctx=positions, device="cpu")
    model = HookedTransformer(config)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.05)
    nvs.prepare(model)
    shape = Shape(like.n_layers, like.d_model, like.n_heads, like.d_vocab, 0, 1, positions, positions // 2, (), 1)
    pair, basis = made_pairs(shape), nvs.bases.mlp_neurons(model)

    def graph() -> nvs.Graph:
        return nvs.trace(model, basis, pair, nodes=nodes)

    seconds = medians(1, graph=graph)["graph"]
    return (
        f"| default's architecture, mlp_neurons | {positions} | {nodes} | {seconds:.2f} | | | {peak_gib(graph):.2f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="small shapes, written nowhere")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    small = chosen.smoke
    shape = replace(TOY, pairs=1) if small else GPT2
    nodes, repeats = (20, 1) if small else (300, 2)
    lines = [
        "# How long a graph takes", "",
        f"CPU seconds on one thread, torch {torch.__version__}, {platform.machine()}; the median of {repeats}. *Backward*: the batched backward passes of the graph's rows and",
        "the forward pass before them, nothing else. Memory: the most that tensors made by the work hold at once, model and dictionaries not counted.",
        "Random weights but for the default. Made by `benchmarks/graph_speed.py`.", "",
        "| model, basis | tokens | units | graph, s | backward, s | ratio | peak, GiB |", "|---|---:|---:|---:|---:|---:|---:|",
        *of_default(nodes, repeats), *of_shape(shape, nodes, repeats), long_prompt(32 if small else 512, nodes), "",
        f"A transcoder of each width in both layers of 2 x {shape.d}, {_ACTIVE} units active per token (above, 1 % of {shape.width:,}):", "",
        "| width | graph, s | encoding once, s | peak, GiB |", "|---:|---:|---:|---:|",
        *over_widths(replace(shape, layers=2), (64, 256) if small else (8192, 32768, 131072), nodes, 1), "",
    ]  # fmt: skip
    text = "\n".join(lines)
    print(text)
    if not small:
        HERE.parent.mkdir(parents=True, exist_ok=True)
        HERE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
