"""A study: every choice that can change a number, by name. Light to import; running one is `comparison.py`."""

import hashlib
import json
import tomllib
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from neuron_vs_sae import default
from neuron_vs_sae.core.conventions import Backend, Dtype, ErrorPolicy, MeanSource, Pairing, Positions, RankBy
from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.core.lookup import check, known, parse
from neuron_vs_sae.models.presets import presets


def _listed(value: Any) -> Any:
    return value if isinstance(value, (list, tuple)) else [value]


def _split_sizes(value: Any) -> Any:
    return [_size(part) for part in (value.split(",") if isinstance(value, str) else _listed(value))]


def _size(part: Any) -> Any:
    text = str(part).strip()
    if text in {"all", "log", "mib"}:
        return text
    if not text.isdecimal():
        raise InputError(f"size {text!r} is neither a number of nodes nor one of 'all', 'log', 'mib'")
    return int(text)


def _spelled(folder: str) -> AfterValidator:
    """One spelling for one thing (`-` is `_`): a study's key and its labels do not depend on how it was typed."""
    return AfterValidator(lambda text: str(parse(folder, text)))


def _task(text: str) -> str:
    return text if looks_like_file(text) else str(parse("tasks", text))


Several = BeforeValidator(_listed)
Tasks = Annotated[tuple[Annotated[str, AfterValidator(_task)], ...], Several]
Bases = Annotated[tuple[Annotated[str, _spelled("bases")], ...], Several]
Methods = Annotated[tuple[Annotated[str, _spelled("attribution")], ...], Several]
Ablations = Annotated[tuple[Annotated[str, AfterValidator(partial(check, "ablation"))], ...], Several]
MetricName = Annotated[str, AfterValidator(partial(check, "metrics"))]
Seeds = Annotated[tuple[Annotated[int, Field(ge=0)], ...], Several]
Sizes = Annotated[tuple[int | str, ...], BeforeValidator(_split_sizes)]


class Study(BaseModel):
    """The product of its tasks, bases, methods, seeds, ablations and error policies, under conventions common to all.

    The first seed draws the evaluation prompts (and the bootstrap's), each seed its own discovery prompts from what is left,
    its random scores and the resample ablation's donors. So all seeds are judged on the same prompts, none of which is
    discovered on, and what differs between them is due to discovery (under `resample` to the donors too, with
    `mean_source="discovery"` and in fitted bases to what these take from the discovery prompts). Where a task has no more
    discovery pairs than are asked for, every seed has the same ones. Bases take seeds as options of their own.

    Field names are the command line's options and the config file's keys. Frozen; `key` hashes every field.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(min_length=1, description="hub name, preset or local folder of the model")
    dtype: Dtype = Field("float32", description="the model's; scores and metrics are in float32 or better")
    backend: Backend = Field(
        "hooked", description="transformer-lens' HookedTransformer, or its TransformerBridge around transformers' code"
    )
    revision: str | None = Field(None, description="branch, tag or commit of a hub model [the main branch]")
    process_weights: bool = Field(False, description="fold norms and centre weights (SAEs expect raw activations)")
    prepend_bos: bool = Field(True, description="put one BOS token before every prompt")
    task: Tasks = Field(min_length=1, description="task name or JSON-lines file of pairs; several allowed")
    eval_task: Tasks = Field((), description="evaluation file of each task, in order; default: split from the task")
    allow_overlap: bool = Field(False, description="accept evaluation prompts that discovery has seen")
    split_by: str = Field(
        "prompt", description="what discovery and evaluation must not share where a file is split: prompt, or a tag"
    )
    examples: int = Field(300, ge=1, description="pairs for discovery")
    eval_examples: int = Field(40, ge=1, description="pairs for evaluation")
    basis: Bases = Field(min_length=1, description="NAME[:SOURCE][@SITE][,option=value]; several allowed")
    method: Methods = Field(("relp",), min_length=1, description="attribution method[,option=value]; several allowed")
    ablation: Ablations = Field(("mean",), min_length=1, description="value of what is not kept; several allowed")
    errors: Annotated[tuple[ErrorPolicy, ...], Several] = Field(
        ("nodes",),
        min_length=1,
        description="what SAE error nodes are: nodes, keep, ablate, resid_only; several allowed",
    )
    mean_source: MeanSource = Field("evaluation", description="whose corrupt prompts the mean ablations average")
    positions: Positions = Field("separate", description="a node per position, or for all of them")
    pairing: Pairing = Field("paired", description="attribution against corrupt, or against zero")
    metric: MetricName = Field("logit_difference", description="what circuits are judged by")
    attribution_metric: MetricName | None = Field(
        None,
        description="what attribution explains; default: the metric (logit_difference for kl; answer_logit unpaired)",
    )
    rank_by: RankBy = Field("absolute", description="rank nodes by |score| or by score")
    sizes: Sizes = Field(
        ("log",), min_length=1, description="node counts, 'all', 'log' (0,1,2,5,10,...), 'mib'; comma-separated"
    )
    seed: Seeds = Field(
        (0,),
        min_length=1,
        description="draws discovery prompts, random scores, donors of resampling; the first also the evaluation prompts (the "
        "same for all seeds) and the bootstrap; several allowed",
    )
    folds: int = Field(
        20, ge=1, description="groups of discovery prompts whose bootstrap shows a circuit's stability; 1: none"
    )
    confidence: float = Field(0.95, gt=0, lt=1, description="level of the intervals")
    resamples: int = Field(2000, ge=100, description="bootstrap resamples per interval")
    cluster_by: str = Field(
        "",
        description="tag of the evaluation pairs that share a template, a lemma, ...: drawn together [every pair alone]",
    )
    stratify_by: str = Field("", description="tag whose values are drawn as often as they are, such as case [none]")
    margin: float = Field(
        0.05, gt=0, description="bases whose areas differ by less are equivalent (1 is the model's faithfulness)"
    )
    sign_flips: int = Field(
        20_000, ge=1000, description="sign patterns per test between bases; no p is below one over it"
    )

    @model_validator(mode="before")
    @classmethod
    def _as_preset(cls, given: Any) -> Any:
        name = str(given.get("model")).lower() if isinstance(given, dict) else ""
        named = {key: {key, one.model.lower(), one.model.split("/")[-1].lower()} for key, one in presets().items()}
        preset = next((presets()[key] for key, names in named.items() if name in names), None)
        return {**preset.settings, **given} if preset else given

    @model_validator(mode="after")
    def _is_one_product(self) -> "Study":
        if self.eval_task and len(self.eval_task) != len(self.task):
            raise InputError(
                f"{len(self.eval_task)} evaluation files for {len(self.task)} tasks: give one for each (--eval-task), in order"
            )
        for field in ("task", "basis", "method", "ablation", "errors", "seed"):
            given = getattr(self, field)
            twice = sorted({name for name in given if given.count(name) > 1})
            if twice:
                raise InputError(f"{field} {twice[0]!r} is given twice")
        return self

    @property
    def key(self) -> str:
        """A hash of every field: two studies with one key are one study."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def explained_metric(self) -> str:
        """The metric that attribution explains: as given, or else the study's own, where that has a slope and a foil."""
        if self.attribution_metric is not None:
            return self.attribution_metric
        own = "logit_difference" if self.metric == "kl" else self.metric
        return "answer_logit" if self.pairing == "unpaired" and own == "logit_difference" else own


