"""Settings of a study of graphs: which prompts are traced, in which bases, and how graphs are judged. Light to import."""

import re
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from neuron_vs_sae.core.conventions import ErrorPolicy
from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.core.lookup import check
from neuron_vs_sae.studies.spec import Bases, CommonSpec, MetricName, Several, Tasks
from neuron_vs_sae.studies.text import numbers


def _places(value: Any) -> Any:
    """Numbers and ranges, separated by commas: `0,3,10-19`."""
    parts = value.split(",") if isinstance(value, str) else value if isinstance(value, (list, tuple)) else [value]
    places: list[int] = []
    for part in parts:
        match = re.fullmatch(r"\s*(\d+)(?:\s*-\s*(\d+))?\s*", str(part))
        if match is None or int(match[2] or match[1]) < int(match[1]):
            raise InputError(
                f"{part!r} is not the place of a pair: give numbers from 0 and ranges, as 0,3,10-19 (--index)"
            )
        places += range(int(match[1]), int(match[2] or match[1]) + 1)
    return list(dict.fromkeys(places))


class TraceStudy(CommonSpec):
    """Which prompts are traced in which bases, how large the graphs are, and how they are checked.

    Prompts are texts, or the evaluation pairs of tasks; on a task's pairs the bases are compared.
    """

    analysis: ClassVar[str] = "graphs"
    command: ClassVar[str] = "trace"
    reads: ClassVar[tuple[str, ...]] = ("corpus",)
    distinct: ClassVar[tuple[str, ...]] = ("task", "basis", "seed", "prompt")

    task: Tasks = Field((), description="task whose evaluation pairs are traced; several allowed [none]")
    basis: Bases = Field(
        ("mlp_neurons", "sae"), min_length=1, description="NAME[:SOURCE][@SITE][,option=value]; several allowed"
    )
    prompt: Annotated[tuple[str, ...], Several] = Field((), description="text to trace; several allowed [none]")
    index: Annotated[tuple[int, ...], BeforeValidator(_places)] = Field(
        (0,), min_length=1, description="evaluation pairs of each task that are traced, from 0, as 0,3,10-19"
    )
    nodes: int = Field(300, ge=1, description="units of a graph: those of largest total influence")
    slope: Literal["chord", "gradient"] = Field(
        "chord",
        description="how an MLP counts between two sites: chords conserve, gradients estimate a single edge better",
    )
    targets: str = Field(
        "",
        description="what is explained: metric, logits, or a unit SITE/NUMBER[@POSITION] [metric of a pair, logits of a text]",
    )
    metric: MetricName = Field(
        "logit_difference", description="what is explained of a pair, and circuits are judged by"
    )
    attention: Literal["frozen", "split"] = Field(
        "frozen",
        description="attention patterns are constant; split: tell the part of every edge that enters each head first",
    )
    sizes: Annotated[tuple[int, ...], BeforeValidator(numbers)] = Field(
        (10, 30, 100, 300), min_length=1, description="units at which graphs are scored, comma-separated, up to --nodes"
    )
    node_threshold: float = Field(0.8, ge=0, le=1, description="share of influence that the nodes kept by pruning hold")
    edge_threshold: float = Field(
        0.98, ge=0, le=1, description="share of what flows between them that the edges kept hold"
    )
    sampled_edges: int = Field(
        200, ge=0, description="edges of each graph that are checked against exact direct effects"
    )
    ablation: Annotated[str, AfterValidator(lambda name: check("ablation", name))] = Field(
        "counterfactual", description="value of what is not in a graph, where its units are judged in the model itself"
    )
    judged_errors: ErrorPolicy = Field(
        "ablate",
        description="what error nodes are where a graph's units are judged; its scores count them as not explained",
    )
    bias_nodes: bool = Field(
        False, description="write nodes for biases into the viewers' files (Neuronpedia's alone knows them)"
    )
    supernodes: int = Field(
        0, ge=0, description="groups of units over a task's prompts [0: none]; targets should be logits"
    )
    min_support: int = Field(2, ge=1, description="prompts in which two units must meet for their likeness to be known")
    corpus: str = Field("", description="text in which the units shown are looked up, as for nvs units [none]")
    contexts: int = Field(200, ge=1, description="contexts that are read of it")
    context_length: int = Field(64, ge=2, description="tokens of a context, BOS included")
