"""The choices that change a number, or how it is computed, each with its names, in one place. Imports nothing heavy."""

from typing import Literal

Dtype = Literal["float32", "float64", "bfloat16", "float16"]
"""The model's precision; scores and metrics are in float32 or better."""

Backend = Literal["hooked", "bridge"]
"""transformer-lens' own implementation of a model, or its hooks around transformers'."""

Engine = Literal["fast", "exact"]
"""How circuits are run: `execution/engine.py`, at the circuit's cost, or `execution/splice.py`, every dictionary whole; equal up
to rounding."""

Pairing = Literal["paired", "unpaired"]
"""Attribution against the corrupt prompt, or against zero units and zero error."""

Positions = Literal["separate", "pooled"]
"""A node per unit and position, or per unit for all positions."""

RankBy = Literal["absolute", "signed"]
"""Rank nodes by |score|, or by score: those that help first."""

ErrorPolicy = Literal["nodes", "keep", "ablate", "resid_only"]
"""What happens to the error nodes of bases that have them, in the circuit, complement and empty runs alike.

nodes: they are ranked, counted, kept and ablated like units. keep: always kept, not counted. ablate: always ablated, not
counted, so the whole dictionary's faithfulness is its reconstruction's, not 1. resid_only: always ablated at sites
outside the residual stream, like `nodes` in it.
"""

MeanSource = Literal["evaluation", "discovery"]
"""Whose corrupt prompts the mean ablations average."""

Gate = Literal["half", "full", "up_only"]
"""RelP's rule for a gated MLP's product: half the gradient to each branch; all of it to each; all to the up branch, none to the gate."""

SteerKind = Literal["add", "scale", "clamp", "patch"]
"""What becomes of a unit's value v at a dose c: v + c, c v, c, or v + c (donor's v - v)."""

DoseMeasure = Literal["norm", "kl", "value", "maximum"]
"""What a dose counts: the norm written over the activation's norm; the KL divergence it costs at the answer, in nats; the unit's
own value; or multiples of the largest value on a corpus."""

SteerAt = Literal["answer", "all"]
"""Steer the prompt's last token, or every token but BOS."""

PatchSelect = Literal["global", "per_layer", "mass", "iterative", "ig"]
"""Which units are patched: the first k of all, the first k of every layer, the first that hold a share of the whole score, the
first k with gradients taken again every few units, or the first k by integrated gradients."""

PatchSign = Literal["positive", "negative", "absolute"]
"""Rank units that are predicted to move the metric towards the donor, away from it, or either way."""