def looks_like_file(task: str) -> bool:
    """A task given as a path rather than by name (`from_file:PATH,option=value` is by name)."""
    if task.partition(":")[0].replace("-", "_") in known("tasks"):
        return False
    return Path(task).suffix in {".jsonl", ".json", ".csv", ".parquet"} or "/" in task.split(",")[0]


def with_defaults(settings: dict[str, Any]) -> dict[str, Any]:
    """The default study's settings, replaced by those given: where they name no model, or one of this package's.

    Another model has other words and dictionaries, so its settings are left as they are.
    """
    embedded = str(settings.get("model", "default")) in default.NAMES
    return {**load_config(default.STUDY), **settings} if embedded else settings


def load_config(path: Path) -> dict[str, Any]:
    """The settings of a TOML file. Raises `InputError` where it cannot be read or parsed."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"config file {path} cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"config file {path} is not TOML: {error}") from error


def make_study(settings: dict[str, Any], origin: str = "the study") -> Study:
    """A `Study` from settings by name. Raises `InputError` that names the setting, what was given and what is allowed."""
    try:
        return Study(**settings)
    except ValidationError as error:
        # One message per setting: that a list is then too short follows from its wrong items.
        first = {item["loc"][:1]: item for item in reversed(error.errors())}
        raise InputError("; ".join(_explain(item, origin) for item in reversed(first.values()))) from None


def _explain(item: Any, origin: str) -> str:
    name = ".".join(str(part) for part in item["loc"][:1])
    if item["type"] == "extra_forbidden":
        return f"{origin} has no setting {name!r}; there are: {', '.join(Study.model_fields)}"
    if item["type"] == "missing":
        return f"{origin} lacks '{name}' ({Study.model_fields[name].description})"
    if isinstance(item.get("ctx", {}).get("error"), InputError):
        return str(item["ctx"]["error"])
    where = f"{origin}, '{name}': " if name else ""
    return f"{where}{item['msg']} (given: {item['input']!r})"
