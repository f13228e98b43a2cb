"""Settings of the studies that intervene on units: patching, steering, successor heads, selectivity. Light to import."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from neuron_vs_sae import default
from neuron_vs_sae.core.conventions import DoseMeasure, PatchSelect, PatchSign, SteerAt, SteerKind
from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.core.lookup import parse
from neuron_vs_sae.studies.spec import Bases, CommonSpec, MetricName, Several, Tasks
from neuron_vs_sae.studies.text import numbers

Ks = Annotated[tuple[int, ...], BeforeValidator(numbers)]
Control = Literal["random", "permuted", "permuted_across", "negated", "wrong_position", "wrong_source"]


class PatchStudy(CommonSpec):
    """Units of each evaluation prompt set to their values in its corrupt prompt: how many flip the answer."""

    analysis: ClassVar[str] = "patching"
    command: ClassVar[str] = "patch"
    distinct: ClassVar[tuple[str, ...]] = ("task", "basis", "seed", "alpha", "control", "way")

    task: Tasks = Field(("world:two_hop",), min_length=1, description="task name or file of pairs; several allowed")
    examples: int = Field(400, ge=1, description="pairs for discovery: of directions, swaps and signatures")
    metric: MetricName = Field("logit_difference", description="what units are ranked by and effects are counted in")
    select: PatchSelect = Field("global", description="which units are patched")
    k: Ks = Field((1, 2, 5, 10, 20, 50, 100, 200, 500), min_length=1, description="units patched, comma-separated")
    mass: tuple[float, ...] = Field(
        (0.2, 0.5, 0.8, 0.95), description="with --select mass: shares of the score; several allowed"
    )
    sign: PatchSign = Field(
        "positive", description="rank units by the effect predicted towards the donor's answer, away from it, or either"
    )
    alpha: Annotated[tuple[float, ...], Several] = Field(
        (1.0,), min_length=1, description="part of the way to the donor; several allowed"
    )
    every: int = Field(20, ge=1, description="with --select iterative: units patched between two gradients")
    steps: int = Field(10, ge=1, description="with --select ig: points on the path")
    at: SteerAt = Field("all", description="tokens whose units are patched")
    control: Annotated[tuple[Control, ...], Several] = Field(
        ("random", "permuted", "permuted_across", "negated", "wrong_position", "wrong_source"),
        description="random, permuted, permuted_across, negated, wrong_position, wrong_source; several allowed",
    )
    trials: int = Field(3, ge=1, description="draws of each random control")
    directions: int = Field(
        0, ge=0, description="also patch along so many principal directions of donor less recipient [0: no]"
    )
    swap: str = Field(
        "", description="swap this intermediate step, a tag of the pairs (world:two_hop has state) [none]"
    )
    way: Annotated[tuple[Literal["answer", "word", "auroc"], ...], Several] = Field(
        ("answer", "word", "auroc"),
        min_length=1,
        description="with --swap: how the step's units are found: answer, word, auroc; several allowed",
    )
    isolate: str = Field(
        "", description="with --swap: task of other questions about the step, which should not change [none]"
    )
    signatures: int = Field(
        0, ge=0, description="describe so many first units across prompts, and class them ad hoc [0: no]"
    )


class SteerStudy(CommonSpec):
    """A set of units of each basis steered by doses: what that does to the task, and elsewhere."""

    analysis: ClassVar[str] = "steering"
    command: ClassVar[str] = "steer"
    reads: ClassVar[tuple[str, ...]] = ("guard_corpus", "from_circuit")
    distinct: ClassVar[tuple[str, ...]] = ("task", "basis", "seed", "dose", "unit", "direction", "guard_task")

    task: Tasks = Field(
        ("world:agreement_nounpp",), min_length=1, description="task name or file of pairs; several allowed"
    )
    metric: MetricName = Field("logit_difference", description="what is steered")
    only: Annotated[tuple[str, ...], Several] = Field(
        (),
        description="keep pairs with this tag, TAG=VALUE; several: any of them. A set of units goes one way, so let the pairs do so too "
        "[all; of the default task those with a singular noun]",
    )
    unit: tuple[str, ...] = Field(
        (), description="unit SITE/NUMBER; several allowed, steered together [the first --top of a ranking]"
    )
    top: int = Field(
        10, ge=1, description="units of each basis, by attribution patching on the discovery pairs, where none is named"
    )
    from_circuit: str = Field(
        "", description="folder of a finished study: the first --top units of its circuits [none]"
    )
    direction: Annotated[tuple[Literal["mean_difference", "probe"], ...], Several] = Field(
        (), description="also steer along dense directions: mean_difference, probe; several allowed"
    )
    kind: SteerKind = Field("add", description="what a dose does to a unit")
    dose: Annotated[tuple[float, ...], Several] = Field((), description="doses; several allowed [the kind's grid]")
    dose_in: DoseMeasure | None = Field(
        None,
        description="what doses count: norm, kl, value or maximum [add: norm; clamp: maximum; scale, patch: value]",
    )
    at: SteerAt = Field("answer", description="which tokens are steered")
    guard_corpus: str = Field(
        "",
        description="neutral text: file, JSON lines with a key 'text', dataset, world, or none [world for the embedded models, else none]",
    )
    guard_contexts: int = Field(100, ge=1, description="contexts of it")
    guard_length: int = Field(64, ge=2, description="tokens of a context, BOS included")
    guard_task: Annotated[tuple[str, ...], Several] = Field(
        (), description="tasks whose metric should stay; several allowed"
    )
    predict: int = Field(
        0,
        ge=0,
        description="steer so many single units of each basis, drawn at random, and correlate with cheap scores [0: no]",
    )
    generate: int = Field(0, ge=0, description="tokens written after the first prompts at every dose of `add` [0: no]")

    @model_validator(mode="before")
    @classmethod
    def _one_way(cls, given: Any) -> Any:
        """The default task's pairs go both ways: those with a singular noun are kept."""
        if not isinstance(given, dict) or "task" in given or "only" in given:
            return given
        return {**given, "only": ("case=singular_singular", "case=singular_plural")}

    @property
    def text(self) -> str | None:
        """The neutral text, None where none guards."""
        if self.guard_corpus in ("", "none"):
            return "world" if not self.guard_corpus and self.model in default.NAMES else None
        return self.guard_corpus


