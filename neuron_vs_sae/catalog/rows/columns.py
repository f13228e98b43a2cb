"""How the rows of a file or a dataset are to be read."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from neuron_vs_sae.core.building import NEEDED
from neuron_vs_sae.core.errors import check_choice

Format = Literal["auto", "pairs", "feature-circuits", "auto-circuit", "eap-ig", "mib"]


@dataclass(frozen=True)
class Columns:
    """The format of rows, or which column holds which of the four texts; the default recognises a format by its columns.

    Raises `InputError` for an unknown format.
    """

    format: Format = "auto"
    """`feature-circuits` (`clean_prefix, patch_prefix, clean_answer, patch_answer`), `auto-circuit` (one JSON document of
    `prompts`; of several answers the first), `eap-ig` (`clean, corrupted` and token ids, or greater-than's `label`), `mib`
    (`prompt` with `choices` and counterfactuals), or `pairs` (`clean, corrupt, answer, foil`)."""
    clean: str | None = None
    """Another column for the clean prompt, `a.b` being b inside a."""
    corrupt: str | None = None
    """Another column for the corrupt prompt."""
    answer: str | None = None
    """Another column for the answer to the clean prompt."""
    foil: str | None = None
    """Another column for the answer to the corrupt prompt."""
    space: bool = False
    """Put a space before answer and foil, which are written as they follow the prompt."""
    counterfactual: str | None = None
    """What to corrupt MIB's prompts with."""
    ids_from: str | Path | None = None
    """The tokenizer of EAP-IG's token ids, by name or folder; `model` for the model's own."""

    def __post_init__(self) -> None:
        check_choice("format", self.format, Format)

    @cached_property
    def named(self) -> dict[str, str]:
        """The columns that were named, by what they hold."""
        named = {key: getattr(self, key) for key in NEEDED}
        return {key: column for key, column in named.items() if column is not None}
