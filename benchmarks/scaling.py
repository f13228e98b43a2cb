"""How time and memory grow: with the circuit, the dictionary's width, the prompts and the layers."""

from dataclasses import replace
from typing import Any

from shapes import TOY, Shape, made_model, made_pairs, made_saes, medians, peak_gib, ranking

import neuron_vs_sae as nvs

_COLUMNS = ("a point, s", "the curve's fixed part, s", "RelP scores, s", "a curve's peak, GiB", "the scores' peak, GiB")


def measured(shape: Shape, sizes: tuple[int, ...], layers: int | None = None) -> list[list[float]]:
    """For each size what a point adds, the curve without it, the scores, and the most memory that tensors of each held."""
    model, pairs = made_model(shape), made_pairs(shape)
    basis = nvs.bases.sae(model, source=made_saes(shape, model, shape.width, layers or shape.layers))
    scores = ranking(shape, basis)

    def curve(k: int) -> nvs.Curve:
        return nvs.evaluate(model, basis, scores, pairs, sizes=[k])

    def score() -> nvs.NodeScores:
        return nvs.attribution.relp(model, basis, pairs)

    seconds = medians(
        shape.repeats, fixed=lambda: curve(0), score=score, **{str(k): (lambda k=k: curve(k)) for k in sizes}
    )
    of_scores = peak_gib(score)
    return [
        [max(seconds[str(k)] - seconds["fixed"], 1e-4), seconds["fixed"], seconds["score"],
         peak_gib(lambda k=k: curve(k)), of_scores]
        for k in sizes
    ]  # fmt: skip


def table(title: str, axis: str, rows: dict[int, list[float]], note: str) -> str:
    """Markdown of the rows under a title, with the note below."""
    lines = [f"| {axis} | {' | '.join(_COLUMNS)} |", "|" + "---:|" * (1 + len(_COLUMNS))]
    lines += [f"| {x:,} | {' | '.join(f'{value:.3f}' for value in row)} |" for x, row in rows.items()]
    return f"## {title}\n\n" + "\n".join(lines) + f"\n\n{note}"


def ratio(rows: dict[int, list[float]], column: int = 0) -> str:
    first, last = min(rows), max(rows)
    return f"{rows[last][column] / rows[first][column]:.1f}"


def by_size(shape: Shape) -> str:
    sizes: tuple[int, ...] = (10, 50) if shape is TOY else (10, 100, 1000, 10000, 30000)
    rows: dict[int, list[float]] = dict(
        zip(sizes, measured(replace(shape, repeats=min(2, shape.repeats)), sizes), strict=True)
    )
    note = f"SAEs of width {shape.width:,} at every hook_mlp_out. {sizes[-1] // sizes[0]:,} times the nodes take {ratio(rows)} times as long."
    return table("Growing circuits", "circuit size", rows, note)


def by_width(shape: Shape) -> str:
    widths = (64, 256) if shape is TOY else (8192, 32768, 131072)
    few = 20 if shape is TOY else 100
    thin = replace(shape, layers=min(4, shape.layers), repeats=min(2, shape.repeats))
    rows = {width: measured(replace(thin, width=width), (few,), layers=1)[0] for width in widths}
    note = (
        f"One SAE at the first layer of {thin.layers}; a circuit of {few} nodes. {widths[-1] // widths[0]} times the width makes a point "
        f"{ratio(rows)} times as long, and the scores, which encode every unit, {ratio(rows, 2)} times. (An error node in a circuit takes the "
        "whole dictionary in its cell: a random ranking picks one the rarer, the wider the dictionary.)"
    )
    return table("Wider dictionaries", "width", rows, note)


def by_prompts(shape: Shape) -> str:
    counts = (4, 16) if shape is TOY else (32, 128, 512)
    thin = replace(shape, layers=min(3, shape.layers), repeats=1, width=min(8192, shape.width))
    few = 20 if shape is TOY else 100
    rows = {n: measured(replace(thin, pairs=n), (few,))[0] for n in counts}
    note = (
        f"{thin.layers} layers, width {thin.width:,}, {few} nodes, 64 pairs per pass. Memory grows to that of one pass."
    )
    return table("More prompts", "pairs", rows, note)


def by_layers(shape: Shape) -> str:
    counts = (2, 4) if shape is TOY else (6, 12, 24)
    thin = replace(shape, repeats=1, width=min(8192, shape.width))
    few = 20 if shape is TOY else 100
    rows = {n: measured(replace(thin, layers=n), (few,))[0] for n in counts}
    return table("Deeper models", "layers", rows, f"Width {thin.width:,} at every layer, {few} nodes.")


SCALING: dict[str, Any] = {"sizes": by_size, "widths": by_width, "prompts": by_prompts, "layers": by_layers}
