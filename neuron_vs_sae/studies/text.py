"""Settings of the studies that read text. Light to import."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.studies.spec import Bases, CommonSpec, Several, Tasks


def numbers(value: Any) -> Any:
    """Whole numbers, separated by commas in text. Raises `InputError` for anything else."""
    parts = value.split(",") if isinstance(value, str) else value if isinstance(value, (list, tuple)) else [value]
    if wrong := [part for part in parts if not str(part).strip().isdecimal() or len(str(part)) > 15]:
        raise InputError(f"{wrong[0]!r} is not a number of units: give whole numbers, separated by commas")
    return [int(part) for part in parts]


class CorpusSpec(CommonSpec):
    """A study of bases on running text. Tasks are needed only by bases that are fitted to prompts."""

    reads: ClassVar[tuple[str, ...]] = ("corpus",)

    task: Tasks = Field((), description="tasks whose prompts bases such as pca are fitted to [none]")
    basis: Bases = Field(
        ("mlp_neurons", "sae"), min_length=1, description="NAME[:SOURCE][@SITE][,option=value]; several allowed"
    )
    corpus: str = Field(
        "world",
        description="text file, JSON lines with a key 'text', dataset, or world: the embedded default's own text",
    )
    contexts: int = Field(1000, ge=1, description="how many contexts to read")
    context_length: int = Field(64, ge=2, description="tokens of a context, BOS included")


class UnitsStudy(CorpusSpec):
    """Which units to examine: units by name, those of a finished study's circuits, or some of each basis drawn at random."""

    analysis: ClassVar[str] = "units"
    command: ClassVar[str] = "units"
    reads: ClassVar[tuple[str, ...]] = ("corpus", "circuit")

    examples: int = Field(20, ge=1, description="strongest windows kept per unit and sign")
    unit: tuple[str, ...] = Field(
        (), description="unit SITE/NUMBER; several allowed; a basis that has none of them is left out"
    )
    circuit: str = Field("", description="folder of a finished study: the units of its circuits [none]")
    top: int = Field(
        20,
        ge=1,
        description="with --circuit: nodes of each circuit; without --unit and --circuit: units drawn of each basis",
    )
    window: int = Field(10, ge=0, description="tokens shown to either side")
    lens: int = Field(10, ge=1, le=20, description="promoted and suppressed tokens per unit")


class LensStudy(CommonSpec):
    """Prompts, the kind of site that is read, and how many tokens are shown."""

    analysis: ClassVar[str] = "lens"
    command: ClassVar[str] = "lens"

    task: Tasks = Field((), description="not used")
    basis: Bases = Field((), description="not used")
    prompt: tuple[str, ...] = Field((), description="text to read; several allowed")
    site: str = Field("hook_resid_post", description="hook_resid_pre, hook_resid_mid or hook_resid_post")
    top: int = Field(10, ge=1, description="most probable tokens shown per layer and position")


class FidelityStudy(CorpusSpec):
    """How much the largest units of each token keep: in which bases, at how many units."""

    analysis: ClassVar[str] = "fidelity"
    command: ClassVar[str] = "fidelity"

    sizes: Annotated[tuple[int, ...], BeforeValidator(numbers)] = Field(
        (), description="units kept per token, comma-separated [0, 1, 2, 5, 10, ... and all]"
    )
    contexts: int = Field(100, ge=2, description="how many contexts to read")


class ProbeStudy(CorpusSpec):
    """Which concepts are probed for, with how many units, and how these are chosen."""

    analysis: ClassVar[str] = "probing"
    command: ClassVar[str] = "probe"
    distinct: ClassVar[tuple[str, ...]] = ("task", "basis", "seed", "concept", "ranker")

    examples: int = Field(10_000, ge=20, description="labelled tokens per concept")
    concept: Annotated[tuple[str, ...], Several] = Field(
        ("number", "hops"),
        min_length=1,
        description="hidden variable (NAME or NAME=VALUE), text feature, prefix:TEXT, suffix:TEXT; several allowed",
    )
    k: Annotated[tuple[int, ...], BeforeValidator(numbers)] = Field(
        (1, 2, 5), min_length=1, description="units of a probe, comma-separated"
    )
    ranker: Annotated[tuple[str, ...], Several] = Field(
        ("mean_difference",), min_length=1,
        description="how units are chosen: mean_difference, f_statistic, mutual_information, l1, svm, adaptive, optimal, random; several allowed",
    )  # fmt: skip
    of: Literal["activations", "contributions"] = Field(
        "activations", description="values of units, or values times |write vector|"
    )
    subsets: int = Field(20, ge=1, description="in wider bases: draws of as many units as the narrowest has")
