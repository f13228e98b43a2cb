"""How fast circuits are run and nodes are scored, against dense execution, side by side in one process.

    python benchmarks/speed.py --out results/speed.md                 # GPT-2 small's shapes, random weights: everything
    python benchmarks/speed.py --out results/speed.md --only scores   # that section again; the others stay as they are
    python benchmarks/speed.py --smoke                                # toy shapes, under a minute

Each number is the median over interleaved repeats of the process's CPU seconds on one thread, so that other work on the
machine counts little. `dense` is what one writes with sae-lens' `HookedSAETransformer` (or transformer-lens' hooks): every
dictionary whole at every position, all logits; its ablation values are given to it for nothing. `exact` is this package's
own dense execution (`--engine exact`): one encode and decode per site, logits at the answer only. Finished sections are kept
in a JSON file beside `--out`, so a run that was stopped goes on with `--only`.
"""

import argparse
import json
import os
import platform
import resource
import shlex
import subprocess
import sys
import time
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from interventions_speed import GRIDS
from scaling import SCALING
from shapes import TOY, Shape, cpu, made_model, made_pairs, made_saes, medians, products, ranking
from studies import STUDIES

import neuron_vs_sae as nvs
from neuron_vs_sae.catalog.attribution._contraction import at_sites
from neuron_vs_sae.core.basis import together
from neuron_vs_sae.core.pairs import PromptPairs
from neuron_vs_sae.execution import splice


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="toy shapes")
    parser.add_argument("--out", type=Path, help="Markdown file to write (.md)")
    parser.add_argument("--only", action="append", choices=[*SECTIONS], help="some sections; the others stay")
    parser.add_argument("--pairs", type=int, default=32)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=3)
    chosen = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    os.environ["TQDM_DISABLE"] = "1"
    shape = TOY if chosen.smoke else Shape(
        chosen.layers, 768, 12, 50257, 24576, chosen.pairs, 12, 4, (10, 100, 1000, 10000), chosen.repeats
    )  # fmt: skip
    found: dict[str, str] = {}
    kept = None if chosen.out is None else chosen.out.with_suffix(".json")
    if kept is not None and kept.exists() and chosen.only:
        found = json.loads(kept.read_text(encoding="utf-8"))
    for name in chosen.only or SECTIONS:
        started = time.perf_counter()
        text = SECTIONS[name](shape)
        load = f"load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "load unknown"
        found[name] = f"{text}\n\n*{described(shape)} {time.perf_counter() - started:.0f} s, {load}.*"
        if kept is not None:
            kept.write_text(json.dumps(found, indent=1), encoding="utf-8")
            kept.with_suffix(".md").write_text(page(found), encoding="utf-8")
    if chosen.out is None:
        print(page(found))


def page(found: dict[str, str]) -> str:
    return "\n\n".join([heading(), *(found[name] for name in SECTIONS if name in found)]) + "\n"


def described(shape: Shape) -> str:
    return (
        f"{shape.layers} layers of width {shape.d}, vocabulary {shape.vocab}, {shape.pairs} pairs of {shape.positions} tokens that "
        f"differ at token {shape.differ_at} (from 0), {shape.repeats} repeats, peak memory so far "
        f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB."
    )


def heading() -> str:
    packages = ", ".join(f"{p} {version(p)}" for p in ("torch", "transformer-lens", "sae-lens"))
    return f"""# Speed

Random weights, float32. CPU seconds on one thread of {platform.machine()} ({processor()}, {os.cpu_count()} cores), medians of
interleaved repeats; {packages}, Python {platform.python_version()}. Last written by
`python {shlex.join(["benchmarks/speed.py", *sys.argv[1:]])}`; under each section: its shapes, how long it ran, and the machine's load
(2 cores: above 2, others were waiting, and CPU seconds are longer than on an idle machine).

Circuits are ranked by random numbers among the nodes that a paired method can score: from the token on at which the prompts
differ, in the last layer at the answer. One per cent of an SAE's units are active. A *point* is the circuit's run and its
complement's. `ours` is what a point adds to a curve; a whole curve also runs the model, the empty circuit, and the corrupt
prompts for the ablation's values."""


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown processor")


