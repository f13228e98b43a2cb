"""A curve: the metric per size and per prompt, for circuit and complement. Everything else is derived from it."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from neuron_vs_sae.core.errors import InputError, NothingToExplainError
from neuron_vs_sae.core.nodes import MIB_FRACTIONS, bits, mib_sizes


@dataclass(frozen=True, eq=False)
class Curve:
    """F(M), F(empty), F(C) and F(complement) per prompt, at growing sizes of one ranking.

    `circuit[i]` keeps the best `sizes[i]` nodes and ablates the rest; `complement[i]` ablates those and keeps the rest.
    `n_total` is the number of nodes that a circuit could have; `n_error_nodes[i]` of `sizes[i]` are error nodes.
    `change[i]` is how much removing that circuit changes, of what removing all nodes does (`change.py`); a curve made by hand
    may go without.
    """

    sizes: tuple[int, ...]
    n_error_nodes: tuple[int, ...]
    n_total: int
    whole: Float[Tensor, " batch"]
    empty: Float[Tensor, " batch"]
    circuit: Float[Tensor, "sizes batch"]
    complement: Float[Tensor, "sizes batch"]
    change: Float[Tensor, "sizes batch"] | None = None

    @property
    def faithfulness(self) -> Float[Tensor, " sizes"]:
        """`(F(C) - F(empty)) / (F(M) - F(empty))`, each F a mean over prompts: 1 is the model's behaviour.

        Raises `NothingToExplainError` when ablating everything does not move the metric.
        Source: Marks et al. 2024 (arXiv 2403.19647), section 3; a ratio of means, never a mean of ratios.
        """
        return (self.circuit.mean(1) - self.empty.mean()) / self.denominator

    @property
    def completeness(self) -> Float[Tensor, " sizes"]:
        """The faithfulness of what is left when the circuit is removed: 0 is complete, LOWER is better."""
        return (self.complement.mean(1) - self.empty.mean()) / self.denominator

    @property
    def denominator(self) -> float:
        """F(M) - F(empty)."""
        whole, empty = float(self.whole.mean()), float(self.empty.mean())
        if abs(whole - empty) < 1e-6 * max(abs(whole), 1.0):
            raise NothingToExplainError(
                f"ablating every node moves the metric by {whole - empty:.0e} (from {whole:.4g} to {empty:.4g}): nothing "
                "to explain. Check that clean and corrupt prompts have different answers, and that the sites reach them"
            )
        return whole - empty

    @property
    def fraction(self) -> list[float]:
        """Sizes as a share of all nodes."""
        return [k / self.n_total for k in self.sizes]

    @property
    def bits(self) -> list[float]:
        """Sizes as log2 of the number of circuits of that size: the size that weighs a wide dictionary against a narrow one."""
        return [bits(self.n_total, k) for k in self.sizes]

    def size_at(
        self, faithfulness: float | None = None, completeness: float | None = None, *, stable: bool = False
    ) -> int | None:
        """The smallest size on the grid that reaches both levels; None when none does.

        Faithfulness at least, completeness at most. `stable`: and every larger size reaches them too.
        """
        reached = torch.ones(len(self.sizes), dtype=torch.bool)
        if faithfulness is not None:
            reached &= self.faithfulness.cpu() >= faithfulness
        if completeness is not None:
            reached &= self.completeness.cpu() <= completeness
        return self._first(reached, stable)

    def size_within(self, margin: float = 0.05) -> int | None:
        """The smallest size with `|faithfulness - 1| <= margin` and `|completeness| <= margin`; None when none has."""
        close = (self.faithfulness - 1).abs() <= margin
        return self._first((close & (self.completeness.abs() <= margin)).cpu(), False)

    def _first(self, reached: Tensor, stable: bool) -> int | None:
        if stable:
            reached = reached.flip(0).int().cumprod(0).flip(0).bool()
        hits = reached.nonzero().flatten().tolist()
        return self.sizes[hits[0]] if hits else None

    def area(self, score: str = "faithfulness", *, up_to: int | None = None) -> float:
        """The mean of a score over log size, from 1 node to `up_to` (default: all), by the trapezoid rule.

        `score`: "faithfulness", "unfaithfulness" (`|1 - faithfulness|`) or "completeness". Curves are comparable over
        the same range only: give all the same `up_to`, at most the smallest `n_total`.
        """
        end = self.n_total if up_to is None else up_to
        ks, values = self._positive(score)
        if not ks or ks[0] > 1 or ks[-1] < end or end <= 1:
            raise InputError(
                f"the area from 1 to {end} nodes needs sizes that reach from 1 to {end} (end > 1); these are {self.sizes}"
            )
        x = np.log(ks)
        grid = np.append(x[x < np.log(end)], np.log(end))
        y = np.interp(grid, x, values)
        return float(np.trapezoid(y, grid) / np.log(end))

    def cpr(self) -> float:
        """MIB's circuit performance ratio: the area under faithfulness over the fraction of nodes (.1 % to 100 %).

        `sum (p[i+1] - p[i]) (f[i] + f[i+1]) / 2` at MIB's ten fractions; .999 for a curve that is always 1.
        Source: Mueller et al. 2025 (arXiv 2504.13151).
        """
        return self._mib("faithfulness")

    def cmd(self) -> float:
        """MIB's circuit-model distance: the same area under `|1 - faithfulness|`; 0 for a curve that is always 1."""
        return self._mib("unfaithfulness")

    def _mib(self, score: str) -> float:
        needed = mib_sizes(self.n_total)
        missing = sorted(set(needed) - set(self.sizes))
        if missing:
            raise InputError(
                f"CPR and CMD need the sizes {needed} (MIB's fractions of {self.n_total} nodes), and {missing} were not "
                "run: add 'mib' to the sizes (--sizes log,mib)"
            )
        by_size = dict(zip(self.sizes, self._values(score), strict=True))
        return float(np.trapezoid([by_size[k] for k in needed], MIB_FRACTIONS))

    def _positive(self, score: str) -> tuple[list[int], list[float]]:
        kept = [(k, v) for k, v in zip(self.sizes, self._values(score), strict=True) if k >= 1]
        return [k for k, _ in kept], [v for _, v in kept]

    def _values(self, score: str) -> list[float]:
        if score == "unfaithfulness":
            return (1 - self.faithfulness).abs().tolist()
        if score not in {"faithfulness", "completeness"}:
            raise InputError(f"no score {score!r}; there are: completeness, faithfulness, unfaithfulness")
        return getattr(self, score).tolist()
