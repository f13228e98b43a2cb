"""Which of the SAEs that a source names are taken, and under what conditions."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Selection:
    """Which SAEs or transcoders of a source make a basis: the default takes all of them, if they are this model's."""

    site: str | None = None
    """One kind of site (`hook_mlp_out`)."""
    layers: str | None = None
    """Some layers (`2`, `0-3`); only their weights are read."""
    any_model: bool = False
    """Accept dictionaries of another model: a base model's on its chat version."""
    revision: str | None = None
    """Branch, tag or commit of the hub, for releases of sae-lens' registry."""