def parts_of(basis: nvs.Basis, scores: nvs.NodeScores, k: int, keep: bool) -> list[tuple[torch.Tensor, torch.Tensor]]:
    chosen = torch.zeros(len(scores.index), dtype=torch.bool)
    chosen[scores.top(k).nodes] = True
    return scores.index.unflatten(chosen if keep else ~chosen)


def difference(logits: torch.Tensor, pairs: PromptPairs) -> torch.Tensor:
    last = logits[:, -1]
    return (last.gather(1, pairs.answer[:, None]) - last.gather(1, pairs.foil[:, None]))[:, 0].double()


def table(shape: Shape, names: tuple[str, ...], seconds: dict[str, float], fixed: float) -> str:
    """Points by size, and the whole curve: ours with what it runs once, the others with the model and the empty circuit."""
    head = f"| size | ours | {' | '.join(names)} | {' | '.join(f'{n} / ours' for n in names)} |"
    rows = [head, "|" + "---:|" * (2 + 2 * len(names))]
    for k in shape.sizes:
        ours = max(seconds[str(k)] - fixed, 1e-9)
        cells = [
            f"{k:,}",
            f"{ours:.3f}",
            *(f"{2 * seconds[n]:.2f}" for n in names),
            *(f"{2 * seconds[n] / ours:.0f}" for n in names),
        ]
        rows.append(f"| {' | '.join(cells)} |")
    for sizes in (shape.sizes[:-1], shape.sizes):
        ours = fixed + sum(max(seconds[str(k)] - fixed, 0) for k in sizes)
        runs = 2 * len(sizes) + 2
        cells = [
            f"curve to {sizes[-1]:,}",
            f"{ours:.2f}",
            *(f"{runs * seconds[n]:.2f}" for n in names),
            *(f"{runs * seconds[n] / ours:.1f}" for n in names),
        ]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def verdict(reached: bool) -> str:
    return "met" if reached else "MISSED"


@torch.no_grad()
def neurons(shape: Shape) -> str:
    model, pairs = made_model(shape), made_pairs(shape)
    basis = nvs.bases.mlp_neurons(model)
    scores = ranking(shape, basis)
    values = nvs.ablation.mean(model, basis, pairs, pairs, 0, 64)(torch.arange(len(pairs)))

    def dense(keep: bool = True) -> torch.Tensor:
        kept = parts_of(basis, scores, shape.sizes[1], keep)
        hooks = [
            (site.writes, lambda x, hook, s=s: torch.where(kept[s][0], x, values.features.units[s]))
            for s, site in enumerate(basis.sites)
        ]
        return difference(model.run_with_hooks(pairs.clean, fwd_hooks=hooks), pairs)

    def ours(k: int) -> nvs.Curve:
        return nvs.evaluate(model, basis, scores, pairs, sizes=[k])

    seconds = medians(
        shape.repeats, plain=lambda: model(pairs.clean), dense=dense,
        exact=lambda: splice.edit(model, basis, pairs.clean, pairs.length, everything(basis, scores), values),
        fixed=lambda: ours(0), **{str(k): (lambda k=k: ours(k)) for k in shape.sizes},
    )  # fmt: skip
    curve = ours(shape.sizes[1])
    off = max(
        float((dense(keep) - row[0]).abs().max()) for keep, row in ((True, curve.circuit), (False, curve.complement))
    )
    fixed = seconds["fixed"]
    ratio = curve_ratio(shape, seconds, "dense")
    share = max(seconds[str(shape.sizes[1])] - fixed, 0) / seconds["plain"]
    forward, hooked = products(lambda: model(pairs.clean)), products(dense)
    begun = products(lambda: ours(0))
    point = products(lambda: ours(shape.sizes[1])) - begun
    whole = begun + sum(products(lambda k=k: ours(k)) - begun for k in shape.sizes[:-1])
    curve_limit = (2 * (len(shape.sizes) - 1) + 2) * hooked / whole
    return f"""## MLP neurons

A plain forward pass with logits takes {seconds["plain"]:.2f} s.

{table(shape, ("dense", "exact"), seconds, fixed)}

- A curve up to {shape.sizes[-2]:,} nodes, target 4 times faster than transformer-lens' hooks: {ratio:.1f} times, **{verdict(ratio >= 4)}**.
- A point of {shape.sizes[1]} neurons, target at most 0.4 of a plain forward pass: {share:.2f}, **{verdict(share <= 0.4)}**.
- The limit is the matrix products that are left: by count, those of the point are {point / forward:.2f} of the forward pass's, and hooks do
  {curve_limit:.1f} times those of the curve to {shape.sizes[-2]:,}. (A complement runs all its MLPs whole from the token on at which the prompts differ,
  a circuit its attention; the seconds follow the products, so it is neither Python nor memory.)
- Largest difference from dense: {off:.1e} (metric {float(curve.whole.abs().mean()):.1f}); target 1e-4, **{verdict(off <= 1e-4)}**."""


