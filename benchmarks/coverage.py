"""Do intervals hold the truth, and tests find what is not there, as often as they say? By simulation, for few and many prompts.

    python benchmarks/coverage.py --out results/coverage.md     # minutes on one core
    python benchmarks/coverage.py --smoke                       # 200 samples of 40

Every sample is a study of two bases whose truth is known: F(M) - F(empty) varies between prompts, and what circuits of six sizes
keep of it varies around a share. Intervals, bands, tests and verdicts are the package's own.
"""

import argparse
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from itertools import product
from pathlib import Path

import numpy as np
from jaxtyping import Float
from scipy.special import ndtri
from scipy.stats import binomtest, t

from neuron_vs_sae.statistics.bootstrap import Estimate, Interval, band, interval, ratio
from neuron_vs_sae.statistics.multiplicity import holm
from neuron_vs_sae.statistics.permutation import contrast, sign_flip
from neuron_vs_sae.statistics.resampling import Clusters, draw, independent
from neuron_vs_sae.studies.findings import differ
from neuron_vs_sae.studies.multiverse import Multiverse
from neuron_vs_sae.studies.robustness import verdict_of
from neuron_vs_sae.studies.study import make_study

SHARES = np.array([0.05, 0.2, 0.45, 0.7, 0.85, 0.95])
"""What circuits of six sizes keep in truth; their complements keep `1 - share`."""
MARGIN = 0.05
FAMILY = 20


@dataclass(frozen=True)
class Kind:
    """How prompts vary: a distribution of mean 0 and variance 1, prompts per cluster, the mean of F(M) - F(empty)."""

    name: str
    noise: Callable[[np.random.Generator, tuple[int, int]], Float[np.ndarray, "n runs"]]
    per_cluster: int = 1
    denominator: float = 3.0


def _normal(rng: np.random.Generator, shape: tuple[int, int]) -> Float[np.ndarray, "n runs"]:
    return rng.normal(size=shape)


def _skewed(rng: np.random.Generator, shape: tuple[int, int]) -> Float[np.ndarray, "n runs"]:
    return rng.gamma(4.0, size=shape) / 2 - 2


def _very_skewed(rng: np.random.Generator, shape: tuple[int, int]) -> Float[np.ndarray, "n runs"]:
    return rng.exponential(size=shape) - 1


KINDS = [
    Kind("normal prompts", _normal),
    Kind("skewed prompts (gamma of shape 4: skewness 1)", _skewed),
    Kind("very skewed prompts (exponential: skewness 2)", _very_skewed),
    Kind("normal prompts, a weak effect: F(M) - F(empty) varies as much as two thirds of its mean", _normal, 1, 1.5),
    Kind("clusters of three prompts that share half of their variance", _normal, 3),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="200 samples of 40")
    parser.add_argument("--out", type=Path, help="Markdown file to write")
    chosen = parser.parse_args()
    runs, resamples, counts = (200, 200, [40]) if chosen.smoke else (2000, 2000, [8, 12, 20, 40, 80, 160])
    started = time.process_time()
    tables = [table(kind, counts, runs, resamples) for kind in KINDS]
    seconds = time.process_time() - started
    text = "\n".join([heading(runs, resamples, seconds), *tables, family(runs), robust(runs)])
    if chosen.out is None:
        print(text)
    else:
        chosen.out.write_text(text, encoding="utf-8")


