"""What runs a study. Light to import; every field is an option of the command line."""

from dataclasses import dataclass, field, fields
from math import isfinite
from pathlib import Path

from neuron_vs_sae.core.conventions import Engine
from neuron_vs_sae.core.errors import InputError, check_choice


@dataclass(frozen=True)
class Machine:
    """What runs a study without changing its numbers beyond rounding: devices, memory, cache, permission, and engine.

    Raises `InputError` for a number that no machine has.
    """

    device: str | None = field(
        default=None, metadata={"description": "cpu, cuda, cuda:1 ... [cuda where there is one]"}
    )
    n_devices: int = field(
        default=1, metadata={"description": "GPUs that share the model's layers", "min": 1, "max": 1024}
    )
    batch_size: int = field(
        default=64, metadata={"description": "pairs per pass; numbers differ by rounding", "min": 1, "max": 1_000_000}
    )
    max_memory: float | None = field(
        default=None,
        metadata={
            "description": "GiB for all SAEs and transcoders; those that do not fit are read again when used [no limit]",
            "min": 0,
            "max": 1_000_000,
        },
    )
    cache: Path | None = field(
        default=None,
        metadata={
            "description": "folder that keeps the model's activations on a task's prompts for other runs, which trust it"
        },
    )
    cache_limit: float = field(
        default=10.0,
        metadata={
            "description": "GiB that --cache may hold; the least recently used are dropped",
            "min": 0,
            "max": 1_000_000,
        },
    )
    trust_remote_code: bool = field(
        default=False, metadata={"description": "allow a model's own code, or pickles, to run"}
    )
    engine: Engine = field(
        default="fast",
        metadata={"description": "fast, or exact: every dictionary whole (slow; numbers differ by rounding)"},
    )

    def __post_init__(self) -> None:
        for option in fields(self):
            value, least, most = getattr(self, option.name), option.metadata.get("min"), option.metadata.get("max")
            if least is not None and value is not None and not (isfinite(value) and least <= value <= most):
                raise InputError(
                    f"{option.name}={value} (--{option.name.replace('_', '-')}): a number from {least} to {most:,} is expected"
                )
        if self.cache is not None and Path(self.cache).is_file():
            raise InputError(f"cache={self.cache} (--cache): it is a file, and a folder is expected")
        check_choice("engine", self.engine, Engine)