def everything(basis: nvs.Basis, scores: nvs.NodeScores) -> splice.Kept:
    parts = scores.index.unflatten(torch.ones(len(scores.index), dtype=torch.bool))
    return splice.Kept(tuple(u for u, _ in parts), tuple(e for _, e in parts))


def curve_ratio(shape: Shape, seconds: dict[str, float], name: str) -> float:
    fixed, sizes = seconds["fixed"], shape.sizes[:-1]
    ours = fixed + sum(max(seconds[str(k)] - fixed, 0) for k in sizes)
    return (2 * len(sizes) + 2) * seconds[name] / ours


@torch.no_grad()
def saes(shape: Shape) -> str:
    model, pairs = made_model(shape), made_pairs(shape)
    loaded = made_saes(shape, model, shape.width, shape.layers)
    basis = nvs.bases.sae(model, source=loaded)
    for one in loaded:
        one.use_error_term = True
    scores = ranking(shape, basis)
    values = nvs.ablation.mean(model, basis, pairs, pairs, 0, 64)(torch.arange(len(pairs)))

    def dense(keep: bool = True) -> torch.Tensor:
        kept = parts_of(basis, scores, shape.sizes[1], keep)
        hooks = []
        for s, site in enumerate(basis.sites):
            units, errors = kept[s]
            hooks += [
                (f"{site.writes}.hook_sae_acts_post",
                 lambda x, hook, s=s, units=units: torch.where(units, x, values.features.units[s])),
                (f"{site.writes}.hook_sae_error",
                 lambda x, hook, s=s, errors=errors: torch.where(errors[:, None], x, values.features.errors[s])),
            ]  # fmt: skip
        logits = model.run_with_hooks_with_saes(pairs.clean, saes=loaded, fwd_hooks=hooks)
        return difference(logits, pairs)

    def ours(k: int, errors: Any = "nodes") -> nvs.Curve:
        return nvs.evaluate(model, basis, scores, pairs, sizes=[k], errors=errors)

    seconds = medians(
        shape.repeats, dense=dense,
        exact=lambda: splice.edit(model, basis, pairs.clean, pairs.length, everything(basis, scores), values),
        fixed=lambda: ours(0), **{str(k): (lambda k=k: ours(k)) for k in shape.sizes},
    )  # fmt: skip
    kept = cpu(lambda: ours(shape.sizes[1], "keep"))
    curve = ours(shape.sizes[1])
    off = max(
        float((dense(keep) - row[0]).abs().max()) for keep, row in ((True, curve.circuit), (False, curve.complement))
    )
    ratio = curve_ratio(shape, seconds, "dense")
    errors = int(scores.index.is_error[scores.top(shape.sizes[-2]).nodes].sum())
    return f"""## SAEs of width {shape.width:,} at every hook_mlp_out

{table(shape, ("dense", "exact"), seconds, seconds["fixed"])}

- A curve up to {shape.sizes[-2]:,} nodes, target 6 times faster than sae-lens' hooks: {ratio:.1f} times, **{verdict(ratio >= 6)}**.
- Largest difference from dense: {off:.1e} (metric {float(curve.whole.abs().mean()):.1f}); target 1e-4, **{verdict(off <= 1e-4)}**.
- The limit is kept error nodes, each of which takes the whole dictionary in its cell ({errors} among the best {shape.sizes[-2]:,} nodes
  here). With all of them kept (`--errors keep`), a curve of the one size {shape.sizes[1]} takes {kept:.2f} s, {4 * seconds["exact"] / kept:.1f} times less than exact,
  instead of {seconds[str(shape.sizes[1])]:.2f} s."""