def heading(runs: int, resamples: int, seconds: float) -> str:
    packages = ", ".join(f"{p} {version(p)}" for p in ("numpy", "scipy"))
    return f"""# Coverage of intervals, rates of tests

Measured by `python benchmarks/coverage.py` on {platform.machine()} with {os.cpu_count()} cores, {packages}, Python
{platform.python_version()}, in {seconds:.0f} seconds of processor time: {runs} samples per line ({resamples} bootstrap resamples each; bands from
{min(runs, 1000)}), so that a true 95.0 % is measured with a standard deviation of {100 * (0.95 * 0.05 / runs) ** 0.5:.1f} points.

Intervals should hold the truth in 95 % of samples: *F* and *C*, faithfulness and completeness at one size; *area*, of faithfulness over
six sizes; *difference* of two bases' areas, with denominators of their own; *band*, the whole curve at once. *plain*: F by BCa without
the expansion of its tails. *sign flips*: samples without a difference in which the test rejects at 5 %; *better*: in which a basis is called better
(one comparison). *equivalent*: samples with a difference of exactly the margin ({MARGIN}) that are called equivalent at 5 %.
*power*: samples with the mean minimum detectable difference in which the test rejects; 80 % is claimed. With 8
clusters the sign-flip test has 256 patterns, so no p below .0078. Where the effect is weak and prompts are few, some samples have next
to no F(M) - F(empty), their minimum detectable difference is beyond bounds, and so is its mean.
"""


def table(kind: Kind, counts: list[int], runs: int, resamples: int) -> str:
    clustered = kind.per_cluster > 1
    names = ["F", "C", "area", "difference", "band", "plain", "sign flips", "better", "equivalent", "power"]
    names += ["F, clusters ignored"] if clustered else []
    what = "clusters" if clustered else "prompts"
    lines = ["", f"## {kind.name}", "", f"| {what} | {' | '.join(names)} |", f"|---:|{'---:|' * len(names)}"]
    for n in counts:
        found = measured(kind, n, runs, resamples)
        lines.append(f"| {n} | {' | '.join(f'{100 * found[name]:.1f}' for name in names)} |")
    return "\n".join(lines)


def measured(kind: Kind, n: int, runs: int, resamples: int) -> dict[str, float]:
    """Shares of samples, by column."""
    rng = np.random.default_rng(n)
    clusters = Clusters(np.arange(n * kind.per_cluster) % n, np.zeros(n * kind.per_cluster, dtype=np.int64))
    drawn = draw(clusters, resamples, seed=0)

    def noise(spread: float) -> Float[np.ndarray, "batch runs"]:
        if kind.per_cluster == 1:
            return spread * kind.noise(rng, (n, runs))
        own = kind.noise(rng, (n * kind.per_cluster, runs))
        return spread * (0.5**0.5 * own + 0.5**0.5 * kind.noise(rng, (n, runs))[clusters.cluster])

    whole = noise(1.0)
    bottom, other = kind.denominator + whole, 0.8 * (kind.denominator + whole + noise(0.3))
    tops = [share * bottom + noise(0.7) for share in SHARES]
    curves = [ratio(top, bottom, drawn) for top in tops]
    complement = ratio((1 - SHARES[2]) * bottom + noise(0.7), bottom, drawn)
    mean_top, truth = sum(tops, np.zeros_like(bottom)) / len(SHARES), float(SHARES.mean())
    spread_b = noise(0.7 / len(SHARES) ** 0.5)
    area = ratio(mean_top, bottom, drawn)

    def against(shift: float) -> tuple[dict[str, Float[np.ndarray, " runs"]], Float[np.ndarray, " runs"]]:
        top = (truth - shift) * other + spread_b
        told = differ(area - ratio(top, other, drawn), 0.95, MARGIN)
        return told, sign_flip(contrast(mean_top, bottom, top, other), clusters, flips=2000)

    none, p = against(0.0)
    shift = float(none["minimum_detectable"].mean())
    found = {
        "F": held(interval(curves[2]), SHARES[2]),
        "C": held(interval(complement), 1 - SHARES[2]),
        "area": held(interval(area), truth),
        "difference": held(Interval(none["low"], none["high"]), 0.0),
        "band": float(np.mean([inside(curves, run) for run in range(min(runs, 1000))])),
        "plain": held(interval(curves[2], plain_level(0.95, curves[2])), SHARES[2]),
        "sign flips": float(np.mean(p < 0.05)),
        "better": float(np.mean((p < 0.05) & ((none["low"] > 0) | (none["high"] < 0)))),
        "equivalent": float(np.mean(against(MARGIN)[0]["p_equivalence"] < 0.05)),
        "power": float(np.mean(against(shift)[1] < 0.05)),
    }
    if kind.per_cluster > 1:
        alone = draw(independent(len(bottom)), resamples, seed=0)
        found["F, clusters ignored"] = held(interval(ratio(tops[2], bottom, alone)), SHARES[2])
    return found


