"""A short text per basis, for tables, legends and captions."""

from collections.abc import Iterable
from pathlib import Path

from neuron_vs_sae.core.lookup import Spec, parse


def labels(bases: Iterable[str]) -> dict[str, str]:
    """A short text per basis, for legends and tables: folders are shortened to as much of their end as tells the bases apart."""
    specs = {text: parse("bases", text) for text in bases}
    deepest = max((len(Path(spec.options.get("source", "")).parts) for spec in specs.values()), default=0)
    short: dict[str, str] = {}
    for depth in range(1, max(deepest, 1) + 1):
        short = {text: str(_shortened(spec, depth)) for text, spec in specs.items()}
        if len(set(short.values())) == len(short):
            break
    return short


def _shortened(spec: Spec, depth: int) -> Spec:
    if "source" not in spec.options:
        return spec
    return Spec(spec.name, {**spec.options, "source": str(Path(*Path(spec.options["source"]).parts[-depth:]))})
