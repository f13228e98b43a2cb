"""The study of circuits: every choice that can change one of its numbers, by name. Light to import; `compare` runs it."""

from functools import partial
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BeforeValidator, Field

from neuron_vs_sae import default
from neuron_vs_sae.core.conventions import ErrorPolicy, MeanSource, Pairing, Positions, RankBy
from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.core.lookup import check
from neuron_vs_sae.studies.given import LARGEST
from neuron_vs_sae.studies.spec import CommonSpec, MetricName, Several, as_list, load_config, make_spec, spelled


def _split_sizes(value: Any) -> Any:
    return [_size(part) for part in (value.split(",") if isinstance(value, str) else as_list(value))]


def _size(part: Any) -> Any:
    text = str(part).strip()
    if text in {"all", "log", "mib"}:
        return text
    if not text.isdecimal() or int(text[:20]) > LARGEST:
        raise InputError(f"size {text[:40]!r} is neither a number of nodes nor one of 'all', 'log', 'mib'")
    return int(text)


Methods = Annotated[tuple[Annotated[str, spelled("attribution")], ...], Several]
Ablations = Annotated[tuple[Annotated[str, AfterValidator(partial(check, "ablation"))], ...], Several]
Metrics = Annotated[tuple[MetricName, ...], Several]
Sizes = Annotated[tuple[int | str, ...], BeforeValidator(_split_sizes)]


class Study(CommonSpec):
    """The product of its tasks, bases, methods, seeds, ablations, error policies and metrics, under conventions common to all.

    The first seed draws the evaluation prompts and the bootstrap; each seed draws its own discovery prompts from those that are left,
    its random scores and the donors of the ablation `resample`. So all seeds are judged on the same prompts, none of which is used
    for discovery, and differences between seeds are due to discovery (under the ablation `resample`, also to the donors; with
    `mean_source="discovery"` and in fitted bases, also to what these take from the discovery prompts). Where a task has no more
    discovery pairs than are asked for, every seed has the same ones. Bases take seeds as options of their own.

    Of several metrics, attribution explains the first (or `attribution_metric`), and each has curves of its own.
    """

    analysis: ClassVar[str] = "circuits"
    command: ClassVar[str] = "compare"
    distinct: ClassVar[tuple[str, ...]] = ("task", "basis", "method", "ablation", "errors", "metric", "seed")

    method: Methods = Field(("relp",), min_length=1, description="attribution method[,option=value]; several allowed")
    ablation: Ablations = Field(("mean",), min_length=1, description="what ablated nodes are set to; several allowed")
    errors: Annotated[tuple[ErrorPolicy, ...], Several] = Field(
        ("nodes",),
        min_length=1,
        description="how error nodes are treated: nodes, keep, ablate, resid_only; several allowed",
    )
    mean_source: MeanSource = Field("evaluation", description="whose corrupt prompts the mean ablations average")
    positions: Positions = Field("separate", description="a node per position, or for all of them")
    pairing: Pairing = Field("paired", description="attribution against corrupt, or against zero")
    metric: Metrics = Field(
        ("logit_difference",), min_length=1, description="what circuits are judged by; several allowed"
    )
    attribution_metric: MetricName | None = Field(
        None,
        description="what attribution explains; default: the first metric (logit_difference for kl; answer_logit unpaired)",
    )
    rank_by: RankBy = Field("absolute", description="rank nodes by |score| or by score")
    sizes: Sizes = Field(
        ("log",), min_length=1, description="node counts, 'all', 'log' (0,1,2,5,10,...), 'mib'; comma-separated"
    )
    baseline_sizes: Sizes = Field(
        (),
        description="node counts of baseline methods (random, delta), whose circuits cost most; what a basis has not is left out [those of --sizes]",
    )
    folds: int = Field(
        20, ge=1, description="folds of the discovery prompts whose bootstrap shows how stable a circuit is; 1: none"
    )

    @property
    def explained_metric(self) -> str:
        """The metric that attribution explains: as given, or else the study's first, where that has a slope and a foil."""
        if self.attribution_metric is not None:
            return self.attribution_metric
        own = "logit_difference" if self.metric[0] == "kl" else self.metric[0]
        return "answer_logit" if self.pairing == "unpaired" and own == "logit_difference" else own


def with_defaults(settings: dict[str, Any], kind: type[CommonSpec] = Study) -> dict[str, Any]:
    """The given settings, completed by those of the default study that this kind of study has, where they name no model or one of
    this package's.

    Other models have other vocabularies and dictionaries, so their settings are left as they are.
    """
    if str(settings.get("model", "default")) not in default.NAMES:
        return settings
    chosen = load_config(default.STUDY).items()
    return {**{name: value for name, value in chosen if _is_common(name, kind)}, **settings}


def _is_common(name: str, kind: type[CommonSpec]) -> bool:
    """Whether a setting of the default study is one of that kind: a field of all studies that the kind has with the same default,
    or of circuits' own."""
    if issubclass(kind, Study):
        return True
    common = CommonSpec.model_fields.get(name)
    return common is not None and kind.model_fields[name].default == common.default


def make_study(settings: dict[str, Any], origin: str = "the study") -> Study:
    """A `Study` from settings by name. Raises `InputError` that names the setting, what was given and what is allowed."""
    return make_spec(Study, settings, origin)
