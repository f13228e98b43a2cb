"""The settings of every study that compares bases, whichever question it asks; each analysis extends them. Light to import."""

import hashlib
import json
import tomllib
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from neuron_vs_sae.core.conventions import Backend, Dtype
from neuron_vs_sae.core.errors import InputError
from neuron_vs_sae.core.lookup import check, known, parse
from neuron_vs_sae.core.reading import read_bytes
from neuron_vs_sae.models.presets import presets
from neuron_vs_sae.studies.given import LARGEST, check_given


def as_list(value: Any) -> Any:
    """A single value as a list of one."""
    return value if isinstance(value, (list, tuple)) else [value]


def spelled(folder: str) -> AfterValidator:
    """Makes spellings canonical (`-` is `_`), so that a study's key and its labels do not depend on how it was typed."""
    return AfterValidator(lambda text: str(parse(folder, text)))


def looks_like_file(task: str) -> bool:
    """A task given as a path rather than by name (`from_file:PATH,option=value` is by name)."""
    if task.partition(":")[0].replace("-", "_") in known("tasks"):
        return False
    return Path(task).suffix in {".jsonl", ".json", ".csv", ".parquet"} or "/" in task.split(",")[0]


def _task(text: str) -> str:
    return text if looks_like_file(text) else str(parse("tasks", text))


Several = BeforeValidator(as_list)
Tasks = Annotated[tuple[Annotated[str, AfterValidator(_task)], ...], Several]
Bases = Annotated[tuple[Annotated[str, spelled("bases")], ...], Several]
Seeds = Annotated[tuple[Annotated[int, Field(ge=0, le=LARGEST)], ...], Several]
MetricName = Annotated[str, AfterValidator(partial(check, "metrics"))]