def attribution(shape: Shape) -> str:
    model, pairs = made_model(shape), made_pairs(shape)
    bases = [
        nvs.bases.mlp_neurons(model), nvs.bases.mlp_outputs(model),
        nvs.bases.sae(model, source=made_saes(shape, model, shape.width, shape.layers)),
        nvs.bases.transcoder(model, source=made_saes(shape, model, shape.width, shape.layers, transcoder=True)),
    ]  # fmt: skip
    joint = together(bases)
    hooks = joint.hooks
    values = splice.read(model, pairs.clean, pairs.length, hooks)

    def passes() -> None:
        splice.gradients(model, pairs.clean, pairs.length, hooks, lambda logits: logits[:, 0])

    def encodes() -> None:
        for basis in bases[2:]:
            for site, dictionary in zip(basis.sites, basis.dictionaries, strict=True):
                dictionary.encode(site.view(values[site.reads]))

    def one_site_at_a_time() -> None:
        # As published: for one basis and one site a forward and a backward pass, both prompts' units and errors.
        for basis in bases:
            site = nvs.Basis(basis.name, basis.sites[:1], basis.dictionaries[:1])
            found, slope = splice.gradients(model, pairs.clean, pairs.length, site.hooks, lambda logits: logits[:, 0])
            other = splice.read(model, pairs.corrupt, pairs.length, site.hooks)
            change = site.features(found) - site.features(other)
            _ = change.units[0] * site.dictionaries[0].pull_back(at_sites(site, slope)[0])

    seconds = medians(
        shape.repeats, ours=lambda: nvs.attribution.relp(model, joint, pairs), passes=passes, encodes=encodes,
        site=one_site_at_a_time,
    )  # fmt: skip
    floor = seconds["passes"] + seconds["encodes"]
    ratio = seconds["ours"] / floor
    counted = products(lambda: nvs.attribution.relp(model, joint, pairs)) / (products(passes) + products(encodes))
    published = shape.layers * seconds["site"]
    return f"""## Scores: RelP in mlp_neurons, mlp_outputs, sae and transcoder (width {shape.width:,}) at once

| | seconds |
|---|---:|
| ours, four bases together | {seconds["ours"]:.2f} |
| one forward and one backward pass of the model | {seconds["passes"]:.2f} |
| one encode of the clean prompts per dictionary | {seconds["encodes"]:.2f} |
| a pass per basis and site (one site of each basis, times {shape.layers} layers) | {published:.1f} |

- Target at most 1.5 times one forward, one backward and one encode per dictionary: {ratio:.2f}, **{verdict(ratio <= 1.5)}**; by count of
  matrix products {counted:.2f}, the rest being elementwise work on tables of tokens by units. (A paired
  score needs both prompts' units, where they differ and a gradient arrives: from token {shape.differ_at} on, and in the last layer at the
  answer, two encodes; a second forward pass; and of the gradient the products with the decoder rows of units that change.)
- A pass per basis and site takes {published / seconds["ours"]:.0f} times as long."""


def startup(shape: Shape) -> str:
    del shape

    def start() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "neuron_vs_sae", "--help"], check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    seconds = min(start() for _ in range(3))
    return f"## Start\n\n`nvs --help` takes {seconds:.2f} CPU seconds; target 1, **{verdict(seconds < 1)}**."


SECTIONS: dict[str, Any] = {
    "start": startup, "neurons": neurons, "saes": saes, "scores": attribution, **SCALING, **STUDIES, **GRIDS,
}  # fmt: skip


if __name__ == "__main__":
    main()