class HeadsStudy(CommonSpec):
    """Successor heads, and the last digit in the units of the first MLP."""

    analysis: ClassVar[str] = "heads"
    command: ClassVar[str] = "heads"

    task: Tasks = Field(
        (), description="successor, or successor,kind=KIND: whose lists heads are scored on [successor]"
    )
    basis: Bases = Field(("mlp_neurons", "sae"), description="NAME[:SOURCE][@SITE][,option=value]; several allowed")
    order: Annotated[tuple[str, ...], Several] = Field(
        (), description="lists: numbers, days, months, ...; several allowed [all]"
    )
    k: Ks = Field(
        (1, 2, 5, 10, 20, 50), min_length=1, description="units that the last digit is looked for in, comma-separated"
    )
    trials: int = Field(5, ge=1, description="draws of random units")

    @model_validator(mode="before")
    @classmethod
    def _lists_of(cls, given: Any) -> Any:
        """The task names lists, and no pairs are drawn of it. Raises `InputError` for another task."""
        if not isinstance(given, dict) or not given.get("task"):
            return given
        texts = [given["task"]] if isinstance(given["task"], str) else list(given["task"])
        kinds = []
        for text in texts:
            chosen = parse("tasks", text)
            if chosen.name != "successor":
                raise InputError(
                    f"heads are scored on the lists of the task 'successor', and {text!r} is given (--task)"
                )
            kind = chosen.options.get("kind", "all")
            kinds += [] if kind == "all" else [kind]
        return {**given, "task": (), "order": given.get("order") or tuple(kinds)}


class SelectivityStudy(CommonSpec):
    """Units of one task ablated in another: recall against reasoning."""

    analysis: ClassVar[str] = "selectivity"
    command: ClassVar[str] = "selectivity"

    task: Tasks = Field((), description="not to be given: it is --task-a and --task-b")
    task_a: str = Field("world:recall", min_length=1, description="one task: name, or file of pairs")
    task_b: str = Field("world:reasoning", min_length=1, description="the other task")
    metric: MetricName = Field("logit_difference", description="what falls")
    k: Ks = Field((1, 2, 5, 10, 20, 50), min_length=1, description="units ablated, comma-separated")
    budget: Annotated[tuple[float, ...], Several] = Field(
        (0.1, 0.2, 0.4, 0.8), description="relative norms at which bases are compared too; several allowed"
    )
    trials: int = Field(5, ge=1, description="draws of the random control")
    template_tag: str = Field("template", description="tag that names the wording")

    @model_validator(mode="before")
    @classmethod
    def _both(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        names = ("task_a", "task_b")
        both = tuple(str(given.get(name, cls.model_fields[name].default)) for name in names)
        if given.get("task") and tuple(given["task"]) != both:
            raise InputError("selectivity compares two tasks: give them by --task-a and --task-b, not by --task")
        return {**given, "task": both}
