"""A curve: the metric per size and prompt, for circuits and their complements. Everything else is derived from it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from neuron_vs_sae.core.errors import InputError, NothingToExplainError
from neuron_vs_sae.core.sizes import MIB_FRACTIONS, bits, mib_sizes


@dataclass(frozen=True, eq=False)
class Curve:
    """F(M), F(empty), F(C) and F(complement) per prompt, at growing sizes of one ranking.

    `circuit[i]` keeps the best `sizes[i]` nodes and ablates the rest; `complement[i]` ablates those and keeps the rest. Sizes
    increase up to the last node that has a score (`n_scored`). `n_total` is the number of nodes that a circuit could have;
    `n_error_nodes[i]` of `sizes[i]` are error nodes, and `values[i]` is how many numbers the circuit's nodes carry (`values` in
    `analyses/circuits/evaluation.py`). `change[i]` is how much removing that circuit changes, as a share of what removing all nodes
    changes (`analyses/circuits/change.py`). A curve made by hand may lack `values` and `change`.

    Two fields stand apart and enter no area, size at a level or table: `all_nodes`, the metric with all `n_total` nodes kept (the
    model's own where error nodes are nodes or kept; that of the dictionaries' reconstruction where they are ablated); and `tied`,
    the circuits beyond `n_scored` that MIB's sizes ask for, filled up with nodes of score 0 in node order.
    """

    sizes: tuple[int, ...]
    n_error_nodes: tuple[int, ...]
    n_total: int
    whole: Float[Tensor, " batch"]
    empty: Float[Tensor, " batch"]
    circuit: Float[Tensor, "sizes batch"]
    complement: Float[Tensor, "sizes batch"]
    change: Float[Tensor, "sizes batch"] | None = None
    values: tuple[float, ...] | None = None
    all_nodes: Float[Tensor, " batch"] | None = None
    tied: "Curve | None" = None

    @property
    def n_scored(self) -> int:
        """The last size: the number of nodes that have a score (fewer where `sizes` was a function that stopped earlier)."""
        return self.sizes[-1]

    @property
    def faithfulness(self) -> Float[Tensor, " sizes"]:
        """`(F(C) - F(empty)) / (F(M) - F(empty))`, each F a mean over prompts: 1 is the model's behaviour.

        Raises `NothingToExplainError` when ablating everything does not move the metric.
        Source: Marks et al. 2024 (arXiv 2403.19647), section 3; a ratio of means, never a mean of ratios.
        """
        return (self.circuit.mean(1) - self.empty.mean()) / self.denominator

    @property
    def completeness(self) -> Float[Tensor, " sizes"]:
        """The faithfulness of what is left when the circuit is removed. 0 is complete; LOWER is better."""
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
    ) -> float | None:
        """The size at which the ranking first reaches both levels; None where `n_scored` nodes do not reach them.

        The faithfulness must be at least its level, the completeness at most its own. Between the last size run that misses them and
        the first that reaches them, scores are interpolated linearly in log size; where the smallest size run (of at least 1) reaches
        them, it is that size. `stable` asks for the size from which on every larger size reaches them too.
        """
        return self._at(self._levels(faithfulness, completeness), stable, self.sizes)

    def values_at(
        self, faithfulness: float | None = None, completeness: float | None = None, *, stable: bool = False
    ) -> float | None:
        """How many numbers the circuit of `size_at` carries (`values`, interpolated in its logarithm); None where it is not reached.

        Raises `InputError` for a curve without `values`.
        """
        if self.values is None:
            raise InputError("this curve has no `values`: it was made by hand. `evaluate` counts them")
        return self._at(self._levels(faithfulness, completeness), stable, self.values)

    def size_within(self, margin: float = 0.05) -> float | None:
        """`size_at` for `|faithfulness - 1| <= margin` and `|completeness| <= margin`; None where no size run comes that close."""
        f, c = self.faithfulness - 1, self.completeness
        return self._at([margin - f, margin + f, margin - c, margin + c], False, self.sizes)

    def _levels(self, faithfulness: float | None, completeness: float | None) -> list[Float[Tensor, " sizes"]]:
        """By how much each score is on the right side of its level, per size."""
        above = [] if faithfulness is None else [self.faithfulness - faithfulness]
        return above + ([] if completeness is None else [completeness - self.completeness])

    def _at(
        self, beyond: list[Float[Tensor, " sizes"]], stable: bool, sizes: Sequence[int] | Sequence[float]
    ) -> float | None:
        """Where along `sizes` (or a count that grows with them) all of `beyond` first become non-negative."""
        start = int(np.searchsorted(self.sizes, 1))  # size 0 has no logarithm
        margins = torch.stack(beyond).double().cpu()[:, start:] if beyond else torch.zeros(1, len(self.sizes) - start)
        reached = (margins >= 0).all(0)
        if stable:
            reached = reached.flip(0).int().cumprod(0).flip(0).bool()
        hits = reached.nonzero().flatten().tolist()
        if not hits:
            return None
        k = hits[0]
        if k == 0:
            return float(sizes[start])
        before, after = margins[:, k - 1], margins[:, k]
        # The last of the scores to cross its level decides; one that is beyond it at both ends does not cross.
        part = float(torch.where(before < 0, before / (before - after), 0.0).max())
        low, high = np.log(sizes[start + k - 1]), np.log(sizes[start + k])
        return float(np.exp(low + part * (high - low)))

    def area(self, score: str = "faithfulness", *, up_to: int | None = None) -> float:
        """The mean of a score over log size, from 1 node to `up_to` (default: `n_scored`), by the trapezoid rule.

        `score`: "faithfulness", "unfaithfulness" (`|1 - faithfulness|`) or "completeness". Curves are comparable only
        over the same range: give all of them the same `up_to`, at most the smallest `n_scored`.
        """
        end = self.n_scored if up_to is None else up_to
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

        `sum (p[i+1] - p[i]) (f[i] + f[i+1]) / 2` at MIB's ten fractions; .999 for a curve that is always 1. Sizes beyond the
        nodes with a score are of `tied` circuits. F(empty) is ours: MIB's circuit of no edge lacks attention and embeddings too.
        Source: Mueller et al. 2025 (arXiv 2504.13151).
        """
        return self._mib("faithfulness")

    def cmd(self) -> float:
        """MIB's circuit-model distance: the same area under `|1 - faithfulness|`; 0 for a curve that is always 1."""
        return self._mib("unfaithfulness")

    def _mib(self, score: str) -> float:
        needed = mib_sizes(self.n_total)
        by_size = dict(zip(self.sizes, self._values(score), strict=True))
        if self.tied is not None:
            by_size |= dict(zip(self.tied.sizes, self.tied._values(score), strict=True))
        missing = sorted(set(needed) - set(by_size))
        if missing:
            raise InputError(
                f"CPR and CMD need the sizes {needed} (MIB's fractions of {self.n_total} nodes), and {missing} were not "
                "run: add 'mib' to the sizes (--sizes log,mib)"
            )
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
