"""One difference over several tasks and seeds: mean + task + seed + rest."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.stats import t


@dataclass(frozen=True)
class AcrossTasks:
    """A mean with an interval for other tasks and seeds like these, and where its variation comes from.

    Variances are between tasks, between seeds, and of the rest (task x seed and prompts); NaN where one task or one seed
    cannot tell. `low` and `high` are NaN where there is neither a second task nor a second seed. `note` says in words what
    the interval rests on.
    """

    mean: float
    low: float
    high: float
    degrees_of_freedom: float
    task_variance: float
    seed_variance: float
    rest_variance: float
    note: str


def across(values: Float[np.ndarray, "tasks seeds"], confidence: float = 0.95) -> AcrossTasks:
    """Crossed random effects, one value per task and seed, by the analysis of variance (method of moments).

    With mean squares T (tasks), S (seeds) and R (rest), the variance of the mean is `(T + S - R) / (tasks x seeds)`; an effect
    whose mean square is at most R is taken to be 0. Satterthwaite's degrees of freedom. With one seed, tasks are all that is
    repeated, and their variance holds the rest. Source: Searle, Casella and McCulloch 1992, Variance Components, 4.
    """
    n_tasks, n_seeds = values.shape
    mean = float(values.mean())
    freedom_t, freedom_s = n_tasks - 1, n_seeds - 1
    task_means, seed_means = values.mean(1), values.mean(0)
    t_square = n_seeds * float(((task_means - mean) ** 2).sum()) / max(freedom_t, 1)
    s_square = n_tasks * float(((seed_means - mean) ** 2).sum()) / max(freedom_s, 1)
    if not freedom_t and not freedom_s:
        return AcrossTasks(
            mean, *(np.nan,) * 6, note="one task and one seed: nothing is repeated, so there is no interval"
        )
    if not freedom_t or not freedom_s:
        square, freedom, what = (s_square, freedom_s, "seeds") if not freedom_t else (t_square, freedom_t, "tasks")
        parts = (np.nan, square, np.nan) if not freedom_t else (square, np.nan, np.nan)
        return _summary(mean, [(square, freedom)], n_tasks * n_seeds, confidence, parts, f"{freedom + 1} {what}")
    freedom_r = freedom_t * freedom_s
    rest = values - task_means[:, None] - seed_means + mean
    r_square = float((rest**2).sum()) / freedom_r
    effects = [(ms, f) for ms, f in ((t_square, freedom_t), (s_square, freedom_s)) if ms > r_square]
    # An effect that is there adds its mean square and takes the rest's off once; without any, the rest is all there is.
    terms = [*effects, (-r_square, freedom_r)] if len(effects) == 2 else effects or [(r_square, freedom_r)]
    parts = (max(t_square - r_square, 0.0) / n_seeds, max(s_square - r_square, 0.0) / n_tasks, r_square)
    return _summary(mean, terms, n_tasks * n_seeds, confidence, parts, f"{n_tasks} tasks and {n_seeds} seeds")


def _summary(
    mean: float,
    terms: list[tuple[float, int]],
    n: int,
    confidence: float,
    parts: tuple[float, float, float],
    repeated: str,
) -> AcrossTasks:
    total = sum(ms for ms, _ in terms)
    spread = sum(ms**2 / freedom for ms, freedom in terms)
    freedom = total**2 / spread if spread > 0 else float(sum(f for _, f in terms))
    half = float(t.ppf((1 + confidence) / 2, freedom)) * float(np.sqrt(total / n))
    few = f": too few for a claim about others ({freedom:.1f} degrees of freedom)" if freedom < 4 else ""
    return AcrossTasks(mean, mean - half, mean + half, freedom, *parts, note=f"{repeated}{few}")