def held(found: Interval, truth: float) -> float:
    return float(np.mean((found.low <= truth) & (truth <= found.high)))


def inside(curves: list[Estimate], run: int) -> bool:
    """Does the band of one sample hold all of its curve?"""
    one = Estimate(
        np.array([c.value[run] for c in curves]),
        np.stack([c.replicates[:, run] for c in curves], 1),
        np.stack([c.left_out[:, run] for c in curves], 1),
        curves[0].strata,
    )
    found = band(one)
    return bool(((found.low <= SHARES) & (found.high >= SHARES)).all())


def plain_level(confidence: float, estimate: Estimate) -> float:
    """The level whose expanded tails are the normal ones of `confidence`."""
    return float(1 - 2 * t.cdf(ndtri((1 - confidence) / 2) / estimate.expansion, estimate.freedom))


def family(runs: int) -> str:
    """Of families of comparisons without any difference, how many have one that is called better?"""
    rng, n = np.random.default_rng(0), 40
    clusters = independent(n)
    p = []
    for _ in range(FAMILY):
        whole = rng.normal(size=(n, runs))
        bottom, other = 3 + whole, 3 + whole + 0.3 * rng.normal(size=(n, runs))
        tops = (0.5 * bottom + 0.5 * rng.normal(size=(n, runs)), 0.5 * other + 0.5 * rng.normal(size=(n, runs)))
        p.append(sign_flip(contrast(tops[0], bottom, tops[1], other), clusters, flips=4000))
    values = np.stack(p, 1)
    plain, adjusted = (values < 0.05).any(1).mean(), np.mean([(holm(row) < 0.05).any() for row in values])
    return f"""
## Families

Of {runs} families of {FAMILY} comparisons without a difference (40 normal prompts), {100 * plain:.1f} % have a sign-flip p below .05, and
{100 * adjusted:.1f} % one below .05 after Holm's adjustment; 5 % at most is claimed.
"""


def robust(runs: int) -> str:
    """Of comparisons under 36 specifications without any difference, how many are called robustly better? And of clear ones?"""
    factors = list(product(("nodes", "keep", "ablate"), ("mean", "counterfactual"), ("m", "n"), ("u", "v", "w")))
    levels = {
        name: [row[i] for row in factors] for i, name in enumerate(("errors", "ablation", "method", "size_measure"))
    }
    study = make_study(
        {"model": "gpt2", "task": ["t.jsonl"], "basis": ["mlp_neurons", "sae"], "resamples": 500, "sign_flips": 2000}
    )
    lines = [
        "",
        "## Robust verdicts",
        "",
        "| prompts | difference / standard deviation | called better | exact 95 % interval |",
        "|---:|---:|---:|---|",
    ]
    for n, shift in product((20, 40), (0.0, 0.25, 0.5, 1.0)):
        rng, clusters, better = np.random.default_rng(n), independent(n), 0
        drawn = draw(clusters, study.resamples, seed=0)
        for _ in range(runs):
            values = shift + 0.5**0.5 * (rng.normal(size=(n, 1)) + rng.normal(size=(n, len(factors))))
            difference = ratio(values, np.ones((n, 1)), drawn)
            row = verdict_of(
                Multiverse("t", levels, difference, values, clusters, ()), "faithfulness", "mlp_neurons", study
            )
            better += row["candidate"] != "" and row["p_joint"] < 0.05 and row["verdict"] != "equivalent"
        ends = binomtest(better, runs).proportion_ci(0.95)
        lines.append(
            f"| {n} | {shift:g} | {100 * better / runs:.1f} % | {100 * ends.low:.1f} to {100 * ends.high:.1f} % |"
        )
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