class CommonSpec(BaseModel):
    """The settings that all studies share. Field names are the command line's options and the config file's keys.

    A study of one analysis is a subclass that adds its own fields and names its `analysis`; one whose prompts come from
    elsewhere gives `task` the default `()`. Frozen; `key` hashes the analysis and every field.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    analysis: ClassVar[str]
    """The name of its line in the table of analyses (`running/analyses.py`)."""
    command: ClassVar[str]
    """The command of `nvs` that runs it."""
    reads: ClassVar[tuple[str, ...]] = ()
    """Fields that name a text file, or the folder of a finished study whose circuits are taken."""
    distinct: ClassVar[tuple[str, ...]] = ("task", "basis", "seed")
    """Fields whose values may each be given once only: the study is a product over them."""

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
        "prompt",
        description="what discovery and evaluation must not share where a file is split: prompt, or the name of a tag",
    )
    examples: int = Field(300, ge=1, description="pairs for discovery")
    eval_examples: int = Field(40, ge=1, description="pairs for evaluation")
    basis: Bases = Field(min_length=1, description="NAME[:SOURCE][@SITE][,option=value]; several allowed")
    seed: Seeds = Field(
        (0,),
        min_length=1,
        description="draws discovery prompts, random scores and the donors of ablation resample; the first also draws the evaluation "
        "prompts (the same for all seeds) and the bootstrap; several allowed",
    )
    accept_poor_sae: bool = Field(
        False,
        description="run SAEs that explain next to nothing of their sites, which are refused otherwise; every table says so",
    )
    confidence: float = Field(0.95, gt=0, lt=1, description="level of the intervals")
    resamples: int = Field(10_000, ge=100, description="bootstrap resamples per interval")
    cluster_by: str = Field(
        "",
        description="tag (template, lemma, ...): evaluation pairs that share its value are drawn together [every pair alone]",
    )
    stratify_by: str = Field(
        "", description="tag (such as case) whose values the bootstrap draws as often as they occur [none]"
    )
    margin: float = Field(
        0.05,
        gt=0,
        allow_inf_nan=False,
        description="bases whose areas differ by less are equivalent (1 is the model's faithfulness)",
    )
    sign_flips: int = Field(
        20_000,
        ge=1000,
        description="sign patterns per test between bases where not all can be tried; smaller p come from a fitted tail",
    )

    @model_validator(mode="before")
    @classmethod
    def _can_be_held(cls, given: Any) -> Any:
        for name, value in given.items() if isinstance(given, dict) else ():
            if name in cls.model_fields:
                check_given(name, cls.model_fields[name].annotation, value)
        return given

    @model_validator(mode="before")
    @classmethod
    def _as_preset(cls, given: Any) -> Any:
        name = str(given.get("model")).lower() if isinstance(given, dict) else ""
        aliases = {
            key: {key, preset.model.lower(), preset.model.split("/")[-1].lower()} for key, preset in presets().items()
        }
        preset = next((presets()[key] for key, names in aliases.items() if name in names), None)
        return {**preset.settings, **given} if preset else given

    @model_validator(mode="after")
    def _is_one_product(self) -> "CommonSpec":
        if self.eval_task and len(self.eval_task) != len(self.task):
            raise InputError(
                f"{len(self.eval_task)} evaluation files for {len(self.task)} tasks: give one for each (--eval-task), in order"
            )
        for field in self.distinct:
            values = getattr(self, field)
            twice = sorted({value for value in values if values.count(value) > 1})
            if twice:
                raise InputError(f"{field} {twice[0]!r} is given twice")
        return self

    @property
    def read(self) -> tuple[Path, ...]:
        """Files that it reads beside its model, tasks and bases, where they are there: what is in them is part of its identity."""
        given = (str(getattr(self, name)) for name in self.reads)
        places = (Path(text) for text in given if text not in ("", "none", "world"))
        return tuple(place / "circuits.csv" if place.is_dir() else place for place in places)

    @property
    def key(self) -> str:
        """A hash of the analysis and of every field: two studies with one key are one study."""
        settings = {"analysis": self.analysis, **self.model_dump(mode="json")}
        text = json.dumps(settings, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


S = TypeVar("S", bound=CommonSpec)


def quick(spec: S) -> S:
    """The same question under one convention: of every setting that the study multiplies, but for its tasks and bases, the
    first value."""
    several = [field for field in spec.distinct if field not in ("task", "basis")]
    return spec.model_copy(update={field: getattr(spec, field)[:1] for field in several})


def make_spec(kind: type[S], settings: dict[str, Any], origin: str = "the study") -> S:
    """A study of that kind from settings by name.

    Raises `InputError` that names the setting, what was given and what is allowed.
    """
    try:
        return kind(**settings)
    except ValidationError as error:
        # One message per setting: a list that is then too short is so because of its wrong items.
        first = {item["loc"][:1]: item for item in reversed(error.errors())}
        raise InputError("; ".join(_explain(kind, item, origin) for item in reversed(first.values()))) from None


def load_config(path: Path) -> dict[str, Any]:
    """The settings of a TOML file. Raises `InputError` where it cannot be read or parsed."""
    text = read_bytes(path, "config file")
    try:
        return tomllib.loads(text.decode("utf-8"))
    except (
        ValueError,
        RecursionError,
    ) as error:  # TOML's own errors, bytes that are not UTF-8, numbers of thousands of digits
        raise InputError(f"config file {path} is not TOML: {error}") from error


def _explain(kind: type[CommonSpec], item: Any, origin: str) -> str:
    name = ".".join(str(part) for part in item["loc"][:1])
    if item["type"] == "extra_forbidden":
        return f"{origin} has no setting {name!r}; there are: {', '.join(kind.model_fields)}"
    if item["type"] == "missing":
        return f"{origin} lacks '{name}' ({kind.model_fields[name].description})"
    if isinstance(item.get("ctx", {}).get("error"), InputError):
        return str(item["ctx"]["error"])
    where = f"{origin}, '{name}': " if name else ""
    return f"{where}{item['msg']} (given: {item['input']!r})"
