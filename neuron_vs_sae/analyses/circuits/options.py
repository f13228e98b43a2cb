"""How a circuit is judged: every choice that `evaluate` takes, in one object that a study makes once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

from neuron_vs_sae.core.conventions import ErrorPolicy, RankBy
from neuron_vs_sae.core.metric import Metric
from neuron_vs_sae.core.pairs import PromptPairs
from neuron_vs_sae.core.sizes import Sizes


@dataclass(frozen=True)
class EvaluationOptions:
    """`sizes` count nodes (`core/sizes.py`: numbers, `log`, `mib`, `all`; the number of nodes with a score is always one of
    them; a function of the number of all nodes gives exactly the sizes to run). `metrics` judge the circuits, each given
    by name or as a function; `ablation` sets the value of what is not kept; `errors` is the error policy; `rank_by` the order.
    `source` are the pairs whose corrupt prompts give the mean ablations' values (default: those that are judged); `seed` draws the
    resample ablation's. `measure_change` adds `Curve.change`, at the cost of every dictionary whole, whatever the sizes.
    """

    sizes: Sizes = ("log",)
    metrics: Sequence[str | Metric] = ("logit_difference",)
    ablation: str = "mean"
    errors: ErrorPolicy = "nodes"
    rank_by: RankBy = "absolute"
    source: PromptPairs | None = None
    seed: int = 0
    measure_change: bool = False


class EvaluationChoices(TypedDict, total=False):
    """The fields of `EvaluationOptions` as keywords; one `metric` stands for `metrics`."""

    sizes: Sizes
    metric: str | Metric
    ablation: str
    errors: ErrorPolicy
    rank_by: RankBy
    source: PromptPairs | None
    seed: int
    measure_change: bool
